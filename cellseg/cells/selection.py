"""From detections to cells: what is done in which order, for every part of cellseg.

1. vote: with CELLSEG.CELL_TYPE.VOTE image every detection gets the type of most of the scores.
2. score: those below SCORE_THRESHOLD are out.
3. mask: soft masks are cut at MASK_THRESHOLD (where the network's masks become pixels).
4. largest component: with LARGEST_COMPONENT other pieces of a mask are taken away.
5. holes: with FILL_HOLES what a mask encloses is added to it.
6. area: those with fewer pixels than MIN_AREA or more than MAX_AREA are out.
7. overlaps: by descending score, NMS of masks (MASK_NMS) and covered pieces (MAX_COVERED).
8. border: with BORDER drop those that touch the image's edge are out.
9. one cell per pixel: with EXCLUSIVE each keeps the pixels that no better one kept; of what is left
   LARGEST_COMPONENT takes the largest piece, and less than MIN_AREA is no cell.

What is out in one step plays no part in the later ones: what is too faint or too small suppresses
nothing; a cell at the border suppresses its pieces and then is no cell; its pixels are free. Every
key is below CELLSEG.TEST and holds for all classes, or per class as a list. All steps but the vote
find nothing left to do when they are done once more on cells, unless pixels were shared out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from cellseg.arguments import checked, of_type
from cellseg.cells.cleaning import NewMasks, clean_masks, replace_masks, touches_border
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray
from cellseg.cells.overlaps import Overlaps
from cellseg.cells.rivals import find_own_overlaps, share_out_pixels, suppress
from cellseg.cells.thresholds import (
    TEST_KEYS,
    DetectionThresholds,
    PerClass,
    flags_of_classes,
    is_dropped_at_border,
    passes_area,
    passes_score,
    values_of_classes,
)
from numpy.typing import NDArray

__all__ = [
    "LOOKING_AT_EVERYTHING",
    "TEST_KEYS",
    "Candidates",
    "DetectionThresholds",
    "Finished",
    "PerClass",
    "Stage",
    "clean_detections",
    "find_own_overlaps",
    "finish_cells",
    "passes_score",
    "select_cells",
    "select_detections",
    "values_of_classes",
    "vote_class",
    "vote_over_image",
]


class Stage(IntEnum):
    """How far a detection has come on its way to a cell, where an image is looked at in tiles.

    OPEN: the score is passed; all other steps are to come.
    KEPT: the overlaps are over; border and the sharing out of pixels are to come.
    DONE: it is a cell with the pixels that it has.
    """

    OPEN = 0
    KEPT = 1
    DONE = 2


@dataclass(frozen=True, eq=False)
class Finished:
    """Cells, and what they were.

    Attributes:
        cells: K cells, in the order of the detections.
        numbers: int64 [K], the number of the detection that each was, ascending.
        is_changed: bool [K], which have other pixels than their detections.
    """

    cells: CellInstances
    numbers: IntArray
    is_changed: NDArray[np.bool_]


@checked(
    cells=of_type(CellInstances, "cells (CellInstances)"),
    thresholds=of_type(DetectionThresholds, "DetectionThresholds"),
)
def select_cells(cells: CellInstances, thresholds: DetectionThresholds) -> CellInstances:
    """Keep the detections that are cells, with the pixels that are theirs.

    The module says in which order what is done. The order of `cells` is kept, and so are their
    boxes.

    Args:
        cells: the detections of one image; they may overlap.
        thresholds: what a detection needs; `mask` plays no part.

    Raises:
        ConfigError: a list of thresholds is shorter than the classes that occur.

    Example:
        >>> cells = CellInstances.from_label_image([[1, 1, 0, 2]], scores=[0.9, 0.4])
        >>> select_cells(cells, DetectionThresholds(score=0.5)).areas_px.tolist()
        [2]
    """
    return finish_cells(vote_over_image(cells, thresholds), thresholds).cells


def finish_cells(
    cells: CellInstances, thresholds: DetectionThresholds, stages: IntArray | None = None
) -> Finished:
    """`select_cells` after the vote, with the numbers of the cells.

    Args:
        cells: N detections in the frame of the whole image.
        thresholds: what a detection needs; `mask` and `vote` play no part.
        stages: [N], how far each has come (`Stage`), as `select_in_tile` says; by default all are
            open. Those that have come further take part as those that are open meet them.

    Raises:
        ConfigError: a list of thresholds is shorter than the classes that occur.
    """
    numbers = np.flatnonzero(passes_score(cells.scores, cells.classes, thresholds))
    stages = None if stages is None else np.asarray(stages)[numbers]
    is_done = None if stages is None else stages == Stage.DONE
    found, cleaned = clean_detections(cells[numbers], thresholds, is_done)
    chosen, new = _settle(Candidates.measure(found, thresholds), thresholds, stages)
    found, shared_out = replace_masks(found, new)
    return Finished(found[chosen], numbers[chosen], (cleaned | shared_out)[chosen])


def clean_detections(
    cells: CellInstances, thresholds: DetectionThresholds, leave: NDArray[np.bool_] | None = None
) -> tuple[CellInstances, NDArray[np.bool_]]:
    """Largest component and holes, as the class of each detection asks for.

    Args:
        cells: N detections.
        thresholds: what is to be done.
        leave: bool [N], which are left as they are; by default none.

    Returns:
        The detections, and bool [N], which have other pixels than before.
    """
    one_piece = flags_of_classes(thresholds.largest_component, cells.classes)
    without_holes = flags_of_classes(thresholds.fill_holes, cells.classes)
    if leave is not None:
        one_piece, without_holes = one_piece & ~leave, without_holes & ~leave
    return clean_masks(cells, one_piece, without_holes)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Detections of one image with clean masks, and what choosing among them takes.

    Attributes:
        cells: N detections.
        areas_px: int64 [N].
        overlaps: the pairs that share pixels, as `find_own_overlaps` gives them.
        at_border: bool [N], which touch the image's edge.
    """

    cells: CellInstances
    areas_px: IntArray
    overlaps: Overlaps
    at_border: NDArray[np.bool_]

    @classmethod
    def measure(cls, cells: CellInstances, thresholds: DetectionThresholds) -> Candidates:
        """Measure detections.

        Args:
            cells: with clean masks.
            thresholds: only what these look at is measured; no pairs and no cell at the border
                stand for the rest. `LOOKING_AT_EVERYTHING` is for those that are tried later.
        """
        across = bool(np.any(thresholds.exclusive))
        within = min(np.min(thresholds.mask_nms), np.min(thresholds.max_covered)) < 1
        overlaps = find_own_overlaps(
            cells if across or within else cells[:0], across_classes=across
        )
        at_border = np.zeros(len(cells), bool)
        if is_dropped_at_border(thresholds, cells.classes).any():
            at_border = touches_border(cells)
        return cls(cells, cells.areas_px, overlaps, at_border)


