"""What speaks for a model being wrong about an image, without anybody having annotated it.

Three signs, each a share in [0, 1], measured on what the model finds:

- uncertainty: scores near the score threshold. The uncertainty sampling of active learning
  (Settles, Active Learning Literature Survey, 2009), with the entropy of a cell being one.
- disagreement: cells that are not found again in the mirrored image, or with other outlines. It is
  the query by committee of the same survey. The committee of Roy et al. (Deep active learning for
  object detection, BMVC 2018) are the layers of a detector; here it is views of the image, as the
  noisy copies of Kao et al. (Localization-aware active learning, ACCV 2018) are.
- odd sizes: more cells than chance gives that are smaller or larger than those of the training.

Where there is nothing to measure one on, it is NaN, which says neither yes nor no.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.matching import match_overlaps
from cellseg.cells.overlaps import find_overlaps
from cellseg.cells.thresholds import DetectionThresholds, passes_score, values_of_classes
from cellseg.cells.windows import Window
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

NEAR = (0.3, 0.7)
"""Between these odds, where 0.5 is the score threshold, a detection is called uncertain."""
SAME_CELL_IOU = 0.5
"""Cells of two views from this IoU on are one cell found twice."""
USUALLY_ODD = 0.1
"""The share of a model's training cells that lies outside the diameters that it says it knows."""
CONFIDENCE_Z = 1.645
"""Standard deviations that 95 % of a normal distribution lie below."""
NOT_KNOWN = math.nan


@dataclass(frozen=True)
class Doubts:
    """The signs in one image, or in one tile of it.

    Attributes:
        num_cells: detections that the score threshold lets pass.
        num_detections: these and those below it.
        num_uncertain: those of them that are near it (`NEAR`).
        num_odd: cells of an odd size.
        uncertainty: in [0, 1]; NaN where nothing was detected.
        disagreement: in [0, 1]; NaN where no view shows a cell, or only one was looked at.
        odd_sizes: in [0, 1], how far the share of cells of an odd size lies above the tenth that
            the training has too, see `surplus_of_odd`; NaN without cells, or where the model's
            config does not say what sizes it knows.
    """

    num_cells: int
    num_detections: int
    num_uncertain: int
    num_odd: int
    uncertainty: float
    disagreement: float
    odd_sizes: float


def odds_of_scores(
    scores: NDArray[Any], classes: NDArray[np.int64], thresholds: DetectionThresholds
) -> FloatArray:
    """Scores on a scale on which the score threshold of each class is 0.5, float64 [N].

    Linear below and above it: 0 stays 0, 1 stays 1. The threshold was chosen, by whoever trained
    or tuned the model, as where a detection is as likely a cell as none.

    Args:
        scores: [N], in [0, 1].
        classes: int64 [N], 0-based.
        thresholds: `score` is looked at.

    Example:
        >>> thresholds = DetectionThresholds(score=0.8)
        >>> odds_of_scores(np.array([0.4, 0.8, 0.9]), np.zeros(3, int), thresholds).tolist()
        [0.25, 0.5, 0.75]
    """
    limits = values_of_classes(thresholds.score, classes)
    scores = np.asarray(scores, np.float64)
    below = scores / np.where(limits > 0, 2 * limits, 1)
    above = 1 - (1 - scores) / np.where(limits < 1, 2 * (1 - limits), 1)
    return np.clip(np.where(scores < limits, below, above), 0, 1)


def entropy_of_odds(odds: FloatArray) -> FloatArray:
    """The entropy of yes or no, in bits: 1 at odds of 0.5, 0 at 0 and 1; float64 [N].

    Example:
        >>> entropy_of_odds(np.array([0.0, 0.5, 0.9])).round(3).tolist()
        [0.0, 1.0, 0.469]
    """
    inside = np.clip(odds, 1e-12, 1 - 1e-12)
    return -inside * np.log2(inside) - (1 - inside) * np.log2(1 - inside)


def agreement_of_views(
    cells: CellInstances, others: CellInstances
) -> tuple[FloatArray, FloatArray]:
    """How well each cell of either of two views is found in the other.

    Args:
        cells: N cells of one view.
        others: M cells of the other one, in the same frame.

    Returns:
        float64 [N] and [M], the IoU with the cell of the same class that it was matched with, 0
        where there is none. The mean of all N + M is 2 (sum of IoU) / (N + M), the panoptic quality
        (Kirillov et al., CVPR 2019) of one view by the other.
    """
    overlaps = find_overlaps(cells, others)
    same = cells.classes[overlaps.true_index] == others.classes[overlaps.pred_index]
    pairs = match_overlaps(overlaps.keep(same), SAME_CELL_IOU)
    of_cells, of_others = np.zeros(len(cells)), np.zeros(len(others))
    of_cells[pairs.true_index] = of_others[pairs.pred_index] = pairs.iou
    return of_cells, of_others


