"""Figures from counts of matches: pure numbers, in 0 to 1, never NaN.

Definitions, with TP, FP, FN from one-to-one matching at IoU >= t (`matching.match_cells`):

| figure | at each t | taken over |
| --- | --- | --- |
| ap_dsb | TP / (TP + FP + FN) | the mean over images of each image's value |
| precision, recall, f1 | TP / (TP + FP), TP / (TP + FN), 2 TP / (2 TP + FP + FN) | pooled counts |
| mean_iou | sum of the matches' IoU / TP | pooled |
| pq | sum of the matches' IoU / (TP + FP / 2 + FN / 2) = mean_iou x f1 | pooled |

`ap_dsb` is the score of the 2018 Data Science Bowl (Caicedo et al., Nature Methods 2019), called
"accuracy" by StarDist and "average precision" by Cellpose. Kaggle asked for IoU > t where those
two and this module ask for IoU >= t: the scores differ for exact ties only. No detection score
enters, so it does not compare with COCO's AP. Panoptic quality is that of Kirillov et al., CVPR
2019. Pooled means that counts are summed over all images first, as StarDist does by default.

Empty cases: nothing to find and nothing found (TP = FP = FN = 0) scores 1 in every figure, per
image in `ap_dsb` and per data set in the pooled ones (the definitions leave it open: StarDist says
0, Cellpose divides by 0). In any other case a ratio over nothing is 0: precision without
predictions, recall without true cells, mean_iou without matches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.matching import match_overlaps
from cellseg.cells.overlaps import Overlaps, find_overlaps
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

IOU_THRESHOLDS: tuple[float, ...] = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


@dataclass(frozen=True)
class MatchCounts:
    """Outcome of matching at T thresholds, for any arrangement of images and classes in front.

    Attributes:
        tp, fp, fn: int64[..., T], matched pairs, predicted and true cells left over.
        iou_sum: float64[..., T], summed IoU of the matched pairs.
    """

    tp: NDArray[np.int64]
    fp: NDArray[np.int64]
    fn: NDArray[np.int64]
    iou_sum: FloatArray

    def _apply(self, function: Callable[[NDArray[Any]], NDArray[Any]]) -> MatchCounts:
        return MatchCounts(*(function(getattr(self, field.name)) for field in fields(self)))

    def __getitem__(self, index: Any) -> MatchCounts:
        """NumPy indexing of all four arrays at once."""
        return self._apply(lambda values: values[index])

    def sum(self, axis: int) -> MatchCounts:
        """Pool over one of the axes in front of the thresholds."""
        return self._apply(lambda values: values.sum(axis=axis))

    @classmethod
    def stack(cls, counts: Sequence[MatchCounts]) -> MatchCounts:
        """Put equally shaped counts, at least one, along a new first axis."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.stack([getattr(one, name) for one in counts]) for name in names))


def count_matches(
    true: CellInstances,
    pred: CellInstances,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
    *,
    crowd: CellInstances | None = None,
) -> MatchCounts:
    """Match the cells of one image at each threshold and count; classes play no part.

    Args:
        true, pred: cells of the same image.
        thresholds: T values in (0, 1].
        crowd: regions of uncounted cells. They are not true cells, and a predicted cell that is
            left over is forgotten when at least the fraction t of it lies in one of them, as in
            COCO's evaluation.

    Returns:
        Arrays of shape [T].
    """
    overlaps = find_overlaps(true, pred)
    covered = np.zeros(len(pred)) if crowd is None else largest_cover(crowd, pred)
    tp, fp, iou_sum = zip(*(_count_at(overlaps, covered, t) for t in thresholds))
    return MatchCounts(np.array(tp), np.array(fp), len(true) - np.array(tp), np.array(iou_sum))


def _count_at(overlaps: Overlaps, covered: FloatArray, threshold: float) -> tuple[int, int, float]:
    matching = match_overlaps(overlaps, threshold)
    left_over = covered < threshold
    left_over[matching.pred_index] = False
    return len(matching), int(left_over.sum()), float(matching.iou.sum())


def count_matches_by_class(
    true: CellInstances,
    pred: CellInstances,
    num_classes: int,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
    *,
    crowd: CellInstances | None = None,
) -> MatchCounts:
    """`count_matches` within each class: a cell of another class is no match.

    Returns:
        Arrays of shape [num_classes, T]. Cells of classes beyond are not counted.
    """
    crowd = CellInstances.empty(true.image_hw) if crowd is None else crowd
    by_class = [
        [cells[cells.classes == k] for cells in (true, pred, crowd)] for k in range(num_classes)
    ]
    return MatchCounts.stack([count_matches(t, p, thresholds, crowd=c) for t, p, c in by_class])


