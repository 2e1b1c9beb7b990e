"""Selection in tiles: the same cells as in the whole image, once parts are joined."""

from __future__ import annotations

import numpy as np
import pytest
from cellseg.cells.instances import CellInstances
from cellseg.cells.selection import DetectionThresholds, Stage, finish_cells
from cellseg.cells.tile_selection import FoundInTile, select_in_tile

SEAM = 20


def random_cells(rng: np.random.Generator, number: int) -> CellInstances:
    """Rectangles with holes and in pieces in an image of 24 x 40; many scores are equal."""
    bitmaps = np.zeros((number, 24, 40), bool)
    for bitmap in bitmaps:
        row, col = rng.integers(0, 24), rng.integers(0, 40)
        bitmap[row : row + rng.integers(1, 9), col : col + rng.integers(1, 9)] = True
        if rng.random() < 0.3:
            bitmap[row + 2 : row + 4, col + 2 : col + 4] = False
        if rng.random() < 0.3:
            bitmap[:, col + 3 : col + 4] = False
    return CellInstances.from_bitmaps(
        bitmaps, rng.integers(0, 12, number) / 12, rng.integers(0, 2, number)
    )


def random_thresholds(rng: np.random.Generator) -> DetectionThresholds:
    def flags() -> list[bool]:
        return rng.choice([True, False], 2).tolist()

    return DetectionThresholds(
        score=[0.0, 0.1],
        mask_nms=rng.choice([0.2, 0.5, 1.0], 2),
        min_area_px=rng.choice([0, 4, 9], 2),
        max_area_px=rng.choice([0, 40], 2),
        max_covered=rng.choice([0.25, 0.5, 1.0], 2),
        largest_component=flags(),
        fill_holes=flags(),
        border=rng.choice(["keep", "drop"], 2),
        exclusive=flags(),
    )


def half(cells: CellInstances, left: bool) -> tuple[CellInstances, np.ndarray, np.ndarray]:
    """What one of two tiles that meet at the seam sees: cells, their numbers, which are cut."""
    bitmaps = cells.to_bitmaps()
    inside, outside = bitmaps[:, :, :SEAM], bitmaps[:, :, SEAM:]
    if not left:
        inside, outside = outside, inside
    numbers = np.flatnonzero(inside.any(axis=(1, 2)))
    edge = inside[numbers][:, :, -1 if left else 0].any(axis=1)
    cut = edge | outside[numbers].any(axis=(1, 2))
    part = CellInstances.from_bitmaps(
        inside[numbers], cells.scores[numbers], cells.classes[numbers]
    )
    return part, numbers, cut


def join(cells: CellInstances, sides: list[tuple[FoundInTile, np.ndarray, np.ndarray]]) -> tuple:
    """Cells in the frame of the image, open where they were cut, and their numbers and stages."""
    masks: dict[int, np.ndarray] = {}
    stages: dict[int, int] = {}
    for place, (found, numbers, cut) in enumerate(sides):
        bitmaps = found.cells.to_bitmaps()
        for bitmap, k, stage in zip(bitmaps, found.numbers, found.stages):
            number = int(numbers[k])
            if cut[k]:
                assert stage == Stage.OPEN
                masks[number], stages[number] = cells[[number]].to_bitmaps()[0], Stage.OPEN
            else:
                whole = np.zeros(cells.image_hw, bool)
                whole[:, (0, SEAM)[place] : (SEAM, None)[place]] = bitmap
                masks[number], stages[number] = whole, int(stage)
    order = sorted(masks)
    bitmaps = np.array([masks[k] for k in order], bool).reshape(-1, *cells.image_hw)
    joined = CellInstances.from_bitmaps(bitmaps, cells.scores[order], cells.classes[order])
    return joined, np.array(order, int), np.array([stages[k] for k in order], int)


@pytest.mark.parametrize("seed", range(8))
def test_two_tiles_give_the_cells_of_the_whole_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seen = np.zeros(3, int)
    for _ in range(40):
        cells, thresholds = random_cells(rng, int(rng.integers(0, 40))), random_thresholds(rng)
        whole = finish_cells(cells, thresholds)
        sides = []
        for left in (True, False):
            part, numbers, cut = half(cells, left)
            sides.append((select_in_tile(part, thresholds, cut), numbers, cut))
        joined, numbers, stages = join(cells, sides)
        found = finish_cells(joined, thresholds, stages)
        assert numbers[found.numbers].tolist() == whole.numbers.tolist()
        assert np.array_equal(found.cells.to_bitmaps(), whole.cells.to_bitmaps())
        seen += np.bincount(stages, minlength=3)
        done = set(numbers[stages == Stage.DONE].tolist())
        assert done <= set(whole.numbers.tolist())
    assert seen.min() > 5
