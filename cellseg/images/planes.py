"""The images of a file, plane by plane: what prediction works through, as a whole or by window."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellseg.arguments import IMAGE_HW, WHOLE, checked, several
from cellseg.cells.records import PlaceInFile
from cellseg.config import KEYS
from cellseg.images.channels import page_axes, page_index, select_channels, select_image
from cellseg.images.reading import check_pixels, explaining_errors, open_scenes
from cellseg.images.stacks import EVERYTHING, ImageStack, choose_scenes, names_of_scenes
from cellseg.limits import check_planes
from cellseg.rules import ABOVE_0, PATH, SIZE
from numpy.typing import NDArray

ReadWindow = Callable[[slice, slice], NDArray[Any]]

_LABEL_LENGTH = 60  # of what a scene's name gives to the names of files


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
        scene_label: the same, fit for the names of files; no other scene of the file has it.
        channel_names: of all channels of the file; empty where it has no names.
        pixel_size_um: (height, width) of a pixel in micrometres; None where the file does not say.
        read: (rows, columns) -> the chosen channels of that window, [h, w] or [h, w, C], as
            `read_image` returns them. Several threads may read at a time.
        read_channels: (rows, columns) -> all channels of the file, [C, h, w], its own values.
        level: which level of the file's pyramid, 0 is the finest.
        downsample: pixels of level 0 along the side of a pixel of this plane.
        chunk_hw: rows and columns of what the file keeps and decodes as one piece: windows that
            keep to its grid are read soonest.
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
    scene_label: str = ""
    level: int = 0
    downsample: float = 1.0
    chunk_hw: tuple[int, int] = (1, 1)

    @property
    def suffix(self) -> str:
        """What tells this plane from the file's others in the names of results.

        Example:
            >>> PlaneImage(Path("a.tif"), (4, 4), None, None, (("T", 7),), (12,)).suffix
            '_t07'
        """
        label = self.scene_label or (file_labels([self.scene])[0] if self.scene else "")
        parts = [f"_{label}"] if label else []
        for (axis, number), length in zip(self.position, self.lengths):
            parts.append(f"_{axis.lower()}{number:0{len(str(length - 1))}d}")
        return "".join(parts)

    def read_whole(self) -> NDArray[Any]:
        """The chosen channels of the whole plane."""
        return self.read(EVERYTHING, EVERYTHING)


def place_of(plane: PlaneImage) -> PlaceInFile:
    """What a record of the plane's cells says of it."""
    return PlaceInFile(plane.position, plane.scene, plane.pixel_size_um, plane.downsample)


def find_plane(
    planes: Iterable[PlaneImage], position: tuple[tuple[str, int], ...], scene: str
) -> PlaneImage:
    """The plane at a position of a scene, of a file that has it, such as one opened again."""
    return next(plane for plane in planes if (plane.position, plane.scene) == (position, scene))


def by_scene(planes: Iterable[PlaneImage]) -> list[list[PlaneImage]]:
    """The planes of each scene, in the order of the file."""
    scenes: dict[str, list[PlaneImage]] = {}
    for plane in planes:
        scenes.setdefault(plane.scene, []).append(plane)
    return list(scenes.values())


@contextmanager
@checked(
    path=PATH,
    channels=several(),
    page=WHOLE,
    projection=KEYS["INPUT.PROJECTION"].rule,
    scenes=several(),
    pixel_size_um=ABOVE_0,
)
def open_planes(
    path: str | Path,
    *,
    channels: Sequence[int | str] = (),
    page: int = -1,
    projection: str = "none",
    scenes: Sequence[int | str] = (),
    pixel_size_um: float | None = None,
    palette_mode: str = "RGB",
) -> Iterator[Sequence[PlaneImage]]:
    """The planes of a file, to be read while the context is open.

    Args:
        path: the file, or the folder of an OME-Zarr image; see `read_image`.
        channels: see `select_image`, as is `projection`.
        page: one page of each stack; -1 for every page.
        scenes: which scenes, series or positions of the file, by number from 0 or by name; empty
            for all of them.
        pixel_size_um: of a pyramid (slides, OME-Zarr, OME-TIFF), the coarsest level whose pixels
            are not larger; None for level 0. A file of one level gives that.
        palette_mode: "P" for labels, whose stored numbers no palette or photometry changes.

    Raises:
        ImageReadError: as `read_image`; a scene is not there; or a level is asked for and the
            file does not say how large its pixels are. A plane's `read` raises it as well.
    """
    with ExitStack() as opened:
        with explaining_errors(path) as file:
            found = opened.enter_context(open_scenes(file, palette_mode))
            names = names_of_scenes(found)
            labels = file_labels(names)
            planes: list[PlaneImage] = []
            for number in choose_scenes(names, scenes):
                stack = found[number].open_stack(pixel_size_um)
                scene = (names[number], labels[number]) if len(found) > 1 else ("", "")
                planes += _planes_of(file, stack, page, (tuple(channels), projection), scene)
        yield planes  # errors of whoever works with the planes are not this file's


