"""What a detection needs to be a cell: thresholds for all classes, or one per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from cellseg.cells.run_lengths import IntArray
from cellseg.errors import ConfigError
from cellseg.rules import FLAG, Rule, choice, number
from numpy.typing import NDArray

if TYPE_CHECKING:
    from detectron2.config import CfgNode

PerClass: TypeAlias = "float | Sequence[float]"
PerClassFlag: TypeAlias = "bool | Sequence[bool]"
PerClassWord: TypeAlias = "str | Sequence[str]"


class _Field(NamedTuple):
    """The key of a field below CELLSEG.TEST, what messages call it, and what it may be."""

    key: str
    words: str
    rule: Rule
    kind: type
    noun: str = "number"


_SHARE = number(0, 1)
_POSITIVE_SHARE = number(above=0, high=1).said("above 0 and at most 1")
_AREA = number(0).said("0 (off) or more pixels")
_FIELDS = {
    "score": _Field("SCORE_THRESHOLD", "score threshold", _SHARE, float),
    "mask": _Field("MASK_THRESHOLD", "mask threshold", _POSITIVE_SHARE, float),
    "largest_component": _Field("LARGEST_COMPONENT", "largest component", FLAG, bool, "flag"),
    "fill_holes": _Field("FILL_HOLES", "filling of holes", FLAG, bool, "flag"),
    "min_area_px": _Field("MIN_AREA", "minimum area", _AREA, float),
    "max_area_px": _Field("MAX_AREA", "maximum area", _AREA, float),
    "mask_nms": _Field("MASK_NMS", "mask NMS", _SHARE.remark("1: off"), float),
    "max_covered": _Field("MAX_COVERED", "highest covered share", _SHARE.remark("1: off"), float),
    "border": _Field("BORDER", "rule for border cells", choice("keep", "drop"), str, "word"),
    "exclusive": _Field("EXCLUSIVE", "one cell per pixel", FLAG, bool, "flag"),
}
TEST_KEYS = tuple(field.key for field in _FIELDS.values())
"""Keys below `CELLSEG.TEST` that hold one value, or a list with one per class, in their order."""

ENGINE_SCORE = 0.05
"""What MODEL.ROI_HEADS.SCORE_THRESH_TEST is where nobody sets it: a floor that gives way."""

VOTES = ("none", "image")
"""What CELLSEG.CELL_TYPE.VOTE may be."""


@dataclass(frozen=True)
class DetectionThresholds:
    """What a detection needs to be a cell; each one value, or one per class.

    `cellseg.cells.selection` says in which order they act.

    Attributes:
        score: in [0, 1]; the score reaches it.
        mask: in (0, 1]; a pixel belongs to the cell where the soft mask reaches it. It acts where
            masks are cut, not in `select_cells`.
        mask_nms: in [0, 1]; of two detections of one class whose masks have an IoU above it the
            one with the lower score is none. 1 is off.
        min_area_px: the mask has as many pixels.
        max_covered: in [0, 1]; a detection of which a larger share lies in cells of its class with
            a higher score is none: a piece of one that NMS, which looks at the IoU, would keep.
            Pixels in two of them count twice. 1 is off.
        vote: "image": first of all, every detection gets the class of `vote_class`; "none".
        largest_component: of a mask in several pieces the largest one is kept, of equally large
            ones that with the first pixel (row by row). Pixels that touch at a corner are of one
            piece.
        fill_holes: background that the mask encloses becomes part of it; a way out between two
            pixels that touch at a corner is none.
        max_area_px: the mask has at most as many pixels. 0 is off.
        border: "drop": a detection that has a pixel in the first or last row or column of the
            image is none; "keep".
        exclusive: a pixel belongs to one cell, among all classes for which this is True: to the
            one with the higher score, of equal ones to that of the lower number. A cell of which
            fewer pixels than `min_area_px`, or none, are left is none, and takes none away.

    Raises:
        ConfigError: a value is of another kind, or out of range.
    """

    score: PerClass = 0.5
    mask: PerClass = 0.5
    mask_nms: PerClass = 1.0
    min_area_px: PerClass = 0.0
    max_covered: PerClass = 1.0
    vote: str = "none"
    largest_component: PerClassFlag = False
    fill_holes: PerClassFlag = False
    max_area_px: PerClass = 0.0
    border: PerClassWord = "keep"
    exclusive: PerClassFlag = False

    def __post_init__(self) -> None:
        for name in _FIELDS:
            object.__setattr__(self, name, _check_value(name, getattr(self, name)))
        if not isinstance(self.vote, str) or self.vote not in VOTES:
            raise ConfigError(
                f"the vote is {self.vote!r}; expected one of {', '.join(VOTES)} "
                "(CELLSEG.CELL_TYPE.VOTE)"
            )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> DetectionThresholds:
        """`CELLSEG.TEST` and the vote; a list needs one value per class of the model.

        MODEL.ROI_HEADS.SCORE_THRESH_TEST, set higher than its default of 0.05, is a score threshold
        too, as whoever comes from Detectron2 means it: of the two the higher one counts. Up to
        0.05 it is a floor that gives way to a lower SCORE_THRESHOLD.

        Raises:
            ConfigError: names the key, what was found and what was expected.
        """
        values = {name: cfg.CELLSEG.TEST[field.key] for name, field in _FIELDS.items()}
        thresholds = cls(**values, vote=cfg.CELLSEG.CELL_TYPE.VOTE)
        engine = float(cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST)
        if engine > max(ENGINE_SCORE, thresholds.lowest_score):
            highest = np.maximum(thresholds.score, engine)
            thresholds = replace(thresholds, score=highest.tolist())
        thresholds.check_classes(cfg.MODEL.ROI_HEADS.NUM_CLASSES)
        return thresholds

    def check_classes(self, num_classes: int) -> None:
        """Check that lists have one value per class, and that some area can be in range.

        Raises:
            ConfigError: one has not, or a class has a maximum area below its minimum.
        """
        for name, field in _FIELDS.items():
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != num_classes:
                raise ConfigError(
                    f"CELLSEG.TEST.{field.key} is {list(value)}, {len(value)} {field.noun}s; "
                    f"expected one {field.noun}, or one for each of the {num_classes} classes"
                )
        least = np.broadcast_to(self.min_area_px, num_classes)
        most = np.broadcast_to(self.max_area_px, num_classes)
        for k in np.flatnonzero((most > 0) & (most < least)).tolist():
            raise ConfigError(
                f"CELLSEG.TEST.MAX_AREA is {most[k]:g} for class {k} (0-based), below "
                f"its MIN_AREA, {least[k]:g}; expected 0 (off) or at least as much"
            )

    @property
    def lowest_score(self) -> float:
        """The lowest score threshold of all classes: no detection below it becomes a cell."""
        return float(np.min(self.score))

    def describe(self) -> str:
        """In words, for a log: `score >= 0.5`, and what else is not off; `mask` is left out."""
        words = [f"score >= {_join(self.score)}"]
        if np.any(self.largest_component):
            words.append(f"largest component {_join(self.largest_component)}")
        if np.any(self.fill_holes):
            words.append(f"holes filled {_join(self.fill_holes)}")
        if np.max(self.min_area_px) > 0:
            words.append(f"area >= {_join(self.min_area_px)} px")
        if np.max(self.max_area_px) > 0:
            words.append(f"area <= {_join(self.max_area_px)} px")
        if np.min(self.mask_nms) < 1:
            words.append(f"mask NMS {_join(self.mask_nms)}")
        if np.min(self.max_covered) < 1:
            words.append(f"covered <= {_join(self.max_covered)}")
        if "drop" in np.atleast_1d(self.border):
            words.append(f"border {_join(self.border)}")
        if np.any(self.exclusive):
            words.append(f"one cell per pixel {_join(self.exclusive)}")
        if self.vote == "image":
            words.append("type by vote over the image")
        return ", ".join(words)


def _join(value: Any) -> str:
    """`0.4/0.65` of numbers, `yes/no` of flags, `keep/drop` of words."""
    return "/".join(map(_in_words, value if isinstance(value, tuple) else [value]))


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else f"{value:g}"


def _check_value(name: str, value: Any) -> Any:
    """The value as one of the field's kind, or as a tuple of them."""
    field = _FIELDS[name]
    several = isinstance(value, (list, tuple, np.ndarray))
    values = np.asarray(value).tolist() if isinstance(value, np.ndarray) else value
    items = list(values) if several else [values]
    if not items or not all(map(field.rule.accepts, items)):
        raise ConfigError(
            f"{field.words} is {value}; expected {field.rule.expected}, as one {field.noun} or a "
            f"list with one per class (CELLSEG.TEST.{field.key})"
        )
    return tuple(map(field.kind, items)) if several else field.kind(value)


