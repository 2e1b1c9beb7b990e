"""True and predicted cells of one image, compared once; every metric is computed from this.

The crowd rule, the only one: a crowd region (COCO's `iscrowd`) is no true cell, and a predicted
cell that matches no true cell is not counted as false at the IoU threshold t if at least the share
t of its pixels lies in one crowd region. Where cells match within their class only, it is a region
of the predicted cell's class. Where a metric has no IoU threshold, t is 0.5. That is how COCO's
evaluation treats them (`pycocotools`, `iscrowd`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray, check_label_image
from cellseg.cells.matching import Matching, match_greedily, match_overlaps
from cellseg.cells.overlaps import (
    Overlaps,
    Segmentation,
    StoredLabels,
    find_label_overlaps,
    find_overlaps,
    renew_overlaps,
)
from cellseg.cells.selection import DetectionThresholds, finish_cells, vote_over_image
from cellseg.errors import LabelError
from numpy.typing import ArrayLike, NDArray

CROWD_SHARE = 0.5
"""The t of the crowd rule in metrics that have no IoU threshold."""


class Counts(NamedTuple):
    """What matching at one IoU threshold leaves of an image.

    Attributes:
        tp: matched pairs.
        fp: predicted cells left over, without those that the crowd rule forgives.
        fn: true cells left over.
        iou_sum: the IoU of the pairs, summed.
    """

    tp: int
    fp: int
    fn: int
    iou_sum: float


@dataclass(frozen=True, eq=False)
class Side:
    """One side of a comparison: true cells with crowd regions, or predicted cells.

    Attributes:
        source: what was compared: a label image, perhaps one on disk, or instances of which these
            are some.
        index: int64 [N], the cells' numbers among those of `source`, ascending.
        areas_px: [N], pixels.
        classes: int64 [N]; 0 for the cells of a label image.
        scores: float64 [N]; 1 for the cells of a label image.
        is_crowd: bool [N], which are regions of uncounted cells.
    """

    source: Segmentation | StoredLabels
    index: IntArray
    areas_px: NDArray[Any]
    classes: IntArray
    scores: NDArray[np.float64]
    is_crowd: NDArray[np.bool_]

    @classmethod
    def of(cls, source: Segmentation | StoredLabels, areas_px: IntArray) -> Side:
        """All cells of `source`, whose areas are known."""
        index = np.arange(len(areas_px))
        if isinstance(source, CellInstances):
            scores = source.scores.astype(np.float64)
            return cls(source, index, areas_px, source.classes, scores, source.is_crowd)
        return cls(source, index, areas_px, 0 * index, np.ones(len(index)), index < 0)

    def __len__(self) -> int:
        return len(self.index)

    def select(self, chosen: ArrayLike) -> Side:
        """Some of the cells: bool [N], or their ascending numbers."""
        which, source = np.asarray(chosen), _read(self.source)
        if not isinstance(source, CellInstances):
            source = CellInstances.from_label_image(source)
        numbers = (self.index[which], self.areas_px[which], self.classes[which])
        return Side(source, *numbers, self.scores[which], self.is_crowd[which])

    @cached_property
    def cells(self) -> CellInstances:
        """The cells with their masks."""
        if isinstance(self.source, CellInstances):
            whole = len(self.index) == len(self.source)
            cells = self.source if whole else self.source[self.index]
            return cells.replace(classes=self.classes)
        return CellInstances.from_label_image(_read(self.source))

    @property
    def labels(self) -> NDArray[Any]:
        """Label image [H, W]; of cells that overlap, the one of the higher score is in front."""
        if isinstance(self.source, CellInstances):
            return self._painted
        return check_label_image(_read(self.source))

    @cached_property
    def _painted(self) -> NDArray[Any]:
        return self.cells.to_label_image()


def _read(source: Segmentation | StoredLabels) -> Any:
    """A segmentation in memory."""
    return source.read_labels() if isinstance(source, StoredLabels) else source


@dataclass(frozen=True, eq=False)
class Comparison:
    """True and predicted cells of one image, and which of them share pixels.

    Choosing classes or detections only selects from what was found; nothing is searched again.

    Attributes:
        pairs: the pairs that share pixels, of `truth` and `pred`.
        truth: the true cells and the crowd regions.
        pred: the M predicted cells.
    """

    pairs: Overlaps
    truth: Side
    pred: Side
    _matchings: dict[tuple[float, bool, bool], Matching] = field(
        init=False, repr=False, default_factory=dict
    )

    @cached_property
    def true(self) -> Side:
        """The N true cells, without the crowd regions."""
        crowd = self.truth.is_crowd
        return self.truth.select(~crowd) if crowd.any() else self.truth

    @cached_property
    def overlaps(self) -> Overlaps:
        """The pairs of true and predicted cells that share pixels."""
        crowd = self.truth.is_crowd
        return self.pairs.select(true=~crowd) if crowd.any() else self.pairs

    def match(
        self, threshold: float = 0.5, *, strict: bool = False, greedy: bool = False
    ) -> Matching:
        """Pair true with predicted cells one to one.

        Args:
            threshold: the least IoU of a pair, in (0, 1].
            strict: IoU > threshold rather than IoU >= threshold.
            greedy: predicted cells choose in the order of their scores; otherwise there are as
                many pairs as possible with the most IoU (`match_overlaps`).
        """
        key = (threshold, strict, greedy)
        if key not in self._matchings:
            self._matchings[key] = (
                match_greedily(self.overlaps, self.pred.scores, threshold, strict=strict)
                if greedy
                else match_overlaps(self.overlaps, threshold, strict=strict)
            )
        return self._matchings[key]

    def count(
        self, threshold: float = 0.5, *, strict: bool = False, greedy: bool = False
    ) -> Counts:
        """What `match` finds and leaves over; the crowd rule forgives."""
        found = self.match(threshold, strict=strict, greedy=greedy)
        tp = len(found)
        fp = len(self.pred) - tp - int(self.forgiven(threshold, found).sum())
        return Counts(tp, fp, len(self.true) - tp, float(found.iou.sum()))

    def forgiven(self, threshold: float, matching: Matching) -> NDArray[np.bool_]:
        """Which predicted cells the crowd rule does not count as false, bool [M].

        Args:
            threshold: the t of the rule.
            matching: what pairs the cells have; paired ones need no forgiveness.
        """
        inside = self._largest_share >= threshold
        inside[matching.pred_index] = False
        return inside

    @cached_property
    def _largest_share(self) -> NDArray[np.float64]:
        """Of each predicted cell, the largest share that lies in one crowd region."""
        largest = np.zeros(len(self.pred))
        inside = self.pairs.keep(self.truth.is_crowd[self.pairs.true_index])
        shares = inside.intersection_px / self.pred.areas_px[inside.pred_index]
        np.maximum.at(largest, inside.pred_index, shares)
        return largest

    @cached_property
    def counted(self) -> Comparison:
        """Without the predicted cells that the crowd rule forgives at a threshold of 0.5."""
        forgiven = self.forgiven(CROWD_SHARE, self.match(CROWD_SHARE))
        return self.select(~forgiven) if forgiven.any() else self

    def select(self, pred: ArrayLike) -> Comparison:
        """The comparison of some predicted cells: bool [M], or their ascending numbers."""
        return Comparison(self.pairs.select(pred=pred), self.truth, self.pred.select(pred))

    def keep(self, thresholds: DetectionThresholds) -> Comparison:
        """The comparison of the detections that are cells, as `select_cells` chooses them."""
        voted = vote_over_image(self.pred.cells, thresholds)
        done = finish_cells(voted, thresholds)
        kept = self.with_classes(voted.classes).select(done.numbers)
        return kept.with_masks(done.cells, done.is_changed)

    def with_masks(self, cells: CellInstances, is_changed: NDArray[np.bool_]) -> Comparison:
        """The same predicted cells, of which some have other masks, which are compared anew.

        Args:
            cells: the M predicted cells.
            is_changed: bool [M], which have other masks than those compared.
        """
        if not is_changed.any():
            return self
        pairs = renew_overlaps(self.pairs, self.truth.cells, cells, is_changed)
        return Comparison(pairs, self.truth, Side.of(cells, cells.areas_px))

    def with_classes(self, pred_classes: IntArray) -> Comparison:
        """The same with other classes of the predicted cells, int64 [M]."""
        return replace(self, pred=replace(self.pred, classes=pred_classes))

    def of_class(self, number: int) -> Comparison:
        """The cells and crowd regions of one class only."""
        true, pred = self.truth.classes == number, self.pred.classes == number
        if true.all() and pred.all():
            return self
        return Comparison(
            self.pairs.select(true, pred), self.truth.select(true), self.pred.select(pred)
        )

    @cached_property
    def within_classes(self) -> Comparison:
        """The same cells; only those of one class overlap, and so match."""
        classes = (
            self.truth.classes[self.pairs.true_index],
            self.pred.classes[self.pairs.pred_index],
        )
        same = classes[0] == classes[1]
        return self if same.all() else replace(self, pairs=self.pairs.keep(same))

    @property
    def without_classes(self) -> Comparison:
        """The same cells, all of class 0."""
        truth, pred = (replace(side, classes=0 * side.classes) for side in (self.truth, self.pred))
        return replace(self, truth=truth, pred=pred)

    @property
    def without_masks(self) -> Comparison:
        """The same numbers without the cells, for memory's sake."""
        nothing = CellInstances.empty((0, 0))
        truth, pred = (replace(side, source=nothing) for side in (self.truth, self.pred))
        return replace(self, truth=truth, pred=pred)


