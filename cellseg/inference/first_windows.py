"""What a first look at an image is made of: coarse scales, and windows of large planes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from cellseg.images import PlaneImage
from numpy.typing import NDArray

SMALLEST_STEP, LARGEST_STEP, COARSEST = 2.0, 4.0, 16.0
"""A first look is one at the image as it is, and coarser ones: each by the same step, down to 1/16.
With steps of 4 they cost 7 % of the look at the image as it is."""
SMALLEST_SIDE_PX = 16
"""Of an image as the network sees it; nothing is to be found in smaller ones."""
FIRST_WINDOW_PX, NUM_WINDOWS, CANDIDATES_ACROSS = 1024, 4, 3
"""Of a large plane so many windows are looked at first, of so many pixels as the network sees them:
those of the strongest contrast among 3 x 3 that are spread over the plane."""


def coarse_scales(scale: float, image_hw: tuple[int, ...], known: Sequence[float]) -> list[float]:
    """The coarser scales of a first look.

    No step is larger than the highest known diameter over the lowest, so that cells of any
    diameter in between are known ones in some look.

    Args:
        scale: what the config says that the image's sides are multiplied by.
        image_hw: (height, width) of the image, pixels.
        known: lowest, median and highest diameter.

    Example:
        >>> coarse_scales(1.0, (512, 512), (7, 26, 48)), coarse_scales(1.0, (100, 512), (7, 26, 48))
        ([0.25, 0.0625], [0.25])
    """
    step = min(max(known[2] / known[0], SMALLEST_STEP), LARGEST_STEP)
    count = int(math.log(COARSEST, step) + 1e-9)
    coarser = (scale / step**number for number in range(1, count + 1))
    return [one for one in coarser if min(image_hw) * one >= SMALLEST_SIDE_PX]


def read_windows(plane: PlaneImage, side_px: int) -> list[NDArray[np.generic]]:
    """The windows of a plane that a first look is taken at.

    Args:
        plane: read window by window; one of each candidate is held in memory.
        side_px: of a window, pixels; less where the plane is smaller.

    Returns:
        Their pixels, those of the strongest contrast first; all of one size.
    """
    candidates = [plane.read(rows, columns) for rows, columns in spread_windows(plane, side_px)]
    return sorted(candidates, key=lambda pixels: -float(pixels.std()))[:NUM_WINDOWS]


def crop_centre(pixels: NDArray[np.generic], side_px: int) -> NDArray[np.generic]:
    """The middle of a window, at most so many pixels to a side."""
    top, left = (max(0, length - side_px) // 2 for length in pixels.shape[:2])
    return pixels[top : top + side_px, left : left + side_px]


def spread_windows(plane: PlaneImage, side_px: int) -> Iterator[tuple[slice, slice]]:
    """Windows that are spread evenly over a plane: rows and columns of each."""
    rows, columns = (_spread_along(length, side_px) for length in plane.image_hw)
    return ((row, column) for row in rows for column in columns)


def _spread_along(length_px: int, side_px: int) -> list[slice]:
    """At most 3 parts of a length, in the middle of as many equal parts of it.

    >>> _spread_along(100, 40), _spread_along(100, 120)
    ([slice(5, 45, None), slice(55, 95, None)], [slice(0, 100, None)])
    """
    side_px = min(side_px, length_px)
    count = min(CANDIDATES_ACROSS, length_px // side_px)
    starts = [int((2 * k + 1) * length_px / (2 * count) - side_px / 2) for k in range(count)]
    return [slice(start, start + side_px) for start in starts]
