"""Detections of several tiles that are one cell, and what becomes of them.

Two detections of two tiles are one cell if each is the other tile's best match, by an IoU of at
least `SAME_CELL_IOU` inside the strip that both tiles read. Nothing outside of it counts, since one
tile cannot see what the other has there:

    tile A   ......#######|            strip   #####        #####   IoU 1
    tile B        |#############..
              the strip |---|
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cellseg.cells.instances import CellInstances, select_runs
from cellseg.cells.labels import IntArray
from cellseg.cells.runs import Runs, SharedPixels, cut_at_line_ends, runs_to_boxes
from cellseg.inference.tile_grid import TileGrid
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SAME_CELL_IOU = 0.5
"""Least IoU inside the shared strip of two detections that are one cell."""
COVERED_SHARE = 0.5
"""A cut detection of which more lies in a whole one of another tile is a piece of that."""

Flags = NDArray[np.bool_]


def find_same_cells(
    grid: TileGrid, cells: CellInstances, tiles: IntArray, pairs: SharedPixels
) -> IntArray:
    """Pairs of detections that are one cell, int64 [L, 2].

    Args:
        grid: all tiles.
        cells: N detections in the frame of the whole image.
        tiles: int64 [N], the tile that each was found in.
        pairs: those that share pixels and may be one cell: they are of one class and of two tiles.
    """
    areas_px = cells.areas_px
    boxes = runs_to_boxes(cells.runs, len(cells), grid.image_hw[0])
    first, second = pairs.earlier, pairs.later
    in_strip = [
        _area_seen(grid, cells, boxes, areas_px, item, tiles[other])
        for item, other in ((first, second), (second, first))
    ]
    iou = pairs.pixels / (in_strip[0] + in_strip[1] - pairs.pixels)
    close = iou >= SAME_CELL_IOU
    first, second, iou = first[close], second[close], iou[close]
    item, other = np.r_[first, second], np.r_[second, first]
    pair = np.tile(np.arange(len(first)), 2)
    # Two cells may look the same inside the strip: then the score tells them apart.
    unlike = np.abs(cells.scores[item] - cells.scores[other])
    order = np.lexsort((other, unlike, -iou[pair], tiles[other], item))
    chooses = np.r_[True, (np.diff(item[order]) != 0) | (np.diff(tiles[other[order]]) != 0)]
    votes = np.bincount(pair[order[chooses[: len(order)]]], minlength=len(first))
    mutual = votes == 2
    return np.stack([first[mutual], second[mutual]], axis=1)


def _area_seen(
    grid: TileGrid,
    cells: CellInstances,
    boxes: IntArray,
    areas_px: IntArray,
    items: IntArray,
    tiles: IntArray,
) -> IntArray:
    """How many pixels of detection `items[k]` lie in the window of tile `tiles[k]`, int64 [K]."""
    rows, columns = np.divmod(tiles, grid.shape[1])
    (top, bottom), (left, right) = (
        spans.windows[numbers].T
        for spans, numbers in ((grid.row_spans, rows), (grid.column_spans, columns))
    )
    x0, y0, x1, y1 = boxes[items].T
    seen = areas_px[items]
    partly = np.flatnonzero((y0 < top) | (y1 > bottom) | (x0 < left) | (x1 > right))
    if partly.size:
        height = grid.image_hw[0]
        runs = cut_at_line_ends(select_runs(cells.runs, items[partly], len(cells)), height)
        which = partly[runs.cells]
        column = runs.starts // height
        first = np.maximum(runs.starts - column * height, top[which])
        last = np.minimum(runs.ends - column * height, bottom[which])
        inside = (column >= left[which]) & (column < right[which])
        pixels = np.where(inside, np.maximum(last - first, 0), 0)
        seen[partly] = np.bincount(runs.cells, pixels, minlength=partly.size)
    return seen


def group_cells(links: IntArray, count: int) -> IntArray:
    """Number of the group of each of `count` detections that `links` [L, 2] tie together."""
    ones = np.ones(len(links), bool)
    graph = coo_array((ones, (links[:, 0], links[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


@dataclass(frozen=True, eq=False)
class Joined:
    """Cells made of pieces.

    Attributes:
        cells: M cells.
        num_pieces: of how many detections all were made.
    """

    cells: CellInstances
    num_pieces: int


def join_pieces(pieces: CellInstances, groups: IntArray) -> Joined:
    """One cell of every group of pieces.

    The mask is the union. The score is the mean over the pieces weighted by their areas: a good
    small piece says less about the cell than a large one. The class is that of all pieces, the box
    that of the mask.

    Args:
        pieces: N detections.
        groups: int64 [N], ascending numbers from 0, the group of each; one class in each.
    """
    order = np.argsort(groups, kind="stable")
    groups = groups[order]
    count = int(groups.max(initial=-1)) + 1
    weights = pieces.areas_px[order]
    sums = np.bincount(groups, weights * pieces.scores[order].astype(np.float64), minlength=count)
    runs = select_runs(pieces.runs, order, len(pieces))
    first = np.searchsorted(groups, np.arange(count))
    cells = CellInstances.from_runs(
        unite_runs(Runs(groups[runs.cells], runs.starts, runs.ends)),
        count,
        pieces.image_hw,
        scores=(sums / np.bincount(groups, weights, minlength=count)).astype(np.float32),
        classes=pieces.classes[order][first],
    )
    return Joined(cells, len(pieces))


def unite_runs(runs: Runs) -> Runs:
    """The pixels that any run of a cell has, once.

    Args:
        runs: sorted by cell; those of a cell may overlap and be in any order.

    Example:
        >>> runs = Runs(np.array([0, 0, 1]), np.array([4, 2, 3]), np.array([6, 5, 4]))
        >>> [numbers.tolist() for numbers in unite_runs(runs)]
        [[0, 1], [2, 3], [6, 4]]
    """
    if not runs.cells.size:
        return runs
    order = np.lexsort((runs.starts, runs.cells))
    cells, starts, ends = (each[order] for each in runs)
    stride = int(ends.max()) + 1  # runs of two cells never meet
    reach = np.maximum.accumulate(cells * stride + ends)
    begins = np.r_[True, (cells * stride + starts)[1:] > reach[:-1]]
    last = np.r_[np.flatnonzero(begins)[1:], len(cells)] - 1
    return Runs(cells[begins], starts[begins], reach[last] - cells[begins] * stride)
