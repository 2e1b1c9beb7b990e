"""Prediction of an image of any size: plan, look at each tile, stitch.

Three steps that know nothing of each other, so that the one in the middle can run anywhere:

    grid = TileGrid(image_hw, tile_px=1024, overlap_px=64, context_px=64)
    results = map(TileWork(grid, thresholds, read, predict), grid.tiles)    # in any order
    for batch in stitch(grid, results, thresholds): ...

`predict_tiled` is all three, and keeps the cells on disk.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellseg.cells.instances import CellInstances
from cellseg.cells.selection import DetectionThresholds
from cellseg.cells.spool import SpooledCells
from cellseg.inference.seams import SeamReport
from cellseg.inference.stitching import stitch
from cellseg.inference.tile_cells import TileCells, sort_tile_cells
from cellseg.inference.tile_grid import Tile, TileGrid
from cellseg.inference.tile_votes import sort_after_vote
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

TELL_EVERY_S = 15
"""How often is said how far a large image is."""

ReadWindow = Callable[[slice, slice], NDArray[Any]]
PredictTile = Callable[[NDArray[Any], Tile], CellInstances]


@dataclass(frozen=True)
class TileWork:
    """The work on one tile, to be mapped over `grid.tiles`; may be pickled if its parts may.

    Attributes:
        grid: all tiles.
        thresholds: what a detection needs to be a cell.
        read: (rows, columns) -> the pixels of that window, as `PlaneImage.read`.
        predict: (pixels, tile) -> the detections in the frame of the window. Overlaps must not be
            decided yet (see `sort_tile_cells`), and intensities have to be normalised by the whole
            image, not by the window.
    """

    grid: TileGrid
    thresholds: DetectionThresholds
    read: ReadWindow
    predict: PredictTile

    def detect(self, tile: Tile) -> tuple[int, CellInstances]:
        """Number of the tile and its detections, nothing decided: for the vote over an image."""
        pixels = self.read(tile.window.rows, tile.window.columns)
        return tile.number, self.predict(pixels, tile)

    def __call__(self, tile: Tile) -> TileCells:
        return sort_tile_cells(self.grid, tile, self.detect(tile)[1], self.thresholds)


@dataclass(frozen=True, eq=False)
class TiledCells:
    """The cells of an image, on disk, and how the seams came out."""

    record: SpooledCells
    seams: SeamReport


def predict_tiled(
    work: TileWork,
    folder: str | Path | None,
    run: Callable[[Callable[[Tile], Any], Iterable[Tile]], Iterable[Any]] = map,
    **about_image: Any,
) -> TiledCells:
    """Find the cells of an image, tile by tile, in memory that does not grow with the image.

    Args:
        work: what is done in each tile.
        folder: where the cells are kept (`SpooledCells`); best that of the results.
        run: (function, tiles) -> what the function gives for each tile, in any order: `map`, or
            that of a pool of workers.
        about_image: `image_id`, `image_path`, `place` of the record.

    Returns:
        The cells by position, and the seam report, which is logged too. The record is to be closed
        by the caller.
    """
    report = SeamReport(work.grid)
    record = SpooledCells(folder, work.grid.image_hw, **about_image)
    try:
        results = _telling(record.image_id, _results(work, folder, run), math.prod(work.grid.shape))
        for batch in stitch(work.grid, results, work.thresholds, report):
            record.append(batch)
    except BaseException:
        record.close()
        raise
    level = logging.WARNING if report.needs_more_overlap else logging.INFO
    logger.log(level, "%s: %s", record.image_id or "image", report.describe())
    return TiledCells(record, report)


def _telling(name: str, results: Iterable[TileCells], total: int) -> Iterator[TileCells]:
    """Say now and then how many tiles of an image are done, and about how long the others take."""
    start = told = time.monotonic()
    for done, result in enumerate(results, 1):
        now = time.monotonic()
        if now - told >= TELL_EVERY_S and done < total:
            told, left_s = now, (now - start) / done * (total - done)
            logger.info(
                "%s: %d of %d tiles done, about %.0f min left", name, done, total, left_s / 60
            )
        yield result


def _results(
    work: TileWork, folder: str | Path | None, run: Callable[..., Any]
) -> Iterable[TileCells]:
    if work.thresholds.vote == "none":
        results: Iterable[TileCells] = run(work, work.grid.tiles)
        return results
    detections = run(work.detect, work.grid.tiles)
    return sort_after_vote(work.grid, detections, work.thresholds, folder)
