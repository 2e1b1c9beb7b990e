"""Files of microscope makers, through the optional package bioio."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.errors import ImageReadError
from cellseg.images.channels import ImageStack
from numpy.typing import NDArray

# Ending -> the package that reads it, beside bioio itself.
MICROSCOPE_PACKAGES = {
    ".czi": "bioio-czi",
    ".nd2": "bioio-nd2",
    ".lif": "bioio-lif",
    ".dv": "bioio-dv",
    ".zarr": "bioio-ome-zarr",
    ".oib": "bioio-bioformats",
    ".oif": "bioio-bioformats",
    ".vsi": "bioio-bioformats",
    ".ims": "bioio-bioformats",
    ".zvi": "bioio-bioformats",
}
_MAGICS = {b"ZISRAWFILE": ".czi", b"\xda\xce\xbe\x0a": ".nd2"}


def microscope_ending(path: Path, first_bytes: bytes) -> str | None:
    """The key of `MICROSCOPE_PACKAGES` that a file belongs to, by its content or its name."""
    for magic, ending in _MAGICS.items():
        if first_bytes.startswith(magic):
            return ending
    ending = path.suffix.lower()
    return ending if ending in MICROSCOPE_PACKAGES else None


@contextmanager
def open_microscope_file(path: Path, ending: str) -> Iterator[ImageStack]:
    """The one scene of a file, axes TCZYX or TCZYXS; planes are read one by one.

    Raises:
        ImageReadError: bioio or the package for this format is not installed, or the file has
            several scenes.
    """
    image = _open_with_bioio(path, MICROSCOPE_PACKAGES[ending])
    if len(image.scenes) != 1:
        names = ", ".join(map(str, image.scenes[:10]))
        raise ImageReadError(
            f"expected one scene; found {len(image.scenes)} ({names}): save the one of interest "
            "by itself"
        )
    order = str(image.dims.order)
    axes = "TCZYXS" if "S" in order else "TCZYX"
    shape = tuple(int(getattr(image.dims, axis)) for axis in axes)

    def read_plane(index: tuple[int, ...]) -> NDArray[Any]:
        lazy = image.get_image_dask_data(axes[3:], **dict(zip("TCZ", index)))
        return np.asarray(lazy.compute())

    channel_names = tuple(map(str, image.channel_names or ()))
    yield ImageStack(axes, shape, read_plane, leading=3, channel_names=channel_names)


def _open_with_bioio(path: Path, package: str) -> Any:
    try:
        bioio = importlib.import_module("bioio")
        reader = importlib.import_module(package.replace("-", "_")).Reader
    except ImportError as error:
        raise ImageReadError(
            f"this format needs bioio and {package}: pip install bioio {package}"
        ) from error
    return bioio.BioImage(path, reader=reader)