def file_labels(names: Sequence[str]) -> list[str]:
    """Names of scenes, made fit for the names of files, each another one.

    Example:
        >>> file_labels(["A/1", "Größe 2", "a 1", "細胞"])
        ['A-1', 'Grosse-2', 'a-1-2', 's3']
    """
    labels: list[str] = []
    taken: set[str] = set()
    for number, name in enumerate(names):
        plain = unicodedata.normalize("NFKD", name.replace("ß", "ss"))
        ascii_only = plain.encode("ascii", "ignore").decode()
        label = re.sub(r"[^A-Za-z0-9._+-]+", "-", ascii_only).strip("-.")[:_LABEL_LENGTH]
        label = label or f"s{number}"
        while label.lower() in taken:  # some disks do not tell "a" from "A"
            label = f"{label}-{number}"
        taken.add(label.lower())
        labels.append(label)
    return labels


def _planes_of(
    path: Path,
    stack: ImageStack,
    page: int,
    choice: tuple[Sequence[int | str], str],
    scene: tuple[str, str],
) -> Iterator[PlaneImage]:
    """The planes of a scene, whose name and label are `scene`; `choice`: channels, projection."""
    axes = page_axes(stack, choice[0], page, choice[1])
    lengths = tuple(stack.shape[at] for at in axes)
    check_planes(math.prod(lengths) if page < 0 else 1)
    several = [k for k, length in enumerate(lengths) if length > 1]
    for number in range(math.prod(lengths)) if page < 0 else [page]:
        place = page_index(stack, axes, number)
        # Without axes of pages the number is as it was asked for: it tells pages from channels.
        read, read_channels = _make_readers(path, stack, number if axes else page, choice)
        yield PlaneImage(
            path,
            stack.image_hw,
            read,
            read_channels,
            position=tuple((stack.axes[axes[k]], place[axes[k]]) for k in several),
            lengths=tuple(lengths[k] for k in several) if page < 0 else (),
            scene=scene[0],
            channel_names=stack.channel_names,
            pixel_size_um=stack.pixel_size_um,
            scene_label=scene[1],
            level=stack.level,
            downsample=stack.downsample,
            chunk_hw=stack.chunk_hw or stack.image_hw,
        )


def _make_readers(
    path: Path, stack: ImageStack, page: int, choice: tuple[Sequence[int | str], str]
) -> tuple[ReadWindow, ReadWindow]:
    """`PlaneImage.read` and `PlaneImage.read_channels` of a page."""
    channels, projection = choice

    def read(rows: slice, columns: slice) -> NDArray[Any]:
        with explaining_errors(path):
            return check_pixels(select_image(stack, channels, page, projection, (rows, columns)))

    def read_channels(rows: slice, columns: slice) -> NDArray[Any]:
        with explaining_errors(path):
            return check_pixels(select_channels(stack, page, projection, (rows, columns)))

    return read, read_channels


@checked(image_hw=IMAGE_HW, chunk_hw=IMAGE_HW, window_px=SIZE)
def windows_of(
    image_hw: tuple[int, int], chunk_hw: tuple[int, int], window_px: int
) -> Iterator[tuple[slice, slice]]:
    """Windows that cover an image once, of whole chunks, so that each is decoded for one window.

    Args:
        image_hw: (height, width) of the image, pixels.
        chunk_hw: rows and columns of a chunk.
        window_px: about how many pixels a window has, at least a chunk.

    Example:
        >>> [(rows.start, columns.start) for rows, columns in windows_of((5, 4), (2, 2), 8)]
        [(0, 0), (2, 0), (4, 0)]
    """
    width = min(image_hw[1], chunk_hw[1] * max(1, window_px // math.prod(chunk_hw)))
    height = min(image_hw[0], chunk_hw[0] * max(1, window_px // (width * chunk_hw[0])))
    for top in range(0, image_hw[0], height):
        for left in range(0, image_hw[1], width):
            bottom, right = min(top + height, image_hw[0]), min(left + width, image_hw[1])
            yield slice(top, bottom), slice(left, right)
