"""Cells in several pieces: counted, taken apart, warned of."""

from __future__ import annotations

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.pieces import check_pieces, count_pieces, describe_pieces, split_into_pieces

MASK = np.array(
    [
        [1, 1, 0, 0, 0],
        [1, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
        [1, 0, 0, 0, 1],
    ]
)


def test_pieces_touch_by_corners_too() -> None:
    assert count_pieces(MASK > 0) == 3
    assert count_pieces(np.zeros((0, 0), bool)) == 0


def test_every_piece_becomes_a_cell_of_its_class() -> None:
    labels = np.where(MASK > 0, 255, 0)
    labels[3, 2] = 7
    cells = CellInstances.from_label_image(labels).replace(classes=[1, 0], scores=[0.5, 0.25])
    split = split_into_pieces(cells)
    assert split.areas_px.tolist() == [1, 3, 3, 1]
    assert split.classes.tolist() == [1, 0, 0, 0]
    assert split.scores.tolist() == [0.5, 0.25, 0.25, 0.25]
    assert np.array_equal(split.to_bitmaps().any(axis=0), labels > 0)


def test_crowds_and_empty_images_stay() -> None:
    cells = CellInstances.from_label_image(MASK)
    assert len(split_into_pieces(cells.replace(is_crowd=[True]))) == 1
    assert len(split_into_pieces(CellInstances.empty((4, 4)))) == 0


def test_the_warning_says_the_share() -> None:
    binary = CellInstances.from_label_image(MASK)
    whole = CellInstances.from_label_image(np.arange(16).reshape(4, 4))
    assert "1 of 1 cells (100 %) are in several pieces, up to 3" in check_pieces([binary])
    assert "connected_components: true" in check_pieces([binary])
    assert check_pieces([binary, whole]) == ""
    assert describe_pieces([]) == ""