def values_of_classes(value: PerClass | PerClassFlag, classes: IntArray) -> NDArray[np.float64]:
    """The number that holds for each detection, float64 [N]; 1 and 0 for flags.

    Args:
        value: one number or flag, or one per class.
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


def flags_of_classes(value: PerClassFlag, classes: IntArray) -> NDArray[np.bool_]:
    """The flag that holds for each detection, bool [N]; see `values_of_classes`."""
    return values_of_classes(value, classes) > 0


def is_dropped_at_border(thresholds: DetectionThresholds, classes: IntArray) -> NDArray[np.bool_]:
    """Which detections are no cells if they touch the image's edge, bool [N]."""
    border = thresholds.border
    drops = border == "drop" if isinstance(border, str) else [word == "drop" for word in border]
    return flags_of_classes(drops, classes)


def passes_score(
    scores: NDArray[np.float32], classes: IntArray, thresholds: DetectionThresholds
) -> NDArray[np.bool_]:
    """Which scores reach the threshold of their class, bool [N]; compared as float32."""
    lowest = values_of_classes(thresholds.score, classes).astype(scores.dtype)
    return np.asarray(scores >= lowest)


def passes_area(
    areas_px: IntArray, classes: IntArray, thresholds: DetectionThresholds
) -> NDArray[np.bool_]:
    """Which areas lie in the range of their class, bool [N]."""
    passing = np.asarray(areas_px >= values_of_classes(thresholds.min_area_px, classes))
    if thresholds.max_area_px != 0:  # trials of thresholds come here thousands of times
        most = values_of_classes(thresholds.max_area_px, classes)
        passing &= (areas_px <= most) | (most == 0)
    return passing