LOOKING_AT_EVERYTHING = DetectionThresholds(score=0, border="drop", exclusive=True)
"""Thresholds for which `Candidates.measure` leaves nothing out."""


def select_detections(
    candidates: Candidates, thresholds: DetectionThresholds
) -> tuple[IntArray, NewMasks]:
    """`finish_cells` of detections that are clean and measured already.

    Args:
        candidates: N detections; those below the score may be among them.
        thresholds: what a detection needs; the vote and the cleaning of masks are over.

    Returns:
        int64 [K], the ascending numbers of the detections chosen; and the masks of those of them
        that lost pixels to others.
    """
    return _settle(candidates, thresholds)


def _settle(
    candidates: Candidates, thresholds: DetectionThresholds, stages: IntArray | None = None
) -> tuple[IntArray, NewMasks]:
    """Score, area, overlaps, border, sharing out: what is chosen, and what masks change."""
    cells, areas_px, overlaps = candidates.cells, candidates.areas_px, candidates.overlaps
    is_open = None if stages is None else stages == Stage.OPEN
    is_done = None if stages is None else stages == Stage.DONE
    kept = passes_score(cells.scores, cells.classes, thresholds)
    kept &= passes_area(areas_px, cells.classes, thresholds)
    kept = suppress(cells, areas_px, overlaps, thresholds, kept, is_open)
    if thresholds.border != "keep":
        kept &= ~(candidates.at_border & is_dropped_at_border(thresholds, cells.classes))
    if not np.any(thresholds.exclusive):
        return np.flatnonzero(kept), {}
    kept, new = share_out_pixels(cells, overlaps, thresholds, kept, is_done)
    return np.flatnonzero(kept), new


def vote_over_image(cells: CellInstances, thresholds: DetectionThresholds) -> CellInstances:
    """The cells of one image with the class that they vote for; the same where there is no vote."""
    elected = vote_class(cells.scores, cells.classes, thresholds)
    return cells if elected is None else cells.replace(classes=np.full(len(cells), elected))


def vote_class(
    scores: NDArray[np.float32], classes: IntArray, thresholds: DetectionThresholds
) -> int | None:
    """The class of an image that holds one type of cells; None without a vote or voters.

    It is the class with the largest sum of scores, of equal ones the first. Detections that no
    class's score threshold lets pass do not vote, so it does not matter whether they were left out
    before.

    Args:
        scores, classes: of all detections of the image, [N].
        thresholds: `vote` and `score` are looked at.
    """
    voters = scores >= np.asarray(thresholds.lowest_score, scores.dtype)
    if thresholds.vote == "none" or not voters.any():
        return None
    return int(np.bincount(classes[voters], weights=scores[voters]).argmax())
