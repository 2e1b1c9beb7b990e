"""The images of a file, plane by plane: what prediction works through, as a whole or by window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.images.channels import ImageStack, page_axes, select_channels, select_image
from cellseg.images.reading import check_pixels, open_image
from numpy.typing import NDArray

ReadWindow = Callable[[slice, slice], NDArray[Any]]
EVERYTHING = slice(None)


@dataclass(frozen=True)
class PlaneImage:
    """One two-dimensional image of a file; nothing of its pixels has been read yet.

    Attributes:
        path: the file, or the folder of an OME-Zarr image.
        image_hw: (height, width), pixels.
        position: axis letter and number from 0 of each axis along which the file has several
            planes, in the file's order, such as `(("T", 3), ("Z", 0))`; empty for the only one.
        lengths: how many there are along each axis of `position`; empty where one was chosen, whose
            results need no number.
        scene: name of the scene, series or position; "" where the file has one only.
        channel_names: of all channels of the file; empty where it has no names.
        pixel_size_um: (height, width) of a pixel in micrometres; None where the file does not say.
        read: (rows, columns) -> the chosen channels of that window, [h, w] or [h, w, C], as
            `read_image` returns them.
        read_channels: (rows, columns) -> all channels of the file, [C, h, w], its own values.
    """

    path: Path
    image_hw: tuple[int, int]
    read: ReadWindow
    read_channels: ReadWindow
    position: tuple[tuple[str, int], ...] = ()
    lengths: tuple[int, ...] = ()
    scene: str = ""
    channel_names: tuple[str, ...] = ()
    pixel_size_um: tuple[float, float] | None = None

    @property
    def suffix(self) -> str:
        """What tells this plane from the file's others in the names of results.

        Example:
            >>> nothing = lambda rows, columns: np.zeros((0, 0))
            >>> PlaneImage(Path("a.tif"), (4, 4), nothing, nothing, (("T", 7),), (12,)).suffix
            '_t07'
        """
        parts = [f"_{self.scene}"] if self.scene else []
        for (axis, number), length in zip(self.position, self.lengths):
            parts.append(f"_{axis.lower()}{number:0{len(str(length - 1))}d}")
        return "".join(parts)

    def read_whole(self) -> NDArray[Any]:
        """The chosen channels of the whole plane."""
        return self.read(EVERYTHING, EVERYTHING)


@contextmanager
def open_planes(
    path: str | Path,
    *,
    channels: Sequence[int | str] = (),
    page: int = -1,
    projection: str = "none",
) -> Iterator[Sequence[PlaneImage]]:
    """The planes of a file, to be read while the context is open.

    Args:
        path: the file; see `read_image`.
        channels: see `select_image`, as is `projection`.
        page: one page of a stack; -1 for each of them.

    Raises:
        ImageReadError: as `read_image`; a plane's `read` raises it as well.
    """
    with open_image(path) as stack:
        axes = page_axes(stack, channels, page, projection)
        lengths = tuple(stack.shape[at] for at in axes)
        pages = range(math.prod(lengths)) if page < 0 else [page]
        planes = [_make_plane(Path(path), stack, axes, n, channels, projection) for n in pages]
        yield planes if page < 0 else [replace(planes[0], lengths=())]


def _make_plane(
    path: Path,
    stack: ImageStack,
    axes: Sequence[int],
    page: int,
    channels: Sequence[int | str],
    projection: str,
) -> PlaneImage:
    lengths = tuple(stack.shape[at] for at in axes)
    numbers = np.unravel_index(page, lengths) if lengths else ()
    several = [k for k, length in enumerate(lengths) if length > 1]

    def read(rows: slice, columns: slice) -> NDArray[Any]:
        return check_pixels(select_image(stack, channels, page, projection))[rows, columns]

    def read_channels(rows: slice, columns: slice) -> NDArray[Any]:
        return check_pixels(select_channels(stack, page, projection))[:, rows, columns]

    return PlaneImage(
        path,
        stack.image_hw,
        read,
        read_channels,
        position=tuple((stack.axes[axes[k]], int(numbers[k])) for k in several),
        lengths=tuple(lengths[k] for k in several),
        channel_names=stack.channel_names,
    )
