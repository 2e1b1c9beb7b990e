"""Read image files with their own values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.errors import ImageReadError
from cellseg.images.channels import ImageStack, select_image
from cellseg.images.microscopes import microscope_ending, open_microscope_file
from cellseg.images.normalisation import check_finite
from cellseg.images.pictures import (
    JPEG2000_MAGICS,
    PICTURE_FORMATS,
    open_jpeg2000,
    open_picture,
    read_picture_hw,
)
from cellseg.images.tiff import TIFF_MAGICS, open_tiff
from numpy.typing import NDArray
from PIL import UnidentifiedImageError

IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"),
    *(".lsm", ".stk", ".jp2", ".czi", ".nd2", ".lif"),
)

_PICTURE_FORMATS = {"picture": PICTURE_FORMATS, "jpeg2000": ("JPEG2000",)}


def read_image(
    path: str | Path,
    *,
    channels: Sequence[int | str] = (),
    page: int = -1,
    projection: str = "none",
) -> NDArray[Any]:
    """Read an image file with its own values; docs/images.md lists the formats.

    Nothing is scaled or clipped: a 16-bit image stays uint16, a float image stays float. Colour
    palettes of PNG become RGB, the orientation that a JPEG carries is applied.

    Args:
        path: file; its content decides on the format, not its name.
        channels: see `select_image`, as are `page` and `projection`. Without any of them the file
            has one page, which is grey or RGB; alpha is dropped.
        page: a page of a stack.
        projection: "max" for the brightest value along Z, or "none".

    Returns:
        [H, W] (one channel) or [H, W, C] in the file's own type; boolean becomes uint8 0/255.

    Raises:
        ImageReadError: missing, truncated, no image, not finite, implausibly large, in need of a
            package, or of more pages or channels than chosen.
    """
    with open_image(path) as stack:
        return check_pixels(select_image(stack, channels, page, projection))


def read_label_image(path: str | Path) -> NDArray[Any]:
    """Read a PNG or TIFF file of labels: integers [H, W]; of a palette image, the indices.

    Raises:
        ImageReadError: as `read_image`, or the file has several channels or no integers.
    """
    with open_image(path, palette_mode="P") as stack:
        planes = math.prod(stack.shape) // math.prod(stack.image_hw)
        if planes > 1 + stack.has_alpha:
            raise ImageReadError(f"a label image has one page of one channel; {stack.found}")
        labels = check_pixels(select_image(stack))
        if labels.dtype.kind not in "iu":
            raise ImageReadError(f"a label image has integers; found {labels.dtype}")
        return labels


def read_image_hw(path: str | Path) -> tuple[int, int]:
    """Height and width in pixels of the array that `read_image` returns, from the file's header.

    Of a stack, those of each page.

    Raises:
        ImageReadError: missing, no image, or several that are no stack.
    """
    with _explaining_errors(path) as file:
        kind = _identify_format(file)
        if kind in _PICTURE_FORMATS:
            return read_picture_hw(file, _PICTURE_FORMATS[kind])
        with _opener_of(file, kind) as stack:
            return stack.image_hw


@contextmanager
def open_image(path: str | Path, palette_mode: str = "RGB") -> Iterator[ImageStack]:
    """What a file holds, to be read while the context is open; errors name the file."""
    with (
        _explaining_errors(path) as file,
        _opener_of(file, _identify_format(file), palette_mode) as stack,
    ):
        yield stack


def _opener_of(
    file: Path, kind: str, palette_mode: str = "RGB"
) -> AbstractContextManager[ImageStack]:
    if kind == "tiff":
        return open_tiff(file)
    if kind == "jpeg2000":
        return open_jpeg2000(file)
    if kind == "picture":
        return open_picture(file, palette_mode)
    return open_microscope_file(file, kind)


def _identify_format(file: Path) -> str:
    """A key of `_PICTURE_FORMATS`, "tiff" or an ending of MICROSCOPE_PACKAGES."""
    if file.is_dir() and (ending := microscope_ending(file, b"")):
        return ending  # OME-Zarr is a folder
    with file.open("rb") as stream:
        first_bytes = stream.read(16)
    if not first_bytes:
        raise ImageReadError("the file is empty")
    if first_bytes[:4] in TIFF_MAGICS:
        return "tiff"
    if ending := microscope_ending(file, first_bytes):
        return ending
    return "jpeg2000" if first_bytes.startswith(JPEG2000_MAGICS) else "picture"


@contextmanager
def _explaining_errors(path: str | Path) -> Iterator[Path]:
    """Make one ImageReadError, which names the file, of whatever a decoder raises."""
    file = Path(path)
    try:
        yield file
    except ImageReadError as error:
        raise ImageReadError(f"{file}: {error}") from error
    except UnidentifiedImageError as error:
        raise ImageReadError(
            f"{file}: cannot be read as an image: damaged, or of a kind that is not known here "
            "(docs/images.md lists the kinds)"
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageReadError(f"{file}: cannot be read as an image: {reason}") from error
    except Exception as error:  # decoders of damaged files raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageReadError(f"{file}: cannot be read as an image: {reason}") from error


def check_pixels(image: NDArray[Any]) -> NDArray[Any]:
    """The pixels in native byte order, contiguous, booleans as 0 and 255.

    Raises:
        ImageReadError: no numbers, or values that are not finite.
    """
    if image.dtype == bool:
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype.kind not in "iuf":
        raise ImageReadError(f"pixels of type {image.dtype}; expected integers or floats")
    check_finite(image)
    return np.ascontiguousarray(image, image.dtype.newbyteorder("="))
