"""Which cells of two sets share pixels, and how many: the pairs that every comparison starts from.

IoU (Jaccard index) of two cells is the number of pixels they share over the number of pixels that
either covers. A cell without a pixel has IoU 0 with everything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray
from cellseg.errors import LabelError
from numpy.typing import NDArray

_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Overlaps:
    """The pairs of cells that share pixels; most pairs of an image do not, so they are not stored.

    Attributes:
        shape: (N, M), numbers of true and of predicted cells.
        true_index: int64[K], row of each pair, ascending.
        pred_index: int64[K], column of each pair.
        intersection_px: int64[K], shared pixels, > 0.
        iou: float64[K], in (0, 1].
    """

    shape: tuple[int, int]
    true_index: IntArray
    pred_index: IntArray
    intersection_px: IntArray
    iou: NDArray[np.float64]

    def to_matrix(self) -> NDArray[np.float64]:
        """IoU of every pair, float64[N, M]."""
        matrix = np.zeros(self.shape)
        matrix[self.true_index, self.pred_index] = self.iou
        return matrix


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


def cell_windows(cells: CellInstances) -> IntArray:
    """Where the crops lie: int64[N, 4], half-open (row0, col0, row1, col1) in image pixels."""
    sizes = np.array([crop.shape for crop in cells.crops], dtype=np.int64).reshape(-1, 2)
    return np.concatenate([cells.offsets_rc, cells.offsets_rc + sizes], axis=1)


def pairs_of_touching_windows(
    first: IntArray, second: IntArray, margin_px: int = 0
) -> tuple[IntArray, IntArray]:
    """Indices (i, j) of the windows that share a pixel, or nearly.

    Args:
        first, second: int64[N, 4] and int64[M, 4], half-open (row0, col0, row1, col1).
        margin_px: windows that are fewer than this many pixels apart count too.

    Returns:
        Two int64[K] arrays in row-major order (i ascending, then j).
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
