"""Masks as the journal has them, as windows, and as the label image that is painted and shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import Crop, crop_bitmap, crops_to_rles
from cellseg.cells.windows import Window
from cellseg.corrections.events import Cell
from numpy.typing import NDArray

Mask = tuple[Crop, tuple[int, int]]
"""A window of a cell, bool [h, w], and (row, column) of its first pixel."""
Labels = NDArray[np.uint32]


def encode_masks(masks: Sequence[Mask], image_hw: tuple[int, int]) -> list[str]:
    """The text of each mask: COCO's compressed run lengths over the whole image."""
    if not masks:
        return []
    rles = crops_to_rles([crop for crop, _ in masks], [at for _, at in masks], image_hw)
    return [rle["counts"] for rle in rles]


def decode_masks(texts: Iterable[str], image_hw: tuple[int, int]) -> list[Mask]:
    """The tight window of each text's mask.

    Raises:
        LabelError: one is no mask of such an image.
    """
    rles = [{"size": list(image_hw), "counts": text} for text in texts]
    cells = CellInstances.from_rles(rles, image_hw)
    return [(crop, (row, col)) for crop, (row, col) in zip(cells.crops, cells.offsets_rc.tolist())]


def tight(crop: Crop, offset_rc: tuple[int, int]) -> Mask:
    """A window without the rows and columns around it that have no pixel."""
    window, (row, column) = crop_bitmap(crop)
    return window, (offset_rc[0] + row, offset_rc[1] + column)


def window_of(mask: Mask) -> Window:
    """The rectangle that a mask's window covers."""
    crop, (row, column) = mask
    return Window(row, column, row + crop.shape[0], column + crop.shape[1])


def union_of(windows: Iterable[Window]) -> Window | None:
    """The smallest rectangle that holds some others; None where there are none."""
    sides = np.array([one for one in windows if min(one.hw) > 0], np.int64).reshape(-1, 4)
    if not len(sides):
        return None
    return Window(*sides[:, :2].min(axis=0).tolist(), *sides[:, 2:].max(axis=0).tolist())


def paste(mask: Mask, window: Window) -> Crop:
    """A mask in a larger window, bool [h, w]."""
    canvas = np.zeros(window.hw, bool)
    crop, (row, column) = mask
    top, left = row - window.top, column - window.left
    canvas[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return canvas


class Canvas:
    """The label image of an image's cells and the window of each, kept up to date by what changes.

    Args:
        image_hw: (height, width), pixels.
        cells: by id; no two share a pixel.

    Attributes:
        labels: uint32 [H, W]; 0 is background.
        masks: window of each cell, by id.
    """

    def __init__(self, image_hw: tuple[int, int], cells: Mapping[int, Cell]) -> None:
        self.image_hw = image_hw
        self.labels: Labels = np.zeros(image_hw, np.uint32)
        self.masks: dict[int, Mask] = {}
        self.change({}, cells)

    def change(
        self, before: Mapping[int, Cell | None], after: Mapping[int, Cell | None]
    ) -> Window | None:
        """Draw some cells anew.

        Args:
            before: the touched cells as they were; None or absent where there was none.
            after: as they are; None where it is gone.

        Returns:
            The smallest window that holds all pixels that may be different; None without any.
        """
        texts: dict[int, str | None] = {
            one: None if cell is None else cell.mask
            for one, cell in after.items()
            if _text_of(before.get(one)) != _text_of(cell)
        }
        new = {one: text for one, text in texts.items() if text is not None}
        masks = dict(zip(new, decode_masks(new.values(), self.image_hw)))
        windows = [window_of(mask) for mask in masks.values()]
        for one in texts:
            if one in self.masks:
                windows.append(self._clear(one))
        for one, mask in masks.items():
            self.masks[one] = mask
            window = window_of(mask)
            self.labels[window.rows, window.columns][mask[0]] = one
        return union_of(windows)

    def _clear(self, one: int) -> Window:
        mask = self.masks.pop(one)
        window = window_of(mask)
        self.labels[window.rows, window.columns][mask[0]] = 0
        return window

    def free_part(self, mask: Mask) -> Mask:
        """What of a mask no cell has."""
        window = window_of(mask)
        return tight(mask[0] & (self.labels[window.rows, window.columns] == 0), mask[1])

    def ids_under(self, mask: Mask) -> list[int]:
        """The cells that share pixels with a mask, ascending."""
        window = window_of(mask)
        found = np.unique(self.labels[window.rows, window.columns][mask[0]]).tolist()
        return [one for one in found if one]


def _text_of(cell: Cell | None) -> str | None:
    return None if cell is None else cell.mask
