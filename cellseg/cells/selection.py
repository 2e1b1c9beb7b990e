"""Which detections are cells, and of which type: thresholds per class, the vote over an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray
from cellseg.cells.overlaps import Overlaps, find_overlaps
from cellseg.errors import ConfigError
from cellseg.rules import number
from numpy.typing import NDArray

if TYPE_CHECKING:
    from detectron2.config import CfgNode

PerClass: TypeAlias = "float | Sequence[float]"

# Field -> its key below CELLSEG.TEST, what messages call it, and what it may be.
_SHARE = number(0, 1)
_POSITIVE_SHARE = number(above=0, high=1).said("above 0 and at most 1")
_RULES = {
    "score": ("SCORE_THRESHOLD", "score threshold", _SHARE),
    "mask": ("MASK_THRESHOLD", "mask threshold", _POSITIVE_SHARE),
    "mask_nms": ("MASK_NMS", "mask NMS", _SHARE.remark("1: off")),
    "max_covered": ("MAX_COVERED", "highest covered share", _SHARE.remark("1: off")),
    "min_area_px": ("MIN_AREA", "minimum area", number(0).said("0 (off) or more pixels")),
}
TEST_KEYS = tuple(key for key, _, _ in _RULES.values())
"""Keys below `CELLSEG.TEST` that hold one number, or a list with one number per class."""

_ROUNDING = 1e-6  # pixels; a share times an area is seldom a whole number

VOTES = ("none", "image")
"""What CELLSEG.CELL_TYPE.VOTE may be."""


@dataclass(frozen=True)
class DetectionThresholds:
    """What a detection needs to be a cell; each a number, or one number per class.

    Attributes:
        score: in [0, 1]; the score reaches it.
        mask: in (0, 1]; a pixel belongs to the cell where the soft mask reaches it. It acts where
            masks are cut, not in `select_cells`.
        mask_nms: in [0, 1]; of two detections of one class whose masks have an IoU above it the
            one with the lower score is none. 1 is off.
        max_covered: in [0, 1]; a detection of which a larger share lies in cells of its class with
            a higher score is none: a piece of one that NMS, which looks at the IoU, would keep.
            Pixels in two of them count twice. 1 is off.
        min_area_px: the mask has as many pixels.
        vote: "image": first of all, every detection gets the class of `vote_class`; "none".

    Raises:
        ConfigError: a value is no number, or out of range.
    """

    score: PerClass = 0.5
    mask: PerClass = 0.5
    mask_nms: PerClass = 1.0
    min_area_px: PerClass = 0.0
    max_covered: PerClass = 1.0
    vote: str = "none"

    def __post_init__(self) -> None:
        for name in _RULES:
            object.__setattr__(self, name, _check_threshold(name, getattr(self, name)))
        if self.vote not in VOTES:
            raise ConfigError(
                f"the vote is {self.vote!r}; expected one of {', '.join(VOTES)} "
                "(CELLSEG.CELL_TYPE.VOTE)"
            )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> DetectionThresholds:
        """`CELLSEG.TEST` and the vote; a list needs one number per class of the model.

        Raises:
            ConfigError: names the key, what was found and what was expected.
        """
        numbers = {name: cfg.CELLSEG.TEST[key] for name, (key, _, _) in _RULES.items()}
        thresholds = cls(**numbers, vote=cfg.CELLSEG.CELL_TYPE.VOTE)
        thresholds.check_classes(cfg.MODEL.ROI_HEADS.NUM_CLASSES)
        return thresholds

    def check_classes(self, num_classes: int) -> None:
        """Check that lists have one number per class.

        Raises:
            ConfigError: one has not.
        """
        for name, (key, _, _) in _RULES.items():
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != num_classes:
                raise ConfigError(
                    f"CELLSEG.TEST.{key} is {list(value)}, {len(value)} numbers; expected one "
                    f"number, or one for each of the {num_classes} classes"
                )

    @property
    def lowest_score(self) -> float:
        """The lowest score threshold of all classes: no detection below it becomes a cell."""
        return float(np.min(self.score))

    def describe(self) -> str:
        """In words, for a log: `score >= 0.5`, and what else is not off; `mask` is left out."""
        words = [f"score >= {_join_numbers(self.score)}"]
        if np.min(self.mask_nms) < 1:
            words.append(f"mask NMS {_join_numbers(self.mask_nms)}")
        if np.min(self.max_covered) < 1:
            words.append(f"covered <= {_join_numbers(self.max_covered)}")
        if np.max(self.min_area_px) > 0:
            words.append(f"area >= {_join_numbers(self.min_area_px)} px")
        if self.vote == "image":
            words.append("type by vote over the image")
        return ", ".join(words)


def _join_numbers(value: PerClass) -> str:
    return "/".join(f"{number:g}" for number in np.atleast_1d(value))


def _check_threshold(name: str, value: Any) -> float | tuple[float, ...]:
    key, words, rule = _RULES[name]
    several = isinstance(value, (list, tuple, np.ndarray))
    numbers = list(value) if several else [value]
    if not numbers or not all(map(rule.accepts, numbers)):
        raise ConfigError(
            f"{words} is {value}; expected {rule.expected}, as one number or a list with one per "
            f"class (CELLSEG.TEST.{key})"
        )
    return tuple(map(float, numbers)) if several else float(value)


def values_of_classes(value: PerClass, classes: IntArray) -> NDArray[np.float64]:
    """The number that holds for each detection, float64 [N].

    Args:
        value: one number, or one per class.
        classes: int64 [N], 0-based.

    Raises:
        ConfigError: a class has no number.
    """
    if not isinstance(value, Sequence):
        return np.full(len(classes), float(value))
    highest = int(classes.max(initial=-1))
    if highest >= len(value):
        raise ConfigError(
            f"a detection is of class {highest} (0-based), but {list(value)} has "
            f"{len(value)} numbers; expected one per class"
        )
    return np.asarray(value, np.float64)[classes]


def select_cells(cells: CellInstances, thresholds: DetectionThresholds) -> CellInstances:
    """Keep the detections that are cells.

    In this order: vote, score, minimum area, overlaps (NMS of masks, covered share). Detections
    below score and area suppress nothing. The order of `cells` is kept.

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
    cells = vote_over_image(cells, thresholds)
    return cells[choose_cells(cells, thresholds)]


