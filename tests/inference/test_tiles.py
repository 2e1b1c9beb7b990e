"""Prediction in tiles from end to end, the seam report, and the benchmark of both."""

from __future__ import annotations

import logging
import runpy
from pathlib import Path

import numpy as np
import pytest
from cellseg.cells.instances import CellInstances
from cellseg.cells.selection import DetectionThresholds
from cellseg.inference.seams import SeamReport
from cellseg.inference.tile_grid import Tile, TileGrid
from cellseg.inference.tiles import TileWork, predict_tiled
from tile_scenes import EVERYTHING, SeesAll, boxes_as_cells, no_pixels, random_scene, whole

REPOSITORY = Path(__file__).resolve().parents[2]
GRID = TileGrid((150, 130), 40, 20, 4)


def test_windows_are_read_and_cells_are_kept(tmp_path: Path) -> None:
    image = np.arange(150 * 130).reshape(150, 130)
    cells = random_scene(np.random.default_rng(1), (150, 130), 60, 20)
    sees = SeesAll(cells)

    def network(pixels: np.ndarray, tile: Tile) -> CellInstances:
        assert np.array_equal(pixels, image[tile.window.rows, tile.window.columns])
        return sees(pixels, tile)

    work = TileWork(GRID, EVERYTHING, lambda rows, columns: image[rows, columns], network)
    found = predict_tiled(work, tmp_path, image_id="slide")
    with found.record as record:
        assert record.image_id == "slide"
        assert record.cells.equals(whole(cells))
    assert found.seams.num_cells == 60


def test_workers_in_any_order(tmp_path: Path) -> None:
    cells = random_scene(np.random.default_rng(2), (150, 130), 60, 20)
    work = TileWork(GRID, EVERYTHING, no_pixels, SeesAll(cells))
    found = predict_tiled(work, tmp_path, run=lambda do, tiles: map(do, reversed(list(tiles))))
    with found.record as record:
        assert record.cells.equals(whole(cells))


@pytest.mark.parametrize("seed", range(10))
def test_the_vote_is_that_of_the_whole_image(tmp_path: Path, seed: int) -> None:
    """Three classes of different thresholds; each tile by itself would vote otherwise."""
    cells = random_scene(np.random.default_rng(seed), (150, 130), 60, 20, classes=3)
    thresholds = DetectionThresholds(
        score=(0.1, 0.3, 0.5), mask_nms=(0.1, 0.5, 0.3), min_area_px=(9, 0, 40), vote="image"
    )
    found = predict_tiled(TileWork(GRID, thresholds, no_pixels, SeesAll(cells)), tmp_path)
    with found.record as record:
        assert record.cells.equals(whole(cells, thresholds))
        assert len(set(record.cells.classes.tolist())) == 1


def test_nobody_to_vote(tmp_path: Path) -> None:
    thresholds = DetectionThresholds(vote="image")
    nothing = SeesAll(CellInstances.empty((150, 130)))
    with predict_tiled(TileWork(GRID, thresholds, no_pixels, nothing), tmp_path).record as record:
        assert record.num_cells == 0


def test_cells_larger_than_the_overlap_are_a_warning(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO, "cellseg.inference.tiles")
    for boxes, level in (([(5, 5, 9, 9)], "INFO"), ([(5, 5, 9, 120)], "WARNING")):
        cells = boxes_as_cells((150, 130), *boxes)
        found = predict_tiled(TileWork(GRID, EVERYTHING, no_pixels, SeesAll(cells)), tmp_path)
        found.record.close()
        assert caplog.records[-1].levelname == level
    assert "1 cells joined from 3 pieces and 0 left cut" in caplog.text
    assert "larger than the overlap of 20 px, enlarge it" in caplog.text


def test_an_error_in_a_tile_leaves_nothing_behind(tmp_path: Path) -> None:
    def fails(pixels: object, tile: Tile) -> CellInstances:
        raise ValueError(f"tile {tile.number}")

    with pytest.raises(ValueError, match="tile 0"):
        predict_tiled(TileWork(GRID, EVERYTHING, no_pixels, fails), tmp_path)
    assert list(tmp_path.iterdir()) == []


def counts_of_lines(labels: np.ndarray, rows: list[int], columns: list[int]) -> tuple[int, int]:
    """Matched and unmatched pixel pairs across lines, pair by pair."""
    matched = unmatched = 0
    pairs = [(labels[row - 1], labels[row]) for row in rows]
    pairs += [(labels[:, column - 1], labels[:, column]) for column in columns]
    for one, other in pairs:
        matched += int(((one == other) & (one > 0)).sum())
        unmatched += int(((one != other) & (one > 0)).sum() + ((one != other) & (other > 0)).sum())
    return matched, unmatched


@pytest.mark.parametrize("seed", range(20))
def test_the_seam_report_counts_pixel_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (15, 13)).repeat(10, axis=0).repeat(10, axis=1)
    report = SeamReport(GRID)
    report.add(CellInstances.from_label_image(labels))
    rows, columns = GRID.row_spans.seams.tolist(), GRID.column_spans.seams.tolist()
    count = report.on_seams
    assert (count.matched, count.unmatched) == counts_of_lines(labels, rows, columns)
    inner_rows = np.flatnonzero(report._rows == 2).tolist()
    inner_columns = np.flatnonzero(report._columns == 2).tolist()
    assert (len(inner_rows), len(inner_columns)) == (len(rows), len(columns))
    count = report.inside_tiles
    assert (count.matched, count.unmatched) == counts_of_lines(labels, inner_rows, inner_columns)


def test_cells_that_are_cut_at_seams_show() -> None:
    """What trimming windows would do, against the same cells uncut."""
    cells = random_scene(np.random.default_rng(4), (150, 130), 120, 20)
    uncut, cut = SeamReport(GRID), SeamReport(GRID)
    uncut.add(cells)
    labels = cells.to_label_image().astype(int)
    stripes = np.searchsorted(GRID.row_spans.seams, np.arange(150), side="right")
    cut.add(CellInstances.from_label_image(labels * 10 + stripes[:, None] * (labels > 0)))
    assert uncut.on_seams.unmatched_share < 0.3
    assert cut.on_seams.unmatched_share > uncut.on_seams.unmatched_share + 0.2


def test_the_benchmark_runs_small_and_its_cells_are_those_of_the_whole(capsys) -> None:
    benchmark = runpy.run_path(str(REPOSITORY / "benchmarks/tiles.py"))
    sizes = ["--side", "1500", "--cells", "900", "--tile", "256"]
    benchmark["main"](sizes)
    printed = capsys.readouterr().out
    assert "of 900 detections: cells equal, labels equal" in printed
