"""Label images band by band, against the one that is painted as a whole."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from cell_scenes import random_bitmaps
from cellseg.cells.instances import CellInstances
from cellseg.cells.label_bands import label_bands, label_blocks
from cellseg.cells.records import ImageRecord
from cellseg.cells.windows import (
    Window,
    crop_runs,
    move_cells,
)
from cellseg.errors import LabelError


class InBatches:
    """A record whose cells come a few at a time."""

    def __init__(self, cells: CellInstances, sizes: list[int]) -> None:
        self.cells, self.sizes = cells, sizes
        self.image_hw, self.num_cells = cells.image_hw, len(cells)

    def batches(self) -> Iterator[CellInstances]:
        ends = np.cumsum(self.sizes).tolist()
        for start, stop in zip([0, *ends], [*ends, self.num_cells]):
            yield self.cells[start:stop]


def random_cells(rng: np.random.Generator, count: int, hw: tuple[int, int]) -> CellInstances:
    """Overlapping, some without a pixel, some of equal score, some as high as the image."""
    bitmaps = random_bitmaps(rng, count, hw)
    if count > 3:
        bitmaps[0, :, hw[1] // 2 :] = True
    return CellInstances.from_bitmaps(bitmaps, scores=rng.integers(0, 4, count) / 4)


@pytest.mark.parametrize("seed", range(30))
def test_bands_are_the_whole_label_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hw = (int(rng.integers(1, 40)), int(rng.integers(1, 40)))
    cells = random_cells(rng, int(rng.integers(0, 15)), hw).sort_by_position()
    cells = cells.replace(is_crowd=rng.random(len(cells)) < 0.1)
    batches = InBatches(cells, [0, *rng.integers(0, 4, 3).tolist()])
    expected = cells.to_label_image()
    bands = list(label_bands(batches, int(rng.integers(1, 45))))
    assert np.array_equal(np.concatenate([band for _, band in bands]), expected)
    assert all(band.dtype == expected.dtype for _, band in bands)
    assert [row for row, _ in bands] == np.cumsum([0, *(len(b) for _, b in bands)])[:-1].tolist()
    painted = np.full(hw, 99, expected.dtype)
    for row, column, block in label_blocks(batches, (7, 5)):
        painted[row : row + 7, column : column + 5] = block
    assert np.array_equal(painted, expected)


def test_a_record_in_any_order_has_one_batch() -> None:
    cells = CellInstances.from_label_image([[0, 2], [1, 2], [1, 0]])
    bands = [band for _, band in label_bands(ImageRecord("a", cells), 1)]
    assert np.concatenate(bands).tolist() == [[0, 2], [1, 2], [1, 0]]


def test_an_image_without_cells_is_zeros() -> None:
    record = ImageRecord("a", CellInstances.empty((5, 3)))
    assert [(row, band.sum(), band.shape) for row, band in label_bands(record, 2)] == [
        (0, 0, (2, 3)),
        (2, 0, (2, 3)),
        (4, 0, (1, 3)),
    ]


def test_more_than_65535_cells_need_32_bits() -> None:
    labels = np.arange(1, 65537, dtype=np.uint32).reshape(256, 256)
    record = ImageRecord("a", CellInstances.from_label_image(labels))
    bands = [band for _, band in label_bands(record, 100)]
    assert bands[0].dtype == np.uint32
    assert np.array_equal(np.concatenate(bands), labels)


def test_batches_out_of_order_are_refused() -> None:
    cells = CellInstances.from_label_image(np.diag([1, 2, 3]))
    with pytest.raises(LabelError, match="begins in row 0, above row 2 which is drawn"):
        list(label_bands(InBatches(cells[[2, 1, 0]], [1, 0]), 1))


@pytest.mark.parametrize("seed", range(20))
def test_windows_there_and_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bitmaps = random_bitmaps(rng, 6, (20, 15))
    bitmaps[0] = True
    image = CellInstances.from_bitmaps(bitmaps)
    top, left = int(rng.integers(0, 20)), int(rng.integers(0, 15))
    window = Window(top, left, int(rng.integers(top, 20)) + 1, int(rng.integers(left, 15)) + 1)
    runs = crop_runs(image.runs, 20, window)
    inside = CellInstances.from_runs(runs, 6, window.hw, scores=image.scores)
    part = bitmaps[:, window.rows, window.columns]
    expected = CellInstances.from_bitmaps(part)
    assert all(map(np.array_equal, inside.runs, expected.runs))
    moved = move_cells(inside, (top, left), (20, 15))
    only = np.zeros_like(bitmaps)
    only[:, window.rows, window.columns] = part
    assert moved.equals(CellInstances.from_bitmaps(only, boxes_xyxy=moved.boxes_xyxy))
    filled = part.any(axis=(1, 2))
    assert (moved.boxes_xyxy - inside.boxes_xyxy == [left, top, left, top])[filled].all()


def test_a_window_beyond_the_image_is_refused() -> None:
    with pytest.raises(LabelError, match=r"\(2, 3\).* at \(1, 0\) reaches beyond .*\(2, 3\)"):
        move_cells(CellInstances.empty((2, 3)), (1, 0), (2, 3))
