"""Two segmentations of one image, side by side: everything that a metric asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.label_overlaps import find_label_overlaps
from cellseg.cells.labels import IntArray, check_label_image
from cellseg.cells.overlaps import Overlaps, find_overlaps
from cellseg.errors import LabelError
from numpy.typing import NDArray

Segmentation: TypeAlias = "NDArray[Any] | CellInstances"


@dataclass(frozen=True, eq=False)
class Comparison:
    """True and predicted cells of one image.

    Attributes:
        overlaps: the pairs that share pixels.
        true_areas, pred_areas: int64 [N] and [M], pixels.
        labels_true, labels_pred: label images [H, W]; of instances that overlap, the one with the
            higher score is in front.
        scores: float64 [M] of the predicted cells; 1 for label images.
        true_classes, pred_classes: int64 [N] and [M]; 0 for label images.
    """

    overlaps: Overlaps
    true_areas: IntArray
    pred_areas: IntArray
    labels_true: NDArray[Any]
    labels_pred: NDArray[Any]
    scores: NDArray[np.float64]
    true_classes: IntArray
    pred_classes: IntArray

    def foreground_px(self) -> tuple[int, int, int]:
        """Pixels in true cells, in predicted cells, in both."""
        true, pred = self.labels_true > 0, self.labels_pred > 0
        return tuple(int(np.count_nonzero(part)) for part in (true, pred, true & pred))  # type: ignore[return-value]


def compare(true: Segmentation, pred: Segmentation) -> Comparison:
    """Compare two segmentations of one image, both label images or both `CellInstances`.

    Raises:
        LabelError: they are of two kinds or sizes.
    """
    found = _overlaps(true, pred)
    labels = (_label_image(true), _label_image(pred))
    count = len(found[2])
    scores = pred.scores if isinstance(pred, CellInstances) else np.ones(count)
    classes = (_classes(true, len(found[1])), _classes(pred, count))
    return Comparison(*found, *labels, scores.astype(np.float64), *classes)


def _label_image(side: Segmentation) -> NDArray[Any]:
    return side.to_label_image() if isinstance(side, CellInstances) else check_label_image(side)


def _classes(side: Segmentation, count: int) -> IntArray:
    return side.classes if isinstance(side, CellInstances) else np.zeros(count, np.int64)


def iou_matrix(true: Segmentation, pred: Segmentation) -> NDArray[np.float64]:
    """IoU of every true with every predicted cell of one image, float64 [N, M] in 0 to 1.

    Args:
        true, pred: both label images [H, W], from one histogram, rows and columns in the ascending
            order of the labels that occur; or both `CellInstances`, through their crops.

    Raises:
        LabelError: they are of two kinds or sizes.
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
    ground_truth: Sequence[Segmentation], predictions: Sequence[Segmentation]
) -> list[Comparison]:
    """`compare` image by image.

    Raises:
        LabelError: not as many of one as of the other, or a pair does not compare; names which.
    """
    check_lengths(ground_truth, predictions)
    found = []
    for number, (true, pred) in enumerate(zip(ground_truth, predictions)):
        try:
            found.append(compare(true, pred))
        except LabelError as error:
            raise LabelError(f"image {number}: {error}") from error
    return found


def check_lengths(ground_truth: Sequence[Any], predictions: Sequence[Any]) -> None:
    """Raise LabelError if there are not as many of one as of the other."""
    if len(ground_truth) != len(predictions):
        raise LabelError(
            f"ground truth of {len(ground_truth)} images and predictions of {len(predictions)}: "
            "give both for the same images, in the same order"
        )
