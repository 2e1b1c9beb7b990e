"""Thresholds from a validation set: which detections to keep so that a metric is best.

Everything is computed once, from one pass of predictions: the overlaps of detections with true
cells and with each other. A trial of thresholds only selects among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray
from cellseg.cells.overlaps import Overlaps
from cellseg.cells.selection import (
    DetectionThresholds,
    PerClass,
    find_own_overlaps,
    select_detections,
    vote_class,
)
from cellseg.errors import LabelError
from cellseg.evaluation.comparison import Comparison, compare_all
from cellseg.evaluation.figures import FIGURES, THRESHOLDS, FloatArray
from cellseg.evaluation.scoring import score

FEW_IMAGES = 20
SCORES = (*(round(0.05 * k, 2) for k in range(20)), 0.97, 0.99)
MASK_NMS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
MAX_COVERED = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
AREA_SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
"""Of the median area of the true cells of a class: the minimum areas that are tried."""

_TUNED = ("score", "mask_nms", "max_covered", "min_area_px")
_ROUNDS = 3
_SAMPLES = 1000
_SAME = 1e-9
_LOWER_IS_BETTER = {"fp", "fn", "count_error", "afnr_livecell"}
_BETTER_WHEN_MORE = "errors_correct"


@dataclass(frozen=True)
class Tuning:
    """What was found, and what it is worth.

    Attributes:
        metric: its name.
        thresholds: fitted to all images; all but mask and vote have one number per class.
        num_images: in the set.
        before: the metric at the thresholds one started from.
        after: at `thresholds`, on the same images that they were fitted to: optimistic.
        held_out: every image at thresholds fitted to other images; None with fewer than two.
        interval: of the held-out gain, 95 %, by bootstrap over images; None where `held_out` is,
            and for COCO's metrics.
        of_folds: thresholds fitted without each fold.
    """

    metric: str
    thresholds: DetectionThresholds
    num_images: int
    before: float
    after: float
    held_out: float | None
    interval: tuple[float, float] | None
    of_folds: tuple[DetectionThresholds, ...]

    @property
    def gain(self) -> float:
        """On the images that the thresholds were fitted to; above 0 is better."""
        return _sign(self.metric) * (self.after - self.before)

    @property
    def held_out_gain(self) -> float | None:
        """On images that they were not fitted to, the honest one; above 0 is better."""
        if self.held_out is None:
            return None
        return _sign(self.metric) * (self.held_out - self.before)


def tune_thresholds(
    ground_truth: Sequence[CellInstances],
    predictions: Sequence[CellInstances],
    metric: str = "ap_dsb",
    *,
    start: DetectionThresholds | None = None,
    num_classes: int | None = None,
    lowest_score: float = 0.0,
    folds: int = 5,
    seed: int = 0,
) -> Tuning:
    """Find the thresholds of each class, one after the other: score, overlaps, minimum area.

    Args:
        ground_truth: per image the true cells.
        predictions: of the same images all detections, with scores, nothing left out.
        metric: any name of `cellseg.evaluation.scoring.score`. COCO's are slow: they rank all
            detections of the set anew at every trial.
        start: thresholds that are in use; kept where nothing is better. `mask` and `vote` are not
            tuned; with a vote every trial counts the votes anew.
        num_classes: by default one more than the highest class that occurs.
        lowest_score: below it the model gave no detections, so no lower threshold is tried.
        folds: of the cross-validation, over images; at most as many as there are images.
        seed: of the split into folds, and of the bootstrap.

    Raises:
        LabelError: no images, two sides that do not match, an unknown metric, a fold.
        ConfigError: `start` has not one number per class.
    """
    score([], [], [metric])  # refuses an unknown name
    if folds < 2 or len(predictions) == 0:
        raise LabelError(
            f"{len(predictions)} images, {folds} folds; expected images and at least 2 folds"
        )
    if num_classes is None:
        sides = (*ground_truth, *predictions)
        num_classes = 1 + max(int(cells.classes.max(initial=0)) for cells in sides)
    start = _per_class(DetectionThresholds() if start is None else start, num_classes)
    search = _Search(_prepare(ground_truth, predictions), metric, num_classes, lowest_score)
    everything = np.arange(len(predictions))
    fitted = search.fit(everything, start)
    before, after = search.at(everything, start), search.at(everything, fitted)
    parts = _split(len(predictions), folds, seed)
    of_folds = tuple(search.fit(np.setdiff1d(everything, part), start) for part in parts)
    held_out = [each for part, own in zip(parts, of_folds) for each in search.selections(part, own)]
    held_out.sort(key=lambda selection: selection[0])
    return Tuning(
        metric,
        fitted,
        len(predictions),
        before,
        after,
        search.figure(held_out) if parts else None,
        search.gain_interval(held_out, search.selections(everything, start), seed),
        of_folds,
    )


def _split(num_images: int, folds: int, seed: int) -> list[IntArray]:
    """Image numbers of each fold; none where there are too few images for two."""
    if num_images < 2:
        return []
    order = np.random.default_rng(seed).permutation(num_images)
    return np.array_split(order, min(folds, num_images))


def _per_class(thresholds: DetectionThresholds, num_classes: int) -> DetectionThresholds:
    thresholds.check_classes(num_classes)

    def spread(value: PerClass) -> PerClass:
        return tuple(np.broadcast_to(value, num_classes).tolist())

    values: dict[str, Any] = {name: spread(getattr(thresholds, name)) for name in _TUNED}
    return replace(thresholds, **values)


def _sign(metric: str) -> int:
    key = metric.partition("@")[0]
    lower = key in _LOWER_IS_BETTER or (key.startswith("errors_") and key != _BETTER_WHEN_MORE)
    return -1 if lower else 1


@dataclass(frozen=True, eq=False)
class _Image:
    """One image: all that its detections have to do with true cells and with each other."""

    true: CellInstances
    pred: CellInstances
    whole: Comparison
    own: Overlaps
    by_vote: dict[int, _Image] = field(default_factory=dict)

    def select(self, thresholds: DetectionThresholds) -> IntArray:
        return select_detections(self.pred, self.whole.pred_areas, self.own, thresholds)

    def after_vote(self, elected: int) -> _Image:
        """The same with all detections of one class, the image's own where that is below 0."""
        if elected < 0:
            return self
        if elected not in self.by_vote:
            classes = np.full(len(self.pred), elected)
            pred = self.pred.replace(classes=classes)
            known = next(iter(self.by_vote.values()), None)
            own = find_own_overlaps(pred) if known is None else known.own
            whole = replace(self.whole, pred_classes=classes)
            self.by_vote[elected] = _Image(self.true, pred, whole, own)
        return self.by_vote[elected]

    def compare(self, kept: IntArray, *, with_pixels: bool) -> Comparison:
        """The comparison that remains with these detections, pairs of one class only."""
        whole, pairs = self.whole, self.whole.overlaps
        place = np.full(len(self.pred), -1)
        place[kept] = np.arange(len(kept))
        columns = place[pairs.pred_index]
        same = whole.true_classes[pairs.true_index] == whole.pred_classes[pairs.pred_index]
        left = (columns >= 0) & same
        overlaps = Overlaps(
            (len(self.true), len(kept)),
            pairs.true_index[left],
            columns[left],
            pairs.intersection_px[left],
            pairs.iou[left],
        )
        return replace(
            whole,
            overlaps=overlaps,
            pred_areas=whole.pred_areas[kept],
            scores=whole.scores[kept],
            pred_classes=whole.pred_classes[kept],
            labels_pred=self.pred[kept].to_label_image() if with_pixels else whole.labels_pred,
        )


