"""The vote over an image that is seen in tiles: one class for all its cells.

Which thresholds hold for a detection depends on the class, so nothing can be decided in a tile
before all tiles have voted. Their detections wait on disk.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.runs import runs_to_boxes
from cellseg.cells.selection import DetectionThresholds, vote_class
from cellseg.cells.windows import move_runs
from cellseg.inference.tile_cells import TileCells, sort_tile_cells
from cellseg.inference.tile_grid import TileGrid


def sort_after_vote(
    grid: TileGrid,
    detections: Iterable[tuple[int, CellInstances]],
    thresholds: DetectionThresholds,
    folder: str | Path | None,
) -> Iterator[TileCells]:
    """`sort_tile_cells` of every tile, with the class that all tiles vote for.

    As `vote_class`, with each detection counted in the tile that holds the middle of it.

    Args:
        grid: all tiles.
        detections: number of a tile and what was found in it, in the frame of its window; in any
            order.
        thresholds: what a detection needs to be a cell; `vote` is "image".
        folder: where the detections wait, in a file without a name.
    """
    scores, classes = [np.zeros(0, np.float32)], [np.zeros(0, np.int64)]
    with tempfile.TemporaryFile(dir=folder) as waiting:
        count = 0
        for number, cells in detections:
            mine = _has_middle(grid, number, cells)
            scores.append(cells.scores[mine])
            classes.append(cells.classes[mine])
            pickle.dump((number, cells), waiting)
            count += 1
        elected = vote_class(np.concatenate(scores), np.concatenate(classes), thresholds)
        waiting.seek(0)
        for number, cells in _read_all(waiting, count):
            if elected is not None:
                cells = cells.replace(classes=np.full(len(cells), elected))
            yield sort_tile_cells(grid, grid.tile(number), cells, thresholds)


def _read_all(file: IO[bytes], count: int) -> Iterator[tuple[int, CellInstances]]:
    for _ in range(count):
        yield pickle.load(file)


def _has_middle(grid: TileGrid, number: int, cells: CellInstances) -> Any:
    """Which detections have the middle of their box in the core of the tile, bool [N]."""
    window = grid.tile(number).window
    height = grid.image_hw[0]
    runs = move_runs(cells.runs, window.hw[0], (window.top, window.left), height)
    boxes = runs_to_boxes(runs, len(cells), height)
    return (grid.tiles_of(boxes) == number) & (boxes[:, 3] > 0)
