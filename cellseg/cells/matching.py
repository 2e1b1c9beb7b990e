"""One-to-one matching of true and predicted cells by mask IoU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cellseg.cells.labels import IntArray
from cellseg.cells.overlaps import Overlaps
from cellseg.errors import LabelError
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment


@dataclass(frozen=True)
class Matching:
    """One-to-one pairs of true and predicted cells.

    Attributes:
        true_index: int64[K], ascending, no index twice.
        pred_index: int64[K], no index twice.
        iou: float64[K], mask IoU of the pairs.
    """

    true_index: IntArray
    pred_index: IntArray
    iou: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.iou)


def match_cells(
    iou: NDArray[np.float64], threshold: float = 0.5, *, strict: bool = False
) -> Matching:
    """Pair true with predicted cells one to one, at an IoU of at least `threshold`.

    As many pairs as possible and, among those, the largest sum of IoU: the assignment that
    StarDist scores with (Weigert and Schmidt, `stardist/matching.py`). Scores play no part. At
    thresholds above 0.5, cells that do not overlap within their set have one candidate at most,
    and the assignment is the only one possible.

    Args:
        iou: float64[N, M], rows are true cells; either side may be empty.
        threshold: in (0, 1].
        strict: match at IoU > threshold (the Kaggle 2018 rule) instead of >=.
    """
    iou = np.asarray(iou, dtype=np.float64)
    rows, columns = np.nonzero(iou)
    overlaps = Overlaps(
        (iou.shape[0], iou.shape[1]), rows, columns, np.ones_like(rows), iou[rows, columns]
    )
    return match_overlaps(overlaps, threshold, strict=strict)


def match_overlaps(overlaps: Overlaps, threshold: float = 0.5, *, strict: bool = False) -> Matching:
    """`match_cells` on the pairs that overlap; see there."""
    if not 0 < threshold <= 1:
        raise LabelError(f"an IoU threshold lies in (0, 1], found {threshold}")
    passes = overlaps.iou > threshold if strict else overlaps.iou >= threshold
    rows, columns = overlaps.true_index[passes], overlaps.pred_index[passes]
    iou = overlaps.iou[passes]
    alone = (np.bincount(rows)[rows] == 1) & (np.bincount(columns)[columns] == 1)
    contested = np.flatnonzero(~alone)
    chosen = contested[_assign(rows[contested], columns[contested], iou[contested])]
    kept = np.sort(np.concatenate([np.flatnonzero(alone), chosen]))
    return Matching(rows[kept], columns[kept], iou[kept])


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