def _prepare(
    ground_truth: Sequence[CellInstances], predictions: Sequence[CellInstances]
) -> list[_Image]:
    return [
        _Image(true, pred, whole, find_own_overlaps(pred))
        for true, pred, whole in zip(
            ground_truth, predictions, compare_all(ground_truth, predictions)
        )
    ]


Selection = tuple[int, int, IntArray]
"""Number of an image, the class it voted for (-1: no vote), and which detections are kept."""


class _Search:
    """Trials of thresholds on sets of images; what is known of an image is not computed again."""

    def __init__(
        self, images: Sequence[_Image], metric: str, num_classes: int, lowest_score: float
    ) -> None:
        self._images = images
        self._metric = metric
        self._num_classes = num_classes
        self._lowest_score = lowest_score
        self._sign = _sign(metric)
        key, _, at = metric.partition("@")
        self._figure = FIGURES.get(key)  # None: one of COCO's
        several = self._figure is not None and self._figure.at_threshold and not at
        self._thresholds = THRESHOLDS if several else (float(at or 0),)
        self._known: dict[tuple[int, int, bytes], FloatArray] = {}

    def fit(self, numbers: IntArray, start: DetectionThresholds) -> DetectionThresholds:
        """The best thresholds for some images; those of `start` where nothing is better.

        Scores and overlaps stand in for each other, so the search also begins where what
        overlaps is suppressed.
        """
        half = (0.5,) * self._num_classes
        suppressing = replace(start, mask_nms=half, max_covered=half)
        ends = [self._climb(numbers, begin) for begin in (start, suppressing)]
        first, second = (self._worth(numbers, end) for end in ends)
        best, worth = (ends[1], second) if second > first + _SAME else (ends[0], first)
        for name, number in self._coordinates():
            back = _with(best, name, number, getattr(start, name)[number])
            if self._worth(numbers, back) >= worth - _SAME:
                best = back
        return best

    def _climb(self, numbers: IntArray, best: DetectionThresholds) -> DetectionThresholds:
        """Coordinate by coordinate, as long as it helps; of equally good values the middle one."""
        worth = self._worth(numbers, best)
        for _ in range(_ROUNDS):
            before = best
            for name, number in self._coordinates():
                trials = [
                    _with(best, name, number, value) for value in self._grid(name, number, numbers)
                ]
                worths = [self._worth(numbers, trial) for trial in trials]
                if max(worths) > worth + _SAME:
                    worth = max(worths)
                    equal = [t for t, each in zip(trials, worths) if each >= worth - _SAME]
                    best = equal[len(equal) // 2]
            if best == before:
                break
        return best

    def _coordinates(self) -> list[tuple[str, int]]:
        return list(product(_TUNED, range(self._num_classes)))

    def _grid(self, name: str, number: int, numbers: IntArray) -> list[float]:
        if name == "score":
            lowest = self._lowest_score
            return [lowest, *(value for value in SCORES if value > lowest)]
        if name == "mask_nms":
            return list(MASK_NMS)
        if name == "max_covered":
            return list(MAX_COVERED)
        images = [self._images[k].whole for k in numbers]
        areas = np.concatenate([image.true_areas[image.true_classes == number] for image in images])
        median = float(np.median(areas)) if len(areas) else 0.0
        return sorted({float(round(share * median)) for share in AREA_SHARES})

    def _worth(self, numbers: IntArray, thresholds: DetectionThresholds) -> float:
        return self._sign * self.at(numbers, thresholds)

    def at(self, numbers: IntArray, thresholds: DetectionThresholds) -> float:
        """The metric over some images."""
        return self.figure(self.selections(numbers, thresholds))

    def selections(self, numbers: IntArray, thresholds: DetectionThresholds) -> list[Selection]:
        return [self._select(int(k), thresholds) for k in numbers]

    def _select(self, number: int, thresholds: DetectionThresholds) -> Selection:
        image = self._images[number]
        elected = vote_class(image.pred.scores, image.pred.classes, thresholds)
        voted = -1 if elected is None else elected
        return number, voted, image.after_vote(voted).select(thresholds)

    def figure(self, selections: Sequence[Selection]) -> float:
        """The metric over images of which certain detections are kept."""
        if self._figure is None:
            images = [(self._images[k].after_vote(voted), kept) for k, voted, kept in selections]
            sides = [(image.true, image.pred[kept]) for image, kept in images]
            true, pred = zip(*sides)
            return score(true, pred, [self._metric])[self._metric]
        return self._combine(np.stack([self._rows(*each) for each in selections]))

    def _combine(self, rows: FloatArray) -> float:
        """Numbers of I images at each of T IoU thresholds, [I, T, K], to one figure."""
        assert self._figure is not None
        return float(np.mean([self._figure.combine(part) for part in rows.swapaxes(0, 1)]))

    def _rows(self, number: int, voted: int, kept: IntArray) -> FloatArray:
        """What the metric takes of one image, [T, K]."""
        key = (number, voted, kept.tobytes())
        if key not in self._known:
            assert self._figure is not None
            pixels = not self._figure.at_threshold
            image = self._images[number].after_vote(voted).compare(kept, with_pixels=pixels)
            rows = [list(self._figure.measure(image, each)) for each in self._thresholds]
            self._known[key] = np.array(rows, np.float64)
        return self._known[key]

    def gain_interval(
        self, after: Sequence[Selection], before: Sequence[Selection], seed: int
    ) -> tuple[float, float] | None:
        """Percentile bootstrap over images of what `after` is better than `before`."""
        if self._figure is None or not after:
            return None
        sides = [np.stack([self._rows(*each) for each in side]) for side in (after, before)]
        drawn = np.random.default_rng(seed).integers(0, len(after), (_SAMPLES, len(after)))
        gains = [self._combine(sides[0][k]) - self._combine(sides[1][k]) for k in drawn]
        low, high = np.percentile(self._sign * np.array(gains), [2.5, 97.5])
        return float(low), float(high)


def _with(
    thresholds: DetectionThresholds, name: str, number: int, value: float
) -> DetectionThresholds:
    values = list(getattr(thresholds, name))
    values[number] = value
    changes: dict[str, Any] = {name: tuple(values)}
    return replace(thresholds, **changes)
