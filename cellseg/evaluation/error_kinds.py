"""What went wrong with a cell: missed, spurious, split, merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cellseg.cells.labels import IntArray
from cellseg.evaluation.comparison import Comparison
from scipy import sparse
from scipy.sparse.csgraph import connected_components

CORRECT_ABOVE_IOU = 0.6
RELATED_FROM_IOU = 0.1
KIND_SENTENCES = {
    "correct": "pairs of an IoU above 0.6",
    "missed": "true cells without a counterpart",
    "spurious": "predicted cells without a counterpart",
    "split": "true cells that are predicted in several pieces",
    "merge": "predicted cells that run several true ones together",
    "catastrophe": "groups of several true and several predicted cells",
}
KINDS = tuple(KIND_SENTENCES)
CONFUSED = "confused"
"""What a pair is that is correct in shape and of two classes."""


@dataclass(frozen=True)
class ErrorKinds:
    """The kind of every cell, as indices into `KINDS`.

    Attributes:
        true_kind: int64 [N]: correct, missed, split, merge or catastrophe.
        pred_kind: int64 [M]: correct, spurious, split, merge or catastrophe.
        counts: events by kind: correct pairs, missed true cells, spurious predicted cells, split
            true cells, merging predicted cells, catastrophes.
        groups: numbers of the true and of the predicted cells that are related and not correct;
            one of each are a missed and a spurious cell.
    """

    true_kind: IntArray
    pred_kind: IntArray
    counts: dict[str, int]
    groups: list[tuple[IntArray, IntArray]]

    def of_kind(self, kind: str) -> tuple[IntArray, IntArray]:
        """Numbers of the true and of the predicted cells of one of `KINDS`."""
        number = KINDS.index(kind)
        return np.flatnonzero(self.true_kind == number), np.flatnonzero(self.pred_kind == number)


def classify_errors(image: Comparison) -> ErrorKinds:
    """Sort the cells of one image by what happened to them, as DeepCell counts.

    After `deepcell_toolbox/metrics.py` with its default cutoffs (scheme of Caicedo et al.,
    Cytometry A 2019). A pair of IoU above 0.6 is correct. Of the cells that are left, those are
    related whose IoU is 0.1 or more, or of which one lies by more than half in the other while
    their IoU is 0.4 at most. A group of related cells with one true and several predicted cells is
    a split, one with several true cells and one predicted a merge, with several of both a
    catastrophe; a pair is a missed and a spurious cell.
    """
    overlaps = image.overlaps
    true_kind = np.full(overlaps.shape[0], KINDS.index("missed"))
    pred_kind = np.full(overlaps.shape[1], KINDS.index("spurious"))
    correct = image.match(CORRECT_ABOVE_IOU, strict=True)
    true_kind[correct.true_index] = pred_kind[correct.pred_index] = KINDS.index("correct")
    counts = dict.fromkeys(KINDS, 0)
    groups = _related_groups(image, true_kind, pred_kind)
    for true, pred in groups:
        kind = kind_of_group(len(true), len(pred))
        if kind is not None:
            true_kind[true] = pred_kind[pred] = KINDS.index(kind)
            counts[kind] += 1
    counts["correct"] = len(correct)
    counts["missed"] = int((true_kind == KINDS.index("missed")).sum())
    counts["spurious"] = int((pred_kind == KINDS.index("spurious")).sum())
    return ErrorKinds(true_kind, pred_kind, counts, groups)


def count_errors(image: Comparison, _: float = 0) -> Sequence[float]:
    """Events of one image by kind, in the order of `KINDS`."""
    return list(classify_errors(image).counts.values())


def confused_pairs(image: Comparison) -> list[tuple[int, int]]:
    """Numbers of true and predicted cells that are correct in shape and of different classes."""
    pairs = image.match(CORRECT_ABOVE_IOU, strict=True)
    true, pred = pairs.true_index, pairs.pred_index
    differ = image.true.classes[true] != image.pred.classes[pred]
    return list(zip(true[differ].tolist(), pred[differ].tolist()))


def kind_of_group(true: int, pred: int) -> str | None:
    """The kind of so many related true and predicted cells; None for one of each."""
    if true > 1 and pred > 1:
        return "catastrophe"
    if true > 1 and pred == 1:
        return "merge"
    return "split" if true == 1 and pred > 1 else None


def _related_groups(
    image: Comparison, true_kind: IntArray, pred_kind: IntArray
) -> list[tuple[IntArray, IntArray]]:
    """Indices of the true and of the predicted cells of every group of related ones."""
    overlaps, correct = image.overlaps, KINDS.index("correct")
    rows, columns = overlaps.true_index, overlaps.pred_index
    smaller = np.minimum(image.true.areas_px[rows], image.pred.areas_px[columns])
    contained = (2 * overlaps.intersection_px > smaller) & (overlaps.iou <= 1 - CORRECT_ABOVE_IOU)
    related = (overlaps.iou >= RELATED_FROM_IOU) | contained
    related &= (true_kind[rows] != correct) & (pred_kind[columns] != correct)
    rows, columns = rows[related], columns[related] + overlaps.shape[0]
    size = sum(overlaps.shape)
    graph = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    _, group = connected_components(graph, directed=False)
    groups = []
    for number in np.unique(group[rows]):
        members = np.flatnonzero(group == number)
        is_true = members < overlaps.shape[0]
        groups.append((members[is_true], members[~is_true] - overlaps.shape[0]))
    return groups
