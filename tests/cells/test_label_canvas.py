"""The label image that follows a choice of cells is what drawing them all at once gives."""

from __future__ import annotations

import numpy as np
import pytest
from cellseg.cells.cleaning import replace_masks
from cellseg.cells.instances import CellInstances
from cellseg.cells.label_canvas import LabelCanvas


def make_cells(seed: int, count: int = 60) -> CellInstances:
    rng = np.random.default_rng(seed)
    crops, offsets = [], []
    for _ in range(count):
        height, width = rng.integers(0, 9, 2)
        crops.append(rng.random((height, width)) < 0.7)
        offsets.append((rng.integers(0, 40 - height), rng.integers(0, 50 - width)))
    return CellInstances.from_crops(crops, offsets, (40, 50))


def draw(cells: CellInstances, ids: np.ndarray) -> np.ndarray:
    """Pixel by pixel the lowest label of the cells there."""
    labels = np.zeros(cells.image_hw, int)
    bitmaps = cells.to_bitmaps()
    for row, column in np.ndindex(*cells.image_hw):
        here = ids[bitmaps[:, row, column]]
        labels[row, column] = here.min(initial=10**6) if len(here) else 0
    return labels


@pytest.mark.parametrize("seed", range(4))
def test_after_every_change_it_is_as_drawn_at_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells, ids = make_cells(seed), np.arange(1, 61)
    canvas, is_shown = LabelCanvas((40, 50), 60), rng.random(60) < 0.5
    for changes in (60, 1, 3, 10, 2, 40, 5, 1):
        canvas.show(cells[is_shown], ids[is_shown])
        assert np.array_equal(canvas.labels, draw(cells[is_shown], ids[is_shown]))
        is_shown[rng.integers(0, 60, changes)] ^= True


def test_another_mask_and_none_at_all() -> None:
    cells = CellInstances.from_label_image([[1, 1, 2, 2], [0, 3, 3, 3]])
    canvas = LabelCanvas((2, 4), 70_000)
    assert canvas.labels.dtype == np.uint32
    canvas.show(cells, np.array([3, 70_000, 4]))
    smaller, _ = replace_masks(cells, {0: (np.ones((1, 1), bool), (0, 0))})
    canvas.show(smaller, np.array([3, 70_000, 4]))
    assert canvas.labels.tolist() == [[3, 0, 70_000, 70_000], [0, 4, 4, 4]]
    canvas.show(cells[:0], np.zeros(0, np.int64))
    assert not canvas.labels.any()
