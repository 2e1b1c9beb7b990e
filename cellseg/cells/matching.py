"""One-to-one matching of true and predicted cells by their IoU.

Three rules are in use. Optimal (`match_overlaps`): as many pairs as possible and, among those, the
most IoU; scores play no part. Greedy (`match_greedily`): predicted cells choose in the order of
their scores, as notebooks of Kaggle's competitions do. COCO's is greedy too, with cells that do not
count (`cellseg.evaluation.coco`); it shares `take_free_pairs`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cellseg.arguments import FLAG, REAL, VECTOR, checked, is_numeric, of_type
from cellseg.cells.labels import IntArray
from cellseg.cells.overlaps import Overlaps
from cellseg.errors import LabelError
from cellseg.rules import Rule
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

_MATRIX = Rule(
    "IoUs [N, M]", lambda value: is_numeric(value) and np.ndim(value) == 2, (list, np.ndarray)
)
_OVERLAPS = of_type(Overlaps, "the pairs that share pixels (Overlaps)")


@dataclass(frozen=True)
class Matching:
    """One-to-one pairs of true and predicted cells.

    Attributes:
        true_index: int64 [K], numbers of the true cells, ascending, none twice.
        pred_index: int64 [K], numbers of the predicted cells, none twice.
        iou: float64 [K], mask IoU of the pairs.
    """

    true_index: IntArray
    pred_index: IntArray
    iou: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.iou)


@checked(iou=_MATRIX, threshold=REAL, strict=FLAG)
def match_cells(
    iou: NDArray[np.float64], threshold: float = 0.5, *, strict: bool = False
) -> Matching:
    """Pair true with predicted cells one to one, at an IoU of at least `threshold`.

    As many pairs as possible and, among those, the largest sum of IoU: the assignment that
    StarDist scores with (Weigert and Schmidt, `stardist/matching.py`). Scores play no part. At
    thresholds above 0.5, cells that do not overlap within their set have one candidate at most,
    and the assignment is the only one possible.

    Args:
        iou: float64 [N, M], rows are true cells, columns predicted ones; either side may be empty.
        threshold: the least IoU of a pair, in (0, 1].
        strict: match at IoU > threshold (the rule of Kaggle's Data Science Bowl 2018) rather than
            at IoU >= threshold.

    Raises:
        LabelError: the threshold lies outside (0, 1].

    Example:
        Two pairs are better than the single best one:

        >>> pairs = match_cells(np.array([[0.9, 0.6], [0.6, 0.0]]))
        >>> pairs.pred_index.tolist(), pairs.iou.tolist()
        ([1, 0], [0.6, 0.6])
    """
    iou = np.asarray(iou, dtype=np.float64)
    rows, columns = np.nonzero(iou)
    overlaps = Overlaps(
        (iou.shape[0], iou.shape[1]), rows, columns, np.ones_like(rows), iou[rows, columns]
    )
    return match_overlaps(overlaps, threshold, strict=strict)


@checked(overlaps=_OVERLAPS, threshold=REAL, strict=FLAG)
def match_overlaps(overlaps: Overlaps, threshold: float = 0.5, *, strict: bool = False) -> Matching:
    """`match_cells` on the pairs that overlap; see there."""
    pairs = _passing(overlaps, threshold, strict)
    rows, columns = overlaps.true_index[pairs], overlaps.pred_index[pairs]
    alone = have_no_rival(rows, columns)
    contested = pairs[~alone]
    chosen = _assign(rows[~alone], columns[~alone], overlaps.iou[contested])
    return _matching(overlaps, np.concatenate([pairs[alone], contested[chosen]]))


@checked(overlaps=_OVERLAPS, scores=VECTOR, threshold=REAL, strict=FLAG)
def match_greedily(
    overlaps: Overlaps, scores: NDArray[np.float64], threshold: float = 0.5, *, strict: bool = False
) -> Matching:
    """Let predicted cells choose, best score first: the free true cell of the highest IoU.

    Args:
        overlaps: the pairs of one image.
        scores: float64 [M], of the predicted cells; of equal scores the lower number is first.
        threshold: the least IoU of a pair, in (0, 1].
        strict: match at IoU > threshold rather than at IoU >= threshold.

    Returns:
        One-to-one pairs; unlike with `match_overlaps` not always as many as possible.

    Raises:
        LabelError: the threshold lies outside (0, 1].
    """
    pairs, scores = _passing(overlaps, threshold, strict), np.asarray(scores, np.float64)
    if len(scores) != overlaps.shape[1]:
        raise LabelError(
            f"scores has {len(scores)} numbers for {overlaps.shape[1]} predicted cells"
        )
    rows, columns = overlaps.true_index[pairs], overlaps.pred_index[pairs]
    order = np.lexsort((-overlaps.iou[pairs], columns, -scores[columns]))
    return _matching(overlaps, pairs[take_free_pairs(rows, columns, order)])


def _passing(overlaps: Overlaps, threshold: float, strict: bool) -> IntArray:
    """Positions of the pairs whose IoU is high enough."""
    if not 0 < threshold <= 1:
        raise LabelError(f"an IoU threshold lies in (0, 1], found {threshold}")
    return np.flatnonzero(overlaps.iou > threshold if strict else overlaps.iou >= threshold)


def _matching(overlaps: Overlaps, pairs: IntArray) -> Matching:
    pairs = np.sort(pairs)
    return Matching(overlaps.true_index[pairs], overlaps.pred_index[pairs], overlaps.iou[pairs])


def have_no_rival(rows: IntArray, columns: IntArray) -> NDArray[np.bool_]:
    """Which pairs are the only one of both their cells, bool [K]: nothing is to be decided there.

    In an image of many cells these are nearly all.
    """
    return (np.bincount(rows)[rows] == 1) & (np.bincount(columns)[columns] == 1)


def take_free_pairs(
    rows: IntArray,
    columns: IntArray,
    order: IntArray,
    shared_rows: NDArray[np.bool_] | None = None,
) -> IntArray:
    """Go through pairs in an order and take each whose two cells are still free.

    Args:
        rows: int64 [K], number of the first cell of each pair.
        columns: int64 [K], number of the second one.
        order: int64 [K], the positions of all pairs, the most wanted first.
        shared_rows: bool, by number of the first cell: those that any number of pairs may take.

    Returns:
        Positions of the pairs taken, in no particular order.
    """
    alone = have_no_rival(rows, columns)
    contested = order[~alone[order]]
    taken_rows: set[int] = set()
    taken_columns: set[int] = set()
    chosen = []
    for pair, row, column in zip(
        contested.tolist(), rows[contested].tolist(), columns[contested].tolist()
    ):
        if row not in taken_rows and column not in taken_columns:
            taken_columns.add(column)
            chosen.append(pair)
            if shared_rows is None or not shared_rows[row]:
                taken_rows.add(row)
    return np.concatenate([np.flatnonzero(alone), np.array(chosen, np.int64)])


def _assign(rows: IntArray, columns: IntArray, iou: NDArray[np.float64]) -> IntArray:
    """Positions of the pairs in the best assignment: most pairs first, then most IoU."""
    if len(rows) == 0:
        return np.zeros(0, dtype=np.int64)
    row_values, row = np.unique(rows, return_inverse=True)
    column_values, column = np.unique(columns, return_inverse=True)
    position = np.full((len(row_values), len(column_values)), -1, dtype=np.int64)
    position[row, column] = np.arange(len(rows))
    gain = np.zeros(position.shape)
    # All IoU together weigh half a pair at most, so they only decide between equal counts.
    gain[row, column] = 1 + iou / (2 * min(position.shape))
    chosen = position[linear_sum_assignment(gain, maximize=True)]
    return chosen[chosen >= 0]
