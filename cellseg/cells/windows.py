"""Cells between the frame of an image and that of a window of it.

Everything works on runs, so that the cost is that of the cells, never that of the image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.run_lengths import IntArray
from cellseg.cells.runs import Runs, cut_at_line_ends, merge_touching
from cellseg.errors import LabelError


class Window(NamedTuple):
    """A rectangle of an image, half-open, pixels.

    Attributes:
        top, left: row and column of the first pixel.
        bottom, right: row and column behind the last one.
    """

    top: int
    left: int
    bottom: int
    right: int

    @property
    def rows(self) -> slice:
        """Its rows, to index an image with."""
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        """Its columns, likewise."""
        return slice(self.left, self.right)

    @property
    def hw(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.bottom - self.top, self.right - self.left


def window_around(boxes_xyxy: IntArray, margin: int, image_hw: tuple[int, int]) -> Window:
    """The window that holds some boxes with a margin, as far as the image goes.

    Args:
        boxes_xyxy: int64 [N, 4], at least one.
        margin: pixels on each side.
        image_hw: (height, width) of the image, pixels.

    Example:
        >>> window_around(np.array([[3, 4, 6, 9]]), 2, (10, 20))
        Window(top=2, left=1, bottom=10, right=8)
    """
    left, top = boxes_xyxy[:, :2].min(axis=0).tolist()
    right, bottom = boxes_xyxy[:, 2:].max(axis=0).tolist()
    return Window(
        max(top - margin, 0),
        max(left - margin, 0),
        min(bottom + margin, image_hw[0]),
        min(right + margin, image_hw[1]),
    )


def move_runs(runs: Runs, height: int, offset_rc: tuple[int, int], new_height: int) -> Runs:
    """Column-major runs of a window in the frame of the image that it was cut from.

    Args:
        runs: sorted by cell and position.
        height: height of the window, pixels.
        offset_rc: (row, column) of the window's first pixel in the image.
        new_height: height of the image, pixels; the window lies inside it.

    Example:
        The second column of a window of two rows, which lies at row 1, column 3 of four rows:

        >>> moved = move_runs(Runs(np.array([0]), np.array([2]), np.array([4])), 2, (1, 3), 4)
        >>> moved.starts.tolist(), moved.ends.tolist()
        ([17], [19])
    """
    if not runs.cells.size:
        return runs
    cells, starts, ends = cut_at_line_ends(runs, height)
    shift = (starts // height) * (new_height - height) + offset_rc[1] * new_height + offset_rc[0]
    return merge_touching(Runs(cells, starts + shift, ends + shift))


def crop_runs(runs: Runs, height: int, window: Window) -> Runs:
    """The part of column-major runs of an image that lies in a window, in the window's frame.

    Args:
        runs: sorted by cell and position; cells keep their numbers.
        height: height of the image, pixels.
        window: lies inside the image.
    """
    if not runs.cells.size:
        return runs
    cells, starts, ends = cut_at_line_ends(runs, height)
    columns = starts // height
    tops = np.maximum(starts - columns * height, window.top) - window.top
    bottoms = np.minimum(ends - columns * height, window.bottom) - window.top
    inside = (tops < bottoms) & (columns >= window.left) & (columns < window.right)
    first = (columns[inside] - window.left) * window.hw[0]
    return merge_touching(Runs(cells[inside], first + tops[inside], first + bottoms[inside]))


def move_cells(
    cells: CellInstances, offset_rc: tuple[int, int], image_hw: tuple[int, int]
) -> CellInstances:
    """The cells of a window in the frame of the image that it was cut from.

    Args:
        cells: in the frame of the window.
        offset_rc: (row, column) of the window's first pixel in the image.
        image_hw: (height, width) of the image, pixels.

    Raises:
        LabelError: the window reaches beyond the image.
    """
    ends = (offset_rc[0] + cells.image_hw[0], offset_rc[1] + cells.image_hw[1])
    if min(offset_rc) < 0 or ends[0] > image_hw[0] or ends[1] > image_hw[1]:
        raise LabelError(
            f"a window of {cells.image_hw} (rows, columns) at {tuple(offset_rc)} reaches beyond "
            f"the image of {tuple(image_hw)}"
        )
    row, column = offset_rc
    return CellInstances.from_runs(
        move_runs(cells.runs, cells.image_hw[0], offset_rc, image_hw[0]),
        len(cells),
        image_hw,
        scores=cells.scores,
        classes=cells.classes,
        boxes_xyxy=cells.boxes_xyxy + np.array([column, row, column, row], np.float32),
        is_crowd=cells.is_crowd,
    )
