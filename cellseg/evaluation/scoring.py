"""One door to all metrics: `score`, and `Comparisons` where more than one thing is asked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from cellseg.arguments import COUNT, FLAG, NAMES, REAL, WHOLE, checked, of_type, or_nothing, several
from cellseg.cells.labels import IntArray
from cellseg.cells.overlaps import Segmentation
from cellseg.cells.selection import DetectionThresholds
from cellseg.errors import LabelError
from cellseg.evaluation.coco import CocoEvaluation, compare_boxes
from cellseg.evaluation.comparison import Comparison, compare_all
from cellseg.evaluation.confusion import MATCHED_FROM_IOU, count_confusion
from cellseg.evaluation.metric_kinds import FloatArray
from cellseg.evaluation.scorer import Scorer, read_ranked, split_ranked
from cellseg.rules import number

_IMAGES = several(words="a list of label images or CellInstances, one per image")
_COMPARED = several(of_type(Comparison, "a Comparison"), "a list of what `compare` gives")

DEFAULT_METRICS = (
    "ap_dsb@0.50",
    "ap_dsb",
    "precision@0.50",
    "recall@0.50",
    "f1@0.50",
    "pq@0.50",
    "aji",
    "dice_foreground",
    "seg_ctc",
)


@checked(ground_truth=_IMAGES, predictions=_IMAGES, metrics=NAMES, match_classes=FLAG)
def score(
    ground_truth: Sequence[Segmentation],
    predictions: Sequence[Segmentation],
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    match_classes: bool = True,
) -> dict[str, float]:
    """Score a set of images.

    Args:
        ground_truth: per image a label image (integer array [H, W], 0 is background) or
            `CellInstances`, in which regions of uncounted cells have the flag `is_crowd`.
        predictions: of the same images, in the same order and of the same kind. COCO's metrics
            want instances with scores.
        metrics: names; docs/metrics.md defines each. "f1@0.75" is at that IoU threshold, "f1" the
            mean over 0.50, 0.55, ..., 0.95; "ap_coco_mask@0.50", "ar_coco_mask@500",
            "ap_coco_mask_small", "ap_coco_mask_small_livecell", "afnr_livecell" are COCO's.
        match_classes: a cell matches only cells of its own class; otherwise classes play no part.

    Returns:
        The metrics by name, in the order asked for. Without images every share is 1 and every
        count 0; COCO's are NaN where there is no true cell.

    Raises:
        LabelError: the two sides do not match, or a name is no metric.

    Example:
        >>> true, pred = np.array([[1, 1, 0, 2]]), np.array([[1, 1, 0, 0]])
        >>> score([true], [pred], ["recall@0.50", "fn@0.50"])
        {'recall@0.50': 0.5, 'fn@0.50': 1.0}
    """
    split_ranked(metrics)  # a wrong name fails before anything is compared
    compared = Comparisons(compare_all(ground_truth, predictions), match_classes=match_classes)
    return compared.metrics(metrics)


@checked(
    ground_truth=_IMAGES,
    predictions=_IMAGES,
    metrics=NAMES,
    level=REAL,
    samples=WHOLE,
    seed=COUNT,
    match_classes=FLAG,
)
def confidence_intervals(
    ground_truth: Sequence[Segmentation],
    predictions: Sequence[Segmentation],
    metrics: Sequence[str] = DEFAULT_METRICS,
    *,
    level: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
    match_classes: bool = True,
) -> dict[str, tuple[float, float]]:
    """Intervals of the metrics of `score`; see `Comparisons.intervals`."""
    compared = Comparisons(compare_all(ground_truth, predictions), match_classes=match_classes)
    return compared.intervals(metrics, level=level, samples=samples, seed=seed)


@checked(
    ground_truth=_IMAGES,
    predictions=_IMAGES,
    threshold=REAL,
    num_classes=or_nothing(number(1, whole=True)),
)
def class_confusion(
    ground_truth: Sequence[Segmentation],
    predictions: Sequence[Segmentation],
    threshold: float = MATCHED_FROM_IOU,
    *,
    num_classes: int | None = None,
) -> IntArray:
    """Which class is taken for which over a set of images; see `Comparisons.confusion`."""
    return Comparisons(compare_all(ground_truth, predictions)).confusion(num_classes, threshold)


class Comparisons:
    """A set of images, each compared once; whatever is asked is computed from that.

    Args:
        images: the comparison of each image.
        match_classes: a cell matches only cells of its own class; otherwise classes play no part
            (they never do in `confusion`).
    """

    @checked(images=_COMPARED, match_classes=FLAG)
    def __init__(self, images: Sequence[Comparison], *, match_classes: bool = True) -> None:
        self.images = tuple(images)
        self._match_classes = match_classes
        self._of_class: dict[int, Comparisons] = {}
        self._coco: dict[str, CocoEvaluation] = {}

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def _matched(self) -> list[Comparison]:
        """The images as cells match in them."""
        return [one.within_classes if self._match_classes else one for one in self.images]

    def keep(self, thresholds: DetectionThresholds) -> Comparisons:
        """The same images with the detections that are cells."""
        kept = [image.keep(thresholds) for image in self.images]
        return Comparisons(kept, match_classes=self._match_classes)

    def of_class(self, number: int) -> Comparisons:
        """The cells of one class only."""
        if number not in self._of_class:
            images = [image.of_class(number) for image in self.images]
            self._of_class[number] = Comparisons(images, match_classes=self._match_classes)
        return self._of_class[number]

    def coco(self, kind: str = "mask") -> CocoEvaluation:
        """COCO's evaluation of these images.

        Args:
            kind: "mask" or "box", what is compared.

        Raises:
            ValueError: unknown kind.
        """
        if kind not in ("mask", "box"):
            raise ValueError(f"kind is mask or box, not {kind!r}")
        if kind not in self._coco:
            images = [one if self._match_classes else one.without_classes for one in self.images]
            if kind == "box":
                images = [compare_boxes(image) for image in images]
            self._coco[kind] = CocoEvaluation(images)
        return self._coco[kind]

    @checked(names=NAMES)
    def metrics(self, names: Sequence[str]) -> dict[str, float]:
        """Metrics over all images by name, in the order of `names`; see `score`."""
        by_image, ranked = split_ranked(names)
        scorer = Scorer(by_image)
        values = scorer.combine(scorer.measure_all(self._matched)) if by_image else {}
        values |= read_ranked(ranked, self.coco)
        return {name: values[name] for name in names}

    def metrics_by_image(self, names: Sequence[str]) -> dict[str, FloatArray]:
        """Metrics of each image alone, float64 [I] by name."""
        by_image, ranked = split_ranked(names)
        scorer = Scorer(by_image)
        values = scorer.by_image(scorer.measure_all(self._matched))
        each = [Comparisons([one], match_classes=self._match_classes) for one in self.images]
        alone = [read_ranked(ranked, one.coco) for one in each] if ranked else []
        values |= {name: np.array([found[name] for found in alone]) for name in ranked}
        return {name: values[name] for name in names}

    @checked(names=NAMES, level=REAL, samples=WHOLE, seed=COUNT)
    def intervals(
        self,
        names: Sequence[str],
        *,
        level: float = 0.95,
        samples: int = 1000,
        seed: int = 0,
    ) -> dict[str, tuple[float, float]]:
        """Intervals by percentile bootstrap over images (Efron and Tibshirani, 1993).

        Images, not cells, are drawn with replacement: cells of one image are no independent sample.

        Args:
            names: metrics, none of them ranked.
            level: of the intervals, such as 0.95.
            samples: how many data sets are drawn.
            seed: of the draws.

        Returns:
            (low, high) by name.

        Raises:
            LabelError: COCO's metrics, which rank detections over all images, have no interval; a
                level not between 0 and 1; less than one sample.
        """
        if not 0 < level < 1 or samples < 1:
            raise LabelError(
                f"a level lies in (0, 1), found {level}; samples, {samples}, from 1 on"
            )
        by_image, ranked = split_ranked(names)
        if ranked:
            raise LabelError(f"{ranked[0]}: no interval by bootstrap for COCO's ranked metrics")
        scorer = Scorer(by_image)
        rows = scorer.measure_all(self._matched)
        generator = np.random.default_rng(seed)
        drawn = generator.integers(0, max(1, len(rows)), (samples, len(rows)))
        values = [scorer.combine(rows[chosen]) for chosen in drawn]
        tail = 50 * (1 - level)
        ends = {n: np.percentile([one[n] for one in values], [tail, 100 - tail]) for n in names}
        return {name: (float(low), float(high)) for name, (low, high) in ends.items()}

    def confusion(
        self, num_classes: int | None = None, threshold: float = MATCHED_FROM_IOU
    ) -> IntArray:
        """Which class is taken for which.

        Args:
            num_classes: C; by default one more than the highest class that occurs.
            threshold: cells are matched one to one at this IoU, whatever their classes.

        Returns:
            int64 [C + 1, C + 1], see `cellseg.evaluation.confusion.count_confusion`.
        """
        if num_classes is None:
            sides = [side for image in self.images for side in (image.true, image.pred)]
            num_classes = 1 + max((int(side.classes.max(initial=0)) for side in sides), default=0)
        tables = [count_confusion(image, num_classes, threshold) for image in self.images]
        return sum(tables, np.zeros((num_classes + 1, num_classes + 1), np.int64))
