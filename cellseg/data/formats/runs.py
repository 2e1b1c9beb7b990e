"""Cells as runs of pixels: from one order of pixels to the other, and to annotations.

A run is [start, end) in row-major or column-major pixels of the image; runs are arrays over all
cells of an image, sorted by cell and then by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from cellseg.data.records import CellAnnotation
from cellseg.labels import IntArray
from cellseg.run_lengths import runs_to_rles


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


def runs_to_cells(
    runs: Runs,
    image_hw: tuple[int, int],
    class_names: Sequence[str],
    crowds: Sequence[bool] | None = None,
) -> tuple[CellAnnotation, ...]:
    """Annotations of one image's cells.

    Args:
        runs: column-major, merged.
        image_hw: (height, width), pixels.
        class_names: one per cell.
        crowds: which are crowd regions; by default none.
    """
    number = len(class_names)
    rles = runs_to_rles(*runs, number, image_hw)
    boxes = runs_to_boxes(runs, number, image_hw[0]).astype(float).tolist()
    flags = [False] * number if crowds is None else crowds
    return tuple(
        CellAnnotation(rle, (box[0], box[1], box[2], box[3]), name, flag)
        for rle, box, name, flag in zip(rles, boxes, class_names, flags)
    )
