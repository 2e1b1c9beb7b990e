"""From the cells of tiles to the cells of the image, row of tiles by row of tiles.

1. A detection that no inner edge of its tile touches is whole, and belongs to the tile whose core
   holds the middle of its box (`sort_tile_cells`). Of several that are one cell (`find_same_cells`)
   that one is taken; a whole one of another tile only where the owner has it cut or not at all.
2. A cut one is left out if a whole one of another tile covers more than half of it.
3. What is left of a cell that is larger than the overlap is joined, transitively; what nothing can
   be joined to stays a cell. Both are counted, see `SeamReport`.
4. Whether it is a cell then, and which pixels it has, is decided as in the whole image by the steps
   of `cellseg.cells.selection`, near seams only: all others were decided in their tiles.
5. Cells come out by their first pixel in raster order; of equal ones the higher score is first.

After a row of tiles everything that ends above the windows of the next row is final, since no later
tile reads its pixels. So memory holds what crosses that line, and no more of the image. Results of
tiles may come in any order; rows are gone through from the top, and what comes early waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray
from cellseg.cells.runs import SharedPixels, find_shared_pixels, runs_to_boxes
from cellseg.cells.selection import Stage
from cellseg.cells.thresholds import DetectionThresholds
from cellseg.cells.tile_selection import select_in_tile
from cellseg.errors import LabelError
from cellseg.inference.joining import COVERED_SHARE, find_same_cells, group_cells, join_pieces
from cellseg.inference.seams import SeamReport
from cellseg.inference.tile_cells import Role, TileCells, share_pixels
from cellseg.inference.tile_grid import TileGrid
from numpy.typing import NDArray

Flags = NDArray[np.bool_]

_UNMATCHED = -1
"""State of a detection that other tiles may have as well; the other states are a `Stage`."""


def stitch(
    grid: TileGrid,
    results: Iterable[TileCells],
    thresholds: DetectionThresholds,
    report: SeamReport | None = None,
) -> Iterator[CellInstances]:
    """The cells of the whole image.

    Args:
        grid: all tiles.
        results: of every tile once, in any order; the output is the same.
        thresholds: what a detection needs to be a cell.
        report: is filled in.

    Yields:
        Batches of cells in the frame of the whole image, about one per row of tiles, ordered by
        position throughout: by the first pixel in raster order.

    Raises:
        LabelError: a tile came twice, or is missing at the end.
    """
    stitcher = Stitcher(grid, thresholds, SeamReport(grid) if report is None else report)
    for result in results:
        yield from stitcher.add(result)
    stitcher.check_complete()


class Stitcher:
    """What `stitch` does, for results that are handed over one by one.

    Args:
        grid: all tiles.
        thresholds: what a detection needs to be a cell.
        report: is filled in.
    """

    def __init__(self, grid: TileGrid, thresholds: DetectionThresholds, report: SeamReport) -> None:
        self.grid = grid
        self.report = report
        self._thresholds = thresholds
        self._early: dict[int, TileCells] = {}
        self._next_row = 0
        self._pool = _Pool.empty(grid)
        self._links = np.zeros((0, 2), np.int64)
        self._num_seen = 0
        self._ready = CellInstances.empty(grid.image_hw)

    def add(self, result: TileCells) -> Iterator[CellInstances]:
        """Take the result of a tile; yields the cells that are final by that.

        Raises:
            LabelError: the tile is not of this grid, or was there before.
        """
        row, columns = result.tile // max(self.grid.shape[1], 1), self.grid.shape[1]
        if not 0 <= result.tile < len(self.grid):
            raise LabelError(f"tile {result.tile} of a grid of {len(self.grid)} tiles")
        if row < self._next_row or result.tile in self._early:
            raise LabelError(f"the cells of tile {result.tile} came twice; expected them once")
        self._early[result.tile] = result
        while self._next_row < self.grid.shape[0]:
            first = self._next_row * columns
            numbers = range(first, first + columns)
            if not all(number in self._early for number in numbers):
                return
            self._next_row += 1
            yield from self._take_row([self._early.pop(number) for number in numbers])

    def check_complete(self) -> None:
        """Check that all tiles came.

        Raises:
            LabelError: some did not.
        """
        if self._next_row < self.grid.shape[0]:
            first = self._next_row * self.grid.shape[1]
            missing = [n for n in range(first, len(self.grid)) if n not in self._early]
            listed = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
            raise LabelError(f"{len(missing)} of {len(self.grid)} tiles are missing: {listed}")

    def _take_row(self, results: list[TileCells]) -> Iterator[CellInstances]:
        is_last = self._next_row == self.grid.shape[0]
        windows = self.grid.row_spans.windows
        bound = self.grid.image_hw[0] if is_last else int(windows[self._next_row, 0])
        self.report.num_dropped += sum(result.num_dropped for result in results)
        final = [result.cells[result.stages == Stage.DONE] for result in results]
        new = _Pool.of_results(self.grid, results, self._num_seen)
        self._num_seen += len(new)
        self._pool = _Pool.concatenate([self._pool, new])
        self._match(len(new))
        self._merge_groups(bound)
        final.append(self._settle())
        yield from self._let_go(final, bound)

    def _match(self, num_new: int) -> None:
        """Find out which new detections are one cell with others."""
        pool = self._pool
        pairs = find_shared_pixels(pool.cells.runs, len(pool))
        first, second = pairs.earlier, pairs.later
        is_open = pool.states == _UNMATCHED
        classes = pool.cells.classes
        which = is_open[first] & is_open[second] & (second >= len(pool) - num_new)
        which &= (pool.tiles[first] != pool.tiles[second]) & (classes[first] == classes[second])
        pairs = SharedPixels(first[which], second[which], pairs.pixels[which])
        links = find_same_cells(self.grid, pool.cells, pool.tiles, pairs)
        self._links = np.concatenate([self._links, pool.ids[links]])

    def _merge_groups(self, bound: int) -> None:
        """One detection in place of all that are the same cell, where all of them are there."""
        pool = self._pool
        if not len(pool):
            return
        places = np.searchsorted(pool.ids, self._links)
        here = (pool.ids[np.minimum(places, len(pool) - 1)] == self._links).all(axis=1)
        self._links, places = self._links[here], places[here]
        groups = group_cells(places, len(pool))
        unmatched = pool.states == _UNMATCHED
        open_groups = np.zeros(len(pool), bool)
        open_groups[groups[unmatched & (pool.bottoms > bound)]] = True
        closed = np.flatnonzero(unmatched & ~open_groups[groups])
        # Of each group the best comes first: owned before spare before cut, then the first tile.
        order = closed[np.lexsort((closed, pool.roles[closed], groups[closed]))]
        of_group = groups[order]
        leads = np.r_[True, np.diff(of_group) != 0][: len(order)]
        # Cells that overlap may come into one group by what other tiles see of them. Two owned
        # ones are one cell only if they are tied to each other.
        owned = pool.roles == Role.OWNED
        twice = np.zeros(len(pool), bool)
        twice[places.max(axis=1, initial=0)[owned[places].all(axis=1)]] = True
        leads |= owned[order] & ~twice[order]
        leader = order[np.flatnonzero(leads)[np.cumsum(leads) - 1]]
        sizes = np.bincount(of_group, minlength=len(pool))[of_group]
        all_cut = pool.roles[leader] == Role.CUT
        self.report.num_dropped += int((~all_cut & (pool.roles[order] == Role.CUT)).sum())
        pieces = order[all_cut & (sizes > 1)]
        stays = np.ones(len(pool), bool)
        stays[order[~leads]] = False
        stays[pieces] = False
        pool.states[order[leads]] = Stage.OPEN
        self._pool = pool[stays]
        if pieces.size:
            self._add_joined(pool.cells[pieces], groups[pieces])
        self._drop_covered()

    def _add_joined(self, pieces: CellInstances, groups: IntArray) -> None:
        joined = join_pieces(pieces, np.unique(groups, return_inverse=True)[1])
        ids = self._num_seen + np.arange(len(joined.cells))
        self._num_seen += len(ids)
        pool = _Pool.concatenate([self._pool, _Pool.of_joined(self.grid, joined.cells, ids)])
        self.report.num_pieces += joined.num_pieces
        self._pool = pool

    def _drop_covered(self) -> None:
        """Leave out cut ones without a match that lie in a whole or joined one of other tiles.

        That one has at least their area.

        Without that condition a small cell on a large one would be taken for the whole of it.
        """
        pool = self._pool
        is_joined = pool.tiles < 0
        is_piece = (pool.roles == Role.CUT) & (pool.states == Stage.OPEN) & ~is_joined
        if not is_piece.any():
            return
        covers = (pool.roles != Role.CUT) | is_joined
        pairs = find_shared_pixels(pool.cells.runs, len(pool))
        areas_px, classes = pool.cells.areas_px, pool.cells.classes
        dropped = np.zeros(len(pool), bool)
        for one, other in ((pairs.earlier, pairs.later), (pairs.later, pairs.earlier)):
            covered = is_piece[one] & covers[other] & (pool.tiles[one] != pool.tiles[other])
            covered &= (classes[one] == classes[other]) & (areas_px[other] >= areas_px[one])
            dropped[one[covered & (pairs.pixels > COVERED_SHARE * areas_px[one])]] = True
        self.report.num_dropped += int(dropped.sum())
        self._pool = pool[~dropped]

    def _settle(self) -> CellInstances:
        """The cells that are final by now; the pool keeps what they matter to."""
        pool = self._pool
        unmatched = pool.states == _UNMATCHED
        found = select_in_tile(
            pool.cells, self._thresholds, unmatched, np.maximum(pool.states, Stage.OPEN)
        )
        pool = pool[found.numbers].with_cells(found.cells)
        is_done = found.stages == Stage.DONE
        fresh = is_done & (pool.states != Stage.DONE)
        self.report.num_joined += int((fresh & (pool.tiles < 0)).sum())
        self.report.num_cut += int((fresh & (pool.tiles >= 0) & (pool.roles == Role.CUT)).sum())
        pool.states[:] = np.where(pool.states == _UNMATCHED, _UNMATCHED, found.stages)
        self._pool = pool[~is_done | share_pixels(pool.cells, ~is_done)]
        return found.cells[fresh]

    def _let_go(self, final: list[CellInstances], bound: int) -> Iterator[CellInstances]:
        """The final cells that no later one can come before."""
        cells = CellInstances.concatenate([self._ready, *final], self.grid.image_hw)
        cells = cells.sort_by_position()
        rows = cells.first_pixels // max(self.grid.image_hw[1], 1)
        waiting = self._pool.states != Stage.DONE
        bound = min(bound, int(self._pool.tops[waiting].min(initial=bound)))
        if self._next_row == self.grid.shape[0]:
            bound = self.grid.image_hw[0]
        self._ready = cells[rows >= bound]
        batch = cells[rows < bound]
        if len(batch):
            self.report.add(batch)
            yield batch


@dataclass(frozen=True, eq=False)
class _Pool:
    """Detections of the rows so far that are not final, and final ones that they depend on.

    Attributes:
        cells: N, in the frame of the whole image.
        tiles: int64 [N], the tile of each; -1 for what was joined.
        roles: int64 [N], a `Role`.
        states: int64 [N], see the head of this module.
        ids: int64 [N], ascending; never used twice.
        tops, bottoms: int64 [N], first row and row behind the last.
    """

    cells: CellInstances
    tiles: IntArray
    roles: IntArray
    states: IntArray
    ids: IntArray
    tops: IntArray
    bottoms: IntArray

    @classmethod
    def make(
        cls, cells: CellInstances, tiles: IntArray, roles: IntArray, states: IntArray, ids: IntArray
    ) -> _Pool:
        boxes = runs_to_boxes(cells.runs, len(cells), cells.image_hw[0])
        return cls(cells, tiles, roles, states, ids, boxes[:, 1], boxes[:, 3])

    @classmethod
    def empty(cls, grid: TileGrid) -> _Pool:
        none = np.zeros(0, np.int64)
        return cls.make(CellInstances.empty(grid.image_hw), none, none, none, none)

    @classmethod
    def of_results(cls, grid: TileGrid, results: list[TileCells], first_id: int) -> _Pool:
        """What is not final of a row of tiles, and what it depends on."""
        chosen = [np.flatnonzero((r.stages != Stage.DONE) | r.are_rivals) for r in results]
        parts = list(zip(results, chosen))
        cells = CellInstances.concatenate([r.cells[which] for r, which in parts], grid.image_hw)
        roles = np.concatenate([r.roles[which] for r, which in parts])
        stages = np.concatenate([r.stages[which] for r, which in parts])
        states = np.where(roles == Role.INSIDE, stages, _UNMATCHED)
        tiles = np.concatenate([np.full(len(which), r.tile) for r, which in parts])
        return cls.make(cells, tiles, roles, states, first_id + np.arange(len(cells)))

    @classmethod
    def of_joined(cls, grid: TileGrid, cells: CellInstances, ids: IntArray) -> _Pool:
        same = np.ones(len(cells), np.int64)
        return cls.make(cells, -same, Role.CUT * same, Stage.OPEN * same, ids)

    @classmethod
    def concatenate(cls, pools: list[_Pool]) -> _Pool:
        cells = CellInstances.concatenate([p.cells for p in pools], pools[0].cells.image_hw)
        names = ("tiles", "roles", "states", "ids", "tops", "bottoms")
        columns = [np.concatenate([getattr(p, name) for p in pools]) for name in names]
        return cls(cells, *columns)

    def with_cells(self, cells: CellInstances) -> _Pool:
        """The same with masks that may have lost pixels; `tops` and `bottoms` are still limits."""
        return replace(self, cells=cells)

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, which: NDArray[np.generic]) -> _Pool:
        columns = (self.tiles, self.roles, self.states, self.ids, self.tops, self.bottoms)
        return _Pool(self.cells[which], *(column[which] for column in columns))
