"""Tiled equals whole: every case in which tiles go wrong, with a network that sees everything."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from cellseg.cells.instances import CellInstances
from cellseg.cells.selection import DetectionThresholds
from cellseg.errors import LabelError
from cellseg.inference.seams import SeamReport
from cellseg.inference.stitching import stitch
from cellseg.inference.tile_cells import Role, sort_tile_cells
from cellseg.inference.tile_grid import Tile, TileGrid
from tile_scenes import (
    EVERYTHING,
    SeesAll,
    boxes_as_cells,
    random_scene,
    stitched,
    tangled_scene,
    tiled,
    whole,
    work_on,
)

# Two tiles side by side: cores 0 to 50 and 50 to 100, windows 0 to 78 and 22 to 100.
PAIR = TileGrid((40, 100), tile_px=50, overlap_px=20, context_px=4)


def check_equal(cells: CellInstances, grid: TileGrid, **thresholds: object) -> SeamReport:
    """Tiled is whole: pixels, boxes, scores, classes and order."""
    chosen = DetectionThresholds(**{"score": 0.0, **thresholds})
    report = SeamReport(grid)
    found, expected = tiled(cells, grid, chosen, report), whole(cells, chosen)
    assert np.array_equal(found.to_label_image(), expected.to_label_image())
    assert found.equals(expected)
    assert report.num_cells == len(found)
    return report


def random_grid(rng: np.random.Generator, hw: tuple[int, int], overlap_px: int) -> TileGrid:
    tile, context = rng.integers((3, 0), (60, 12)).tolist()
    return TileGrid(hw, tile, overlap_px, context)


def random_thresholds(rng: np.random.Generator, classes: int) -> DetectionThresholds:
    return DetectionThresholds(
        score=rng.choice([0.0, 0.3], classes),
        mask_nms=rng.choice([0.2, 0.5, 1.0], classes),
        max_covered=rng.choice([0.3, 0.6, 1.0], classes),
        min_area_px=rng.choice([0, 6], classes),
    )


@pytest.mark.parametrize("seed", range(120))
def test_crowded_cells_up_to_the_overlap_come_out_as_whole(seed: int) -> None:
    """Any geometry, overlapping cells, thresholds per class, results in any order."""
    rng = np.random.default_rng(seed)
    hw = (int(rng.integers(1, 130)), int(rng.integers(1, 130)))
    overlap, classes = int(rng.integers(2, 30)), int(rng.integers(1, 4))
    count = int(rng.integers(0, min(150, 3 + 3 * hw[0] * hw[1] // overlap**2)))
    cells = random_scene(rng, hw, count, overlap, classes)
    grid, thresholds = random_grid(rng, hw, overlap), random_thresholds(rng, classes)
    results = work_on(grid, SeesAll(cells), thresholds)
    rng.shuffle(results)
    report = SeamReport(grid)
    assert stitched(grid, results, thresholds, report).equals(whole(cells, thresholds))
    assert (report.num_joined, report.num_cut) == (0, 0)


@pytest.mark.parametrize("seed", range(80))
def test_every_step_of_the_selection_comes_out_as_whole(seed: int) -> None:
    """One piece, no holes, area range, border, one cell per pixel; crowded, ragged cells."""
    rng = np.random.default_rng(seed)
    hw = (int(rng.integers(5, 110)), int(rng.integers(5, 110)))
    overlap = int(rng.integers(4, 30))
    cells = random_scene(rng, hw, int(rng.integers(0, 60)), overlap, 2)
    bitmaps = cells.to_bitmaps() & (rng.random(hw) < 0.85)
    cells = CellInstances.from_bitmaps(bitmaps, cells.scores, cells.classes)
    thresholds = DetectionThresholds(
        score=[0.0, 0.1],
        mask_nms=rng.choice([0.2, 0.5, 1.0], 2),
        min_area_px=rng.choice([0, 4, 9], 2),
        max_area_px=rng.choice([0, overlap**2 // 3 + 9], 2),
        max_covered=rng.choice([0.25, 0.5, 1.0], 2),
        largest_component=rng.choice([True, False], 2).tolist(),
        fill_holes=rng.choice([True, False], 2).tolist(),
        border=rng.choice(["keep", "drop"], 2).tolist(),
        exclusive=rng.choice([True, False], 2).tolist(),
    )
    grid = random_grid(rng, hw, overlap)
    assert tiled(cells, grid, thresholds).equals(whole(cells, thresholds))


@pytest.mark.parametrize("seed", range(60))
def test_touching_cells_of_any_size_come_out_as_whole(seed: int) -> None:
    """Many are larger than the overlap, some than a tile."""
    rng = np.random.default_rng(seed)
    hw = (int(rng.integers(20, 130)), int(rng.integers(20, 130)))
    cells = tangled_scene(rng, hw, int(rng.integers(0, 30)))
    grid = TileGrid(hw, int(rng.integers(12, 60)), int(rng.integers(8, 20)), 6)
    check_equal(cells, grid)


def test_a_cell_on_a_seam_comes_once() -> None:
    for column in range(30, 70):
        report = check_equal(boxes_as_cells((40, 100), (10, column, 12, 20)), PAIR)
        assert (report.num_cells, report.num_joined, report.num_cut) == (1, 0, 0)


def test_a_cell_in_the_corner_of_four_tiles_comes_once() -> None:
    grid = TileGrid((100, 100), 50, 20, 4)
    for row, column in np.ndindex(26, 26):
        cells = boxes_as_cells((100, 100), (30 + row, 30 + column, 20, 17))
        assert check_equal(cells, grid).num_cells == 1


def test_touching_neighbours_on_a_seam_stay_two() -> None:
    for column in range(40, 60):
        left, right = (5, column - 15, 30, 15), (5, column, 30, 15)
        above, below = (0, 45, 20, 12), (20, 45, 20, 12)
        assert check_equal(boxes_as_cells((40, 100), left, right), PAIR).num_cells == 2
        assert check_equal(boxes_as_cells((40, 100), above, below), PAIR).num_cells == 2


def test_touching_neighbours_larger_than_the_overlap_stay_two() -> None:
    upper, lower = (0, 10, 20, 80), (20, 10, 20, 80)
    report = check_equal(boxes_as_cells((40, 100), upper, lower), PAIR)
    assert (report.num_joined, report.num_pieces, report.num_cut) == (2, 4, 0)
    assert report.needs_more_overlap


def test_a_cell_larger_than_the_overlap_is_whole_somewhere_or_joined() -> None:
    joined = []
    for length in range(21, 100):
        report = check_equal(boxes_as_cells((40, 100), (10, 100 - length, 12, length)), PAIR)
        joined.append(report.num_joined)
    assert joined[:56] == [0] * 56  # up to 76 px it fits into the right window, clear of its edge
    assert all(joined[56:])


def test_a_cell_larger_than_a_tile_is_joined_from_all_tiles() -> None:
    grid = TileGrid((90, 90), 20, 10, 4)
    ring = np.ones((84, 86), bool)
    ring[8:-8, 8:-8] = False
    cells = CellInstances.from_crops([ring, np.ones((9, 9), bool)], [(3, 2), (40, 40)], (90, 90))
    report = check_equal(cells, grid)
    assert (report.num_cells, report.num_joined) == (2, 1)
    assert report.num_pieces > 8


def test_a_small_cell_on_a_large_cut_one_leaves_it_alone() -> None:
    cells = boxes_as_cells((40, 100), (5, 5, 30, 90), (15, 62, 6, 6), scores=[0.9, 0.8])
    report = check_equal(cells, PAIR)
    assert (report.num_cells, report.num_joined) == (2, 1)


def test_a_cut_one_without_a_match_is_kept_and_counted() -> None:
    cells = boxes_as_cells((40, 100), (10, 10, 12, 80))
    left = SeesAll(cells)

    def only_left(pixels: object, tile: Tile) -> CellInstances:
        return left(pixels, tile) if tile.column == 0 else CellInstances.empty(tile.window.hw)

    report = SeamReport(PAIR)
    found = stitched(PAIR, work_on(PAIR, only_left), report=report)
    assert found.boxes_xyxy.tolist() == [[10, 10, 78, 22]]
    assert (report.num_joined, report.num_cut) == (0, 1)
    assert "1 left cut: they are larger than the overlap of 20 px" in report.describe()


def test_a_bad_piece_in_a_whole_cell_is_dropped() -> None:
    """The left tile sees a part only of what the right one sees whole, too little to match it."""
    real = boxes_as_cells((40, 100), (5, 45, 30, 50))
    piece = boxes_as_cells((40, 78), (5, 48, 8, 30))
    sees_real = SeesAll(real)

    def network(pixels: object, tile: Tile) -> CellInstances:
        return piece if tile.column == 0 else sees_real(pixels, tile)

    report = SeamReport(PAIR)
    assert stitched(PAIR, work_on(PAIR, network), report=report).equals(real)
    assert (report.num_dropped, report.num_cut) == (1, 0)


def test_two_tiles_that_see_a_cell_a_pixel_apart_neither_lose_nor_double_it() -> None:
    """For each of them the middle lies in the other's core, or in its own."""
    for shift in (-1, 1):
        boxes = {0: (10, 40 - shift, 12, 20), 1: (10, 40 + shift - 22, 12, 20)}

        def network(pixels: object, tile: Tile, boxes: dict = boxes) -> CellInstances:
            return boxes_as_cells(tile.window.hw, boxes[tile.column])

        found = stitched(PAIR, work_on(PAIR, network))
        assert found.areas_px.tolist() == [240]


