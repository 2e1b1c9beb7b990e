"""Which detections are cells while some of them are not yet known for what they are.

`cellseg.cells.selection` goes through all detections of an image by descending score. A tile, or
the upper part of an image, does not have all: some are cut, and with what they will be joined to,
which score they will have and whether they will be cells comes out later. Everything that follows
from what is known is decided here, the same as it would be with the whole image, and the rest
waits:

    dropped   cells that are certain suppress it
    done      it would stay even if everything that is unknown were a cell of a higher score
    open      neither

Almost nothing waits: a detection that others overlap by less than the covered share does not
depend on anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray
from cellseg.cells.runs import SharedPixels, find_shared_pixels
from cellseg.cells.selection import DetectionThresholds, values_of_classes
from cellseg.cells.windows import first_pixels
from numpy.typing import NDArray

_ROUNDING = 1e-6  # pixels; a share times an area is seldom a whole number

Flags = NDArray[np.bool_]


class Stage(IntEnum):
    """How far a detection has come on its way to a cell.

    OPEN: the score is passed; all other steps are to come.
    DONE: it is a cell.
    """

    OPEN = 0
    DONE = 2


@dataclass(frozen=True, eq=False)
class Settled:
    """Cells, and detections that may become some.

    Attributes:
        cells: K of the detections, in their order.
        numbers: int64 [K], the number of the detection that each was, ascending.
        stages: int64 [K], a `Stage`.
    """

    cells: CellInstances
    numbers: IntArray
    stages: IntArray


def settle(
    cells: CellInstances,
    thresholds: DetectionThresholds,
    is_unknown: Flags,
    stages: IntArray | None = None,
) -> Settled:
    """Decide everything that can be: area, NMS of masks, covered share.

    Args:
        cells: N detections whose scores pass, in one frame.
        thresholds: what a detection needs to be a cell.
        is_unknown: bool [N], which may come out with another mask, score or not at all; together
            they share no more pixels with another one than they do now.
        stages: int64 [N], what is decided already; by default all are open.

    Returns:
        Without those that are dropped. The unknown ones are all there, and open.
    """
    stages = np.full(len(cells), Stage.OPEN) if stages is None else stages
    areas_px = cells.areas_px
    waits = ~is_unknown & (stages == Stage.OPEN)
    small = areas_px < values_of_classes(thresholds.min_area_px, cells.classes)
    alive = ~(waits & small)
    waits &= alive
    kept = stages == Stage.DONE
    if min(np.min(thresholds.mask_nms), np.min(thresholds.max_covered)) < 1:
        pairs = find_shared_pixels(cells.runs, len(cells))
        rivals = _Rivals.find(cells, areas_px, pairs, thresholds, is_unknown, waits, alive)
        alive &= ~rivals.decide(kept, waits)
    else:
        kept = kept | waits
    numbers = np.flatnonzero(alive)
    stages = np.where(kept, Stage.DONE, Stage.OPEN)
    return Settled(cells[numbers], numbers, stages[numbers])


@dataclass(frozen=True, eq=False)
class _Rivals:
    """Who may suppress whom, of one class each.

    Attributes:
        winners, losers: int64 [K], pairs of known ones by descending score of the loser.
        pixels: int64 [K], that they share.
        at_once: bool [K], whether their IoU suffices.
        left_px: float64 [N], how many pixels of each may lie in better ones.
        unknown_px: int64 [N], how many lie in unknown ones.
        unknown_at_once: bool [N], whether an unknown one may have an IoU that suffices.
    """

    winners: IntArray
    losers: IntArray
    pixels: IntArray
    at_once: Flags
    left_px: NDArray[np.float64]
    unknown_px: IntArray
    unknown_at_once: Flags

    @classmethod
    def find(
        cls,
        cells: CellInstances,
        areas_px: IntArray,
        pairs: SharedPixels,
        thresholds: DetectionThresholds,
        is_unknown: Flags,
        waits: Flags,
        alive: Flags,
    ) -> _Rivals:
        limits = values_of_classes(thresholds.mask_nms, cells.classes)
        shares = values_of_classes(thresholds.max_covered, cells.classes)
        rows, columns = first_pixels(cells).T
        rank = np.empty(len(cells), np.int64)
        rank[np.lexsort((columns, rows, -cells.scores))] = np.arange(len(cells))
        first, second = pairs.earlier, pairs.later
        first_is_better = rank[first] < rank[second]
        winners = np.where(first_is_better, first, second)
        losers = np.where(first_is_better, second, first)
        matters = alive[first] & alive[second] & (cells.classes[first] == cells.classes[second])
        known = matters & ~is_unknown[first] & ~is_unknown[second] & waits[losers]
        unknown_px = np.zeros(len(cells), np.int64)
        for one, other in ((first, second), (second, first)):
            which = matters & is_unknown[one] & waits[other]
            np.add.at(unknown_px, other[which], pairs.pixels[which])
        winners, losers, pixels = winners[known], losers[known], pairs.pixels[known]
        order = np.argsort(rank[losers], kind="stable")
        winners, losers, pixels = winners[order], losers[order], pixels[order]
        union = areas_px[winners] + areas_px[losers] - pixels
        return cls(
            winners,
            losers,
            pixels,
            pixels / union > limits[losers],
            np.where(shares < 1, shares * areas_px + _ROUNDING, np.inf),
            unknown_px,
            (limits < 1) & (unknown_px > limits * areas_px),
        )

    def decide(self, kept: Flags, waits: Flags) -> Flags:
        """Go through those that wait by descending score.

        Args:
            kept: bool [N], the cells that are certain; those found here are added.
            waits: bool [N].

        Returns:
            bool [N], which are dropped.
        """
        most_px = self.unknown_px + np.bincount(self.losers, self.pixels, minlength=len(kept))
        endangered = self.unknown_at_once | (most_px > self.left_px)
        endangered[self.losers[self.at_once]] = True
        kept |= waits & ~endangered
        dropped = np.zeros(len(kept), bool)
        open_ones = waits & endangered  # those that only unknown ones endanger stay so
        own = open_ones[self.losers]
        winners, losers = self.winners[own].tolist(), self.losers[own]
        pixels, at_once = self.pixels[own].tolist(), self.at_once[own].tolist()
        starts = np.flatnonzero(np.diff(losers, prepend=-1)).tolist()
        for start, stop in zip(starts, [*starts[1:], len(winners)]):
            loser = int(losers[start])
            sure_px, most, hit, may_hit = 0, int(self.unknown_px[loser]), False, False
            for winner, px, enough in zip(
                winners[start:stop], pixels[start:stop], at_once[start:stop]
            ):
                if kept[winner]:
                    sure_px, hit = sure_px + px, hit or enough
                if kept[winner] or (open_ones[winner] and not dropped[winner]):
                    most, may_hit = most + px, may_hit or enough
            if hit or sure_px > self.left_px[loser]:
                dropped[loser] = True
            elif not (may_hit or self.unknown_at_once[loser] or most > self.left_px[loser]):
                kept[loser] = True
        return dropped
