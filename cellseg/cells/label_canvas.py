"""A label image that follows a choice of cells, of which only what changes is drawn anew."""

from __future__ import annotations

from typing import Any

import numpy as np
from cellseg.cells.cleaning import Mask
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import Crop, IntArray, label_dtype
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
        self._shown: dict[int, Mask] = {}

    def show(self, cells: CellInstances, ids: IntArray) -> None:
        """Show these cells and no others.

        Args:
            cells: N cells of the image.
            ids: int64 [N], their labels, from 1, each another one.
        """
        offsets = map(tuple, cells.offsets_rc.tolist())
        wanted = dict(zip(ids.tolist(), zip(cells.crops, offsets)))
        gone = [id_ for id_, mask in self._shown.items() if not _is_same(wanted.get(id_), mask)]
        fresh = [id_ for id_, mask in wanted.items() if not _is_same(self._shown.get(id_), mask)]
        if len(gone) + len(fresh) > _MANY * max(len(wanted), 1):
            self.labels[:] = 0
            for id_ in sorted(wanted, reverse=True):
                self._fill(id_, wanted[id_])
        else:
            for id_ in gone:
                self._clear(id_, self._shown[id_])
            below = _touching(wanted, [self._shown[id_] for id_ in gone])
            for id_ in {*fresh, *below}:
                self._add(id_, wanted[id_])
        self._shown = wanted

    def _fill(self, id_: int, mask: Mask) -> None:
        self._window(mask)[mask[0]] = id_

    def _clear(self, id_: int, mask: Mask) -> None:
        region = self._window(mask)
        region[mask[0] & (region == id_)] = 0

    def _add(self, id_: int, mask: Mask) -> None:
        region = self._window(mask)
        region[mask[0] & ((region == 0) | (region > id_))] = id_

    def _window(self, mask: Mask) -> NDArray[Any]:
        crop, (row, column) = mask
        return self.labels[row : row + crop.shape[0], column : column + crop.shape[1]]


def _is_same(one: Mask | None, other: Mask) -> bool:
    return one is not None and one[0] is other[0] and one[1] == other[1]


def _touching(cells: dict[int, Mask], removed: list[Mask]) -> list[int]:
    """Labels of the cells whose windows share pixels with those of removed ones."""
    if not cells or not removed:
        return []
    top, left, bottom, right = _windows(list(cells.values())).T
    touches = np.zeros(len(cells), bool)
    for row, column, last_row, last_column in _windows(removed).tolist():
        touches |= (top < last_row) & (bottom > row) & (left < last_column) & (right > column)
    return [id_ for id_, is_one in zip(cells, touches.tolist()) if is_one]


def _windows(masks: list[tuple[Crop, tuple[int, int]]]) -> IntArray:
    return np.array([(r, c, r + crop.shape[0], c + crop.shape[1]) for crop, (r, c) in masks])
