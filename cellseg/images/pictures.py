"""PNG, JPEG, BMP, GIF, WebP and JPEG 2000 files."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from cellseg.errors import ImageReadError
from cellseg.images.formats import IMAGE_FORMATS, explain_packages
from cellseg.images.stacks import ImageStack, Scene, WholeBlocks, cut_window
from cellseg.limits import check_memory
from numpy.typing import NDArray
from PIL import Image, ImageOps

# Without those of which Pillow would scale 16 bits to 8.
PICTURE_FORMATS = tuple(
    name for one in IMAGE_FORMATS if one.reader == "picture" for name in one.pillow
)
JPEG2000_MAGICS = (b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51")

_BYTES_PER_SAMPLE = 4  # while it is decoded and converted
_EXIF_ORIENTATION = 0x0112
_WITH_ORIENTATION = ("JPEG", "MPO")  # MPO: a JPEG with others behind it


@contextmanager
def open_picture(path: Path, palette_mode: str = "RGB") -> Iterator[Sequence[Scene]]:
    """A file that Pillow reads; several frames (GIF, WebP, PNG) are pages.

    Args:
        path: a file of a format that Pillow reads.
        palette_mode: "RGB" for the colours of a palette image, "P" for the indices.
    """
    with _open_with_pillow(path) as picture:
        frames = 1 if picture.format == "MPO" else int(getattr(picture, "n_frames", 1))

        def decode_frame(index: tuple[int, ...]) -> NDArray[Any]:
            if index:
                picture.seek(index[0])
            return _decode_picture(picture, path, palette_mode)

        def open_stack(_: float | None) -> ImageStack:
            first = decode_frame((0,) if frames > 1 else ())
            if frames == 1:
                return _stack_of(first)
            axes = "YXS"[: first.ndim]
            frame = WholeBlocks(decode_frame, axes)
            return ImageStack("I" + axes, (frames, *first.shape), frame, leading=1)

        yield [Scene("", open_stack)]


@contextmanager
def open_jpeg2000(path: Path) -> Iterator[Sequence[Scene]]:
    """A JPEG 2000 file, through imagecodecs: Pillow keeps 8 bits of its colours."""
    with _open_with_pillow(path, ("JPEG2000",)):  # refuses what claims to be too large
        pass
    try:
        import imagecodecs
    except ImportError as error:
        raise ImageReadError(f"JPEG 2000 needs {explain_packages(['imagecodecs'])}") from error
    yield [Scene("", lambda _: _stack_of(imagecodecs.jpeg2k_decode(path.read_bytes())))]


def read_picture_hw(path: Path, formats: tuple[str, ...] = PICTURE_FORMATS) -> tuple[int, int]:
    """Height and width from the header, after the turn that a JPEG's orientation asks for."""
    with _open_with_pillow(path, formats) as picture:
        width, height = picture.size
        is_turned = picture.format in _WITH_ORIENTATION and (
            picture.getexif().get(_EXIF_ORIENTATION, 1) >= 5
        )
        return (width, height) if is_turned else (height, width)


def _open_with_pillow(path: Path, formats: tuple[str, ...] = PICTURE_FORMATS) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # of half of what is read
        try:
            picture = Image.open(path, formats=formats)
        except Image.DecompressionBombError as error:
            found = re.search(r"\d+", str(error))
            claimed = found[0] if found else "too many"
            raise ImageReadError(
                f"implausibly large: the header claims {claimed} "
                "pixels. An image that is as large is read in windows from a TIFF in tiles or "
                "OME-Zarr"
            ) from error
    width, height = picture.size
    needed = width * height * max(len(picture.getbands()), 1) * _BYTES_PER_SAMPLE
    check_memory(needed, f"a picture of {width} x {height} pixels")
    return picture


def _stack_of(image: NDArray[Any]) -> ImageStack:
    has_alpha = image.ndim == 3 and image.shape[-1] in (2, 4)
    axes = "YXS"[: image.ndim]

    def read_window(_: tuple[int, ...], rows: slice, columns: slice) -> NDArray[Any]:
        return cut_window(image, axes, rows, columns)

    return ImageStack(axes, image.shape, read_window, has_alpha=has_alpha)


def _decode_picture(picture: Image.Image, path: Path, palette_mode: str) -> NDArray[Any]:
    picture.load()
    if picture.format == "PNG" and _png_depth_and_colour(path)[0] == 16:
        is_grey = picture.mode.startswith("I")
        return np.asarray(picture).astype(np.uint16) if is_grey else _decode_deep_png(path)
    if picture.format in _WITH_ORIENTATION:
        return _pixels_of(ImageOps.exif_transpose(picture), palette_mode)
    return _pixels_of(picture, palette_mode)


def _png_depth_and_colour(path: Path) -> tuple[int, bool]:
    """Bits per channel, and whether there is more than grey, from the file's header."""
    with path.open("rb") as stream:
        depth, colour_type = stream.read(26)[24:]
    return depth, bool(colour_type & 2)


def _decode_deep_png(path: Path) -> NDArray[Any]:
    """16-bit RGB, RGBA or grey with alpha, of which Pillow would keep 8 bits."""
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ImageReadError("cannot be decoded")
    has_colour = _png_depth_and_colour(path)[1]
    return image[..., 2::-1] if has_colour else image[..., 0]  # OpenCV's order is BGRA


def _pixels_of(picture: Image.Image, palette_mode: str) -> NDArray[Any]:
    if picture.mode == "P":
        return np.asarray(picture if palette_mode == "P" else picture.convert(palette_mode))
    if picture.mode == "1":
        return np.asarray(picture.convert("L"))
    if picture.mode == "LA":
        return np.asarray(picture)[..., 0]
    if picture.mode in ("L", "RGB", "I", "F") or picture.mode.startswith("I;16"):
        return np.asarray(picture)
    return np.asarray(picture.convert("RGB"))  # RGBA (alpha is dropped, not blended), CMYK, ...
