"""Convex hulls of many cells at once, in whole numbers.

Coordinates are doubled, so that the middle of a pixel's edge is a whole number too: the pixel of
column c and row r has its centre at (2c, 2r), and the middles of its edges, its *tips*, are one
step left, right, above and below. The hull of a cell is that of its pixels' tips, as in
scikit-image's `convex_hull_image`.

A hull is kept as two *chains* of points from left to right, the upper and the lower one. They are
found from the highest and the lowest pixel of each column alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from cellseg.cells.run_lengths import IntArray
from cellseg.cells.runs import Runs, cut_at_line_ends
from numpy.typing import NDArray

_PAIRS_AT_ONCE = 1 << 20


class Columns(NamedTuple):
    """The highest and the lowest pixel of cells in each of their columns of pixels.

    Attributes:
        cells: number of the cell, ascending.
        columns: number of the column, ascending within a cell.
        tops, bottoms: row of the highest and of the lowest pixel.
    """

    cells: IntArray
    columns: IntArray
    tops: IntArray
    bottoms: IntArray


class Chain(NamedTuple):
    """The upper halves of hulls, left to right, in doubled coordinates; y grows downwards.

    Attributes:
        cells: number of the cell, ascending.
        x: ascending within a cell.
        y: of the same point.
    """

    cells: IntArray
    x: IntArray
    y: IntArray


def columns_of_cells(runs: Runs, height: int) -> Columns:
    """The highest and the lowest pixel in each column of each cell.

    Args:
        runs: column-major runs, sorted by cell and position.
        height: height of the image, pixels.

    Example:
        >>> found = columns_of_cells(Runs(np.array([4]), np.array([1]), np.array([5])), 3)
        >>> [numbers.tolist() for numbers in found]
        [[4, 4], [0, 1], [1, 0], [2, 1]]
    """
    cells, starts, ends = cut_at_line_ends(runs, height) if runs.cells.size else runs
    columns = starts // max(height, 1)
    new = (np.diff(cells, prepend=-1) != 0) | (np.diff(columns, prepend=-1) != 0)
    first = np.flatnonzero(new)
    last = np.r_[first[1:], cells.size][: first.size] - 1
    above = columns[first] * height
    return Columns(cells[first], columns[first], starts[first] - above, ends[last] - 1 - above)


def hull_chains(columns: Columns) -> tuple[Chain, Chain]:
    """The upper chain of each cell's hull, and the lower one with the sign of y turned."""
    cells, at, tops, bottoms = columns
    return _upper_chain(cells, at, tops), _upper_chain(cells, at, -bottoms)


def _upper_chain(cells: IntArray, columns: IntArray, tops: IntArray) -> Chain:
    """The upper chain over the highest pixel of each column."""
    owner = np.repeat(cells, 3)
    x = (2 * columns[:, None] + np.array([-1, 0, 1])).ravel()
    y = (2 * tops[:, None] + np.array([0, -1, 0])).ravel()
    # The right tip of one column and the left one of the next may be above each other.
    same = (x[1:] == x[:-1]) & (owner[1:] == owner[:-1])
    first = np.r_[True, ~same][: x.size]
    owner, x, y = owner[first], x[first], np.minimum.reduceat(y, np.flatnonzero(first))
    # A point on or below the line between two others of its cell is no corner of the hull,
    # whichever others are: all of them go at once, until every point is above its neighbours'
    # line, which makes the chain convex.
    while True:
        bends = (x[1:-1] - x[:-2]) * (y[2:] - y[:-2]) > (y[1:-1] - y[:-2]) * (x[2:] - x[:-2])
        ends = (owner[2:] != owner[1:-1]) | (owner[:-2] != owner[1:-1])
        kept = np.r_[True, bends | ends, True][: x.size]
        if kept.all():
            return Chain(owner, x, y)
        owner, x, y = owner[kept], x[kept], y[kept]


