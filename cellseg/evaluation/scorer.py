"""What metrics need of every image, and the metrics from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from cellseg.evaluation.coco import CocoEvaluation
from cellseg.evaluation.comparison import Comparison, compare
from cellseg.evaluation.metric_kinds import (
    IOU_THRESHOLDS,
    FloatArray,
    Measure,
    Metric,
    RankedMetric,
)
from cellseg.evaluation.metrics import find_metric

_Key = tuple[Measure, float | None]  # a measure, and the threshold it is taken at if it takes one

_NO_CELLS = compare(np.zeros((1, 1), np.uint8), np.zeros((1, 1), np.uint8))


class Scorer:
    """Metrics that are measured image by image, each measure taken once.

    The numbers of an image are one row, so that its comparison need not be kept: rows of many
    images are stacked, sent from process to process, and drawn again by a bootstrap.

    Args:
        names: metrics such as "f1@0.50", none of them ranked.
        thresholds: the IoU thresholds over which a metric without one in its name is the mean.

    Raises:
        LabelError: a name is no metric.
    """

    def __init__(self, names: Sequence[str], thresholds: Sequence[float] = IOU_THRESHOLDS) -> None:
        self._asked: dict[str, tuple[Metric, list[_Key]]] = {}
        for name in names:
            metric, at = find_metric(name)
            assert isinstance(metric, Metric)
            several = thresholds if at is None else [at]
            keys = [(metric.measure, t) for t in (several if metric.at_threshold else [None])]
            self._asked[name] = (metric, keys)
        self._keys = list(dict.fromkeys(key for _, keys in self._asked.values() for key in keys))
        ends = np.cumsum([0, *(len(_take(_NO_CELLS, key)) for key in self._keys)]).tolist()
        self._columns = {key: slice(*ends[k : k + 2]) for k, key in enumerate(self._keys)}
        self._width = ends[-1]

    def measure(self, image: Comparison) -> FloatArray:
        """The numbers of one image, float64 [W]."""
        return np.array([number for key in self._keys for number in _take(image, key)], np.float64)

    def measure_all(self, images: Sequence[Comparison]) -> FloatArray:
        """The numbers of I images, float64 [I, W]; I may be 0."""
        rows = [self.measure(image) for image in images]
        return np.array(rows).reshape(len(rows), self._width)

    def combine(self, rows: FloatArray, names: Sequence[str] | None = None) -> dict[str, float]:
        """Metrics over the images of `rows`, [I, W]; by default all of them, by name."""
        found = {}
        for name in self._asked if names is None else names:
            metric, keys = self._asked[name]
            values = [metric.combine(rows[:, self._columns[key]]) for key in keys]
            found[name] = float(np.mean(values))
        return found

    def by_image(
        self, rows: FloatArray, names: Sequence[str] | None = None
    ) -> dict[str, FloatArray]:
        """Metrics of each image of `rows` alone, float64 [I] by name."""
        found = {}
        for name in self._asked if names is None else names:
            metric, keys = self._asked[name]
            values = [metric.value(rows[:, self._columns[key]]) for key in keys]
            found[name] = np.mean(values, axis=0)
        return found


def _take(image: Comparison, key: _Key) -> Sequence[float]:
    measure, threshold = key
    return measure(image.counted, 0.0) if threshold is None else measure(image, threshold)


def read_ranked(
    names: Sequence[str], evaluation_of: Callable[[str], CocoEvaluation]
) -> dict[str, float]:
    """Ranked metrics by name.

    Args:
        names: metrics such as "ap_coco_mask@0.50", all of them ranked.
        evaluation_of: "mask" or "box" -> the evaluation of the data set.
    """
    found = {}
    for name in names:
        metric, at = find_metric(name)
        assert isinstance(metric, RankedMetric)
        found[name] = metric.of(evaluation_of(metric.kind), at)
    return found


def split_ranked(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Metrics that are measured image by image, and those that rank all detections, as COCO's do.

    Raises:
        LabelError: a name is no metric, with the nearest ones.
    """
    ranked = {name: find_metric(name)[0].ranked for name in names}
    return [n for n in names if not ranked[n]], [n for n in names if ranked[n]]