def largest_cover(crowd: CellInstances, pred: CellInstances) -> FloatArray:
    """Largest fraction of each predicted cell that lies in one crowd region, float64[M]."""
    overlaps = find_overlaps(crowd, pred)
    fraction = overlaps.intersection_px / pred.areas_px[overlaps.pred_index]
    covered = np.zeros(len(pred))
    np.maximum.at(covered, overlaps.pred_index, fraction)
    return covered


def _ratio(part: NDArray[Any], whole: NDArray[Any], counts: MatchCounts) -> FloatArray:
    """part / whole; 1 where there is nothing to find and nothing found, else 0 over nothing."""
    nothing = counts.tp + counts.fp + counts.fn == 0
    return np.where(nothing, 1.0, part / np.maximum(whole, 1))


def image_accuracy(counts: MatchCounts) -> FloatArray:
    """TP / (TP + FP + FN), elementwise."""
    return _ratio(counts.tp, counts.tp + counts.fp + counts.fn, counts)


def precision(counts: MatchCounts) -> FloatArray:
    """TP / (TP + FP), elementwise."""
    return _ratio(counts.tp, counts.tp + counts.fp, counts)


def recall(counts: MatchCounts) -> FloatArray:
    """TP / (TP + FN), elementwise."""
    return _ratio(counts.tp, counts.tp + counts.fn, counts)


def f1(counts: MatchCounts) -> FloatArray:
    """2 TP / (2 TP + FP + FN), elementwise."""
    return _ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn, counts)


def mean_iou(counts: MatchCounts) -> FloatArray:
    """Mean IoU of the matched pairs, elementwise."""
    return _ratio(counts.iou_sum, counts.tp, counts)


def panoptic_quality(counts: MatchCounts) -> FloatArray:
    """Sum of matched IoU / (TP + FP / 2 + FN / 2), elementwise."""
    return _ratio(2 * counts.iou_sum, 2 * counts.tp + counts.fp + counts.fn, counts)


def ap_dsb(counts: MatchCounts) -> FloatArray:
    """Mean over images (first axis, [I, T]) of TP / (TP + FP + FN); 1 without images."""
    if len(counts.tp) == 0:
        return np.ones(counts.tp.shape[1:])
    return image_accuracy(counts).mean(axis=0)


POOLED_FIGURES: dict[str, Callable[[MatchCounts], FloatArray]] = {
    "precision": precision,
    "recall": recall,
    "f1": f1,
    "pq": panoptic_quality,
    "mean_iou": mean_iou,
}
"""Figures of the pooled counts by name; a plug-in may add a function of its own."""


def summarize_counts(
    counts: MatchCounts, thresholds: Sequence[float] = IOU_THRESHOLDS, *, suffix: str = ""
) -> dict[str, float]:
    """All figures of a set of images by name.

    Args:
        counts: shape [I, T], one row per image; I may be 0.
        thresholds: the T thresholds.
        suffix: put behind every name.

    Returns:
        "ap_dsb" (mean over the thresholds) and, for every threshold, "ap_dsb@0.50", the
        `POOLED_FIGURES` and the pooled counts "tp@0.50", "fp@0.50", "fn@0.50". All but the counts
        lie in 0 to 1.
    """
    pooled = counts.sum(axis=0)
    columns: dict[str, NDArray[Any]] = {"ap_dsb": ap_dsb(counts)}
    columns |= {name: figure(pooled) for name, figure in POOLED_FIGURES.items()}
    columns |= {"tp": pooled.tp, "fp": pooled.fp, "fn": pooled.fn}
    figures = {f"ap_dsb{suffix}": float(columns["ap_dsb"].mean())}
    for name, values in columns.items():
        for threshold, value in zip(thresholds, values):
            figures[figure_name(name, threshold) + suffix] = float(value)
    return figures


def figure_name(name: str, threshold: float) -> str:
    """ "f1", 0.5 -> "f1@0.50"."""
    return f"{name}@{threshold:.2f}"


def present_images(counts: MatchCounts) -> NDArray[np.bool_]:
    """bool[I]: images of counts [I, T] with a true or a predicted cell at any threshold."""
    return np.any(counts.tp + counts.fp + counts.fn > 0, axis=-1)
