"""Cells as runs of pixels: from one order of pixels to the other, to boxes and to windows.

A run is a stretch [start, end) of a cell's pixels, numbered row by row (row-major) or column by
column (column-major). The runs of all cells of an image are three arrays, sorted by cell and then
by position.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from cellseg.cells.run_lengths import IntArray
from numpy.typing import NDArray

_PAIRS_AT_ONCE = 2**21  # limits the memory where many cells overlap


class Runs(NamedTuple):
    """Runs of the cells of one image.

    Attributes:
        cells: number of the cell that each run belongs to, int64 [R], ascending.
        starts: first pixel of each run, int64 [R].
        ends: pixel behind each run, int64 [R].
    """

    cells: IntArray
    starts: IntArray
    ends: IntArray


def merge_touching(runs: Runs) -> Runs:
    """Join runs of a cell where one begins at the other's end.

    Example:
        >>> runs = Runs(np.array([0, 0, 1]), np.array([1, 3, 4]), np.array([3, 4, 6]))
        >>> [numbers.tolist() for numbers in merge_touching(runs)]
        [[0, 1], [1, 4], [4, 6]]
    """
    cells, starts, ends = runs
    meet = (starts[1:] == ends[:-1]) & (cells[1:] == cells[:-1])
    first, last = np.r_[True, ~meet][: cells.size], np.r_[~meet, True][: cells.size]
    return Runs(cells[first], starts[first], ends[last])


def transpose_runs(runs: Runs, lines: int, line_length: int) -> Runs:
    """Row-major runs as column-major ones, or the other way round.

    Every pixel of a cell gets its number in the new order as a key; the sorted keys are cut where
    two are no neighbours. A cell (#) of three pixels in an image of two rows and three columns:

        row-major     0 1 2    # # .    runs [0, 2) and [3, 4)
                      3 4 5    # . .
        column-major  0 2 4             keys 0 2 and 1, sorted 0 1 2: the run [0, 3)
                      1 3 5

    The cost is that of the cells' pixels, not that of the image.

    Args:
        runs: the runs to be turned, sorted by cell and position.
        lines: number of rows of the image if `runs` is row-major, number of columns otherwise.
        line_length: number of pixels of each of these lines.

    Returns:
        The same pixels as runs in the other order, merged.

    Example:
        >>> runs = Runs(np.array([0, 0]), np.array([0, 3]), np.array([2, 4]))
        >>> [numbers.tolist() for numbers in transpose_runs(runs, 2, 3)]
        [[0], [0], [3]]
    """
    cells, starts, ends = cut_at_line_ends(runs, line_length)
    # Keys of two cells are never neighbours: each cell has a range of one key more than the image
    # has pixels.
    stride = lines * line_length + 1
    line, place = np.divmod(starts, line_length)
    first_keys = cells * stride + place * lines + line
    lengths = ends - starts
    before = np.cumsum(lengths) - lengths
    highest = (int(cells.max(initial=0)) + 2) * stride + int(lengths.sum()) * lines
    dtype = np.int32 if highest < np.iinfo(np.int32).max else np.int64
    keys: NDArray[Any] = np.arange(int(lengths.sum()), dtype=dtype)
    keys *= dtype(lines)
    keys += np.repeat((first_keys - before * lines).astype(dtype), lengths)
    keys.sort()
    first = np.flatnonzero(np.diff(keys, prepend=dtype(-2)) != 1)
    last = np.r_[first[1:], keys.size][: first.size] - 1
    owner, begins = np.divmod(keys[first].astype(np.int64), stride)
    return Runs(owner, begins, keys[last] - owner * stride + 1)


def cut_at_line_ends(runs: Runs, line_length: int) -> Runs:
    """The same pixels in runs that lie within one line each.

    The run [1, 4) of an image whose lines have three pixels becomes [1, 3) and [3, 4):

        >>> cut = cut_at_line_ends(Runs(np.array([0]), np.array([1]), np.array([4])), 3)
        >>> cut.starts.tolist(), cut.ends.tolist()
        ([1, 3], [3, 4])
    """
    first_line = runs.starts // line_length
    pieces = (runs.ends - 1) // line_length - first_line + 1
    if (pieces == 1).all():
        return runs
    number = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    line_starts = (np.repeat(first_line, pieces) + number) * line_length
    starts = np.maximum(np.repeat(runs.starts, pieces), line_starts)
    ends = np.minimum(np.repeat(runs.ends, pieces), line_starts + line_length)
    return Runs(np.repeat(runs.cells, pieces), starts, ends)


def runs_to_pixels(runs: Runs, height: int) -> tuple[IntArray, IntArray, IntArray]:
    """Row, column and cell of every pixel of the runs, in their order.

    Args:
        runs: column-major.
        height: height of the image, pixels.

    Example:
        >>> pixels = runs_to_pixels(Runs(np.array([7]), np.array([2]), np.array([4])), 3)
        >>> [numbers.tolist() for numbers in pixels]
        [[2, 0], [0, 1], [7, 7]]
    """
    lengths = runs.ends - runs.starts
    shifts = np.repeat(runs.starts - np.cumsum(lengths) + lengths, lengths)
    columns, rows = np.divmod(np.arange(shifts.size) + shifts, max(height, 1))
    return rows, columns, np.repeat(runs.cells, lengths)


def runs_to_boxes(runs: Runs, num_cells: int, height: int) -> IntArray:
    """Tight boxes of cells from their runs.

    Args:
        runs: column-major runs, sorted by cell.
        num_cells: number of boxes to return, N.
        height: height of the image, pixels.

    Returns:
        (x0, y0, x1, y1) in pixels, x1 and y1 exclusive, int64 [N, 4]; zeros for a cell without
        pixels.

    Example:
        >>> runs_to_boxes(Runs(np.array([0]), np.array([1]), np.array([4])), 1, 3).tolist()
        [[0, 0, 2, 3]]
    """
    boxes = np.zeros((num_cells, 4), np.int64)
    if not runs.cells.size:
        return boxes
    left, top = np.divmod(runs.starts, height)
    right, bottom = np.divmod(runs.ends - 1, height)
    spans = right > left  # from one column into the next: over the image's lower edge
    top, bottom = np.where(spans, 0, top), np.where(spans, height - 1, bottom)
    first = np.flatnonzero(np.diff(runs.cells, prepend=-1))
    present = runs.cells[first]
    low, high = np.minimum.reduceat, np.maximum.reduceat
    sides = [low(left, first), low(top, first), high(right, first) + 1, high(bottom, first) + 1]
    boxes[present] = np.stack(sides, axis=1)
    return boxes


def runs_to_first_pixels(runs: Runs, num_cells: int, image_hw: tuple[int, int]) -> IntArray:
    """The first pixel of each cell when the image is read row by row.

    Args:
        runs: column-major runs, sorted by cell.
        num_cells: N.
        image_hw: (height, width) of the image, pixels.

    Returns:
        Row-major numbers of the pixels, int64 [N]; height * width for a cell without pixels.

    Example:
        >>> runs_to_first_pixels(Runs(np.array([0]), np.array([1]), np.array([4])), 1, (3, 2))
        array([1])
    """
    height, width = image_hw
    first = np.full(num_cells, height * width, np.int64)
    if not runs.cells.size:
        return first
    column, row = np.divmod(runs.starts, height)
    # A run over the lower edge of its column goes on in the first row of the next one.
    goes_on = (row > 0) & (runs.ends > (column + 1) * height)
    pixels = np.where(goes_on, column + 1, row * width + column)
    present, begin = np.unique(runs.cells, return_index=True)
    first[present] = np.minimum.reduceat(pixels, begin)
    return first


def runs_to_crops(
    runs: Runs, boxes_xyxy: IntArray, height: int
) -> tuple[list[NDArray[np.bool_]], IntArray]:
    """Paint every cell into a window of its own, all of them in one pass.

    The windows are laid end to end, column by column, in one array of steps: +1 where a run
    begins, -1 behind its end, and the sums of the steps are the pixels. A cell of two columns
    and three rows whose runs are the rows 0 to 1 and 1 to 2:

        column 0      column 1
        +1  0 -1       0 +1  0 | -1     the steps; the last one falls behind the window
         1  1  0       0  1  1 |  0     their sums

    Args:
        runs: column-major runs of one image, sorted by cell; those of a cell do not overlap.
        boxes_xyxy: int64 [N, 4], the tight boxes that `runs_to_boxes` gives.
        height: height of the image, pixels.

    Returns:
        N windows, bool [h, w] (0 x 0 for a cell without pixels), and the (row, column) of the
        first pixel of each, int64 [N, 2].
    """
    x0, y0, x1, y1 = boxes_xyxy.T
    rows, columns = y1 - y0, x1 - x0
    first = np.cumsum(rows * columns) - rows * columns
    cells, starts, ends = cut_at_line_ends(runs, height) if runs.cells.size else runs
    column = starts // max(height, 1)
    top_left = first[cells] + (column - x0[cells]) * rows[cells] - y0[cells] - column * height
    steps = np.zeros(int((rows * columns).sum()) + 1, np.int8)
    steps[top_left + starts] += 1
    steps[top_left + ends] -= 1
    pixels = np.cumsum(steps[:-1], dtype=np.int8).view(np.bool_)
    crops = [
        pixels[begin : begin + h * w].reshape(w, h).T
        for begin, h, w in zip(first.tolist(), rows.tolist(), columns.tolist())
    ]
    return crops, boxes_xyxy[:, [1, 0]]


class SharedPixels(NamedTuple):
    """Pairs of cells of one image that share pixels.

    Attributes:
        earlier: int64 [K], the lower number of each pair, ascending.
        later: int64 [K], the higher one.
        pixels: int64 [K], how many pixels they share.
    """

    earlier: IntArray
    later: IntArray
    pixels: IntArray


def find_shared_pixels(runs: Runs, num_cells: int) -> SharedPixels:
    """All pairs of cells that share pixels, each pair once; no window or bitmap is made.

    A run shares pixels with just those that begin inside it, once all are sorted by their start.

    Args:
        runs: of N cells, all in one order of pixels; those of a cell do not overlap.
        num_cells: N.

    Example:
        >>> runs = Runs(np.array([0, 1, 2]), np.array([0, 3, 4]), np.array([5, 6, 9]))
        >>> [numbers.tolist() for numbers in find_shared_pixels(runs, 3)]
        [[0, 0, 1], [1, 2, 2], [2, 1, 2]]
    """
    order = np.argsort(runs.starts, kind="stable")
    cells, starts, ends = (each[order] for each in runs)
    reach = np.searchsorted(starts, ends) - np.arange(starts.size) - 1
    pairs, pixels = np.zeros(0, np.int64), np.zeros(0, np.int64)
    overlapping = np.flatnonzero(reach)
    totals = np.cumsum(reach[overlapping])
    for begin in range(0, int(totals[-1]) if totals.size else 0, _PAIRS_AT_ONCE):
        numbers = np.arange(begin, min(begin + _PAIRS_AT_ONCE, int(totals[-1])))
        which = np.searchsorted(totals, numbers, side="right")
        first = overlapping[which]
        second = first + 1 + numbers - (totals - reach[overlapping])[which]
        low, high = np.minimum(cells[first], cells[second]), np.maximum(cells[first], cells[second])
        shared = np.minimum(ends[first], ends[second]) - starts[second]
        keys, place = np.unique(np.r_[pairs, low * num_cells + high], return_inverse=True)
        pixels = np.bincount(place, np.r_[pixels, shared]).astype(np.int64)
        pairs = keys
    return SharedPixels(*np.divmod(pairs, max(num_cells, 1)), pixels)
