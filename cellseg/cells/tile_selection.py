"""Selection in one tile of an image: what is certain there, and what waits for the other tiles.

A detection that an inner edge of the tile cuts is not what it will be once its parts are joined:
its masks, area and score, and whether it is a cell, come out later. What depends on it waits too:
what it may suppress or take pixels from, what these may suppress, and so on. All others come out as
they do in the whole image, since every step of `cellseg.cells.selection` looks at one detection, or
at two that share pixels.

    in each tile         `select_in_tile`: everything that can be done
    between the tiles    parts are joined; that is the business of whoever made the tiles
    in the whole image   `finish_cells` with the stages: the rest, where something is not done

The vote over the image comes before all this (`vote_class`, with the detections of all tiles).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cellseg.cells.cleaning import replace_masks
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray
from cellseg.cells.overlaps import Overlaps
from cellseg.cells.rivals import share_out_pixels, suppress
from cellseg.cells.selection import Candidates, Finished, Stage, clean_detections
from cellseg.cells.thresholds import (
    DetectionThresholds,
    flags_of_classes,
    is_dropped_at_border,
    passes_area,
    passes_score,
    values_of_classes,
)
from numpy.typing import NDArray

Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class FoundInTile(Finished):
    """Cells of a tile, and detections that may become some.

    Attributes:
        stages: int64 [K], how far each has come (`Stage`).
    """

    stages: IntArray


def select_in_tile(
    cells: CellInstances,
    thresholds: DetectionThresholds,
    is_cut: Flags,
    stages: IntArray | None = None,
) -> FoundInTile:
    """Everything that `finish_cells` does, as far as it is certain in a part of the image.

    Afterwards parts are joined, and `finish_cells` is given, in the frame of the whole image, what
    is not done (joined ones as open) together with all done cells that share pixels with it.

    Args:
        cells: N detections, in the frame of the tile; those at its edges that are not cut are at
            the edge of the image.
        thresholds: what a detection needs; `mask` and `vote` play no part.
        is_cut: bool [N], which an inner edge of the tile cuts or touches. They pass if their score
            does; area, largest component, holes, overlaps and border are for the joined ones.
        stages: int64 [N], how far each has come before; by default all are open.

    Returns:
        Those that are cells, or may be; what is not done has clean masks (cut ones excepted) that
        lost no pixels to others.

    Raises:
        ConfigError: a list of thresholds is shorter than the classes that occur.
    """
    numbers = np.flatnonzero(passes_score(cells.scores, cells.classes, thresholds))
    cut = np.asarray(is_cut, bool)[numbers]
    before = np.full(len(numbers), Stage.OPEN) if stages is None else stages[numbers]
    judged, was_done = before == Stage.OPEN, before == Stage.DONE
    found, cleaned = clean_detections(cells[numbers], thresholds, cut | was_done)
    candidates = Candidates.measure(found, thresholds)
    alive = cut | ~judged | passes_area(candidates.areas_px, found.classes, thresholds)
    overlaps = candidates.overlaps
    ways = _Ways.find(overlaps, cut, alive)
    is_open, judges = _find_open(candidates, thresholds, ways, cut, judged & ~cut)
    kept = suppress(found, candidates.areas_px, overlaps, thresholds, alive & ~is_open, judged)
    dropped = kept & candidates.at_border & is_dropped_at_border(thresholds, found.classes)
    takes_part = flags_of_classes(thresholds.exclusive, found.classes)
    waits = judges & kept & (takes_part | dropped)
    sharing = takes_part & (is_open | (kept & ~dropped)) & ~was_done
    waits |= ways.of(sharing).reach(is_open) & ~is_open
    waits &= ~was_done
    done, new = share_out_pixels(found, overlaps, thresholds, kept & ~dropped, was_done)
    after = np.where(is_open, Stage.OPEN, np.where(waits, Stage.KEPT, Stage.DONE))
    new = {number: mask for number, mask in new.items() if after[number] == Stage.DONE}
    found, shared_out = replace_masks(found, new)
    chosen = np.flatnonzero(is_open | waits | done)
    is_changed = (cleaned | shared_out)[chosen]
    return FoundInTile(found[chosen], numbers[chosen], is_changed, after[chosen])


@dataclass(frozen=True, eq=False)
class _Ways:
    """Who may act on whom: pairs that share pixels, from the one of the higher score to the other.

    Between a cut one and another there is a way in either direction: the score of what it will be
    joined to is not known.
    """

    start: IntArray
    end: IntArray
    shared_px: IntArray
    iou: NDArray[np.float64]

    @classmethod
    def find(cls, overlaps: Overlaps, cut: Flags, alive: Flags) -> _Ways:
        better, worse = overlaps.true_index, overlaps.pred_index
        forth = np.flatnonzero(alive[better] & alive[worse])
        back = forth[cut[better[forth]] | cut[worse[forth]]]
        both = np.concatenate([forth, back])
        start = np.concatenate([better[forth], worse[back]])
        end = np.concatenate([worse[forth], better[back]])
        return cls(start, end, overlaps.intersection_px[both], overlaps.iou[both])

    def keep(self, which: Flags) -> _Ways:
        """Some of the ways, bool [K]."""
        return _Ways(self.start[which], self.end[which], self.shared_px[which], self.iou[which])

    def of(self, members: Flags) -> _Ways:
        """The ways between certain detections, bool [N]."""
        return self.keep(members[self.start] & members[self.end])

    def reach(self, seeds: Flags) -> Flags:
        """Seeds and all that some ways from them lead to, bool [N]."""
        reached = seeds.copy()
        while True:
            fresh = self.end[reached[self.start] & ~reached[self.end]]
            if not fresh.size:
                return reached
            reached[fresh] = True


def _find_open(
    candidates: Candidates,
    thresholds: DetectionThresholds,
    ways: _Ways,
    cut: Flags,
    undecided: Flags,
) -> tuple[Flags, Flags]:
    """Which detections may be suppressed, for all one knows, and what may suppress these.

    The overlap of a whole detection with a cut one is known, and the union of the two can only
    grow: the IoU in the tile is the highest possible, and where the sum of all overlaps does not
    reach the covered share nothing depends on what is open.
    """
    classes = candidates.cells.classes
    limits = values_of_classes(thresholds.mask_nms, classes)
    shares = values_of_classes(thresholds.max_covered, classes)
    ways = ways.keep(classes[ways.start] == classes[ways.end])
    shared_px = np.bincount(ways.end, ways.shared_px, minlength=len(classes))
    coverable = (shares < 1) & (shared_px > shares * candidates.areas_px)
    acts = (ways.iou > limits[ways.end]) | coverable[ways.end]
    is_open = ways.keep(acts & undecided[ways.end]).reach(cut)
    acts |= cut[ways.end] & ((limits < 1) | (shares < 1))[ways.end]
    judges = np.zeros(len(classes), bool)
    judges[ways.start[acts & is_open[ways.end]]] = True
    return is_open, judges & ~is_open
