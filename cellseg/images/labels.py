"""Label images as other programs save them, as whole numbers.

A label is a name and no brightness, so that other rules hold here than for images: floats that
are whole are numbers, a colour is a cell, and where a TIFF says that 0 is white, the black is
background.
"""

from __future__ import annotations

import logging
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from cellseg.arguments import NUMBERS, checked
from cellseg.errors import ImageReadError
from cellseg.images.channels import select_image
from cellseg.images.reading import check_pixels, explaining_errors, open_image
from cellseg.images.stacks import ImageStack
from cellseg.images.tiff import TIFF_MAGICS
from cellseg.rules import PATH
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_EXACT_IN_FLOAT32 = 2**24
_SPECK_PX = 4
_MIN_COLOURS = 8


class SeveralPlanesError(ImageReadError):
    """A file of labels has several planes, each of which belongs to an image of its own."""


@checked(path=PATH)
def read_label_image(path: str | Path) -> NDArray[Any]:
    """Read a file of labels as integers [H, W]; of a palette image, the indices.

    Args:
        path: PNG, TIFF or NPY. Floats are read where all are whole; of a colour picture each colour
            but black is a cell, labelled R + 256 G + 65536 B; both as `to_labels` says.

    Raises:
        SeveralPlanesError: the file has several pages.
        ImageReadError: as `read_image`, or there is no label image in the file.
    """
    with open_image(path, palette_mode="P") as stack:
        _check_planes(stack)
        return to_labels(check_pixels(select_image(stack)), path)


def _check_planes(stack: ImageStack) -> None:
    samples = math.prod(n for axis, n in zip(stack.axes, stack.shape) if axis in "SC")
    pages = math.prod(stack.shape) // math.prod(stack.image_hw) // samples
    if pages > 1:
        raise SeveralPlanesError(f"a label image has one page; {stack.found}")
    if samples - stack.has_alpha not in (1, 3):
        raise ImageReadError(f"a label image has one channel, or is a picture; {stack.found}")


def to_labels(pixels: NDArray[Any], path: str | Path) -> NDArray[Any]:
    """The labels that pixels of a file stand for, integers [H, W].

    Args:
        pixels: [H, W] or [H, W, 3], as they are in the file.
        path: where they come from: for messages, and to see whether a TIFF says WhiteIsZero.

    Raises:
        ImageReadError: numbers that are not whole, or a picture that is none of labels.

    Example:
        >>> to_labels(np.array([[0.0, 7.0]], np.float32), "a.png").tolist()
        [[0, 7]]
        >>> to_labels(np.array([[[0, 0, 0], [7, 1, 0]]], np.uint8), "a.png").tolist()
        [[0, 263]]
    """
    if pixels.ndim == 3:
        pixels = _colours_to_labels(pixels, Path(path))
    if pixels.dtype.kind == "f":
        pixels = _floats_to_labels(pixels)
    if pixels.dtype.kind not in "iu":
        raise ImageReadError(f"a label image has whole numbers; found {pixels.dtype}")
    return _black_to_background(pixels, Path(path)) if is_white_zero(path) else pixels


@checked(pixels=NUMBERS, path=PATH)
def array_to_labels(pixels: NDArray[Any], path: str | Path) -> NDArray[Any]:
    """`to_labels` of pixels that were read before; its errors name the file."""
    with explaining_errors(path):
        return to_labels(pixels, path)


def _floats_to_labels(pixels: NDArray[Any]) -> NDArray[Any]:
    is_whole = pixels == np.rint(pixels)
    if not is_whole.all():
        shown = pixels[~is_whole][0]
        hint = (
            "threshold and label them" if pixels.min() >= 0 and pixels.max() <= 1 else "round them"
        )
        raise ImageReadError(
            f"a label image has whole numbers; found {pixels.dtype} with {shown:g}: these are "
            f"values of a map, {hint}, and save integers"
        )
    limit = _EXACT_IN_FLOAT32 if pixels.dtype.itemsize <= 4 else 2**53
    if pixels.size and np.abs(pixels).max() > limit:
        raise ImageReadError(
            f"labels up to {pixels.max():.0f} as {pixels.dtype}, which tells whole numbers apart "
            f"up to {limit} only: save them as integers"
        )
    return pixels.astype(np.int64)


def _colours_to_labels(pixels: NDArray[Any], path: Path) -> NDArray[Any]:
    """A label per colour: that of the grey where all three are equal, else R + 256 G + 65536 B."""
    if pixels.dtype.kind != "u" or pixels.dtype.itemsize > 2:
        raise ImageReadError(
            f"a label image has one channel; found {pixels.shape[-1]} of {pixels.dtype}: save the "
            "labels by themselves"
        )
    if (pixels == pixels[..., :1]).all():
        return pixels[..., 0]
    wide = pixels.astype(np.int64)
    bits = 8 * pixels.dtype.itemsize
    labels = wide[..., 0] + (wide[..., 1] << bits) + (wide[..., 2] << 2 * bits)
    colours, counts = np.unique(labels[labels != 0], return_counts=True)
    if not (labels == 0).any():
        raise ImageReadError(
            f"a picture of {len(colours)} colours, none of them black (0, 0, 0), which would be "
            "the background: save the labels as whole numbers, 0 where there is no cell"
        )
    if len(colours) > _MIN_COLOURS and np.count_nonzero(counts < _SPECK_PX) > len(colours) / 2:
        raise ImageReadError(
            f"a picture of {len(colours)} colours, most of them on under {_SPECK_PX} pixels: no "
            "picture of labels, or one whose edges are smoothed: save the labels as whole numbers"
        )
    _say_colours(path.parent)
    return labels


@lru_cache(maxsize=1024)
def _say_colours(folder: Path) -> None:
    """Once for each folder."""
    logger.warning(
        "%s: label images in colour: each colour is read as one cell, black as background", folder
    )


@lru_cache(maxsize=1024)
def _say_white(folder: Path) -> None:
    logger.warning(
        "%s: label images that say that 0 is white: what they show as black is background", folder
    )


def is_white_zero(path: str | Path) -> bool:
    """Whether a file is a TIFF whose header says that 0 is white (PhotometricInterpretation 0)."""
    file = Path(path)
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        if not stream.read(4).startswith(TIFF_MAGICS):
            return False
    with tifffile.TiffFile(file) as tiff:
        is_white = tiff.pages[0].photometric == tifffile.PHOTOMETRIC.MINISWHITE  # type: ignore[union-attr]
        # ImageJ shows numbers by an inverting colour table and means the numbers.
        return bool(is_white and not tiff.is_imagej and "ImageJ" not in tiff.pages[0].description)  # type: ignore[union-attr]


def _black_to_background(labels: NDArray[Any], path: Path) -> NDArray[Any]:
    """Labels of a file in which 0 is white: its highest value, black, becomes 0.

    Where the highest value of the type does not occur, nothing is black, and 0 is the background
    as everywhere: a program has only passed the header on.
    """
    black = np.iinfo(labels.dtype).max
    if not (labels == black).any():
        return labels
    _say_white(path.parent)
    return black - labels
