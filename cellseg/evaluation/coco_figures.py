"""COCO's average precision and recall at any number of detections, without pycocotools' loops.

The definitions are those of pycocotools (`cocoeval.py`; Lin et al., ECCV 2014), the figures equal
to its own. Only pairs of cells that overlap are looked at, and only where several compete for the
same cell is anything decided one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.overlaps import Overlaps, find_overlaps, pairs_of_touching_windows
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Pair = tuple[CellInstances, CellInstances]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MAX_DETECTIONS = (100, 500, 2000)
EVERY_SIZE = (0.0, 1e10)
COCO_SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
LIVECELL_SIZES = {"small": (0.0, 18.0**2), "medium": (18.0**2, 31.0**2), "large": (31.0**2, 1e10)}
_ALMOST_ONE = 1 - 1e-10  # COCO's limit: IoU 1 is reached in spite of rounding


@dataclass(frozen=True)
class _Candidates:
    """One image and class: detections in order of their scores and what they overlap."""

    overlaps: Overlaps
    scores: FloatArray
    true_areas: FloatArray
    pred_areas: FloatArray

    def best(self, limit: int) -> _Candidates:
        """The first `limit` detections."""
        if limit >= len(self.scores):
            return self
        found = self.overlaps
        kept = found.pred_index < limit
        overlaps = Overlaps(
            (found.shape[0], limit),
            found.true_index[kept],
            found.pred_index[kept],
            found.intersection_px[kept],
            found.iou[kept],
        )
        return _Candidates(overlaps, self.scores[:limit], self.true_areas, self.pred_areas[:limit])


@dataclass(frozen=True)
class CocoFigures:
    """Figures in 0 to 1, NaN where there is no true cell.

    Attributes:
        precision: float64 [T, 101, C]: at each IoU threshold, recall 0 to 1, and class.
        recall: float64 [T, C].
    """

    precision: FloatArray
    recall: FloatArray

    @property
    def ap(self) -> float:
        """Mean over thresholds, recalls and the classes that have true cells."""
        return _mean(self.precision)

    def ap_at(self, threshold: float) -> float:
        """The same at one of the ten thresholds."""
        return _mean(self.precision[np.isclose(THRESHOLDS, threshold)])

    @property
    def ar(self) -> float:
        """Mean recall over thresholds and the classes that have true cells."""
        return _mean(self.recall)


def coco_figures(
    images: Sequence[Pair],
    *,
    kind: str = "mask",
    max_detections: int = 2000,
    sizes_px: tuple[float, float] = EVERY_SIZE,
    num_classes: int | None = None,
) -> CocoFigures:
    """Average precision and recall over a data set.

    See `CocoEvaluation`, which finds the pairs once for several limits and sizes.
    """
    evaluation = CocoEvaluation(
        images, kind=kind, max_detections=max_detections, num_classes=num_classes
    )
    return evaluation.figures(max_detections, sizes_px)


class CocoEvaluation:
    """A data set whose pairs of overlapping cells are found.

    Args:
        images: (true, predicted) cells of each image; predicted ones with scores. Crowd regions
            are unknown here.
        kind: "mask" or "box": of what the IoU is taken, and the size of a detection. The size of a
            true cell is the area of its mask in both.
        max_detections: the best of each image and class that can be asked for.
        num_classes: C; by default one more than the highest class that occurs.

    Raises:
        ValueError: unknown kind.
    """

    def __init__(
        self,
        images: Sequence[Pair],
        *,
        kind: str = "mask",
        max_detections: int = MAX_DETECTIONS[-1],
        num_classes: int | None = None,
    ) -> None:
        if kind not in ("mask", "box"):
            raise ValueError(f"kind is mask or box, not {kind!r}")
        if num_classes is None:
            classes = [cells.classes for pair in images for cells in pair]
            num_classes = 1 + max((int(each.max(initial=0)) for each in classes), default=0)
        self._by_class = [
            [_candidates(*pair, number, kind, max_detections) for pair in images]
            for number in range(num_classes)
        ]

    def figures(
        self, max_detections: int, sizes_px: tuple[float, float] = EVERY_SIZE
    ) -> CocoFigures:
        """Average precision and recall.

        Args:
            max_detections: the best of each image and class that count.
            sizes_px: least and largest area; cells outside are neither wanted nor wrong.
        """
        num_classes = len(self._by_class)
        precision = np.full((len(THRESHOLDS), len(RECALLS), num_classes), np.nan)
        recall = np.full((len(THRESHOLDS), num_classes), np.nan)
        for number, candidates in enumerate(self._by_class):
            wanted = sum(int(_inside(one.true_areas, sizes_px).sum()) for one in candidates)
            if wanted:
                best = [one.best(max_detections) for one in candidates]
                precision[..., number], recall[:, number] = _curves(best, sizes_px, wanted)
        return CocoFigures(precision, recall)


def _candidates(
    true: CellInstances, pred: CellInstances, number: int, kind: str, limit: int
) -> _Candidates:
    true = true[true.classes == number]
    pred = pred[pred.classes == number]
    pred = pred[np.argsort(-pred.scores, kind="stable")[:limit]]
    true_areas = true.areas_px.astype(np.float64)
    scores = pred.scores.astype(np.float64)
    if kind == "mask":
        overlaps = find_overlaps(true, pred)
        return _Candidates(overlaps, scores, true_areas, pred.areas_px.astype(np.float64))
    boxes = [cells.boxes_xyxy.astype(np.float64) for cells in (true, pred)]
    return _Candidates(box_overlaps(*boxes), scores, true_areas, _box_areas(boxes[1]))


def box_overlaps(true: FloatArray, pred: FloatArray) -> Overlaps:
    """Pairs of boxes (x0, y0, x1, y1) that share area; `intersection_px` is rounded down."""
    outer_true, outer_pred = (
        np.column_stack([np.floor(b[:, 1::-1]), np.ceil(b[:, :1:-1])]).astype(np.int64)
        for b in (true, pred)
    )
    rows, columns = pairs_of_touching_windows(outer_true, outer_pred)
    low = np.maximum(true[rows, :2], pred[columns, :2])
    size = np.minimum(true[rows, 2:], pred[columns, 2:]) - low
    touching = (size > 0).all(axis=1)
    rows, columns, size = rows[touching], columns[touching], size[touching]
    shared = size.prod(axis=1)
    union = _box_areas(true)[rows] + _box_areas(pred)[columns] - shared
    shape = (len(true), len(pred))
    return Overlaps(shape, rows, columns, shared.astype(np.int64), shared / union)


def _box_areas(boxes: FloatArray) -> FloatArray:
    areas: FloatArray = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return areas


def _inside(areas: FloatArray, sizes_px: tuple[float, float]) -> NDArray[np.bool_]:
    return (areas >= sizes_px[0]) & (areas <= sizes_px[1])


def _curves(
    candidates: Sequence[_Candidates], sizes_px: tuple[float, float], wanted: int
) -> tuple[FloatArray, FloatArray]:
    """Precision [T, 101] and recall [T] of one class with `wanted` true cells."""
    outcomes = [_match(one, sizes_px) for one in candidates]
    order = np.argsort(-np.concatenate([one.scores for one in candidates]), kind="stable")
    right = np.concatenate([outcome[0] for outcome in outcomes], axis=1)[:, order]
    wrong = np.concatenate([outcome[1] for outcome in outcomes], axis=1)[:, order]
    true_positives = right.cumsum(axis=1, dtype=np.float64)
    false_positives = wrong.cumsum(axis=1, dtype=np.float64)
    recall = np.zeros(len(THRESHOLDS))
    precision = np.zeros((len(THRESHOLDS), len(RECALLS)))
    for t, (tp, fp) in enumerate(zip(true_positives, false_positives)):
        if len(tp) == 0:
            continue
        reached = tp / wanted
        recall[t] = reached[-1]
        share = tp / np.maximum(
            fp + tp, 1
        )  # a perfect list is exactly 1, unlike with their epsilon
        best_from_here = np.maximum.accumulate(share[::-1])[::-1]
        place = np.searchsorted(reached, RECALLS, side="left")
        precision[t] = np.append(best_from_here, 0.0)[place]
    return precision, recall


def _match(
    one: _Candidates, sizes_px: tuple[float, float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Whether each detection is right, and whether it is wrong, bool [T, D]; else it is ignored."""
    overlaps = one.overlaps
    ignored = ~_inside(one.true_areas, sizes_px)
    too_small_or_large = ~_inside(one.pred_areas, sizes_px)
    right = np.zeros((len(THRESHOLDS), overlaps.shape[1]), bool)
    wrong = np.zeros_like(right)
    for t, threshold in enumerate(np.minimum(THRESHOLDS, _ALMOST_ONE)):
        pairs = np.flatnonzero(overlaps.iou >= threshold)
        partner = _partners(overlaps, pairs, ignored)
        matched = partner >= 0
        of_ignored = np.append(ignored, False)[partner] & matched
        right[t] = matched & ~of_ignored
        wrong[t] = ~matched & ~too_small_or_large
    return right, wrong


def _partners(
    overlaps: Overlaps, pairs: NDArray[np.int64], ignored: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """True cell of each detection, int64 [D]; -1 for none. Detections are in order of scores."""
    partner = np.full(overlaps.shape[1], -1, np.int64)
    rows, columns, iou = overlaps.true_index[pairs], overlaps.pred_index[pairs], overlaps.iou[pairs]
    if len(rows) == 0:
        return partner
    alone = (np.bincount(rows)[rows] == 1) & (np.bincount(columns)[columns] == 1)
    partner[columns[alone]] = rows[alone]
    rows, columns, iou = rows[~alone], columns[~alone], iou[~alone]
    # Best detection first; it prefers a true cell that counts, then IoU, then the later cell.
    order = np.lexsort((-rows, -iou, ignored[rows], columns))
    taken: set[int] = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist()):
        if partner[column] < 0 and row not in taken:
            partner[column] = row
            taken.add(row)
    return partner


def _mean(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
