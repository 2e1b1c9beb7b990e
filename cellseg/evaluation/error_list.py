"""Everything that is wrong with the cells of an image, error by error, each with its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from cellseg.cells.labels import IntArray
from cellseg.evaluation.comparison import Comparison
from cellseg.evaluation.error_kinds import (
    CONFUSED,
    KIND_SENTENCES,
    ErrorKinds,
    classify_errors,
    confused_pairs,
    kind_of_group,
)
from numpy.typing import NDArray

OUTLINE = "outline"
ERROR_SENTENCES = {
    "missed": KIND_SENTENCES["missed"],
    "spurious": KIND_SENTENCES["spurious"],
    "merge": KIND_SENTENCES["merge"],
    "split": KIND_SENTENCES["split"],
    "catastrophe": KIND_SENTENCES["catastrophe"],
    OUTLINE: "pairs that belong together, of an IoU of 0.6 at most",
    CONFUSED: "pairs of the right outline, wrong class",
}
"""What each kind of `CellError` is."""
ERROR_WORDS = {
    "missed": "missed",
    "spurious": "spurious",
    "merge": "merged",
    "split": "split",
    "catastrophe": "tangled",
    OUTLINE: "badly outlined",
    CONFUSED: "wrong class",
}
"""What a person reads for each kind."""


@dataclass(frozen=True, eq=False)
class CellError:
    """One thing that is wrong.

    Attributes:
        kind: one of `ERROR_SENTENCES`.
        true: int64 [N], numbers of the true cells concerned; none for a spurious cell.
        pred: int64 [M], numbers of the predicted cells; none for a missed one.
        iou: the largest IoU of one of these with one of those; 0 where one side has none.
        box_xyxy: float32 [4], around all of them, x1 and y1 exclusive, pixels.
    """

    kind: str
    true: IntArray
    pred: IntArray
    iou: float
    box_xyxy: NDArray[np.float32]


def list_errors(image: Comparison) -> list[CellError]:
    """The errors of an image, from the top of the image to its bottom.

    As `classify_errors` counts, but that a true and a predicted cell that belong together are one
    error, a wrong outline, where that counts a missed and a spurious cell; and cells of the right
    outline and another class than their partner are errors too.

    Args:
        image: give `Comparison.counted`, in which crowd regions have forgiven what they can.

    Returns:
        Numbers in them are those of the cells of `image.true` and `image.pred`.

    Example:
        >>> from cellseg.evaluation import compare
        >>> image = compare(np.array([[1, 1, 0, 2]]), np.array([[1, 2, 0, 0]]))
        >>> [(one.kind, one.true.tolist(), one.pred.tolist()) for one in list_errors(image)]
        [('split', [0], [0, 1]), ('missed', [1], [])]
    """
    boxes = image.true.cells.boxes_xyxy, image.pred.cells.boxes_xyxy
    best = _best_ious(image)
    errors = []
    for kind, true, pred in _events(image, classify_errors(image)):
        around = np.concatenate([boxes[0][true], boxes[1][pred]])
        box = np.concatenate([around[:, :2].min(axis=0), around[:, 2:].max(axis=0)])
        iou = max((best.get((i, j), 0.0) for i in true.tolist() for j in pred.tolist()), default=0)
        errors.append(CellError(kind, true, pred, float(iou), box))
    return sorted(errors, key=lambda one: (one.box_xyxy[1], one.box_xyxy[0]))


def count_kinds(errors: Sequence[CellError]) -> dict[str, int]:
    """How many errors there are of each kind of `ERROR_SENTENCES`."""
    kinds = [error.kind for error in errors]
    return {kind: kinds.count(kind) for kind in ERROR_SENTENCES}


def _best_ious(image: Comparison) -> dict[tuple[int, int], float]:
    overlaps = image.overlaps
    pairs = zip(overlaps.true_index.tolist(), overlaps.pred_index.tolist())
    return dict(zip(pairs, overlaps.iou.tolist()))


def _events(image: Comparison, found: ErrorKinds) -> Iterator[tuple[str, IntArray, IntArray]]:
    """Kind, true and predicted cells of each error."""
    nothing = np.zeros(0, np.int64)
    alone_true, alone_pred = found.of_kind("missed")[0], found.of_kind("spurious")[1]
    for true, pred in found.groups:
        yield kind_of_group(len(true), len(pred)) or OUTLINE, true, pred
        alone_true, alone_pred = np.setdiff1d(alone_true, true), np.setdiff1d(alone_pred, pred)
    for missed in alone_true.tolist():
        yield "missed", np.array([missed]), nothing
    for spurious in alone_pred.tolist():
        yield "spurious", nothing, np.array([spurious])
    for one, other in confused_pairs(image):
        yield CONFUSED, np.array([one]), np.array([other])
