"""COCO's average precision and recall, at any number of detections.

The definitions are those of pycocotools (`cocoeval.py`; Lin et al., ECCV 2014), crowd regions
included, and so are the numbers. Only pairs of cells that overlap are looked at, and only where
several compete for the same cell is anything decided one by one: an image with 1,000 cells takes
milliseconds where pycocotools takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from cellseg.cells.labels import IntArray
from cellseg.cells.matching import take_free_pairs
from cellseg.cells.overlaps import Overlaps, pairs_of_touching_windows
from cellseg.evaluation.comparison import Comparison, Side
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


def compare_boxes(
    image: Comparison, true_xywh: FloatArray | None = None, pred_xywh: FloatArray | None = None
) -> Comparison:
    """The comparison of boxes (x, y, width, height in pixels, float64 [N, 4]) in place of masks.

    The size of a detection is then that of its box, the size of a true cell still its mask's.

    Args:
        image: the comparison of the masks.
        true_xywh: boxes of true cells and crowd regions; by default those of the cells.
        pred_xywh: boxes of the detections, likewise.
    """
    true = _boxes_xywh(image.truth) if true_xywh is None else true_xywh
    pred = _boxes_xywh(image.pred) if pred_xywh is None else pred_xywh
    pairs = find_box_overlaps(true, pred)
    return replace(image, pairs=pairs, pred=replace(image.pred, areas_px=pred[:, 2] * pred[:, 3]))


def _boxes_xywh(side: Side) -> FloatArray:
    boxes = side.cells.boxes_xyxy.astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


def find_box_overlaps(true_xywh: FloatArray, pred_xywh: FloatArray) -> Overlaps:
    """Pairs of boxes (x, y, width, height) that share area; `intersection_px` is float64."""
    both = (true_xywh, pred_xywh)
    ends = [boxes[:, :2] + boxes[:, 2:] for boxes in both]
    outer_true, outer_pred = (
        np.column_stack([np.floor(boxes[:, 1::-1]), np.ceil(end[:, ::-1])]).astype(np.int64)
        for boxes, end in zip(both, ends)
    )
    rows, columns = pairs_of_touching_windows(outer_true, outer_pred)
    low = np.maximum(true_xywh[rows, :2], pred_xywh[columns, :2])
    size = np.minimum(ends[0][rows], ends[1][columns]) - low
    touching = (size > 0).all(axis=1)
    rows, columns, shared = rows[touching], columns[touching], size[touching].prod(axis=1)
    true_areas, pred_areas = (boxes[:, 2] * boxes[:, 3] for boxes in both)
    iou = shared / (pred_areas[columns] + true_areas[rows] - shared)
    return Overlaps((len(true_xywh), len(pred_xywh)), rows, columns, shared, iou)


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
        images: the comparisons, of masks or of boxes; of equal scores in two images the first
            goes first.
        num_classes: C; by default one more than the highest class that occurs.
    """

    def __init__(self, images: Sequence[Comparison], *, num_classes: int | None = None) -> None:
        if num_classes is None:
            classes = [side.classes for one in images for side in (one.truth, one.pred)]
            num_classes = 1 + max((int(each.max(initial=0)) for each in classes), default=0)
        self._by_class = [
            [_Candidates.of(one.of_class(number)) for one in images]
            for number in range(num_classes)
        ]
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
            curves = [_curves(images, *key) for images in self._by_class]
            precision = np.stack([each for each, _ in curves], axis=-1)
            self._known[key] = CocoNumbers(precision, np.stack([r for _, r in curves], axis=-1))
        return self._known[key]


