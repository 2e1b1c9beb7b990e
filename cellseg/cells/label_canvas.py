"""A label image that follows a choice of cells, of which only what changes is drawn anew."""

from __future__ import annotations

from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray, label_dtype
from cellseg.cells.overlaps import cell_windows
from numpy.typing import NDArray

_MANY = 0.3
"""Where a larger share of the cells changes, drawing all of them is sooner done."""


class LabelCanvas:
    """The label image of cells with lasting labels, of which now these, now those are shown.

    Where cells overlap the lower label has the pixel. Masks are taken to be the same ones where
    they are the same object, as those of `cells[which]` are.

    Args:
        image_hw: (height, width) of the image, pixels.
        highest: the highest label that will be shown.

    Attributes:
        labels: label image [H, W], uint16 (uint32 from 65,536 labels on), which changes.

    Example:
        >>> cells = CellInstances.from_label_image([[1, 1, 2]])
        >>> canvas = LabelCanvas((1, 3), 9)
        >>> canvas.show(cells, np.array([5, 9]))
        >>> canvas.show(cells[1:], np.array([9]))
        >>> canvas.labels.tolist()
        [[0, 0, 9]]
    """

    def __init__(self, image_hw: tuple[int, int], highest: int) -> None:
        self.labels: NDArray[Any] = np.zeros(image_hw, label_dtype(highest))
        self._cells, self._ids = CellInstances.empty(image_hw), np.zeros(0, np.int64)

    def show(self, cells: CellInstances, ids: IntArray) -> None:
        """Show these cells and no others.

        Args:
            cells: N cells of the image.
            ids: int64 [N], their labels, from 1, each another one.
        """
        shown, shown_ids = self._cells, self._ids
        gone, fresh = _changes(shown, shown_ids, cells, ids)
        if len(gone) + len(fresh) > _MANY * max(len(cells), 1):
            self.labels[:] = 0
            for k in np.argsort(-ids).tolist():
                self._window(cells, k)[cells.crops[k]] = ids[k]
        else:
            for k in gone.tolist():
                region = self._window(shown, k)
                region[shown.crops[k] & (region == shown_ids[k])] = 0
            for k in np.union1d(fresh, _touching(cells, shown, gone)).tolist():
                region = self._window(cells, k)
                region[cells.crops[k] & ((region == 0) | (region > ids[k]))] = ids[k]
        self._cells, self._ids = cells, ids

    def _window(self, cells: CellInstances, k: int) -> NDArray[Any]:
        (row, column), (height, width) = cells.offsets_rc[k].tolist(), cells.crops[k].shape
        return self.labels[row : row + height, column : column + width]


def _changes(
    before: CellInstances, ids_before: IntArray, after: CellInstances, ids_after: IntArray
) -> tuple[IntArray, IntArray]:
    """Numbers of the cells before that go, or have another mask, and of those that are new.

    No object is made for a cell that stays: thousands of them would have Python collect its garbage
    while a slider is moved.
    """
    _, first, second = np.intersect1d(ids_before, ids_after, True, return_indices=True)
    stays = (before.offsets_rc[first] == after.offsets_rc[second]).all(axis=1)
    pairs = zip(first.tolist(), second.tolist())
    stays &= np.fromiter((before.crops[a] is after.crops[b] for a, b in pairs), bool, len(first))
    gone, fresh = np.ones(len(before), bool), np.ones(len(after), bool)
    gone[first[stays]] = fresh[second[stays]] = False
    return np.flatnonzero(gone), np.flatnonzero(fresh)


def _touching(cells: CellInstances, removed: CellInstances, which: IntArray) -> IntArray:
    """Numbers of the cells whose windows share pixels with those of removed ones."""
    top, left, bottom, right = cell_windows(cells).T
    touches = np.zeros(len(cells), bool)
    for row, column, last_row, last_column in cell_windows(removed)[which].tolist():
        touches |= (top < last_row) & (bottom > row) & (left < last_column) & (right > column)
    return np.flatnonzero(touches)
