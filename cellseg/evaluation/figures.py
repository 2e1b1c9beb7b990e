"""Every metric by its name: what it takes of one image, and how images make one figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cellseg.cells.matching import match_overlaps
from cellseg.evaluation import error_kinds, pixels
from cellseg.evaluation.comparison import Comparison
from cellseg.evaluation.greedy import match_greedily
from cellseg.evaluation.metrics import IOU_THRESHOLDS
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """A metric.

    Attributes:
        measure: (comparison, threshold) -> numbers of one image.
        combine: those of I images, [I, K] -> the figure.
        at_threshold: takes an IoU threshold ("f1@0.50"); without one in its name it is the mean
            over 0.50, 0.55, ..., 0.95.
    """

    measure: Callable[[Comparison, float], Sequence[float]]
    combine: Callable[[FloatArray], float]
    at_threshold: bool = True


def _counts(strict: bool = False, greedy: bool = False) -> Callable[[Comparison, float], Any]:
    """(TP, FP, FN, sum of the matches' IoU, true cells) of one image."""

    def measure(image: Comparison, threshold: float) -> tuple[float, ...]:
        if greedy:
            matching = match_greedily(image.overlaps, image.scores, threshold, strict=strict)
        else:
            matching = match_overlaps(image.overlaps, threshold, strict=strict)
        true, pred = image.overlaps.shape
        found = len(matching)
        return found, pred - found, true - found, float(matching.iou.sum()), true

    return measure


def _ratio(part: FloatArray, whole: FloatArray, nothing: FloatArray) -> FloatArray:
    """part / whole; 1 where there is no cell on either side, else 0 over nothing."""
    return np.where(nothing == 0, 1.0, part / np.where(whole > 0, whole, 1))


def _accuracy(rows: FloatArray) -> FloatArray:
    tp, fp, fn = rows.T[:3]
    return _ratio(tp, tp + fp + fn, tp + fp + fn)


def _precision(rows: FloatArray) -> FloatArray:
    tp, fp, fn = rows.T[:3]
    return _ratio(tp, tp + fp, tp + fp + fn)


def _recall(rows: FloatArray) -> FloatArray:
    tp, fp, fn = rows.T[:3]
    return _ratio(tp, tp + fn, tp + fp + fn)


def _f1(rows: FloatArray) -> FloatArray:
    tp, fp, fn = rows.T[:3]
    return _ratio(2 * tp, 2 * tp + fp + fn, tp + fp + fn)


def _matched_score(rows: FloatArray) -> FloatArray:
    tp, fp, fn, iou = rows.T[:4]
    return _ratio(iou, tp, tp + fp + fn)


def _true_score(rows: FloatArray) -> FloatArray:
    tp, fp, fn, iou, true = rows.T
    return _ratio(iou, true, tp + fp + fn)


def _panoptic(rows: FloatArray) -> FloatArray:
    tp, fp, fn, iou = rows.T[:4]
    return _ratio(2 * iou, 2 * tp + fp + fn, tp + fp + fn)


def _pooled(ratio: Callable[[FloatArray], FloatArray]) -> Callable[[FloatArray], float]:
    return lambda rows: float(ratio(rows.sum(axis=0, keepdims=True))[0])


def _by_image(ratio: Callable[[FloatArray], FloatArray]) -> Callable[[FloatArray], float]:
    return lambda rows: float(ratio(rows).mean()) if len(rows) else 1.0


def _column_sum(column: int) -> Callable[[FloatArray], float]:
    return lambda rows: float(rows[:, column].sum())


def _mean(rows: FloatArray) -> float:
    return float(rows.mean()) if rows.size else 1.0


def _foreground(image: Comparison, _: float) -> Sequence[float]:
    return image.foreground_px()


def _dice(rows: FloatArray) -> float:
    true, pred, both = rows.sum(axis=0)
    return float(2 * both / (true + pred)) if true + pred else 1.0


def _jaccard(rows: FloatArray) -> float:
    true, pred, both = rows.sum(axis=0)
    return float(both / (true + pred - both)) if true + pred else 1.0


def _boundary(rows: FloatArray) -> float:
    true, found, pred, right = rows.sum(axis=0)
    if true == 0 and pred == 0:
        return 1.0
    recall, precision = found / max(true, 1), right / max(pred, 1)
    return float(2 * recall * precision / (recall + precision)) if recall + precision else 0.0


def _seg(image: Comparison, _: float) -> Sequence[float]:
    scores = pixels.seg_scores(image)
    return float(scores.sum()), *image.overlaps.shape


def _seg_mean(rows: FloatArray) -> float:
    total, true, pred = rows.sum(axis=0)
    if true == 0:
        return float(pred == 0)
    return float(total / true)


def _kinds(image: Comparison, _: float) -> Sequence[float]:
    return list(error_kinds.classify_errors(image).counts.values())


# One object each: `score` keeps what a measure found.
_OPTIMAL, _GREEDY, _STRICT = _counts(), _counts(greedy=True), _counts(strict=True)

_RATIOS = {
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
    "accuracy": _accuracy,
    "pq": _panoptic,
    "rq": _f1,
    "sq": _matched_score,
    "mean_true_score": _true_score,
    "mean_matched_score": _matched_score,
}

FIGURES: dict[str, Figure] = {
    **{name: Figure(_OPTIMAL, _pooled(ratio)) for name, ratio in _RATIOS.items()},
    **{f"{name}_by_image": Figure(_OPTIMAL, _by_image(ratio)) for name, ratio in _RATIOS.items()},
    "ap_dsb": Figure(_OPTIMAL, _by_image(_accuracy)),
    "ap_cellpose": Figure(_OPTIMAL, _by_image(_accuracy)),
    "ap_dsb_greedy": Figure(_GREEDY, _by_image(_accuracy)),
    "f1_greedy": Figure(_GREEDY, _pooled(_f1)),
    "score_dsb2018": Figure(_STRICT, _by_image(_accuracy)),
    "score_sartorius": Figure(_STRICT, _by_image(_accuracy)),
    "tp": Figure(_OPTIMAL, _column_sum(0)),
    "fp": Figure(_OPTIMAL, _column_sum(1)),
    "fn": Figure(_OPTIMAL, _column_sum(2)),
    "aji": Figure(lambda image, _: [pixels.aggregated_jaccard(image)], _mean, False),
    "aji_plus": Figure(lambda image, _: [pixels.aggregated_jaccard_plus(image)], _mean, False),
    "dice_foreground": Figure(_foreground, _dice, False),
    "jaccard_foreground": Figure(_foreground, _jaccard, False),
    "seg_ctc": Figure(_seg, _seg_mean, False),
    "boundary_f1": Figure(lambda image, _: pixels.boundary_counts(image), _boundary, False),
    "count_error": Figure(
        lambda image, _: [abs(image.overlaps.shape[0] - image.overlaps.shape[1])],
        lambda rows: float(rows.mean()) if rows.size else 0.0,
        False,
    ),
    **{
        f"errors_{kind}": Figure(_kinds, _column_sum(column), False)
        for column, kind in enumerate(error_kinds.KINDS)
    },
}
"""All figures but COCO's by name; a plug-in may add its own."""

THRESHOLDS = IOU_THRESHOLDS
