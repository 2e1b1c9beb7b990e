"""COCO's average precision and recall, at any number of detections.

The definitions are those of pycocotools (`cocoeval.py`; Lin et al., ECCV 2014), crowd regions
included, and so are the numbers. Only pairs of cells that overlap are looked at, and only where
several compete for the same cell is anything decided one by one: an image with 1,000 cells takes
milliseconds where pycocotools takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cellseg.cells.labels import IntArray
from cellseg.cells.matching import take_free_pairs
from cellseg.cells.overlaps import Overlaps, pairs_of_touching_windows
from cellseg.evaluation.comparison import Comparison
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MAX_DETECTIONS = 2000
EVERY_SIZE = (0.0, 1e10)
COCO_SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
LIVECELL_SIZES = {"small": (0.0, 18.0**2), "medium": (18.0**2, 31.0**2), "large": (31.0**2, 1e10)}
_ALMOST_ONE = 1 - 1e-10  # COCO's limit: IoU 1 is reached in spite of rounding


@dataclass(frozen=True, eq=False)
class CocoImage:
    """What COCO's evaluation takes of one image; true cells and crowd regions are one list.

    Attributes:
        overlaps: pairs of the N of that list and the M detections. The "IoU" of a pair with a
            crowd region is the share of the detection that lies in it.
        is_crowd: bool [N].
        true_classes: int64 [N].
        true_areas: float64 [N], the sizes of true cells: always the areas of their masks.
        pred_classes: int64 [M].
        pred_areas: float64 [M], the sizes of detections: areas of masks, or of boxes.
        scores: float64 [M].
    """

    overlaps: Overlaps
    is_crowd: BoolArray
    true_classes: IntArray
    true_areas: FloatArray
    pred_classes: IntArray
    pred_areas: FloatArray
    scores: FloatArray

    @classmethod
    def of_masks(cls, image: Comparison) -> CocoImage:
        """Cells compared by their masks."""
        true, order = _true_and_crowds(image)
        parts, num_true = (image.overlaps, image.in_crowds), len(image.true)
        rows = np.concatenate([parts[0].true_index, parts[1].true_index + num_true])
        columns, shared, iou = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("pred_index", "intersection_px", "iou")
        )
        place = np.argsort(order)
        pairs = Overlaps((len(order), len(image.pred)), place[rows], columns, shared, iou)
        return cls._of(image, true, pairs, image.pred.areas_px.astype(np.float64))

    @classmethod
    def of_boxes(
        cls,
        image: Comparison,
        true_xywh: FloatArray | None = None,
        pred_xywh: FloatArray | None = None,
    ) -> CocoImage:
        """Cells compared by their boxes (x, y, width, height in pixels, float64 [N, 4]).

        Args:
            image: the comparison of their masks.
            true_xywh: boxes of true cells and crowd regions; by default those of the cells.
            pred_xywh: boxes of the detections, likewise.
        """
        true, order = _true_and_crowds(image)
        if true_xywh is None:
            both = [_boxes_xywh(side.cells.boxes_xyxy) for side in (image.true, image.crowds)]
            true_xywh = np.concatenate(both)[order]
        if pred_xywh is None:
            pred_xywh = _boxes_xywh(image.pred.cells.boxes_xyxy)
        return cls._of(image, true, find_box_overlaps(true_xywh, pred_xywh), _areas(pred_xywh))

    @classmethod
    def _of(
        cls,
        image: Comparison,
        true: tuple[BoolArray, IntArray, FloatArray],
        pairs: Overlaps,
        pred_areas: FloatArray,
    ) -> CocoImage:
        is_crowd, classes, areas = true
        shares = pairs.intersection_px / pred_areas[pairs.pred_index]
        iou = np.where(is_crowd[pairs.true_index], shares, pairs.iou)
        pairs = Overlaps(
            pairs.shape, pairs.true_index, pairs.pred_index, pairs.intersection_px, iou
        )
        pred = image.pred
        return cls(pairs, is_crowd, classes, areas, pred.classes, pred_areas, pred.scores)

    def of_class(self, number: int) -> CocoImage:
        """One class, its detections by descending score."""
        members = np.flatnonzero(self.pred_classes == number)
        best = members[np.argsort(-self.scores[members], kind="stable")]
        true = np.flatnonzero(self.true_classes == number)
        pairs = self.overlaps.select(true, members)
        rank = np.argsort(best)[pairs.pred_index]
        pairs = Overlaps(pairs.shape, pairs.true_index, rank, pairs.intersection_px, pairs.iou)
        of_true = (self.is_crowd[true], self.true_classes[true], self.true_areas[true])
        of_pred = (self.pred_classes[best], self.pred_areas[best], self.scores[best])
        return CocoImage(pairs, *of_true, *of_pred)

    def first(self, count: int) -> CocoImage:
        """The first detections only."""
        if count >= len(self.scores):
            return self
        of_true = (self.is_crowd, self.true_classes, self.true_areas)
        of_pred = (self.pred_classes[:count], self.pred_areas[:count], self.scores[:count])
        return CocoImage(self.overlaps.select(pred=np.arange(count)), *of_true, *of_pred)


def _true_and_crowds(image: Comparison) -> tuple[tuple[BoolArray, IntArray, FloatArray], IntArray]:
    """(is_crowd, classes, areas) of both in their original order, and that order.

    It matters: of equally good regions COCO gives the last one.
    """
    sides = (image.true, image.crowds)
    order = np.argsort(np.concatenate([side.index for side in sides]), kind="stable")
    is_crowd = np.repeat([False, True], [len(side) for side in sides])
    classes = np.concatenate([side.classes for side in sides])
    areas = np.concatenate([side.areas_px for side in sides]).astype(np.float64)
    return (is_crowd[order], classes[order], areas[order]), order


def _boxes_xywh(boxes_xyxy: NDArray[np.float32]) -> FloatArray:
    boxes = boxes_xyxy.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


def _areas(boxes_xywh: FloatArray) -> FloatArray:
    areas: FloatArray = boxes_xywh[:, 2] * boxes_xywh[:, 3]
    return areas


def find_box_overlaps(true_xywh: FloatArray, pred_xywh: FloatArray) -> Overlaps:
    """Pairs of boxes (x, y, width, height) that share area; `intersection_px` is float64."""
    ends = [boxes[:, :2] + boxes[:, 2:] for boxes in (true_xywh, pred_xywh)]
    outer_true, outer_pred = (
        np.column_stack([np.floor(boxes[:, 1::-1]), np.ceil(end[:, ::-1])]).astype(np.int64)
        for boxes, end in zip((true_xywh, pred_xywh), ends)
    )
    rows, columns = pairs_of_touching_windows(outer_true, outer_pred)
    low = np.maximum(true_xywh[rows, :2], pred_xywh[columns, :2])
    size = np.minimum(ends[0][rows], ends[1][columns]) - low
    touching = (size > 0).all(axis=1)
    rows, columns, size = rows[touching], columns[touching], size[touching]
    shared = size[:, 0] * size[:, 1]
    union = _areas(pred_xywh)[columns] + _areas(true_xywh)[rows] - shared
    return Overlaps((len(true_xywh), len(pred_xywh)), rows, columns, shared, shared / union)


@dataclass(frozen=True)
class CocoNumbers:
    """Precision and recall in 0 to 1, NaN for classes without a true cell.

    Attributes:
        precision: float64 [T, 101, C]: at each IoU threshold, recall 0 to 1, and class.
        recall: float64 [T, C]: the highest that is reached.
    """

    precision: FloatArray
    recall: FloatArray

    @property
    def ap(self) -> float:
        """Mean over thresholds, recalls and the classes that have true cells; NaN without any."""
        return _mean(self.precision)

    def ap_at(self, threshold: float) -> float:
        """The same at one of the ten thresholds."""
        return _mean(self.precision[np.isclose(THRESHOLDS, threshold)])

    def of_class(self, number: int) -> CocoNumbers:
        """Those of one class."""
        return CocoNumbers(self.precision[..., [number]], self.recall[..., [number]])

    @property
    def ar(self) -> float:
        """Mean recall over thresholds and the classes that have true cells; NaN without any."""
        return _mean(self.recall)


def average_precision(numbers: CocoNumbers, threshold: float | None) -> float:
    """AP over all thresholds, or at one of them."""
    return numbers.ap if threshold is None else numbers.ap_at(threshold)


def average_recall(numbers: CocoNumbers, _: float | None) -> float:
    """AR over all thresholds."""
    return numbers.ar


def false_negative_rate(numbers: CocoNumbers, _: float | None) -> float:
    """LIVECell's average false negative rate."""
    return 1 - numbers.ar


