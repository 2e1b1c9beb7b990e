"""What a metric is: how it is measured, combined over images, asked for and judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from cellseg.errors import LabelError
from cellseg.evaluation import coco
from cellseg.evaluation.comparison import Comparison
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Measure: TypeAlias = Callable[[Comparison, float], Sequence[float]]
"""(comparison, IoU threshold) -> K numbers of one image."""
Value: TypeAlias = Callable[[FloatArray], FloatArray]
"""Numbers float64 [..., K] -> values float64 [...]."""

IOU_THRESHOLDS: tuple[float, ...] = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""0.50, 0.55, ..., 0.95: a metric without a threshold in its name is the mean over these."""


def first_number(numbers: FloatArray) -> FloatArray:
    """The value of a metric that is measured as one number."""
    return numbers[..., 0]


@dataclass(frozen=True)
class Metric:
    """A metric that is measured image by image.

    Attributes:
        name: by which it is asked for; no "@" in it.
        sentence: what it says, for docs and tables.
        measure: (comparison, IoU threshold) -> K numbers of the image. At every threshold it gets
            the whole comparison, whose `match` and `count` follow the crowd rule; without
            thresholds (the second argument is 0 then) forgiven detections are left out already.
        value: numbers float64 [..., K] -> values float64 [...].
        pooled: the numbers of all images are summed before `value`, so that every cell weighs the
            same; otherwise the mean of the images' values is taken, and every image does.
        at_threshold: it is measured at an IoU threshold, "f1@0.50"; without one in its name it is
            the mean over `IOU_THRESHOLDS`.
        lower_is_better: as of errors.
        needs_scores: detections without scores make it meaningless.
    """

    name: str
    sentence: str
    measure: Measure
    value: Value = first_number
    pooled: bool = True
    at_threshold: bool = True
    lower_is_better: bool = False
    needs_scores: bool = False
    ranked: ClassVar[bool] = False

    def parse_at(self, text: str) -> float:
        """The IoU threshold behind the @ of a name.

        Raises:
            LabelError: it takes none, or this one makes no sense.
        """
        try:
            threshold = float(text)
        except ValueError:
            threshold = -1.0
        if not self.at_threshold or not 0 < threshold <= 1:
            raise LabelError(
                f"'{self.name}@{text}': expected a metric and an IoU threshold in (0, 1], as in "
                f"f1@0.50; {self.name} {'takes one' if self.at_threshold else 'takes none'}"
            )
        return threshold

    def combine(self, rows: FloatArray) -> float:
        """The metric over I images from their numbers, [I, K]; I may be 0."""
        if self.pooled or len(rows) == 0:
            return float(self.value(rows.sum(axis=0)))
        return float(self.value(rows).mean())


@dataclass(frozen=True)
class RankedMetric:
    """A metric for which the detections of all images are ranked by their scores, as COCO does.

    Attributes:
        name: by which it is asked for; no "@" in it.
        sentence: what it says, for docs and tables.
        read: (numbers of the evaluation, threshold or None) -> the metric.
        kind: "mask" or "box": what is compared.
        sizes_px: the least and the largest area of the cells that count, pixels.
        at_threshold: what may stand behind the @ of its name: one of COCO's thresholds; otherwise
            the number of detections per image that count.
        lower_is_better: as of errors.
    """

    name: str
    sentence: str
    read: Callable[[coco.CocoNumbers, float | None], float]
    kind: str = "mask"
    sizes_px: tuple[float, float] = coco.EVERY_SIZE
    at_threshold: bool = True
    lower_is_better: bool = False
    needs_scores: ClassVar[bool] = True
    ranked: ClassVar[bool] = True

    def parse_at(self, text: str) -> float:
        """What stands behind the @ of a name: a threshold, or a number of detections.

        Raises:
            LabelError: it is no such thing.
        """
        if not self.at_threshold:
            if not (text.isdecimal() and text.isascii() and text[0] != "0"):
                raise LabelError(
                    f"'{self.name}@{text}': expected a number of detections, as in ar_coco_mask@500"
                )
            return int(text)
        near = [each for each in IOU_THRESHOLDS if text in (f"{each:.2f}", f"{each:g}")]
        if not near:
            raise LabelError(
                f"'{self.name}@{text}': expected one of COCO's IoU thresholds, 0.50, 0.55, ..., "
                "0.95"
            )
        return near[0]

    def of(self, evaluation: coco.CocoEvaluation, at: float | None) -> float:
        """The metric from an evaluation of its `kind`."""
        if self.at_threshold or at is None:
            return self.read(evaluation.numbers(coco.MAX_DETECTIONS, self.sizes_px), at)
        return self.read(evaluation.numbers(int(at), self.sizes_px), None)
