"""What is painted, erased and filled in a label image becomes corrections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cellseg.corrections import CorrectedImage, Repainted
from correction_scenes import new_folder, squares


@pytest.fixture
def image(tmp_path: Path) -> Iterator[CorrectedImage]:
    with new_folder(tmp_path) as folder:
        image = folder.image("a")
        image.begin(squares(), "nuclei")
        yield image


def test_nothing_painted_is_no_event(image: CorrectedImage) -> None:
    assert not image.repaint(image.label_image())
    assert not image.repaint(image.label_image().astype(np.int64), window=np.s_[0:3, 0:3])
    assert len(image.history) == 1


def test_new_labels_are_drawn_cells(image: CorrectedImage) -> None:
    labels = image.label_image()
    labels[0, 20:24] = 4
    labels[5, 20:24] = 9
    assert image.repaint(labels, 1) == Repainted(new={4: 4, 9: 9})
    assert image.states == ["found"] * 3 + ["drawn"] * 2
    assert image.cells.classes.tolist() == [0, 1, 0, 1, 1]
    assert image.cells.scores.tolist()[3:] == [1, 1]
    assert np.array_equal(image.label_image(), labels)
    assert image.draw(np.ones((1, 1))) == 10


def test_a_label_that_a_cell_has_had_gets_another_id(image: CorrectedImage) -> None:
    image.reject(3)
    labels = image.label_image()
    labels[0, 20:24] = 3  # the next free label, as napari sees it
    labels[5, 20:24] = 4
    assert image.repaint(labels).new == {3: 5, 4: 4}
    assert image.ids.tolist() == [1, 2, 4, 5]
    assert image.label_image()[0, 20] == 5


def test_labels_beyond_all_measure_get_other_ids(image: CorrectedImage) -> None:
    labels = image.label_image()
    labels[0, 20:24] = 2**32 - 1
    assert image.repaint(labels).new == {2**32 - 1: 4}


def test_changed_cells_are_accepted_and_those_that_lost_to_others_stay_open(
    image: CorrectedImage,
) -> None:
    labels = image.label_image()
    labels[10:14, 6] = 2  # a column of cell 3 becomes part of cell 2
    labels[2, 2] = 0  # erased
    found = image.repaint(labels)
    assert found == Repainted(changed=(1, 2), painted_over=(3,))
    assert image.states == ["accepted", "accepted", "found"]
    assert image.cells.areas_px.tolist() == [15, 20, 12]


def test_what_is_erased_as_a_whole_is_gone(image: CorrectedImage) -> None:
    labels = image.label_image()
    labels[labels == 1] = 0
    labels[labels == 3] = 2
    assert image.repaint(labels) == Repainted(changed=(2,), gone=(1, 3))
    assert image.ids.tolist() == [2]


def test_a_cell_erased_in_the_middle_stays_one_and_that_is_told(image: CorrectedImage) -> None:
    labels = image.label_image()
    labels[2:6, 3] = 0
    labels[0, 25], labels[0, 27] = 4, 4
    found = image.repaint(labels)
    assert found == Repainted(new={4: 4}, changed=(1,), in_pieces=(4, 1))
    assert image.cells.areas_px.tolist() == [12, 16, 16, 2]
    labels[2, 2] = 0
    assert image.repaint(labels).in_pieces == ()  # it was in pieces before
    image.undo()
    image.undo()
    assert np.array_equal(image.label_image(), squares().to_label_image())


def test_only_the_window_is_looked_at(image: CorrectedImage) -> None:
    labels = image.label_image()
    labels[:] = 0
    labels[11, 2:6] = 7
    found = image.repaint(labels, window=np.s_[11:12, 0:20])
    assert found == Repainted(new={7: 7}, painted_over=(2,), changed=(3,), in_pieces=(3,))
    assert image.label_image()[9:13, 2:10].tolist() == [
        [0] * 8,
        [2, 2, 2, 2, 3, 3, 3, 3],
        [7, 7, 7, 7, 0, 0, 0, 0],
        [2, 2, 2, 2, 3, 3, 3, 3],
    ]
    assert image.label_image()[2, 2] == 1


def test_a_cell_cut_in_the_window_keeps_its_pixels_outside(image: CorrectedImage) -> None:
    labels = image.label_image()
    labels[12:14, 2:6] = 0
    image.repaint(labels, window=np.s_[12:14, 2:4])
    assert image.cells.areas_px.tolist() == [16, 12, 16]
