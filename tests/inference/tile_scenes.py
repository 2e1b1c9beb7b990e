"""A stand-in for the network in tests of tiles: it sees the true cells of a window, cut off."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.selection import DetectionThresholds, select_cells
from cellseg.cells.windows import crop_runs
from cellseg.inference.seams import SeamReport
from cellseg.inference.stitching import stitch
from cellseg.inference.tile_grid import Tile, TileGrid
from cellseg.inference.tiles import TileWork
from scipy import ndimage

EVERYTHING = DetectionThresholds(score=0)


@dataclass
class SeesAll:
    """Gives every cell that has a pixel in the window, the last one first."""

    cells: CellInstances

    def __call__(self, pixels: Any, tile: Tile) -> CellInstances:
        height, window = self.cells.image_hw[0], tile.window
        seen = CellInstances.from_runs(
            crop_runs(self.cells.runs, height, window),
            len(self.cells),
            window.hw,
            scores=self.cells.scores,
            classes=self.cells.classes,
        )
        return seen[np.flatnonzero(seen.areas_px)[::-1]]


def no_pixels(rows: slice, columns: slice) -> np.ndarray:
    return np.zeros((0, 0))


def work_on(
    grid: TileGrid, predict: Any, thresholds: DetectionThresholds = EVERYTHING
) -> list[Any]:
    work = TileWork(grid, thresholds, no_pixels, predict)
    return [work(tile) for tile in grid.tiles]


def stitched(
    grid: TileGrid,
    results: Iterable[Any],
    thresholds: DetectionThresholds = EVERYTHING,
    report: SeamReport | None = None,
) -> CellInstances:
    batches = list(stitch(grid, results, thresholds, report))
    return CellInstances.concatenate(batches, grid.image_hw)


def tiled(
    cells: CellInstances,
    grid: TileGrid,
    thresholds: DetectionThresholds = EVERYTHING,
    report: SeamReport | None = None,
) -> CellInstances:
    return stitched(grid, work_on(grid, SeesAll(cells), thresholds), thresholds, report)


def whole(cells: CellInstances, thresholds: DetectionThresholds = EVERYTHING) -> CellInstances:
    """What comes out without tiles."""
    chosen = select_cells(cells, thresholds)
    return chosen[chosen.areas_px > 0].sort_by_position()


def boxes_as_cells(
    image_hw: tuple[int, int], *boxes: tuple[int, int, int, int], **more: Any
) -> CellInstances:
    """Rectangles (row, column, height, width)."""
    crops = [np.ones(box[2:], bool) for box in boxes]
    return CellInstances.from_crops(crops, [box[:2] for box in boxes], image_hw, **more)


def random_scene(
    rng: np.random.Generator, image_hw: tuple[int, int], count: int, longest: int, classes: int = 1
) -> CellInstances:
    """Ellipses and rectangles up to `longest` pixels long, anywhere; many overlap."""
    longest = min(longest, *image_hw)
    crops, offsets = [], []
    for _ in range(count):
        height, width = rng.integers(1, longest + 1, 2)
        rows, columns = np.mgrid[:height, :width] + 0.5
        ellipse = (2 * rows / height - 1) ** 2 + (2 * columns / width - 1) ** 2 <= 1
        crops.append(ellipse if ellipse.any() and rng.random() < 0.7 else np.ones_like(ellipse))
        free = np.subtract(image_hw, (height, width)) + 1
        offsets.append([int(rng.integers(0, free[0])), int(rng.integers(0, free[1]))])
    bitmaps = np.zeros((count, *image_hw), bool)
    for bitmap, crop, (row, column) in zip(bitmaps, crops, offsets):
        bitmap[row : row + crop.shape[0], column : column + crop.shape[1]] = crop
    scores = rng.permutation(count) / max(count, 1)
    return CellInstances.from_bitmaps(bitmaps, scores, rng.integers(0, classes, count))


def tangled_scene(
    rng: np.random.Generator, image_hw: tuple[int, int], num_seeds: int
) -> CellInstances:
    """Cells of any length and shape that touch and do not overlap, with a few gaps.

    Every pixel belongs to the seed that is nearest in a stretched sense, so some are large. Each is
    of one piece: of two pieces that no tile sees together nobody can tell that they are one cell.
    """
    rows, columns = np.mgrid[: image_hw[0], : image_hw[1]]
    places = rng.random((max(num_seeds, 1), 2)) * image_hw
    stretch = rng.uniform(0.5, 3, (len(places), 1, 1))
    squares = (rows - places[:, 0, None, None]) ** 2 + (columns - places[:, 1, None, None]) ** 2
    labels = (squares * stretch).argmin(axis=0) + 1
    labels[rng.random(len(places) + 1)[labels] < 0.2] = 0
    pieces, count = np.zeros_like(labels), 0
    for label in np.unique(labels[labels > 0]).tolist():
        found, number = ndimage.label(labels == label)
        pieces[found > 0] = found[found > 0] + count
        count += number
    return CellInstances.from_label_image(pieces)