class CocoEvaluation:
    """A data set as COCO ranks it: all detections of a class by their scores.

    Args:
        images: what each image gives; of equal scores in two images the first goes first.
        num_classes: C; by default one more than the highest class that occurs.
    """

    def __init__(
        self,
        images: Sequence[CocoImage],
        num_classes: int | None = None,
    ) -> None:
        if num_classes is None:
            classes = [each for one in images for each in (one.true_classes, one.pred_classes)]
            num_classes = 1 + max((int(each.max(initial=0)) for each in classes), default=0)
        self._by_class = [[one.of_class(number) for one in images] for number in range(num_classes)]
        self._known: dict[tuple[int, tuple[float, float]], CocoNumbers] = {}

    def numbers(
        self,
        max_detections: int = MAX_DETECTIONS,
        sizes_px: tuple[float, float] = EVERY_SIZE,
    ) -> CocoNumbers:
        """Average precision and recall.

        Args:
            max_detections: the best of each image and class that count.
            sizes_px: the least and the largest area, pixels; cells outside are neither wanted nor
                wrong.
        """
        key = (max_detections, sizes_px)
        if key not in self._known:
            self._known[key] = self._compute(*key)
        return self._known[key]

    def _compute(self, max_detections: int, sizes_px: tuple[float, float]) -> CocoNumbers:
        num_classes = len(self._by_class)
        precision = np.full((len(THRESHOLDS), len(RECALLS), num_classes), np.nan)
        recall = np.full((len(THRESHOLDS), num_classes), np.nan)
        for number, images in enumerate(self._by_class):
            wanted = sum(int((~_is_ignored(one, sizes_px)).sum()) for one in images)
            if wanted:
                best = [one.first(max_detections) for one in images]
                precision[..., number], recall[:, number] = _curves(best, sizes_px, wanted)
        return CocoNumbers(precision, recall)


