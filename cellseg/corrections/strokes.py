"""What somebody has drawn over a label image: where it differs, and which cell a line crosses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from cellseg.cells.labels import crop_bitmap
from numpy.typing import NDArray

_POINTS_PER_PIECE = 50


def find_changed_window(before: NDArray[Any], after: NDArray[Any]) -> tuple[slice, slice] | None:
    """(rows, columns) of the smallest window that holds all pixels that differ; None for none.

    Args:
        before, after: label images [H, W].

    Example:
        >>> find_changed_window(np.zeros((3, 4)), np.eye(3, 4) * [0, 1, 1, 1])
        (slice(1, 3, None), slice(1, 3, None))
    """
    window, (row, column) = crop_bitmap(before != after)
    if not window.size:
        return None
    return slice(row, row + window.shape[0]), slice(column, column + window.shape[1])


def find_crossed_cell(
    labels: NDArray[Any], line_rc: NDArray[Any], wanted: Sequence[int] = ()
) -> int | None:
    """The cell that a drawn line is meant for: the one that most of it lies in.

    Args:
        labels: label image [H, W].
        line_rc: [K, 2], (row, column) of its points; what lies outside the image counts as its
            nearest pixel.
        wanted: cells that go before all others, if the line crosses them.

    Returns:
        Its label; None where the line crosses none.

    Example:
        >>> find_crossed_cell(np.array([[1, 1, 0, 2, 2, 2]]), np.array([[0, 0], [0, 5]]))
        2
    """
    line = np.asarray(line_rc, float)
    shares = np.linspace(0, 1, _POINTS_PER_PIECE)[:, None]
    points = np.concatenate([a + (b - a) * shares for a, b in pairwise(line)])
    rows, columns = np.clip(points.round().astype(int), 0, np.array(labels.shape) - 1).T
    ids, counts = np.unique(labels[rows, columns], return_counts=True)
    counts = counts * np.where(np.isin(ids, wanted), len(points) + 1, 1) * (ids != 0)
    return int(ids[counts.argmax()]) if counts.any() else None
