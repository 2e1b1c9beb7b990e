"""What can be done to the cells of an image, and what comes of it, after reopening too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cellseg.cells.instances import CellInstances
from cellseg.corrections import CorrectedImage, CorrectionFolder
from cellseg.errors import CorrectionError, LabelError
from correction_scenes import look, new_folder, squares


@pytest.fixture
def image(tmp_path: Path) -> Iterator[CorrectedImage]:
    """Image `a` with the cells 1, 2 and 3 of `squares`, none of them looked at."""
    with new_folder(tmp_path) as folder:
        image = folder.image("a")
        image.begin(squares(), "nuclei")
        yield image
        seen = look(image)
    with CorrectionFolder.open(tmp_path / "corrections") as folder:
        assert look(folder.image("a")) == seen


def test_what_a_model_found_is_open(image: CorrectedImage) -> None:
    assert image.ids.tolist() == [1, 2, 3]
    assert image.states == ["found"] * 3
    assert image.cells.equals(squares())
    assert (image.source, image.threshold) == ("nuclei", 0.5)
    assert image.label_image().dtype == np.uint32
    assert np.array_equal(image.label_image(), squares().to_label_image())
    assert image.label_image(np.s_[9:11, 5:7]).tolist() == [[0, 0], [2, 3]]
    assert not image.counted_region().any()
    (event,) = image.history
    assert (event.what, event.by, event.cell_ids) == ("begin", "Ada", (1, 2, 3))
    assert event.at.endswith("Z")


def test_of_cells_that_overlap_the_surer_one_has_the_pixel(tmp_path: Path) -> None:
    masks = np.zeros((3, 20, 30), bool)
    masks[0, 2:6, 2:6] = True
    masks[1, 4:8, 4:8] = True
    masks[2, 5:6, 5:7] = True  # wholly below the second
    cells = CellInstances.from_bitmaps(masks, scores=[0.6, 0.9, 0.5])
    with new_folder(tmp_path) as folder:
        image = folder.image("a")
        assert image.begin(cells, "m").tolist() == [1, 2, 0]
        assert image.cells.areas_px.tolist() == [12, 16]
        assert image.label_image()[4, 4] == 2


def test_accepting_looks_at_cells(image: CorrectedImage) -> None:
    image.accept(2)
    image.accept([1, 2])
    assert image.states == ["accepted", "accepted", "found"]
    assert image.open_ids.tolist() == [3]
    assert image.history[-1].cell_ids == (1,)
    image.accept([1])
    assert len(image.history) == 3  # there was nothing to accept
    assert np.array_equal(image.counted_region(), np.isin(image.label_image(), [1, 2]))


def test_a_rejected_cell_is_gone_and_its_id_too(image: CorrectedImage) -> None:
    image.reject([3])
    assert image.ids.tolist() == [1, 2]
    assert image.draw(np.ones((1, 1), bool)) == 4
    image.reject([4, 2])
    assert image.draw(np.ones((1, 1), bool)) == 5


def test_a_class_that_was_given_was_looked_at(image: CorrectedImage) -> None:
    image.set_class([1, 2], 1)
    assert image.cells.classes.tolist() == [1, 1, 0]
    assert image.states == ["accepted", "accepted", "found"]
    with pytest.raises(CorrectionError, match=r"class 2 \(from 0\); there are 2: nucleus, debris"):
        image.set_class([1], 2)


@pytest.mark.parametrize(
    "refused",
    [
        lambda image: image.accept([1, 9]),
        lambda image: image.reject(0),
        lambda image: image.set_class([9], 0),
        lambda image: image.split(9, [(0, 0), (9, 9)]),
        lambda image: image.merge([1, 9]),
        lambda image: image.merge([1]),
        lambda image: image.merge([1, 1]),
        lambda image: image.merge([1, 2]),  # four pixels apart
        lambda image: image.split(1, [(0, 0)]),
        lambda image: image.split(1, [(0, 0), (np.nan, 9)]),
        lambda image: image.split(1, [(4, 4), (8, 4)]),  # ends in the cell
        lambda image: image.split(1, [(0, 20), (9, 20)]),  # far from it
        lambda image: image.draw(np.zeros((20, 30))),
        lambda image: image.draw(np.ones((2, 2)), offset_rc=(19, 0)),
        lambda image: image.draw(np.ones((2, 2)), offset_rc=(-1, 0)),
        lambda image: image.draw(np.ones(3)),
        lambda image: image.draw(np.ones((2, 2)), 2),
        lambda image: image.draw(np.ones((2, 2)), -1),
        lambda image: image.repaint(np.zeros((20, 31), int)),
        lambda image: image.repaint(np.zeros((20, 30), int), window=np.s_[20:, :]),
        lambda image: image.repaint(np.zeros((20, 30), int), window=np.s_[::2, :]),
        lambda image: image.begin(CellInstances.empty((20, 31)), "m"),
        lambda image: image.begin(squares().replace(classes=[0, 1, 2]), "m"),
        lambda image: image.mark_done(np.s_[5:5, :]),
        lambda image: image.keep_candidates(CellInstances.empty((20, 31))),
    ],
)
def test_what_is_refused_changes_nothing(image: CorrectedImage, refused) -> None:
    before, events = look(image), image.history
    with pytest.raises((CorrectionError, LabelError)) as caught:
        refused(image)
    assert "\n" not in str(caught.value)
    assert look(image) == before
    assert image.history == events


def test_merging_keeps_the_larger_one(image: CorrectedImage) -> None:
    labels = image.label_image()
    labels[13, 5] = 0  # cell 2 has 15 pixels then, cell 3 has 16
    image.repaint(labels)
    assert image.merge([3, 2]) == 3
    assert image.ids.tolist() == [1, 3]
    assert image.cells.classes.tolist() == [0, 0]
    assert image.cells.scores.tolist() == pytest.approx([0.9, 0.7])
    assert image.states == ["found", "accepted"]
    assert np.array_equal(image.label_image() == 3, np.isin(labels, [2, 3]))


def test_merging_fills_a_narrow_gap_between_cells(image: CorrectedImage) -> None:
    drawn = image.draw(np.ones((4, 4)), offset_rc=(2, 8))  # two columns from cell 1
    assert image.merge([1, drawn]) == 1
    joined = np.argwhere(image.label_image() == 1)
    assert joined.min(axis=0).tolist() == [2, 2]
    assert joined.max(axis=0).tolist() == [5, 11]
    assert len(joined) == 4 * 10


def test_merging_does_not_fill_what_another_cell_has(image: CorrectedImage) -> None:
    image.draw(np.ones((20, 1)), offset_rc=(0, 6))
    drawn = image.draw(np.ones((4, 4)), offset_rc=(2, 8))
    with pytest.raises(CorrectionError, match="the cells 1 and 5 do not touch"):
        image.merge([1, drawn])
    assert image.merge([1, drawn], apart=True) == 1
    assert image.cells.areas_px[0] == 32


def test_cells_far_apart_are_merged_on_request(image: CorrectedImage) -> None:
    with pytest.raises(CorrectionError, match=r"the cells 1 and 2 do not touch: .*`apart` makes"):
        image.merge([1, 2, 3])
    assert image.merge([1, 2, 3], apart=True) == 1
    assert image.cells.areas_px.tolist() == [48]


def test_splitting_gives_the_smaller_part_a_new_id(image: CorrectedImage) -> None:
    assert image.split(1, [(0, 3), (8, 3)]) == (1, 4)
    assert image.label_image()[2:6, 2:6].tolist() in ([[4, 1, 1, 1]] * 4, [[4, 4, 1, 1]] * 4)
    assert image.states == ["accepted", "found", "found", "accepted"]
    assert image.cells.classes.tolist() == [0, 1, 0, 0]


def test_drawing_goes_over_other_cells(image: CorrectedImage) -> None:
    mask = np.zeros((20, 30), bool)
    mask[10:14, 6:12] = True  # all of cell 3
    mask[12, 2:6] = True  # a row of cell 2
    assert image.draw(mask, 1) == 4
    assert image.ids.tolist() == [1, 2, 4]
    assert image.states == ["found", "found", "drawn"]
    assert image.cells.classes.tolist() == [0, 1, 1]
    assert image.cells.areas_px.tolist() == [16, 12, 28]
    assert np.array_equal(image.label_image() == 4, mask)


def test_what_is_done_counts_and_its_cells_are_right(image: CorrectedImage) -> None:
    image.mark_done(np.s_[:12, :])
    assert image.states == ["accepted", "found", "found"]  # 2 and 3 are cut by the window's edge
    counted = image.counted_region()
    expected = np.zeros((20, 30), bool)
    expected[:12] = True
    expected[10:12, 2:10] = False  # nobody has looked at these cells as a whole
    assert np.array_equal(counted, expected)
    image.mark_done(np.s_[12:, :])
    assert image.states == ["accepted"] * 3
    assert image.is_done
    assert image.counted_region().all()
    image.mark_done(np.s_[0:1, 0:1], done=False)
    assert not image.is_done
    assert np.argwhere(~image.counted_region()).tolist() == [[0, 0]]
    image.mark_done(done=False)
    assert image.done_windows == []
    assert np.array_equal(image.counted_region(), image.label_image() > 0)


def test_marking_what_is_done_already_is_no_event(image: CorrectedImage) -> None:
    image.mark_done()
    image.mark_done()
    image.mark_done(np.s_[:, :])
    assert [event.what for event in image.history] == ["begin", "mark_done"]


def test_beginning_again_keeps_what_a_person_has_said(image: CorrectedImage) -> None:
    image.accept(1)
    image.mark_done(np.s_[:, 20:])
    with pytest.raises(CorrectionError, match=r"a has corrections: 1 cells .* 1 windows"):
        image.begin(squares(), "other")
    labels = np.zeros((20, 30), np.uint8)
    labels[2:6, 3:7] = 1  # cell 1 once more, by a column aside
    labels[5:9, 2:6] = 2  # one row of it in cell 1
    labels[0:4, 18:21] = 3  # one column of it in what is done
    labels[10:12, 24:26] = 4  # all of it
    found = CellInstances.from_label_image(labels, scores=[0.9, 0.8, 0.7, 0.6])
    assert image.begin(found, "other", threshold=0.3, replace=True).tolist() == [0, 4, 5, 0]
    assert image.ids.tolist() == [1, 4, 5]
    assert image.states == ["accepted", "found", "found"]
    assert image.cells.areas_px.tolist() == [16, 12, 8]
    assert (image.source, image.threshold) == ("other", 0.3)
    image.undo()
    assert image.ids.tolist() == [1, 2, 3]
    assert (image.source, image.threshold) == ("nuclei", 0.5)


def test_undo_goes_back_to_the_beginning_and_redo_to_the_end(image: CorrectedImage) -> None:
    seen = [look(image)]
    image.split(1, [(0, 3), (8, 3)])
    seen.append(look(image))
    image.merge([2, 3])
    seen.append(look(image))
    image.mark_done()
    assert image.changed_window is None
    assert image.can_undo()
    assert not image.can_redo()
    for before in reversed(seen):
        assert image.undo()
        assert look(image) == before
    assert image.undo()
    assert image.ids.tolist() == []
    assert not image.undo()
    for after in seen:
        assert image.redo()
        assert look(image) == after
    assert image.redo()
    assert image.is_done
    assert not image.redo()


def test_something_new_ends_redoing(image: CorrectedImage) -> None:
    image.accept(1)
    image.undo()
    image.accept(2)
    assert not image.redo()
    assert image.states == ["found", "accepted", "found"]


def test_the_window_that_changed_is_told(image: CorrectedImage) -> None:
    image.reject(1)
    assert image.changed_window == (2, 2, 6, 6)
    image.accept(2)
    assert image.changed_window is None
    image.undo()
    image.undo()
    assert image.changed_window == (2, 2, 6, 6)
    image.merge([2, 3])
    assert image.changed_window == (10, 2, 14, 10)


def test_a_click_takes_the_surest_candidate_there(image: CorrectedImage) -> None:
    masks = np.zeros((4, 20, 30), bool)
    masks[0, 4:10, 2:6] = True  # a third of it in cell 1
    masks[1, 7:9, 2:6] = True
    masks[2, 1:6, 2:6] = True  # cell 1, and a row above it
    masks[3, 16:18, 20:22] = True
    kept = CellInstances.from_bitmaps(masks, scores=[0.3, 0.2, 0.4, 0.1], classes=[1, 0, 0, 0])
    image.keep_candidates(kept)
    found = image.candidate_at(7.4, 2.6)
    assert found is not None
    assert (found.areas_px.tolist(), found.classes.tolist()) == ([16], [1])
    assert image.candidate_at(3, 3) is None  # a cell is there
    assert image.candidate_at(1, 3) is None  # it is cell 1
    assert image.candidate_at(0, 0) is None
    assert image.candidate_at(-5, 99) is None
    assert image.add_candidate(0, 0) is None
    assert image.add_candidate(7, 3) == 4
    assert image.add_candidate(16, 20, 1) == 5
    assert image.states[3:] == ["accepted", "accepted"]
    assert image.cells.classes.tolist()[3:] == [1, 1]
    assert image.cells.scores.tolist()[3:] == pytest.approx([0.3, 0.1])
    assert image.candidate_at(7, 3) is None


def test_candidates_are_kept_beside(image: CorrectedImage, tmp_path: Path) -> None:
    image.keep_candidates(squares())
    with CorrectionFolder.open(tmp_path / "corrections", read_only=True) as folder:
        assert folder.candidates("a").equals(squares())
    (file,) = (tmp_path / "corrections").rglob("*.candidates.json")
    file.write_text("[]")
    with (
        CorrectionFolder.open(tmp_path / "corrections", read_only=True) as folder,
        pytest.raises(CorrectionError, match=r"cannot be read as detections .*find cells again"),
    ):
        folder.candidates("a")


def test_an_image_without_cells(image: CorrectedImage) -> None:
    image.begin(CellInstances.empty((20, 30)), "nothing")
    assert image.ids.tolist() == []
    assert len(image.cells) == 0
    assert not image.label_image().any()
    image.mark_done()
    assert image.is_done
