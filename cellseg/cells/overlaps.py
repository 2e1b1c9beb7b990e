"""Which cells of two sets share pixels, and how many: the pairs that every comparison starts from.

IoU (Jaccard index) of two cells is the number of pixels they share over the number of pixels that
either covers. A cell without a pixel has IoU 0 with everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from cellseg.arguments import checked, of_type
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray, check_label_image
from cellseg.errors import LabelError
from numpy.typing import ArrayLike, NDArray

Segmentation: TypeAlias = "NDArray[Any] | CellInstances"
"""The cells of one image: a label image [H, W], 0 is background, or `CellInstances`."""


@runtime_checkable
class StoredLabels(Protocol):
    """A label image that is read whenever it is looked at, so that many need no memory."""

    @property
    def image_hw(self) -> tuple[int, int]:
        """(height, width), pixels."""

    def read_labels(self) -> NDArray[Any]:
        """The label image, integers [H, W]."""


_CELLS = of_type(CellInstances, "cells (CellInstances)")
_ROWS_AT_ONCE = 64
_TABLE_LIMIT = 1 << 23  # entries of a histogram over all pairs: 64 MiB


@dataclass(frozen=True)
class Overlaps:
    """The pairs of cells that share pixels; most pairs of an image do not, so they are not stored.

    Attributes:
        shape: (N, M), numbers of true and of predicted cells.
        true_index: int64 [K], number of the true cell of each pair, ascending.
        pred_index: int64 [K], number of its predicted cell.
        intersection_px: int64 [K], pixels that the two share, at least 1.
        iou: float64 [K], in (0, 1].

    Example:
        >>> pairs = find_label_overlaps([[1, 1, 2, 2]], [[5, 5, 5, 7]])[0]
        >>> pairs.true_index.tolist(), pairs.pred_index.tolist(), pairs.intersection_px.tolist()
        ([0, 1, 1], [0, 0, 1], [2, 1, 1])
        >>> pairs.select(true=[1]).to_matrix().tolist()
        [[0.25, 0.5]]
    """

    shape: tuple[int, int]
    true_index: IntArray
    pred_index: IntArray
    intersection_px: IntArray
    iou: NDArray[np.float64]

    def keep(self, pairs: NDArray[Any]) -> Overlaps:
        """Some of the pairs of the same cells.

        Args:
            pairs: bool [K], or their ascending positions.
        """
        return Overlaps(
            self.shape,
            self.true_index[pairs],
            self.pred_index[pairs],
            self.intersection_px[pairs],
            self.iou[pairs],
        )

    def select(self, true: ArrayLike | None = None, pred: ArrayLike | None = None) -> Overlaps:
        """The pairs among some of the cells, which get new numbers.

        Args:
            true: the chosen true cells, as bool [N] or as ascending numbers; None keeps all.
            pred: the chosen predicted cells, likewise with M.
        """
        rows, num_true = _renumber(self.true_index, self.shape[0], true)
        columns, num_pred = _renumber(self.pred_index, self.shape[1], pred)
        left = (rows >= 0) & (columns >= 0)
        shape = (num_true, num_pred)
        pairs = (rows[left], columns[left], self.intersection_px[left], self.iou[left])
        return Overlaps(shape, *pairs)

    def to_matrix(self) -> NDArray[np.float64]:
        """IoU of every pair of cells, float64 [N, M]."""
        matrix = np.zeros(self.shape)
        matrix[self.true_index, self.pred_index] = self.iou
        return matrix


def _renumber(index: IntArray, count: int, chosen: ArrayLike | None) -> tuple[IntArray, int]:
    """New number of each cell in `index`, -1 for one that is not chosen, and how many are."""
    if chosen is None:
        return index, count
    chosen = np.asarray(chosen)
    numbers = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
    new = np.full(count, -1)
    new[numbers] = np.arange(len(numbers))
    return new[index], len(numbers)


@checked(true=_CELLS, pred=_CELLS)
def find_overlaps(true: CellInstances, pred: CellInstances) -> Overlaps:
    """Pairs of cells that share pixels, with their IoU.

    Works on the crops: no array of image size is made, and the time follows the number of
    neighbouring pairs. Cells within either set may overlap each other.

    Args:
        true, pred: cells of the same image; either may be empty.

    Raises:
        LabelError: the two were cut from images of different sizes.
    """
    if tuple(true.image_hw) != tuple(pred.image_hw):
        raise LabelError(
            f"true cells are in an image of (height, width) {tuple(true.image_hw)}, predicted "
            f"ones in {tuple(pred.image_hw)}: bring both to the same size before they are compared"
        )
    windows_true, windows_pred = cell_windows(true), cell_windows(pred)
    rows, columns = pairs_of_touching_windows(windows_true, windows_pred)
    common = _common_windows(windows_true[rows], windows_pred[columns])
    shared = _shared_pixels(true, pred, (rows, columns), common)
    rows, columns, shared = (values[shared > 0] for values in (rows, columns, shared))
    union = true.areas_px[rows] + pred.areas_px[columns] - shared
    return Overlaps((len(true), len(pred)), rows, columns, shared, shared / union)


def renew_overlaps(
    pairs: Overlaps, true: CellInstances, pred: CellInstances, is_changed: NDArray[np.bool_]
) -> Overlaps:
    """`find_overlaps` where only some predicted cells have other masks than before.

    Args:
        pairs: what `find_overlaps` gave before.
        true: the N true cells.
        pred: the M predicted cells, with the masks that they have now.
        is_changed: bool [M], whose masks are other ones.
    """
    numbers = np.flatnonzero(is_changed)
    fresh = find_overlaps(true, pred[numbers])
    left = pairs.keep(~is_changed[pairs.pred_index])
    columns = np.concatenate([left.pred_index, numbers[fresh.pred_index]])
    rows = np.concatenate([left.true_index, fresh.true_index])
    order = np.lexsort((columns, rows))
    shared = np.concatenate([left.intersection_px, fresh.intersection_px])
    iou = np.concatenate([left.iou, fresh.iou])
    return Overlaps(pairs.shape, rows[order], columns[order], shared[order], iou[order])


def cell_windows(cells: CellInstances) -> IntArray:
    """Where the crops lie: int64 [N, 4], half-open (row0, col0, row1, col1), image pixels."""
    sizes = np.array([crop.shape for crop in cells.crops], dtype=np.int64).reshape(-1, 2)
    return np.concatenate([cells.offsets_rc, cells.offsets_rc + sizes], axis=1)


def pairs_of_touching_windows(
    first: IntArray, second: IntArray, margin_px: int = 0
) -> tuple[IntArray, IntArray]:
    """Indices (i, j) of the windows that share a pixel, or nearly.

    Args:
        first, second: int64 [N, 4] and int64 [M, 4], half-open (row0, col0, row1, col1).
        margin_px: windows that are fewer than this many pixels apart count too.

    Returns:
        Two int64 [K] arrays in row-major order (i ascending, then j).
    """
    found = [np.zeros((0, 2), dtype=np.int64)]
    from_top = np.argsort(first[:, 0], kind="stable")
    for start in range(0, len(first), _ROWS_AT_ONCE):
        rows = from_top[start : start + _ROWS_AT_ONCE]
        block = first[rows, None]
        beside = second[:, 0] < block[..., 2].max() + margin_px
        columns = np.flatnonzero(beside & (second[:, 2] > block[..., 0].min() - margin_px))
        inner_end = np.minimum(block[..., 2:], second[None, columns, 2:])
        inner_start = np.maximum(block[..., :2], second[None, columns, :2])
        row, column = np.nonzero((inner_end - inner_start > -margin_px).all(axis=2))
        found.append(np.column_stack([rows[row], columns[column]]))
    pairs = np.concatenate(found)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return pairs[:, 0], pairs[:, 1]


def _common_windows(first: IntArray, second: IntArray) -> IntArray:
    """Row by row, the window [K, 4] that both windows cover."""
    start = np.maximum(first[:, :2], second[:, :2])
    end = np.minimum(first[:, 2:], second[:, 2:])
    return np.concatenate([start, end], axis=1)


def _shared_pixels(
    true: CellInstances,
    pred: CellInstances,
    pairs: tuple[IntArray, IntArray],
    common: IntArray,
) -> IntArray:
    """Pixels that cells `pairs[0][k]` and `pairs[1][k]` share within window `common[k]`."""
    inside_true = (common - np.tile(true.offsets_rc[pairs[0]], 2)).tolist()
    inside_pred = (common - np.tile(pred.offsets_rc[pairs[1]], 2)).tolist()
    shared = np.zeros(len(common), dtype=np.int64)
    for k, (i, j) in enumerate(zip(pairs[0].tolist(), pairs[1].tolist())):
        row0, col0, row1, col1 = inside_true[k]
        part_true = true.crops[i][row0:row1, col0:col1]
        row0, col0, row1, col1 = inside_pred[k]
        shared[k] = np.count_nonzero(part_true & pred.crops[j][row0:row1, col0:col1])
    return shared


def find_label_overlaps(
    labels_true: ArrayLike, labels_pred: ArrayLike
) -> tuple[Overlaps, IntArray, IntArray]:
    """Pairs of cells of two label images that share pixels, from one histogram of their pixels.

    Args:
        labels_true: label image [H, W] of the true cells; labels need not be consecutive.
        labels_pred: likewise of the predicted cells.

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
    true_index, true_areas = _number_cells(true)
    pred_index, pred_areas = _number_cells(pred)
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


def _number_cells(labels: NDArray[Any]) -> tuple[NDArray[Any], IntArray]:
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
