"""Thresholds from a validation set: which detections to keep so that a metric is best.

Everything is computed once, from one pass of predictions: the overlaps of detections with true
cells and with each other. A trial of thresholds only selects among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray
from cellseg.cells.selection import DetectionThresholds, PerClass
from cellseg.errors import LabelError
from cellseg.evaluation.metric_kinds import FloatArray
from cellseg.evaluation.metrics import find_metric
from cellseg.evaluation.scorer import Scorer
from cellseg.evaluation.scoring import Comparisons
from cellseg.evaluation.trials import Selection, TrialImage, prepare_images

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


@dataclass(frozen=True)
class Tuning:
    """What was found, and what it is value.

    Attributes:
        metric: its name.
        thresholds: fitted to all images; what is tuned has one number per class.
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
        return _sign(self.metric) * (self.after - self.before) + 0.0  # not -0.0

    @property
    def held_out_gain(self) -> float | None:
        """On images that they were not fitted to, the honest one; above 0 is better."""
        if self.held_out is None:
            return None
        return _sign(self.metric) * (self.held_out - self.before) + 0.0


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
        start: thresholds that are in use; kept where nothing is better. Score, overlaps and
            minimum area are tuned, the others hold in every trial; with a vote each counts the
            votes anew.
        num_classes: by default one more than the highest class that occurs.
        lowest_score: below it the model gave no detections, so no lower threshold is tried.
        folds: of the cross-validation, over images; at most as many as there are images.
        seed: of the split into folds, and of the bootstrap.

    Raises:
        LabelError: no images, two sides that do not match, an unknown metric, a fold.
        ConfigError: `start` has not one number per class.
    """
    find_metric(metric)  # refuses an unknown name
    if folds < 2 or len(predictions) == 0:
        raise LabelError(
            f"{len(predictions)} images, {folds} folds; expected images and at least 2 folds"
        )
    if num_classes is None:
        sides = (*ground_truth, *predictions)
        num_classes = 1 + max(int(cells.classes.max(initial=0)) for cells in sides)
    start = _per_class(DetectionThresholds() if start is None else start, num_classes)
    images = prepare_images(ground_truth, predictions)
    search = _Search(images, metric, num_classes, lowest_score, start.max_area_px)
    everything = np.arange(len(predictions))
    fitted = search.fit(everything, start)
    before, after = search.at(everything, start), search.at(everything, fitted)
    parts = _split(len(predictions), folds, seed)
    of_folds = tuple(search.fit(np.setdiff1d(everything, part), start) for part in parts)
    held_out = [each for part, own in zip(parts, of_folds) for each in search.selections(part, own)]
    held_out.sort(key=lambda selection: selection.number)
    return Tuning(
        metric,
        fitted,
        len(predictions),
        before,
        after,
        search.metric_of(held_out) if parts else None,
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
    return -1 if find_metric(metric)[0].lower_is_better else 1


class _Search:
    """Trials of thresholds on sets of images; what is known of an image is not computed again."""

    def __init__(
        self,
        images: Sequence[TrialImage],
        metric: str,
        num_classes: int,
        lowest_score: float,
        max_area_px: PerClass = 0.0,
    ) -> None:
        self._images = images
        self._metric = metric
        self._num_classes = num_classes
        self._lowest_score = lowest_score
        self._max_area_px = max_area_px  # no minimum above it is tried
        self._sign = _sign(metric)
        # COCO's metrics rank the detections of all images: nothing of one image can be kept.
        self._scorer = None if find_metric(metric)[0].ranked else Scorer([metric])
        self._known: dict[tuple[int, bytes, bytes], FloatArray] = {}

    def fit(self, numbers: IntArray, start: DetectionThresholds) -> DetectionThresholds:
        """The best thresholds for some images; those of `start` where nothing is better.

        Scores and overlaps stand in for each other, so the search also begins where what
        overlaps is suppressed.
        """
        half = (0.5,) * self._num_classes
        suppressing = replace(start, mask_nms=half, max_covered=half)
        ends = [self._climb(numbers, begin) for begin in (start, suppressing)]
        first, second = (self._signed_value(numbers, end) for end in ends)
        best, value = (ends[1], second) if second > first + _SAME else (ends[0], first)
        for name, number in self._coordinates():
            back = _with(best, name, number, getattr(start, name)[number])
            if self._signed_value(numbers, back) >= value - _SAME:
                best = back
        return best

    def _climb(self, numbers: IntArray, best: DetectionThresholds) -> DetectionThresholds:
        """Coordinate by coordinate, as long as it helps; of equally good values the middle one."""
        value = self._signed_value(numbers, best)
        for _ in range(_ROUNDS):
            before = best
            for name, number in self._coordinates():
                grid = self._grid(name, number, numbers)
                trials = [_with(best, name, number, each) for each in grid]
                values = [self._signed_value(numbers, trial) for trial in trials]
                if max(values) > value + _SAME:
                    value = max(values)
                    equal = [t for t, each in zip(trials, values) if each >= value - _SAME]
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
        true = [self._images[k].whole.true for k in numbers]
        areas = np.concatenate([side.areas_px[side.classes == number] for side in true])
        median = float(np.median(areas)) if len(areas) else 0.0
        least = sorted({float(round(share * median)) for share in AREA_SHARES})
        most = np.broadcast_to(self._max_area_px, self._num_classes)[number]
        return [area for area in least if area <= most or most == 0]

    def _signed_value(self, numbers: IntArray, thresholds: DetectionThresholds) -> float:
        return self._sign * self.at(numbers, thresholds)

    def at(self, numbers: IntArray, thresholds: DetectionThresholds) -> float:
        """The metric over some images."""
        return self.metric_of(self.selections(numbers, thresholds))

    def selections(self, numbers: IntArray, thresholds: DetectionThresholds) -> list[Selection]:
        return [self._images[k].select(thresholds) for k in numbers.tolist()]

    def metric_of(self, selections: Sequence[Selection]) -> float:
        """The metric over images of which certain detections are kept."""
        if self._scorer is None:
            compared = Comparisons([selection.compare() for selection in selections])
            return compared.metrics([self._metric])[self._metric]
        return self._combine(self._rows(selections))

    def _combine(self, rows: FloatArray) -> float:
        assert self._scorer is not None
        return self._scorer.combine(rows)[self._metric]

    def _rows(self, selections: Sequence[Selection]) -> FloatArray:
        """What the metric takes of each image, [I, W]; not measured again where it is known."""
        assert self._scorer is not None
        rows = []
        for each in selections:
            key = (each.number, each.classes.tobytes(), each.kept.tobytes())
            if key not in self._known:  # the new masks follow from what is kept
                self._known[key] = self._scorer.measure(each.compare().within_classes)
            rows.append(self._known[key])
        return np.stack(rows)

    def gain_interval(
        self, after: Sequence[Selection], before: Sequence[Selection], seed: int
    ) -> tuple[float, float] | None:
        """Percentile bootstrap over images of what `after` is better than `before`."""
        if self._scorer is None or not after:
            return None
        sides = [self._rows(side) for side in (after, before)]
        drawn = np.random.default_rng(seed).integers(0, len(after), (_SAMPLES, len(after)))
        gains = [self._combine(sides[0][k]) - self._combine(sides[1][k]) for k in drawn]
        low, high = np.percentile(self._sign * np.array(gains) + 0.0, [2.5, 97.5]).tolist()
        return low, high


def _with(
    thresholds: DetectionThresholds, name: str, number: int, value: float
) -> DetectionThresholds:
    values = list(getattr(thresholds, name))
    values[number] = value
    changes: dict[str, Any] = {name: tuple(values)}
    return replace(thresholds, **changes)