def pixels_in_hulls(columns: Columns) -> Columns:
    """The columns of the pixels whose centres lie in or on the hulls; none where none does.

    Example:
        Of three pixels around a corner, the hull reaches the fourth's tips, not its centre; two
        pixels with one between them have it in their hull.

        >>> zero = np.zeros(2, np.int64)
        >>> filled = pixels_in_hulls(Columns(zero, np.array([0, 2]), zero, zero))
        >>> filled.columns.tolist(), filled.tops.tolist(), filled.bottoms.tolist()
        ([0, 1, 2], [0, 0, 0], [0, 0, 0])
    """
    upper, lower = hull_chains(columns)
    present, first = np.unique(columns.cells, return_index=True)
    last = np.r_[first[1:], columns.cells.size][: first.size] - 1
    left, right = columns.columns[first], columns.columns[last]
    widths = right - left + 1
    cells = np.repeat(present, widths)
    at = np.arange(int(widths.sum())) - np.repeat(np.cumsum(widths) - widths - left, widths)
    tops, bottoms = _height_at(upper, cells, at), -_height_at(lower, cells, at)
    inside = tops <= bottoms
    return Columns(cells[inside], at[inside], tops[inside], bottoms[inside])


def _height_at(chain: Chain, cells: IntArray, columns: IntArray) -> IntArray:
    """Row of the highest pixel of a column whose centre is not above the chain."""
    if not cells.size:
        return columns
    lowest = int(chain.x.min())
    stride = int(chain.x.max()) - lowest + 1
    keys = chain.cells * stride + chain.x - lowest
    at = np.searchsorted(keys, cells * stride + 2 * columns - lowest, "right") - 1
    x0, y0, x1, y1 = chain.x[at], chain.y[at], chain.x[at + 1], chain.y[at + 1]
    numerator = y0 * (x1 - x0) + (y1 - y0) * (2 * columns - x0)
    return -(-numerator // (2 * (x1 - x0)))


def feret_diameters(
    columns: Columns, num_cells: int, spacing: tuple[float, float] = (1.0, 1.0)
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The greatest and the least distance of two parallel lines that enclose a cell.

    The greatest is that of the two tips of the hull's pixels that lie furthest apart, as
    scikit-image's `feret_diameter_max`. The least is found with one line along a side of the
    hull of these tips.

    Args:
        columns: the pixels of hulls, as `pixels_in_hulls` gives them.
        num_cells: N.
        spacing: (height, width) of a pixel.

    Returns:
        The greatest and the least, [N], in units of `spacing`; 0 for a cell without a pixel.

    Example:
        >>> longest, shortest = feret_diameters(
        ...     Columns(*(np.array([number]) for number in (0, 7, 2, 4))), 1
        ... )
        >>> longest.tolist(), shortest.tolist()
        ([3.0], [1.0])
    """
    points, bounds = _outlines(hull_chains(columns), num_cells, spacing)
    counts = np.diff(bounds)
    longest, shortest = np.zeros(num_cells), np.zeros(num_cells)
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    while order.size:
        # Cells of about as many corners are gone through together, the shorter outlines filled
        # up with their last point.
        at_once = max(1, _PAIRS_AT_ONCE // int(counts[order[-1]]) ** 2)
        chosen, order = order[-at_once:], order[:-at_once]
        steps = np.minimum(np.arange(counts[chosen[-1]]), counts[chosen, None] - 1)
        longest[chosen], shortest[chosen] = _diameters(points[bounds[chosen, None] + steps])
    return longest, shortest


def _outlines(
    chains: tuple[Chain, Chain], num_cells: int, spacing: tuple[float, float]
) -> tuple[NDArray[np.float64], IntArray]:
    """Corners of all hulls as (x, y), each hull once around; and where each one's begin."""
    upper, lower = chains
    cells = np.r_[upper.cells, lower.cells]
    order = np.argsort(np.r_[2 * upper.cells, 2 * lower.cells[::-1] + 1], kind="stable")
    x, y = np.r_[upper.x, lower.x[::-1]], np.r_[upper.y, -lower.y[::-1]]
    points = np.stack([x * (spacing[1] / 2), y * (spacing[0] / 2)], axis=1)[order]
    return points, np.r_[0, np.cumsum(np.bincount(cells, minlength=num_cells))]


def _diameters(outlines: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The greatest and the least diameter of K outlines, [K, V, 2]."""
    x, y = outlines[..., 0], outlines[..., 1]
    to_x, to_y = x[:, None] - x[:, :, None], y[:, None] - y[:, :, None]  # [K, from, to]
    longest = np.sqrt((to_x**2 + to_y**2).max(axis=(1, 2)))
    along_x, along_y = np.roll(x, -1, axis=1) - x, np.roll(y, -1, axis=1) - y
    length = np.hypot(along_x, along_y)
    from_side = np.abs(along_x[..., None] * to_y - along_y[..., None] * to_x).max(axis=2)
    width = np.divide(from_side, length, out=np.full_like(length, np.inf), where=length > 0)
    return longest, width.min(axis=1)