@dataclass(frozen=True, eq=False)
class _Candidates:
    """One image and class: its cells, and pairs of them in the order in which COCO tries them.

    Detections are numbered by descending score; they choose by IoU, of equal ones the last.

    Attributes:
        rows: int64 [K], the true cell or crowd region of each pair.
        columns: int64 [K], its detection.
        iou: float64 [K]; for a crowd region the share of the detection that lies in it.
        truth: the true cells and crowd regions.
        pred: the D detections, by descending score.
    """

    rows: IntArray
    columns: IntArray
    iou: FloatArray
    truth: Side
    pred: Side

    @classmethod
    def of(cls, image: Comparison) -> _Candidates:
        pairs, truth = image.pairs, image.truth
        by_score = np.argsort(-image.pred.scores, kind="stable")
        shares = pairs.intersection_px / image.pred.areas_px[pairs.pred_index]
        iou = np.where(truth.is_crowd[pairs.true_index], shares, pairs.iou)
        columns = np.argsort(by_score)[pairs.pred_index]
        order = np.lexsort((-pairs.true_index, -iou, columns))
        sides = (truth, image.pred.select(by_score))
        return cls(pairs.true_index[order], columns[order], iou[order], *sides)

    def ignored(self, sizes_px: tuple[float, float]) -> BoolArray:
        """Crowd regions, and true cells of other sizes."""
        return self.truth.is_crowd | _lies_outside(self.truth, sizes_px)

    def judge(
        self, max_detections: int, sizes_px: tuple[float, float]
    ) -> tuple[BoolArray, BoolArray]:
        """Whether each detection is right, and whether it is wrong, bool [T, D]; else ignored.

        Detections choose in the order of their scores: a free true cell, and only where there is
        none a cell that does not count, or a crowd region, which stays free.
        """
        ignored = self.ignored(sizes_px)
        count = min(max_detections, len(self.pred))
        order = np.lexsort((ignored[self.rows], self.columns))
        order = order[self.columns[order] < count]
        rows, columns, iou = self.rows[order], self.columns[order], self.iou[order]
        right = np.zeros((len(THRESHOLDS), count), bool)
        wrong = np.repeat(~_lies_outside(self.pred, sizes_px)[None, :count], len(right), axis=0)
        for t, threshold in enumerate(np.minimum(THRESHOLDS, _ALMOST_ONE)):
            passing = np.flatnonzero(iou >= threshold)
            every = np.arange(len(passing))
            taken = take_free_pairs(rows[passing], columns[passing], every, self.truth.is_crowd)
            chosen = passing[taken]
            right[t, columns[chosen]] = ~ignored[rows[chosen]]
            wrong[t, columns[chosen]] = False
        return right, wrong


def _lies_outside(side: Side, sizes_px: tuple[float, float]) -> BoolArray:
    return (side.areas_px < sizes_px[0]) | (side.areas_px > sizes_px[1])


def _curves(
    images: Sequence[_Candidates], max_detections: int, sizes_px: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    """Precision [T, 101] and recall [T] of one class; NaN where no true cell is wanted."""
    wanted = sum(int((~one.ignored(sizes_px)).sum()) for one in images)
    precision = np.full((len(THRESHOLDS), len(RECALLS)), 0.0 if wanted else np.nan)
    recall = precision[:, 0].copy()
    if not wanted:
        return precision, recall
    outcomes = [one.judge(max_detections, sizes_px) for one in images]
    scores = np.concatenate([one.pred.scores[:max_detections] for one in images])
    order = np.argsort(-scores, kind="stable")
    right, wrong = (np.concatenate(each, axis=1)[:, order] for each in zip(*outcomes))
    true_positives = right.cumsum(axis=1, dtype=np.float64)
    false_positives = wrong.cumsum(axis=1, dtype=np.float64)
    for t, (tp, fp) in enumerate(zip(true_positives, false_positives)):
        if len(tp):
            reached = tp / wanted
            recall[t] = reached[-1]
            # a perfect list is exactly 1, unlike with the epsilon of pycocotools
            share = tp / np.maximum(fp + tp, 1)
            best_from_here = np.maximum.accumulate(share[::-1])[::-1]
            place = np.searchsorted(reached, RECALLS, side="left")
            precision[t] = np.append(best_from_here, 0.0)[place]
    return precision, recall


def _mean(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