def compare(true: Segmentation | StoredLabels, pred: Segmentation | StoredLabels) -> Comparison:
    """Compare two segmentations of one image.

    Args:
        true: the true cells, a label image [H, W] or `CellInstances`; crowd regions are among the
            latter, with their flag. One on disk is read here, and again where a metric needs its
            pixels.
        pred: the predicted cells, of the same kind and size; crowd regions play no part.

    Raises:
        LabelError: the two are of different kinds or sizes.

    Example:
        >>> image = compare(np.array([[1, 1, 2, 0]]), np.array([[1, 1, 0, 3]]))
        >>> image.count(0.5)
        Counts(tp=1, fp=1, fn=1, iou_sum=1.0)
    """
    pred = pred.counted if isinstance(pred, CellInstances) else pred
    pairs, true_areas, pred_areas = _overlaps(_read(true), _read(pred))
    return Comparison(pairs, Side.of(true, true_areas), Side.of(pred, pred_areas))


def iou_matrix(true: Segmentation, pred: Segmentation) -> NDArray[np.float64]:
    """IoU of every true with every predicted cell of one image, float64 [N, M] in 0 to 1.

    Args:
        true: the true cells, a label image [H, W], whose rows follow the ascending labels that
            occur; or `CellInstances`.
        pred: the predicted cells, of the same kind and size.

    Raises:
        LabelError: the two are of different kinds or sizes.
    """
    return _overlaps(true, pred)[0].to_matrix()