def _is_ignored(one: CocoImage, sizes_px: tuple[float, float]) -> BoolArray:
    """Crowd regions, and true cells of other sizes."""
    return one.is_crowd | _lies_outside(one.true_areas, sizes_px)


def _lies_outside(areas: FloatArray, sizes_px: tuple[float, float]) -> BoolArray:
    return (areas < sizes_px[0]) | (areas > sizes_px[1])


def _curves(
    images: Sequence[CocoImage], sizes_px: tuple[float, float], wanted: int
) -> tuple[FloatArray, FloatArray]:
    """Precision [T, 101] and recall [T] of one class with `wanted` true cells."""
    outcomes = [_judge(one, sizes_px) for one in images]
    order = np.argsort(-np.concatenate([one.scores for one in images]), kind="stable")
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
        # a perfect list is exactly 1, unlike with the epsilon of pycocotools
        share = tp / np.maximum(fp + tp, 1)
        best_from_here = np.maximum.accumulate(share[::-1])[::-1]
        place = np.searchsorted(reached, RECALLS, side="left")
        precision[t] = np.append(best_from_here, 0.0)[place]
    return precision, recall


def _judge(one: CocoImage, sizes_px: tuple[float, float]) -> tuple[BoolArray, BoolArray]:
    """Whether each detection is right, and whether it is wrong, bool [T, D]; else it is ignored.

    Detections choose in the order of their scores: the free true cell of the highest IoU, and only
    where there is none a cell that does not count, or a crowd region, which is never taken. Of
    equal ones they take the last.
    """
    pairs, ignored = one.overlaps, _is_ignored(one, sizes_px)
    rows, columns = pairs.true_index, pairs.pred_index
    order = np.lexsort((-rows, -pairs.iou, ignored[rows], columns))
    rows, columns, iou = rows[order], columns[order], pairs.iou[order]
    outside = _lies_outside(one.pred_areas, sizes_px)
    right = np.zeros((len(THRESHOLDS), pairs.shape[1]), bool)
    wrong = np.zeros_like(right)
    for t, threshold in enumerate(np.minimum(THRESHOLDS, _ALMOST_ONE)):
        passing = np.flatnonzero(iou >= threshold)
        options = (rows[passing], columns[passing])
        chosen = passing[take_free_pairs(*options, np.arange(len(passing)), one.is_crowd)]
        right[t, columns[chosen]] = ~ignored[rows[chosen]]
        wrong[t] = ~outside
        wrong[t, columns[chosen]] = False
    return right, wrong


def _mean(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
