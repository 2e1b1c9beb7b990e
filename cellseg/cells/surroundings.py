"""What lies around the cells of an image that comes in pieces: nearest cells, nearby pixels."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from cellseg.cells.instances import CellInstances, select_runs
from cellseg.cells.labels import Crop
from cellseg.cells.run_lengths import IntArray
from cellseg.cells.runs import runs_to_boxes, runs_to_pixels
from cellseg.cells.shapes import Spacing, find_centroids
from cellseg.cells.windows import Window, crop_runs
from numpy.typing import NDArray
from scipy.spatial import KDTree


def measured_cells(batch: CellInstances) -> IntArray:
    """Numbers of the cells that are measured: those with pixels, and no crowd regions."""
    return np.flatnonzero((batch.areas_px > 0) & ~batch.is_crowd)


class Centroids:
    """The centroids of all measured cells of an image, to look for near ones.

    Args:
        batches: all cells of the image.
        spacings: (height, width) of a pixel in each unit that distances are wanted in; the first
            unit is that of `count_within`.
    """

    def __init__(self, batches: Iterable[CellInstances], spacings: Sequence[Spacing]) -> None:
        centres = [np.zeros((0, 2))]
        for batch in batches:
            centres.append(find_centroids(batch[measured_cells(batch)]))
        found = np.concatenate(centres)
        self._spacings = [np.array(spacing) for spacing in spacings]
        self._trees = [KDTree(found * spacing) for spacing in self._spacings]

    def count_within(self, centres: NDArray[np.float64], distance: float) -> IntArray:
        """How many other cells have their centroid at most this far from each of [K, 2], rows
        and columns of cells of this image."""
        if not len(centres):
            return np.zeros(0, np.int64)
        places = centres * self._spacings[0]
        found = self._trees[0].query_ball_point(places, distance, return_length=True)
        return np.asarray(found, np.int64) - 1

    def nearest_distances(self, centres: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Distance from each of [K, 2] to the nearest other cell's centroid, [K] per unit; nan
        where there is no other cell."""
        distances = []
        for spacing, tree in zip(self._spacings, self._trees):
            nearest = tree.query(centres * spacing, k=2)[0].reshape(-1, 2)[:, 1]
            distances.append(np.where(np.isinf(nearest), np.nan, nearest))
        return distances


class Extent(NamedTuple):
    """Cells that have pixels, their tight boxes, and the rows that they cover."""

    cells: CellInstances
    boxes: IntArray
    top: int
    bottom: int


def extent_of(cells: CellInstances) -> Extent:
    """The cells that have pixels, with boxes and rows."""
    cells = cells[cells.areas_px > 0]
    boxes = runs_to_boxes(cells.runs, len(cells), cells.image_hw[0])
    rows = (int(boxes[:, 1].min()), int(boxes[:, 3].max())) if len(cells) else (0, 0)
    return Extent(cells, boxes, *rows)


def with_surroundings(
    batches: Iterable[CellInstances], margin: int
) -> Iterator[tuple[CellInstances, list[Extent]]]:
    """Each batch, and all cells with pixels near its rows: its own, earlier and later ones.

    Later batches are read ahead until one begins below; of earlier ones those cells are kept that
    end near the batch's first row, above which no later batch begins.

    Args:
        batches: each begins no higher in the image than the one before.
        margin: how many rows away counts as near.
    """
    source = iter(batches)
    ahead: deque[tuple[CellInstances, Extent]] = deque()
    earlier: list[Extent] = []

    def read_one() -> bool:
        batch = next(source, None)
        if batch is not None:
            ahead.append((batch, extent_of(batch)))
        return batch is not None

    while ahead or read_one():
        batch, extent = ahead[0]
        while ahead[-1][1].top <= extent.bottom + margin and read_one():
            pass
        if len(extent.cells):
            earlier = reaching_to(extent.top - margin, earlier)
        yield batch, [*earlier, *(each for _, each in ahead)]
        earlier.append(ahead.popleft()[1])


def reaching_to(row: int, extents: Sequence[Extent]) -> list[Extent]:
    """Of these cells the ones that have pixels in a row or below it."""
    kept = (each.cells[each.boxes[:, 3] > row] for each in extents)
    return [extent_of(cells) for cells in kept if len(cells)]


def occupied_pixels(nearby: Sequence[Extent], window: Window) -> Crop:
    """bool [h, w]: the pixels of a window that lie in any of these cells."""
    occupied = np.zeros(window.hw, bool)
    first, behind = (window.left, window.top), (window.right, window.bottom)
    for cells, boxes, _, _ in nearby:
        meets = (boxes[:, :2] < behind) & (boxes[:, 2:] > first)
        chosen = np.flatnonzero(meets.all(axis=1))
        runs = crop_runs(select_runs(cells.runs, chosen, len(cells)), cells.image_hw[0], window)
        rows, columns, _ = runs_to_pixels(runs, window.hw[0])
        occupied[rows, columns] = True
    return occupied