def _overlaps(true: Segmentation, pred: Segmentation) -> tuple[Overlaps, IntArray, IntArray]:
    """The pairs that share pixels, and the areas of either side."""
    if isinstance(true, CellInstances) and isinstance(pred, CellInstances):
        return find_overlaps(true, pred), true.areas_px, pred.areas_px
    if isinstance(true, CellInstances) or isinstance(pred, CellInstances):
        kinds = f"{type(true).__name__} and {type(pred).__name__}"
        raise LabelError(
            f"compare label images with label images, and instances with instances; found {kinds} "
            "(CellInstances.from_label_image makes instances of a label image)"
        )
    return find_label_overlaps(true, pred)


def compare_all(
    ground_truth: Sequence[Segmentation | StoredLabels],
    predictions: Sequence[Segmentation | StoredLabels],
) -> list[Comparison]:
    """`compare` image by image.

    Raises:
        LabelError: not as many of one as of the other, or a pair does not compare; names which.
    """
    if len(ground_truth) != len(predictions):
        raise LabelError(
            f"ground truth of {len(ground_truth)} images and predictions of {len(predictions)}: "
            "give both for the same images, in the same order"
        )
    found = []
    for number, (true, pred) in enumerate(zip(ground_truth, predictions)):
        try:
            found.append(compare(true, pred))
        except LabelError as error:
            raise LabelError(f"image {number}: {error}") from error
    return found