def test_an_image_smaller_than_a_tile() -> None:
    rng = np.random.default_rng(3)
    cells = random_scene(rng, (30, 25), 12, 15)
    report = check_equal(cells, TileGrid((30, 25), 64, 8, 8), mask_nms=0.3)
    assert report.num_tiles == 1


def test_the_last_tile_off_the_grid() -> None:
    for width in range(101, 131):
        grid = TileGrid((40, width), 50, 20, 4)
        boxes = [(5, left, 12, min(12, width - left)) for left in range(0, width, 12)]
        assert check_equal(boxes_as_cells((40, width), *boxes), grid).num_cells == len(boxes)


def test_no_cells_and_empty_tiles() -> None:
    assert len(tiled(CellInstances.empty((40, 100)), PAIR)) == 0
    assert len(tiled(CellInstances.empty((0, 7)), TileGrid((0, 7), 4, 2, 2))) == 0
    grid = TileGrid((200, 200), 40, 10, 4)
    check_equal(boxes_as_cells((200, 200), (150, 10, 8, 8)), grid)


def test_a_detection_without_a_pixel_is_none() -> None:
    def network(pixels: object, tile: Tile) -> CellInstances:
        return CellInstances.from_crops([np.zeros((3, 3), bool)], [(4, 4)], tile.window.hw)

    assert len(stitched(PAIR, work_on(PAIR, network))) == 0


