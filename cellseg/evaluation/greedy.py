"""Greedy one-to-one matching in the order of scores, as COCO and Kaggle's notebooks do it."""

from __future__ import annotations

import numpy as np
from cellseg.cells.labels import IntArray
from cellseg.cells.matching import Matching
from cellseg.cells.overlaps import Overlaps
from numpy.typing import NDArray


def match_greedily(
    overlaps: Overlaps, scores: NDArray[np.float64], threshold: float = 0.5, *, strict: bool = False
) -> Matching:
    """Let predicted cells choose, best score first: the free true cell of the highest IoU.

    Args:
        overlaps: pairs of one image.
        scores: float64 [M]; of equal scores the lower index is first.
        threshold: a pair needs IoU >= threshold (> with `strict`).

    Returns:
        At most one pair per cell. Unlike `match_overlaps` not always as many as possible.
    """
    passes = overlaps.iou > threshold if strict else overlaps.iou >= threshold
    pairs = np.flatnonzero(passes)
    chosen = pairs[
        choose(overlaps.true_index[pairs], overlaps.pred_index[pairs], overlaps.iou[pairs], scores)
    ]
    chosen = np.sort(chosen)
    return Matching(overlaps.true_index[chosen], overlaps.pred_index[chosen], overlaps.iou[chosen])


def choose(
    rows: IntArray, columns: IntArray, iou: NDArray[np.float64], scores: NDArray[np.float64]
) -> IntArray:
    """Positions of the pairs that a greedy choice takes.

    Pairs of two cells that have no other candidate need no choice; in an image of many cells these
    are nearly all.
    """
    if len(rows) == 0:
        return np.zeros(0, np.int64)
    alone = (np.bincount(rows)[rows] == 1) & (np.bincount(columns)[columns] == 1)
    contested = np.flatnonzero(~alone)
    order = contested[
        np.lexsort((-iou[contested], columns[contested], -scores[columns[contested]]))
    ]
    taken_rows: set[int] = set()
    taken_columns: set[int] = set()
    chosen = []
    for pair, row, column in zip(order.tolist(), rows[order].tolist(), columns[order].tolist()):
        if row not in taken_rows and column not in taken_columns:
            taken_rows.add(row)
            taken_columns.add(column)
            chosen.append(pair)
    return np.concatenate([np.flatnonzero(alone), np.array(chosen, np.int64)])
