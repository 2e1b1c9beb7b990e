"""What metrics are computed from: numbers of one image, and ratios of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from cellseg.evaluation.comparison import Comparison
from cellseg.evaluation.metric_kinds import FloatArray, Value


def count_matches(image: Comparison, threshold: float) -> Sequence[float]:
    """(TP, FP, FN, IoU sum) with as many pairs as possible at IoU >= threshold."""
    return image.count(threshold)


def count_strict_matches(image: Comparison, threshold: float) -> Sequence[float]:
    """The same at IoU > threshold, as Kaggle wrote the rule."""
    return image.count(threshold, strict=True)


def count_greedy_matches(image: Comparison, threshold: float) -> Sequence[float]:
    """The same with predicted cells that choose in the order of their scores."""
    return image.count(threshold, greedy=True)


def count_difference(image: Comparison, _: float) -> Sequence[float]:
    """How far the numbers of true and predicted cells are apart."""
    return [abs(len(image.true) - len(image.pred))]


def share(part: Any, whole: Any, everything: Any) -> FloatArray:
    """part / whole of numbers of any shape; 1 where `everything` is 0, else 0 over nothing."""
    return np.where(everything == 0, 1.0, part / np.where(whole > 0, whole, 1))


def ratio_of_counts(part_and_whole: Callable[..., tuple[Any, Any]]) -> Value:
    """The value of a metric that is a ratio of (TP, FP, FN, IoU sum).

    Args:
        part_and_whole: (tp, fp, fn, iou) -> the ratio's part and whole.
    """

    def value(numbers: FloatArray) -> FloatArray:
        tp, fp, fn, iou = np.moveaxis(numbers, -1, 0)
        return share(*part_and_whole(tp, fp, fn, iou), tp + fp + fn)

    return value


def part_of_whole(numbers: FloatArray) -> FloatArray:
    """The value of a metric measured as (part, whole), or as (part, whole, everything)."""
    return share(numbers[..., 0], numbers[..., 1], numbers[..., -1])


def boundary_f1(numbers: FloatArray) -> FloatArray:
    """F1 from boundary pixels: true ones, of them found, predicted ones, of them right."""
    true, found, pred, right = np.moveaxis(numbers, -1, 0)
    recall, precision = found / np.maximum(true, 1), right / np.maximum(pred, 1)
    return share(2 * recall * precision, recall + precision, true + pred)


def column(number: int) -> Value:
    """The value of a metric that is one of several numbers."""
    return lambda numbers: numbers[..., number]