@dataclass(frozen=True)
class Known:
    """What a model is sure of, as far as its config says.

    Attributes:
        thresholds: which detections are cells.
        diameters_px: CELLSEG.TEST.KNOWN_DIAMETERS: lowest, median and highest diameter, as the
            network sees them, of the cells that the model was trained on, of which `USUALLY_ODD`
            lies outside; empty if unknown.
    """

    thresholds: DetectionThresholds
    diameters_px: Sequence[float] = ()

    def is_odd(self, cells: CellInstances, scale: float) -> NDArray[np.bool_]:
        """Which cells are smaller or larger than nearly all of the training, bool [N].

        Args:
            cells: in pixels of the image.
            scale: what the sides of the image are multiplied by before the network sees it.
        """
        if not self.diameters_px:
            return np.zeros(len(cells), bool)
        seen = cells.diameters_px * scale
        return (seen < self.diameters_px[0]) | (seen > self.diameters_px[-1])


def measure_doubts(
    detections: CellInstances,
    views: Sequence[CellInstances],
    known: Known,
    scale: float,
    core: Window | None = None,
) -> Doubts:
    """The signs in an image, or in a tile of one.

    Args:
        detections: in the image as it is, also those below the score threshold.
        views: the cells found in each further view of it, in the frame of the image.
        known: which detections are cells, and of what sizes.
        scale: what the sides of the image were multiplied by.
        core: the part that counts, with the cells whose boxes have their middle in it; by default
            all of it.
    """
    counted = lie_in(detections, core)
    is_cell = passes_score(detections.scores, detections.classes, known.thresholds)
    odds = odds_of_scores(detections.scores, detections.classes, known.thresholds)[counted]
    cells, is_inside = detections[is_cell], counted[is_cell]
    odd = known.is_odd(cells, scale)[is_inside]
    return Doubts(
        num_cells=len(odd),
        num_detections=len(odds),
        num_uncertain=int(((odds >= NEAR[0]) & (odds <= NEAR[1])).sum()),
        num_odd=int(odd.sum()),
        uncertainty=share_of(entropy_of_odds(odds), len(odds)),
        disagreement=_disagreement(cells, views, is_inside, core),
        odd_sizes=surplus_of_odd(int(odd.sum()), len(odd)) if known.diameters_px else NOT_KNOWN,
    )


def surplus_of_odd(num_odd: int, num_cells: int) -> float:
    """How far the share of cells of an odd size lies above `USUALLY_ODD`, as a part of the rest.

    Of few cells some are of an odd size by chance. Counted is the share that is exceeded with a
    confidence of 95 %, the lower end of Wilson's interval (J. Am. Stat. Assoc. 22, 1927).

    Args:
        num_odd: cells of an odd size.
        num_cells: all cells.

    Returns:
        In [0, 1); 0 where it may be chance; NaN without cells.

    Example:
        >>> round(surplus_of_odd(2, 10), 2), round(surplus_of_odd(20, 100), 2)
        (0.0, 0.05)
    """
    if not num_cells:
        return NOT_KNOWN
    share, part = num_odd / num_cells, CONFIDENCE_Z**2 / num_cells
    spread = math.sqrt(part * share * (1 - share) + part**2 / 4)
    sure = (share + part / 2 - spread) / (1 + part)
    return max(sure - USUALLY_ODD, 0.0) / (1 - USUALLY_ODD)


def _disagreement(
    cells: CellInstances,
    views: Sequence[CellInstances],
    is_inside: NDArray[np.bool_],
    core: Window | None,
) -> float:
    """1 less the mean agreement of all cells of all views."""
    agreement = [np.zeros(0)]
    for view in views:
        of_cells, of_view = agreement_of_views(cells, view)
        agreement += [of_cells[is_inside], of_view[lie_in(view, core)]]
    together = np.concatenate(agreement)
    return 1 - share_of(together, len(together))


def share_of(values: NDArray[Any], count: int) -> float:
    """The sum of values by a number, NaN where that is 0."""
    return float(values.sum() / count) if count else NOT_KNOWN


def lie_in(cells: CellInstances, core: Window | None) -> NDArray[np.bool_]:
    """Which cells have the middle of their box in a window, bool [N]; all where it is None."""
    if core is None:
        return np.ones(len(cells), bool)
    x, y = (cells.boxes_xyxy[:, :2] + cells.boxes_xyxy[:, 2:]).T / 2
    return (core.top <= y) & (y < core.bottom) & (core.left <= x) & (x < core.right)
