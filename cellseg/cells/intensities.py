"""Brightness of cells, and of the background around each, in the raw channels of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from cellseg.cells.labels import Crop
from cellseg.cells.run_lengths import IntArray
from cellseg.cells.runs import Runs, runs_to_pixels
from cellseg.cells.windows import Window
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
ReadChannels = Callable[[slice, slice], NDArray[Any]]

STATISTICS = ("mean", "std", "min", "max", "sum", "background")
_HALF_STEP = 1e-3  # distances are roots of whole numbers; rounding must not decide


class Ring(NamedTuple):
    """Where the background of a cell is looked for.

    Attributes:
        gap_px: pixels nearer to the cell than this, or as near, are left out.
        reach_px: pixels further away than this are left out.
    """

    gap_px: float
    reach_px: float


def measure_intensities(
    channels: NDArray[Any], window: Window, runs: Runs, num_cells: int, height: int
) -> list[dict[str, NDArray[Any]]]:
    """Mean, standard deviation, minimum, maximum and sum of each channel over each cell's pixels.

    Args:
        channels: [C, h, w], the pixels of `window`.
        window: holds all cells.
        runs: column-major runs, sorted by cell and position.
        num_cells: N; each has a pixel.
        height: height of the image, pixels.

    Returns:
        Per channel, the columns, float64 [N] each; the standard deviation divides by the number of
        pixels.
    """
    rows, columns, owner = runs_to_pixels(runs, height)
    places = (rows - window.top) * window.hw[1] + (columns - window.left)
    areas = np.bincount(owner, minlength=num_cells)
    return [_describe(channel.ravel()[places], owner, areas) for channel in channels]


def _describe(values: NDArray[Any], owner: IntArray, areas: IntArray) -> dict[str, NDArray[Any]]:
    first = np.cumsum(areas) - areas
    exact = np.int64 if values.dtype.kind in "iu" and values.itemsize < 8 else np.float64
    sums = np.add.reduceat(values, first, dtype=exact).astype(np.float64)
    means = sums / areas
    squares = np.square(values - means[owner])
    return {
        "mean": means,
        "std": np.sqrt(np.add.reduceat(squares, first) / areas),
        "min": np.minimum.reduceat(values, first).astype(np.float64),
        "max": np.maximum.reduceat(values, first).astype(np.float64),
        "sum": sums,
    }


def measure_backgrounds(
    channels: NDArray[Any],
    window: Window,
    occupied: Crop,
    cells: tuple[Sequence[Crop], IntArray],
    ring: Ring,
) -> FloatArray:
    """Median of each channel in a ring around each cell that lies in no cell.

    A pixel belongs to the ring if its centre is further than `ring.gap_px` and at most
    `ring.reach_px` from that of the nearest pixel of the cell, and if no cell has it. The part of
    the ring beyond the image's edge is not there.

    Args:
        channels: [C, h, w], the pixels of `window`.
        window: holds all cells with their rings, as far as the image goes.
        occupied: bool [h, w], the pixels of `window` that lie in any cell.
        cells: N tight windows, none empty, and the (row, column) of the first pixel of each.
        ring: which distances count.

    Returns:
        float64 [C, N]; not a number where the ring has no pixel.
    """
    free = ~occupied
    margin = int(np.ceil(ring.reach_px))
    crops, offsets_rc = cells
    medians = np.full((len(channels), len(crops)), np.nan)
    for k, (crop, (row, column)) in enumerate(zip(crops, offsets_rc.tolist())):
        height, width = crop.shape
        top, left = row - window.top, column - window.left
        rows = slice(max(top - margin, 0), top + height + margin)
        columns = slice(max(left - margin, 0), left + width + margin)
        ring_here = free[rows, columns].copy()
        outside = np.ones(ring_here.shape, np.uint8)
        top, left = top - rows.start, left - columns.start
        outside[top : top + height, left : left + width] = ~crop
        distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        ring_here &= distance > ring.gap_px + _HALF_STEP
        ring_here &= distance <= ring.reach_px + _HALF_STEP
        medians[:, k] = [_median(values[rows, columns][ring_here]) for values in channels]
    return medians


def _median(values: NDArray[Any]) -> float:
    """The middle value, or the mean of the two in the middle; nan where there is none."""
    if not values.size:
        return np.nan
    upper = values.size // 2
    lower = (values.size - 1) // 2
    ordered = np.partition(values, [lower, upper])
    return (float(ordered[lower]) + float(ordered[upper])) / 2
