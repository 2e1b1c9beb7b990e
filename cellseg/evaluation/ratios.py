"""What metrics are computed from: counts of one image, and ratios of such counts.

Counts are (TP, FP, FN, sum of the pairs' IoU) of an image or of many, float64 [..., 4]; a ratio has
a value for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cellseg.evaluation.comparison import Comparison
from cellseg.evaluation.metric_kinds import FloatArray, Value


def count_matches(image: Comparison, threshold: float) -> Sequence[float]:
    """As many pairs as possible at IoU >= threshold and, among those, the most IoU."""
    return image.count(threshold)


def count_strict_matches(image: Comparison, threshold: float) -> Sequence[float]:
    """The same at IoU > threshold, as Kaggle wrote the rule."""
    return image.count(threshold, strict=True)


def count_greedy_matches(image: Comparison, threshold: float) -> Sequence[float]:
    """Predicted cells choose in the order of their scores."""
    return image.count(threshold, greedy=True)


def difference(image: Comparison, _: float) -> Sequence[float]:
    """Of the numbers of true and predicted cells."""
    return [abs(len(image.true) - len(image.pred))]


def share(part: Any, whole: Any, everything: Any = None) -> FloatArray:
    """part / whole; 1 where there is nothing at all, else 0 over nothing.

    Args:
        part: the part of the whole, numbers of any shape.
        whole: what it is a share of.
        everything: 0 where there is nothing at all; by default the whole.
    """
    everything = whole if everything is None else everything
    return np.where(everything == 0, 1.0, part / np.where(whole > 0, whole, 1))


def accuracy(numbers: FloatArray) -> FloatArray:
    """TP / (TP + FP + FN)."""
    tp, fp, fn, _ = np.moveaxis(numbers, -1, 0)
    return share(tp, tp + fp + fn)


def precision(numbers: FloatArray) -> FloatArray:
    """TP / (TP + FP)."""
    tp, fp, fn, _ = np.moveaxis(numbers, -1, 0)
    return share(tp, tp + fp, tp + fp + fn)


def recall(numbers: FloatArray) -> FloatArray:
    """TP / (TP + FN)."""
    tp, fp, fn, _ = np.moveaxis(numbers, -1, 0)
    return share(tp, tp + fn, tp + fp + fn)


def f1(numbers: FloatArray) -> FloatArray:
    """2 TP / (2 TP + FP + FN)."""
    tp, fp, fn, _ = np.moveaxis(numbers, -1, 0)
    return share(2 * tp, 2 * tp + fp + fn)


def mean_matched_score(numbers: FloatArray) -> FloatArray:
    """Sum of the pairs' IoU / TP."""
    tp, fp, fn, iou = np.moveaxis(numbers, -1, 0)
    return share(iou, tp, tp + fp + fn)


def mean_true_score(numbers: FloatArray) -> FloatArray:
    """Sum of the pairs' IoU / (TP + FN)."""
    tp, fp, fn, iou = np.moveaxis(numbers, -1, 0)
    return share(iou, tp + fn, tp + fp + fn)


def panoptic_quality(numbers: FloatArray) -> FloatArray:
    """Sum of the pairs' IoU / (TP + FP / 2 + FN / 2)."""
    tp, fp, fn, iou = np.moveaxis(numbers, -1, 0)
    return share(2 * iou, 2 * tp + fp + fn)


def column(number: int) -> Value:
    """The value of a metric that is one of several numbers."""
    return lambda numbers: numbers[..., number]


def part_of_whole(numbers: FloatArray) -> FloatArray:
    """The value of a metric that is measured as (part, whole)."""
    return share(numbers[..., 0], numbers[..., 1])


def dice(numbers: FloatArray) -> FloatArray:
    """Dice from (true, predicted, common pixels)."""
    true, pred, both = np.moveaxis(numbers, -1, 0)
    return share(2 * both, true + pred)


def jaccard(numbers: FloatArray) -> FloatArray:
    """Jaccard index from (true, predicted, common pixels)."""
    true, pred, both = np.moveaxis(numbers, -1, 0)
    return share(both, true + pred - both)


def boundary_f1(numbers: FloatArray) -> FloatArray:
    """F1 of boundary pixels: true ones, of them found, predicted ones, of them right."""
    true, found, pred, right = np.moveaxis(numbers, -1, 0)
    recall, precision = found / np.maximum(true, 1), right / np.maximum(pred, 1)
    return share(2 * recall * precision, recall + precision, true + pred)


def seg(numbers: FloatArray) -> FloatArray:
    """Mean over true cells from (sum, true cells, predicted cells)."""
    total, true, pred = np.moveaxis(numbers, -1, 0)
    return share(total, true, true + pred)
