"""What was drawn over a label image."""

from __future__ import annotations

import numpy as np
from cellseg.corrections.strokes import find_changed_window, find_crossed_cell

LABELS = np.zeros((8, 12), np.int32)
LABELS[2:6, 1:4], LABELS[2:6, 5:11] = 1, 2


def test_the_window_that_differs_is_the_smallest_one() -> None:
    after = LABELS.copy()
    assert find_changed_window(LABELS, after) is None
    after[3, 7] = 0
    assert find_changed_window(LABELS, after) == (slice(3, 4), slice(7, 8))
    after[0, 11], after[7, 0] = 9, 9
    assert find_changed_window(LABELS, after) == (slice(0, 8), slice(0, 12))


def test_a_line_is_meant_for_the_cell_that_most_of_it_crosses() -> None:
    along = np.array([[3, 0], [3, 11]])
    assert find_crossed_cell(LABELS, along) == 2
    assert find_crossed_cell(LABELS, along, [1]) == 1
    assert find_crossed_cell(LABELS, along, [7]) == 2
    assert find_crossed_cell(LABELS, np.array([[0, 2], [4.4, 2.4], [7, 2]])) == 1
    assert find_crossed_cell(LABELS, np.array([[0, 0], [0, 11]])) is None
    assert find_crossed_cell(LABELS, np.array([[-9, 2], [-5, 2]])) is None
