"""Metrics that count pixels: aggregated Jaccard, SEG, boundaries."""

from __future__ import annotations

from typing import Any

import numpy as np
from cellseg.cells.overlaps import Overlaps
from cellseg.evaluation.comparison import Comparison
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

BOUNDARY_TOLERANCE_PX = 2.0


def dice_px(image: Comparison, _: float = 0) -> tuple[int, int]:
    """Dice of the pixels in any cell as (part, whole)."""
    true, pred, both = _foreground_px(image)
    return 2 * both, true + pred


def jaccard_px(image: Comparison, _: float = 0) -> tuple[int, int]:
    """Jaccard index of the pixels in any cell as (part, whole)."""
    true, pred, both = _foreground_px(image)
    return both, true + pred - both


def _foreground_px(image: Comparison) -> list[int]:
    """Pixels in true cells, in predicted cells, in both."""
    true, pred = image.true.labels > 0, image.pred.labels > 0
    return [int(np.count_nonzero(part)) for part in (true, pred, true & pred)]


def aggregated_jaccard(image: Comparison, _: float = 0) -> tuple[int, int]:
    """AJI of one image (Kumar et al., IEEE TMI 2017) as (intersections, unions), pixels.

    Every true cell takes the predicted cell with which its IoU is largest, several may take the
    same one; their intersections, over their unions and the areas of the predicted cells that
    nobody took. A true cell that touches nothing adds its area below.
    """
    overlaps = image.overlaps
    by_iou = np.lexsort((-overlaps.iou, overlaps.true_index))
    first = np.unique(overlaps.true_index[by_iou], return_index=True)[1]
    best = by_iou[first]
    return _aggregate(image, best)


def aggregated_jaccard_plus(image: Comparison, _: float = 0) -> tuple[int, int]:
    """AJI+ of one image (Graham et al., Medical Image Analysis 2019): as AJI, but one to one.

    The pairs are those of the largest sum of IoU.
    """
    return _aggregate(image, _pairs_of_most_iou(image.overlaps))


def _pairs_of_most_iou(overlaps: Overlaps) -> NDArray[np.int64]:
    """Positions of the one-to-one pairs with the largest sum of IoU."""
    true, pred = overlaps.shape
    if len(overlaps.iou) == 0:
        return np.zeros(0, np.int64)
    # Every true cell also has a partner of its own, at the price of no overlap.
    alone = np.arange(true)
    # older versions of SciPy match 32-bit indices only
    rows = np.concatenate([overlaps.true_index, alone]).astype(np.int32)
    columns = np.concatenate([overlaps.pred_index, pred + alone]).astype(np.int32)
    prices = np.concatenate([2 - overlaps.iou, np.full(true, 2.0)])
    shape = (true, pred + true)
    chosen = min_weight_full_bipartite_matching(sparse.csr_array((prices, (rows, columns)), shape))
    numbers = sparse.csr_array((np.arange(1, len(rows) + 1), (rows, columns)), shape)
    positions = np.asarray(numbers[chosen[0], chosen[1]]).ravel() - 1
    return positions[positions < len(overlaps.iou)]


def _aggregate(image: Comparison, chosen: NDArray[np.int64]) -> tuple[int, int]:
    overlaps = image.overlaps
    rows, columns = overlaps.true_index[chosen], overlaps.pred_index[chosen]
    shared = overlaps.intersection_px[chosen]
    unions = image.true.areas_px[rows] + image.pred.areas_px[columns] - shared
    missed = np.delete(image.true.areas_px, rows).sum()
    spurious = np.delete(image.pred.areas_px, np.unique(columns)).sum()
    return int(shared.sum()), int(unions.sum() + missed + spurious)


def seg_scores(image: Comparison) -> NDArray[np.float64]:
    """SEG of the Cell Tracking Challenge, per true cell: float64 [N] (Maška et al., 2014).

    The IoU with the predicted cell that covers more than half of the true one, of several that
    overlap each other the best; 0 where none does. The measure is the mean over all true cells of a
    data set.
    """
    overlaps = image.overlaps
    covered = 2 * overlaps.intersection_px > image.true.areas_px[overlaps.true_index]
    scores = np.zeros(len(image.true.areas_px))
    np.maximum.at(scores, overlaps.true_index[covered], overlaps.iou[covered])
    return scores


def seg_sums(image: Comparison, _: float = 0) -> tuple[float, int, int]:
    """Sum of the SEG of one image's true cells, their number, the number of cells of both sides."""
    true = len(image.true)
    return float(seg_scores(image).sum()), true, true + len(image.pred)


def boundary_counts(image: Comparison, _: float = 0) -> tuple[int, int, int, int]:
    """Boundary pixels of one image: true ones, those near a predicted one, and the same reversed.

    A boundary pixel of a cell has a neighbour (of four) outside of the cell; near means within
    2 pixels (Euclidean). After Csurka et al., BMVC 2013.

    Returns:
        (true, true and near, predicted, predicted and near).
    """
    true, pred = inner_boundary(image.true.labels), inner_boundary(image.pred.labels)
    near_pred, near_true = (_within(edge, BOUNDARY_TOLERANCE_PX) for edge in (pred, true))
    parts = (true, true & near_pred, pred, pred & near_true)
    counts = [int(np.count_nonzero(part)) for part in parts]
    return counts[0], counts[1], counts[2], counts[3]


def inner_boundary(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels [H, W] of cells that have one of their four neighbours in another cell or in none."""
    edge = np.zeros(labels.shape, bool)
    below = labels[1:] != labels[:-1]
    beside = labels[:, 1:] != labels[:, :-1]
    edge[1:] |= below
    edge[:-1] |= below
    edge[:, 1:] |= beside
    edge[:, :-1] |= beside
    return edge & (labels > 0)


def _within(edge: NDArray[np.bool_], distance_px: float) -> NDArray[np.bool_]:
    """Pixels at most `distance_px` from one of `edge`; the time grows with its square."""
    reach = int(distance_px)
    height, width = edge.shape
    room = np.zeros((height + 2 * reach, width + 2 * reach), bool)
    room[reach : reach + height, reach : reach + width] = edge
    near = np.zeros_like(edge)
    for row in range(-reach, reach + 1):
        for col in range(-reach, reach + 1):
            if row**2 + col**2 <= distance_px**2:
                near |= room[reach + row :, reach + col :][:height, :width]
    return near
