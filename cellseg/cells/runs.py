"""Cells as runs of pixels: from one order of pixels to the other, to boxes and to windows.

A run is [start, end) in row-major or column-major pixels of the image; runs are arrays over all
cells of an image, sorted by cell and then by position.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from cellseg.cells.run_lengths import IntArray
from numpy.typing import NDArray


class Runs(NamedTuple):
    """Runs of some cells: number of the cell, first pixel and pixel behind; int64 [R] each."""

    cells: IntArray
    starts: IntArray
    ends: IntArray


def merge_touching(runs: Runs) -> Runs:
    """Join runs of a cell where one begins at the other's end."""
    cells, starts, ends = runs
    meet = (starts[1:] == ends[:-1]) & (cells[1:] == cells[:-1])
    first, last = np.r_[True, ~meet][: cells.size], np.r_[~meet, True][: cells.size]
    return Runs(cells[first], starts[first], ends[last])


def transpose_runs(runs: Runs, lines: int, line_length: int) -> Runs:
    """Row-major runs as column-major ones, or the other way round.

    The cost is that of the cells' pixels, not that of the image.

    Args:
        runs: what they are now.
        lines: number of rows of the image if `runs` is row-major, else of columns.
        line_length: pixels per such line.

    Returns:
        Runs in the other order, merged.
    """
    cells, starts, ends = _cut_at_line_ends(runs, line_length)
    # A key per pixel that sorts them by cell and then in the new order. Keys of two cells are never
    # neighbours: there is one more per cell than it could have pixels.
    stride = lines * line_length + 1
    line, place = np.divmod(starts, line_length)
    first_keys = cells * stride + place * lines + line
    lengths = ends - starts
    before = np.cumsum(lengths) - lengths
    highest = (int(cells.max(initial=0)) + 2) * stride + int(lengths.sum()) * lines
    dtype = np.int32 if highest < np.iinfo(np.int32).max else np.int64
    keys = np.arange(int(lengths.sum()), dtype=dtype) * dtype(lines)
    keys += np.repeat((first_keys - before * lines).astype(dtype), lengths)
    keys.sort()
    first = np.flatnonzero(np.diff(keys, prepend=dtype(-2)) != 1)
    last = np.r_[first[1:], keys.size][: first.size] - 1
    owner, begins = np.divmod(keys[first].astype(np.int64), stride)
    return Runs(owner, begins, keys[last] - owner * stride + 1)


def _cut_at_line_ends(runs: Runs, line_length: int) -> Runs:
    """The same pixels in runs that lie within one line each."""
    first_line = runs.starts // line_length
    pieces = (runs.ends - 1) // line_length - first_line + 1
    if (pieces == 1).all():
        return runs
    number = np.arange(int(pieces.sum())) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    line_starts = (np.repeat(first_line, pieces) + number) * line_length
    starts = np.maximum(np.repeat(runs.starts, pieces), line_starts)
    ends = np.minimum(np.repeat(runs.ends, pieces), line_starts + line_length)
    return Runs(np.repeat(runs.cells, pieces), starts, ends)


def runs_to_boxes(runs: Runs, num_cells: int, height: int) -> IntArray:
    """Tight boxes (x0, y0, x1, y1) of column-major runs, int64 [N, 4]; zeros for no pixel."""
    boxes = np.zeros((num_cells, 4), np.int64)
    if not runs.cells.size:
        return boxes
    left, top = np.divmod(runs.starts, height)
    right, bottom = np.divmod(runs.ends - 1, height)
    spans = right > left  # from one column into the next: over the image's lower edge
    top, bottom = np.where(spans, 0, top), np.where(spans, height - 1, bottom)
    present, first = np.unique(runs.cells, return_index=True)
    low, high = np.minimum.reduceat, np.maximum.reduceat
    sides = [low(left, first), low(top, first), high(right, first) + 1, high(bottom, first) + 1]
    boxes[present] = np.stack(sides, axis=1)
    return boxes


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
        height: of the image, pixels.

    Returns:
        N windows, bool [h, w] (0 x 0 for a cell without pixels), and the (row, column) of the
        first pixel of each, int64 [N, 2].
    """
    x0, y0, x1, y1 = boxes_xyxy.T
    rows, columns = y1 - y0, x1 - x0
    first = np.cumsum(rows * columns) - rows * columns
    cells, starts, ends = _cut_at_line_ends(runs, height) if runs.cells.size else runs
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
