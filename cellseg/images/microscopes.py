"""Files of microscope makers, through the optional package bioio."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.errors import ImageReadError
from cellseg.images.formats import explain_packages, module_name
from cellseg.images.stacks import ImageStack, RecentArrays, Scene, WholeBlocks
from cellseg.images.units import PixelSize, checked_pixel_size
from numpy.typing import NDArray

ND2_MAGIC = b"\xda\xce\xbe\x0a"


@contextmanager
def open_microscope_file(path: Path, packages: Sequence[str]) -> Iterator[Sequence[Scene]]:
    """The scenes of a file, each with axes TCZYX or TCZYXS; planes are read one by one.

    Args:
        path: the file.
        packages: bioio and its package for this format, as pip calls them.

    Raises:
        ImageReadError: one of them is not installed.
    """
    image = _open_with_bioio(path, packages)
    names = [str(name) for name in image.scenes]
    recent = RecentArrays()
    yield [
        Scene(name if len(names) > 1 else "", partial(_open_stack, path, packages, number, recent))
        for number, name in enumerate(names)
    ]


def _open_stack(
    path: Path, packages: Sequence[str], scene: int, recent: RecentArrays, _: float | None
) -> ImageStack:
    image = _open_with_bioio(path, packages)  # one for each scene: it reads from one at a time
    if scene:
        image.set_scene(scene)
    axes = "TCZYXS" if "S" in str(image.dims.order) else "TCZYX"
    shape = tuple(int(getattr(image.dims, axis)) for axis in axes)

    def decode_plane(index: tuple[int, ...]) -> NDArray[Any]:
        lazy = image.get_image_dask_data(axes[3:], **dict(zip("TCZ", index)))
        # Here and now: by default a worker of a cluster would ask that cluster for it.
        return np.asarray(lazy.compute(scheduler="synchronous"))

    return ImageStack(
        axes,
        shape,
        WholeBlocks(decode_plane, axes[3:], recent),
        leading=3,
        channel_names=tuple(map(str, image.channel_names or ())),
        pixel_size_um=_pixel_size(image),
    )


def _pixel_size(image: Any) -> PixelSize | None:
    """bioio gives micrometres for these formats, None or 0 where the file does not say."""
    sizes = image.physical_pixel_sizes
    return checked_pixel_size(sizes.Y, sizes.X)


def _open_with_bioio(path: Path, packages: Sequence[str]) -> Any:
    try:
        bioio = importlib.import_module("bioio")
        reader = importlib.import_module(module_name(packages[-1])).Reader
    except ImportError as error:
        raise ImageReadError(f"this format needs {explain_packages(packages)}") from error
    return bioio.BioImage(path, reader=reader)