def test_more_than_65535_cells() -> None:
    rows, columns = np.mgrid[:520:2, :520:2].reshape(2, -1)
    crops = [np.ones((1, 1), bool)] * len(rows)
    cells = CellInstances.from_crops(crops, np.stack([rows, columns], axis=1), (520, 520))
    found = tiled(cells, TileGrid((520, 520), 128, 8, 8))
    assert len(found) == 67_600
    labels = found.to_label_image()
    assert labels.dtype == np.uint32
    assert np.array_equal(labels[::2, ::2].ravel(), np.arange(1, 67_601))


def test_what_overlaps_a_cut_cell_is_decided_by_the_whole_of_it() -> None:
    """IoU 200 / 840, with the piece that the left tile sees 200 / 780."""
    large, small = (10, 49, 20, 32), (10, 39, 20, 20)
    for scores in ([0.9, 0.8], [0.8, 0.9]):
        cells = boxes_as_cells((40, 100), large, small, scores=scores)
        for limit in (0.2, 0.25, 0.26):
            check_equal(cells, PAIR, mask_nms=limit)
        assert check_equal(cells, PAIR, mask_nms=0.25).num_cells == 2
        for share in (0.3, 0.4, 0.6):
            check_equal(cells, PAIR, max_covered=share)


def test_a_chain_of_suppression_across_many_seams() -> None:
    """Each of 30 cells overlaps the next by a third: every second one goes, from the best on."""
    boxes = [(5, 12 * k, 20, 18) for k in range(30)]
    grid = TileGrid((40, 400), 40, 20, 4)
    for scores in (np.linspace(0.9, 0.1, 30), np.linspace(0.1, 0.9, 30)):
        cells = boxes_as_cells((40, 400), *boxes, scores=scores)
        assert check_equal(cells, grid, max_covered=0.3).num_cells == 15


