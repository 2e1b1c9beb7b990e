"""What a model has found, such that no two cells share a pixel."""

from __future__ import annotations

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.selection import DetectionThresholds, finish_cells
from cellseg.corrections.masks import Mask, tight
from numpy.typing import NDArray

_ONE_CELL_PER_PIXEL = DetectionThresholds(score=0.0, exclusive=True)


def keep_apart(cells: CellInstances, taken: NDArray[np.bool_]) -> dict[int, Mask]:
    """The masks of cells by their numbers, each pixel in the one with the higher score.

    Args:
        cells: detections of an image, which may overlap; crowd regions are left out.
        taken: bool [H, W], pixels that are none of theirs. A cell of which more than half lies
            there is left out.

    Returns:
        Ascending; without cells that have no pixel left.
    """
    numbers, masks = [], []
    for number in np.flatnonzero(~cells.is_crowd).tolist():
        crop, (row, column) = cells.crops[number], cells.offsets_rc[number].tolist()
        free = crop & ~taken[row : row + crop.shape[0], column : column + crop.shape[1]]
        if free.any() and 2 * np.count_nonzero(free) >= np.count_nonzero(crop):
            numbers.append(number)
            masks.append((free, (row, column)))
    left = CellInstances.from_crops(
        [crop for crop, _ in masks],
        np.array([at for _, at in masks], np.int64).reshape(-1, 2),
        cells.image_hw,
        scores=cells.scores[numbers],
        classes=cells.classes[numbers],
    )
    found = finish_cells(left, _ONE_CELL_PER_PIXEL)
    kept = zip(found.numbers.tolist(), found.cells.crops, found.cells.offsets_rc.tolist())
    return {numbers[number]: tight(crop, (at[0], at[1])) for number, crop, at in kept}