def choose_cells(cells: CellInstances, thresholds: DetectionThresholds) -> IntArray:
    """`select_cells` after the vote, as the ascending numbers of the cells chosen, int64 [K]."""
    scored = np.flatnonzero(passes_score(cells.scores, cells.classes, thresholds))
    found = cells[scored]
    areas_px = found.areas_px
    if min(np.min(thresholds.mask_nms), np.min(thresholds.max_covered)) == 1:
        return scored[areas_px >= values_of_classes(thresholds.min_area_px, found.classes)]
    overlaps = find_own_overlaps(found)
    return scored[select_detections(found, areas_px, overlaps, thresholds)]


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


def passes_score(
    scores: NDArray[np.float32], classes: IntArray, thresholds: DetectionThresholds
) -> NDArray[np.bool_]:
    """Which scores reach the threshold of their class, bool [N]; compared as float32."""
    lowest = values_of_classes(thresholds.score, classes).astype(scores.dtype)
    return np.asarray(scores >= lowest)


def find_own_overlaps(cells: CellInstances, *, across_classes: bool = False) -> Overlaps:
    """Pairs of detections of one image that share pixels, each pair once.

    The detection of the higher score (of equal ones that of the lower number) is `true_index`,
    which is not ascending here.

    Args:
        cells: the detections.
        across_classes: find pairs of different classes too; otherwise those of one class only.
    """
    by_score = np.argsort(-cells.scores, kind="stable")
    found = [np.zeros((0, 2), np.int64)]
    ious, shared = [np.zeros(0)], [np.zeros(0, np.int64)]
    groups = np.zeros(len(cells), np.int64) if across_classes else cells.classes
    for group in np.unique(groups):
        members = by_score[groups[by_score] == group]
        together = cells[members]
        pairs = find_overlaps(together, together)
        once = pairs.true_index < pairs.pred_index
        found.append(members[np.stack([pairs.true_index, pairs.pred_index], axis=1)[once]])
        ious.append(pairs.iou[once])
        shared.append(pairs.intersection_px[once])
    better, worse = np.concatenate(found).T
    shape = (len(cells), len(cells))
    return Overlaps(shape, better, worse, np.concatenate(shared), np.concatenate(ious))


def select_detections(
    cells: CellInstances, areas_px: IntArray, overlaps: Overlaps, thresholds: DetectionThresholds
) -> IntArray:
    """`choose_cells` where areas and overlaps are known already.

    Args:
        cells: N detections; their masks are not looked at.
        areas_px: int64 [N], their areas.
        overlaps: pairs of detections of one class, as `find_own_overlaps` gives them.
        thresholds: what a detection needs; the vote is over.

    Returns:
        int64 [K], the ascending numbers of the detections chosen.
    """
    kept = passes_score(cells.scores, cells.classes, thresholds)
    kept &= areas_px >= values_of_classes(thresholds.min_area_px, cells.classes)
    limits = values_of_classes(thresholds.mask_nms, cells.classes)
    shares = values_of_classes(thresholds.max_covered, cells.classes)
    left_px = np.where(shares < 1, shares * areas_px, np.inf)
    better, worse = overlaps.true_index, overlaps.pred_index
    suppressed = overlaps.iou > limits[better]
    rivals = np.flatnonzero(kept[better] & kept[worse] & (suppressed | (shares[worse] < 1)))
    # By descending score of the better one: whether it stays is settled when its turn comes.
    rivals = rivals[np.lexsort((better[rivals], -cells.scores[better[rivals]]))]
    columns = (better, worse, suppressed, overlaps.intersection_px)
    for winner, loser, at_once, shared_px in zip(*(each[rivals].tolist() for each in columns)):
        if kept[winner]:
            left_px[loser] -= shared_px
            if at_once or left_px[loser] < -_ROUNDING:
                kept[loser] = False
    return np.flatnonzero(kept)