def test_area_is_that_of_the_joined_cell() -> None:
    cells = boxes_as_cells((40, 100), (10, 10, 2, 80), (30, 80, 2, 2))
    assert check_equal(cells, PAIR, min_area_px=150).num_cells == 1
    assert check_equal(cells, PAIR, min_area_px=170).num_cells == 0


def test_any_order_of_results_gives_the_same() -> None:
    rng = np.random.default_rng(5)
    cells = random_scene(rng, (150, 150), 120, 25)
    grid = TileGrid((150, 150), 40, 20, 4)
    results = [pickle.loads(pickle.dumps(each)) for each in work_on(grid, SeesAll(cells))]
    expected = stitched(grid, results)
    for _ in range(5):
        rng.shuffle(results)
        assert stitched(grid, results).equals(expected)


def test_cells_come_out_row_by_row_and_in_order() -> None:
    rng = np.random.default_rng(6)
    cells = random_scene(rng, (400, 60), 100, 12)
    grid = TileGrid((400, 60), 40, 12, 4)
    seen = []

    def results():
        for result in work_on(grid, SeesAll(cells)):
            seen.append(result.tile)
            yield result

    batches = [(len(seen), batch) for batch in stitch(grid, results(), EVERYTHING)]
    assert len(batches) > 5
    for tiles_seen, batch in batches[:-1]:
        last_row = grid.tile(tiles_seen - 1).window.bottom
        assert batch.boxes_xyxy[:, 3].max() <= last_row
        assert len(batch) < 60
    together = CellInstances.concatenate([batch for _, batch in batches], (400, 60))
    assert together.equals(whole(cells))


def test_a_tile_twice_missing_or_foreign_is_one_error() -> None:
    results = work_on(PAIR, SeesAll(boxes_as_cells((40, 100), (10, 10, 5, 5))))
    with pytest.raises(LabelError, match="1 of 2 tiles are missing: 1"):
        stitched(PAIR, results[:1])
    with pytest.raises(LabelError, match="tile 0 came twice"):
        stitched(PAIR, [results[0], results[0]])
    with pytest.raises(LabelError, match="tile 1 of a grid of 1 tiles"):
        stitched(TileGrid((40, 100), 500, 2, 2), [results[1]])
    with pytest.raises(LabelError, match=r"tile 0 has cells of .*\(40, 50\); .* \(40, 78\)"):
        sort_tile_cells(PAIR, PAIR.tile(0), CellInstances.empty((40, 50)), EVERYTHING)


def test_roles_of_detections() -> None:
    cells = boxes_as_cells(
        (40, 78),
        (2, 2, 9, 9),  # far from the other tile
        (2, 30, 9, 12),  # the other tile sees it too, and it is ours
        (2, 46, 9, 10),  # its middle is in the other core, by a pixel
        (20, 56, 9, 5),  # the other tile has it whole: none of our business
        (32, 45, 8, 33),  # cut, and reaches our core
        (12, 74, 8, 4),  # cut, and does not
    )
    found = sort_tile_cells(PAIR, PAIR.tile(0), cells, EVERYTHING)
    assert found.roles.tolist() == [Role.INSIDE, Role.OWNED, Role.SPARE, Role.CUT]
    assert found.num_dropped == 1
