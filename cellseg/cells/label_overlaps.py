"""Overlaps of two label images from one histogram: O(pixels + pairs that touch)."""

from __future__ import annotations

from typing import Any

import numpy as np
from cellseg.cells.labels import IntArray, check_label_image
from cellseg.cells.overlaps import Overlaps
from cellseg.errors import LabelError
from numpy.typing import ArrayLike, NDArray

_TABLE_LIMIT = 1 << 23  # 64 MiB


def find_label_overlaps(
    labels_true: ArrayLike, labels_pred: ArrayLike
) -> tuple[Overlaps, IntArray, IntArray]:
    """Pairs of cells of two label images that share pixels.

    Args:
        labels_true, labels_pred: label images [H, W]; labels need not be consecutive.

    Returns:
        The overlaps, and the areas in pixels of the true and of the predicted cells, int64 [N] and
        [M]. Rows and columns follow the ascending labels that occur.

    Raises:
        LabelError: the shapes differ, or one is no label image.
    """
    true, pred = check_label_image(labels_true), check_label_image(labels_pred)
    if true.shape != pred.shape:
        raise LabelError(
            f"label images of shapes {list(true.shape)} and {list(pred.shape)} do not compare: "
            "bring both to the same size"
        )
    true_index, true_areas = number_cells(true)
    pred_index, pred_areas = number_cells(pred)
    shape = (len(true_areas), len(pred_areas))
    both = (true_index > 0) & (pred_index > 0)
    pairs = true_index[both].astype(np.int64)
    pairs *= shape[1]
    pairs += pred_index[both].astype(np.int64)
    pairs -= shape[1] + 1  # both count from 1
    if shape[0] * shape[1] <= _TABLE_LIMIT:
        table = np.bincount(pairs, minlength=1)
        found = np.flatnonzero(table > 0)
        shared = table[found]
    else:
        found, shared = np.unique(pairs, return_counts=True)
    rows, columns = np.divmod(found, max(1, shape[1]))
    union = true_areas[rows] + pred_areas[columns] - shared
    overlaps = Overlaps(shape, rows, columns, shared.astype(np.int64), shared / union)
    return overlaps, true_areas, pred_areas


def number_cells(labels: NDArray[Any]) -> tuple[NDArray[Any], IntArray]:
    """Number the cells 1 to N in ascending order of their labels.

    Returns:
        The numbers, flat [H * W], and the areas in pixels, int64 [N].
    """
    flat = labels.ravel()
    highest = int(flat.max(initial=0))
    if highest > 4 * flat.size + 65536:  # colours packed into one integer, hashes
        values, numbers = np.unique(flat, return_inverse=True)
        areas = np.bincount(numbers, minlength=len(values))
        if len(values) and values[0] == 0:
            return numbers, areas[1:]
        return numbers + 1, areas
    if flat.dtype == np.uint64:
        flat = flat.astype(np.int64)
    areas = np.bincount(flat, minlength=highest + 1)
    occurs = areas[1:] > 0
    if occurs.all():
        return flat, areas[1:]
    new = np.zeros(highest + 1, np.int64)
    new[1:] = np.cumsum(occurs) * occurs
    return new[flat], areas[1:][occurs]
