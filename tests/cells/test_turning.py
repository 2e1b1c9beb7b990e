"""Turning: what a view shows, and cells of it back in the image."""

from __future__ import annotations

import numpy as np
import pytest
from cellseg.cells.instances import CellInstances
from cellseg.cells.turning import TURNINGS, Turning

LABELS = np.array([[1, 1, 0, 0, 3], [0, 1, 0, 2, 3], [0, 0, 0, 2, 2]])


def test_all_eight_ways_are_different_and_the_first_is_the_image() -> None:
    square = np.arange(9).reshape(3, 3)
    views = [turning.turn_image(square).tolist() for turning in TURNINGS]
    assert views[0] == square.tolist()
    assert views[1] == [[2, 1, 0], [5, 4, 3], [8, 7, 6]]
    assert len({str(view) for view in views}) == 8
    assert [turning.turn_image(LABELS).shape for turning in TURNINGS[:4]] == [(3, 5)] * 4


@pytest.mark.parametrize("turning", TURNINGS)
def test_cells_of_a_view_lie_in_the_image_as_they_did(turning: Turning) -> None:
    seen = CellInstances.from_label_image(
        turning.turn_image(LABELS), classes=[4, 5, 6], scores=[0.5, 0.25, 0.75]
    )
    back = turning.turn_back(seen)
    assert back.image_hw == (3, 5)
    assert np.array_equal(back.to_label_image(by_score=False), LABELS)
    assert back.classes.tolist() == [4, 5, 6]
    assert back.scores.tolist() == [0.5, 0.25, 0.75]
    assert back.boxes_xyxy.tolist() == [[0, 0, 2, 2], [3, 1, 5, 3], [4, 0, 5, 2]]


@pytest.mark.parametrize("turning", TURNINGS)
def test_no_cells_and_channels(turning: Turning) -> None:
    hw = turning.turn_image(LABELS).shape
    assert turning.turn_back(CellInstances.empty(hw)).image_hw == (3, 5)
    image = np.stack([LABELS, LABELS + 1], axis=2)
    seen = turning.turn_image(image)
    assert np.array_equal(seen[..., 1], seen[..., 0] + 1)
