"""Folders of corrections: whose they are, which images they know, and what is next."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cellseg.cells.instances import CellInstances
from cellseg.corrections import CorrectionFolder
from cellseg.corrections.journal import DamagedJournalError
from cellseg.errors import CorrectionError, CorrectionsInUseError
from cellseg.inference.inputs import find_inputs
from correction_scenes import CLASSES, look, new_folder, squares, write_image

OPEN = """
from cellseg.corrections import CorrectionFolder
with CorrectionFolder.open({!r}):
    print("open", flush=True)
    input()
"""


def test_a_folder_keeps_classes_images_and_cells(tmp_path: Path) -> None:
    with new_folder(tmp_path, "a", "b") as folder:
        image = folder.image("b")
        image.begin(squares(), "nuclei")
        image.accept(1)
        folder.author = "Bob\x1b[31m"
        image.reject(2)
        assert folder.image("b") is image
    with CorrectionFolder.open(tmp_path / "corrections") as folder:
        assert folder.classes == CLASSES
        first, second = folder.images
        assert (first.image_id, first.num_cells, first.corrected_by) == ("a", 0, "")
        assert second.path == tmp_path / "images" / "b.png"
        assert (second.num_cells, second.num_open, second.is_done) == (2, 1, False)
        assert second.corrected_by == "Ada, Bob\\x1b[31m"
        assert second.corrected_at.endswith("Z")


def test_what_is_known_of_an_image_follows_what_is_done(tmp_path: Path) -> None:
    with new_folder(tmp_path) as folder:
        assert folder.images[0].num_cells == 0
        image = folder.image("a")
        image.begin(squares(), "nuclei")
        assert folder.images[0].num_open == 3
        image.mark_done()
        assert (folder.images[0].num_open, folder.images[0].is_done) == (0, True)
        del image
        assert folder.images[0].is_done
        folder.image("a").undo()
        assert folder.images[0].num_open == 3


def test_two_windows_of_one_process_are_noticed(tmp_path: Path) -> None:
    with new_folder(tmp_path):
        with pytest.raises(CorrectionsInUseError, match="corrections is in use: this process has"):
            CorrectionFolder.open(tmp_path / "corrections")
        with CorrectionFolder.open(tmp_path / "corrections", read_only=True) as looking:
            assert len(looking.images) == 1
    CorrectionFolder.open(tmp_path / "corrections").close()


def test_a_window_of_another_process_is_noticed(tmp_path: Path) -> None:
    place = tmp_path / "corrections"
    command = [sys.executable, "-c", OPEN.format(str(place))]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(CorrectionsInUseError, match=rf"process {other.pid} on \S+, since 2"):
            CorrectionFolder.open(place)
        other.kill()
    CorrectionFolder.open(place).close()


def test_whoever_only_looks_cannot_write(tmp_path: Path) -> None:
    with new_folder(tmp_path) as folder:
        image = folder.image("a")
        image.begin(squares(), "nuclei")
    before = sorted((path, path.read_bytes()) for path in tmp_path.rglob("*.*l"))
    with CorrectionFolder.open(tmp_path / "corrections", read_only=True) as folder:
        for refused in (
            lambda: folder.image("a").accept(1),
            lambda: folder.image("a").undo(),
            lambda: folder.image("a").keep_candidates(squares()),
            lambda: folder.add_images(write_image(tmp_path / "new.png")),
            lambda: folder.move_image("a", tmp_path / "images" / "a.png"),
            lambda: image.accept(1),  # of the closed one
        ):
            with pytest.raises(CorrectionError, match="opened for looking only, or is closed"):
                refused()
        assert look(folder.image("a")) == look(image)
    assert before == sorted((path, path.read_bytes()) for path in tmp_path.rglob("*.*l"))


def test_a_folder_that_is_not_there_cannot_be_looked_at(tmp_path: Path) -> None:
    with pytest.raises(CorrectionError, match="no corrections are there"):
        CorrectionFolder.open(tmp_path / "none", read_only=True)
    assert not (tmp_path / "none").exists()


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("three years")
    with pytest.raises(CorrectionError, match=r"holds thesis.docx and no corrections.jsonl"):
        CorrectionFolder.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


def test_classes_may_come_behind_those_there_are(tmp_path: Path) -> None:
    place = tmp_path / "corrections"
    new_folder(tmp_path).close()
    with pytest.raises(CorrectionError, match="classes are nucleus, debris; found debris, nucleus"):
        CorrectionFolder.open(place, CLASSES[::-1])
    with pytest.raises(CorrectionError, match="found nucleus"):
        CorrectionFolder.open(place, CLASSES[:1])
    with CorrectionFolder.open(place, (*CLASSES, "mitosis")) as folder:
        folder.image("a").draw(np.ones((2, 2)), 2)
    with CorrectionFolder.open(place) as folder:
        assert folder.classes == (*CLASSES, "mitosis")


@pytest.mark.parametrize("classes", [(), ("a", "a"), ("a", "")])
def test_names_of_classes_are_checked(tmp_path: Path, classes: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="names of classes"):
        CorrectionFolder.open(tmp_path / "corrections", classes)
    assert not (tmp_path / "corrections").exists()


def test_the_author_is_the_user_unless_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, "grace")
    with CorrectionFolder.open(tmp_path / "corrections") as folder:
        assert folder.author == "grace"

    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    with CorrectionFolder.open(tmp_path / "corrections") as folder:
        assert folder.author == "unknown"


# Images.


def test_images_are_found_once_and_named_as_predict_names_them(tmp_path: Path) -> None:
    for name in ("a", "day_1/a", "day_2/b"):
        write_image(tmp_path / "images" / f"{name}.png")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    (tmp_path / "images" / "bad.png").write_bytes(b"no picture")
    with CorrectionFolder.open(tmp_path / "corrections") as folder:
        added = folder.add_images([tmp_path / "images"])
        expected = [file.name for file in find_inputs([str(tmp_path / "images")]).files]
        assert added.image_ids == [name for name in expected if name != "bad"]
        reasons = {path.name: reason for path, reason in added.passed_over}
        assert "cannot be read as an image" in reasons["bad.png"]
        assert "notes.txt" in reasons
        assert folder.add_images([tmp_path / "images"]).image_ids == []
        other = write_image(tmp_path / "more" / "a.png")
        assert folder.add_images(other).image_ids == ["a_2"]
        with pytest.raises(CorrectionError, match=r"no images found .*\n.*none"):
            folder.add_images([tmp_path / "none"])
    with CorrectionFolder.open(tmp_path / "corrections") as folder:
        assert [one.image_id for one in folder.images] == ["a", "day_1/a", "day_2/b", "a_2"]
        folder.image("day_1/a").draw(np.ones((2, 2)))
        with pytest.raises(CorrectionError, match="no image 'day_1/b'; did you mean day_"):
            folder.image("day_1/b")


def test_planes_of_a_stack_are_images_of_their_own(tmp_path: Path) -> None:
    stack = np.arange(12, dtype=np.uint8)[:, None, None] + np.zeros((12, 8, 9), np.uint8)
    tifffile.imwrite(tmp_path / "s.ome.tif", stack, metadata={"axes": "TYX"})
    with CorrectionFolder.open(tmp_path / "corrections") as folder:
        ids = folder.add_images(tmp_path / "s.ome.tif").image_ids
        assert ids == [f"s_t{number:02d}" for number in range(12)]
        image = folder.image("s_t07")
        assert image.image_hw == (8, 9)
        with image.open_plane() as plane:
            assert plane.read_whole()[0, 0] == 7


def test_saved_training_data_are_no_new_images(tmp_path: Path) -> None:
    with new_folder(tmp_path) as folder:
        folder.image("a").draw(np.ones((2, 2)))
        folder.save_training_data(tmp_path / "images" / "saved")
        folder.save_training_data(tmp_path / "corrections" / "saved")
        write_image(tmp_path / "corrections" / "shot.png")
        added = folder.add_images(tmp_path)
        assert added.image_ids == []
        saved = tmp_path / "images" / "saved"
        assert all(path.is_relative_to(saved) for path, _ in added.passed_over)
        reasons = {path.name: reason for path, reason in added.passed_over}
        assert reasons["a.png"] == "saved from corrections"


def test_images_move_with_their_folder(tmp_path: Path) -> None:
    with new_folder(tmp_path / "one") as folder:
        folder.image("a").draw(np.ones((2, 2)))
    (tmp_path / "one").rename(tmp_path / "two")
    with CorrectionFolder.open(tmp_path / "two" / "corrections") as folder:
        assert folder.image("a").entry.path == tmp_path / "two" / "images" / "a.png"


def test_corrections_that_move_alone_find_their_images(tmp_path: Path) -> None:
    new_folder(tmp_path).close()
    (tmp_path / "away").mkdir()
    (tmp_path / "corrections").rename(tmp_path / "away" / "c")
    with CorrectionFolder.open(tmp_path / "away" / "c") as folder:
        assert folder.image("a").entry.path == tmp_path / "images" / "a.png"


def test_an_image_that_is_gone_or_another_one_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "images" / "a.png"
    with new_folder(tmp_path, "a", "b") as folder:
        folder.image("a").draw(np.ones((2, 2)))
        path.rename(tmp_path / "moved.png")
        with pytest.raises(CorrectionError, match=r"a: .*images/a.png is not there. .*move_image"):
            folder.image("a")
        write_image(path, value=99)
        with pytest.raises(CorrectionError, match=r"a.png is not the file whose cells .*expected"):
            folder.image("a")
        with pytest.raises(CorrectionError, match=r"b.png is not the file"):
            folder.move_image("a", tmp_path / "images" / "b.png")
        folder.move_image("a", tmp_path / "moved.png")
        assert folder.image("a").ids.tolist() == [1]
    with CorrectionFolder.open(tmp_path / "corrections") as folder:
        assert folder.image("a").entry.path == tmp_path / "moved.png"
        assert [one.image_id for one in folder.images] == ["a", "b"]


# Damage.


def test_a_damaged_journal_hinders_its_image_only(tmp_path: Path) -> None:
    with new_folder(tmp_path, "a", "b") as folder:
        for name in "ab":
            folder.image(name).begin(squares(), "nuclei")
            folder.image(name).accept([1, 2])
            folder.image(name).accept(3)
    file = next((tmp_path / "corrections").rglob("*_a.jsonl"))
    whole = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*whole[:2], whole[2][:-20] + b"\n", whole[3]]))
    damaged = file.read_bytes()
    with CorrectionFolder.open(tmp_path / "corrections") as folder:
        broken, sound = folder.images
        assert "line 3 is broken" in broken.problem
        assert sound.num_cells == 3
        assert folder.queue() == []
        folder.image("b").undo()
        assert [item.image_id for item in folder.queue()] == ["b"]
        with pytest.raises(DamagedJournalError, match=r"folder.cut_damaged\('a'\)"):
            folder.image("a")
        with pytest.raises(CorrectionError, match="nothing was saved; problems"):
            folder.save_training_data(tmp_path / "saved")
        assert file.read_bytes() == damaged
        aside = folder.cut_damaged("a")
        assert aside is not None
        assert aside.read_bytes() == damaged
        assert folder.image("a").states == ["found"] * 3
        assert folder.cut_damaged("a") is None
        folder.image("a").accept(1)
    with CorrectionFolder.open(tmp_path / "corrections") as folder:
        assert folder.image("a").states == ["accepted", "found", "found"]


@pytest.mark.parametrize(
    "line",
    [
        {"what": "accept", "by": "Ada", "at": "now", "cells": {"1": {"state": "eaten"}}},
        {"what": "accept", "by": "Ada", "at": "now", "cells": {"9": {"state": "accepted"}}},
        {"what": "accept", "by": "Ada", "at": "now", "cells": {"x": None}},
        {"what": "accept", "by": "Ada", "at": "now", "cells": [1]},
        {"what": "set_class", "by": "Ada", "at": "now", "cells": {"1": {"class": "nucleus"}}},
        {"what": "mark_done", "by": "Ada", "at": "now", "done": [[0, 0, 1]]},
        {"what": "redo", "by": "Ada", "at": "now"},
        {"by": "Ada"},
    ],
)
def test_lines_that_are_no_events_are_damage(tmp_path: Path, line: dict[str, object]) -> None:
    with new_folder(tmp_path) as folder:
        folder.image("a").begin(squares(), "nuclei")
    (file,) = (tmp_path / "corrections" / "images").iterdir()
    with file.open("a") as stream:
        stream.write(json.dumps({"n": 2, **line}) + "\n")
    with (
        CorrectionFolder.open(tmp_path / "corrections") as folder,
        pytest.raises(DamagedJournalError, match="line 3 is broken: no event that can follow"),
    ):
        folder.image("a")


def test_masks_that_are_none_are_said_before_anything_is_written(tmp_path: Path) -> None:
    with new_folder(tmp_path) as folder:
        folder.image("a").begin(squares(), "nuclei")
    (file,) = (tmp_path / "corrections" / "images").iterdir()
    text = file.read_text()
    file.write_text(text.replace('"mask": "', '"mask": "\\u20ac', 1))
    with CorrectionFolder.open(tmp_path / "corrections") as folder:
        image, before = folder.image("a"), file.read_bytes()
        with pytest.raises(CorrectionError, match=f"{file.name}: .*cell 0"):
            image.accept(1)
    assert file.read_bytes() == before


def test_a_damaged_register_is_said(tmp_path: Path) -> None:
    new_folder(tmp_path).close()
    file = tmp_path / "corrections" / "corrections.jsonl"
    text = file.read_text()
    file.write_text(text.replace('"journal"', '"jornal"'))
    with pytest.raises(DamagedJournalError, match=r"corrections.jsonl: line 2 is broken"):
        CorrectionFolder.open(tmp_path / "corrections")
    file.write_text(text.replace('"version": 1', '"version": 2'))
    with pytest.raises(CorrectionError, match="is of version 2; this cellseg reads 1"):
        CorrectionFolder.open(tmp_path / "corrections")
    file.write_text(text.replace("cellseg corrections", "shopping list"))
    with pytest.raises(CorrectionError, match="expected 'cellseg corrections'; found 'shopping"):
        CorrectionFolder.open(tmp_path / "corrections")
    file.write_text(text)
    CorrectionFolder.open(tmp_path / "corrections").close()


def test_a_folder_killed_while_it_was_made_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "corrections").mkdir()
    (tmp_path / "corrections" / "corrections.jsonl").write_text('{"n": 0, "form')
    with CorrectionFolder.open(tmp_path / "corrections", CLASSES) as folder:
        assert folder.classes == CLASSES


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "corrections").write_text("a file")
    with pytest.raises(CorrectionError, match="corrections: cannot be written: File exists"):
        CorrectionFolder.open(tmp_path / "corrections")


# The queue.


def test_the_queue_begins_with_the_least_certain(tmp_path: Path) -> None:
    with new_folder(tmp_path, "a", "b", "c") as folder:
        assert folder.queue() == []
        first, second = folder.image("a"), folder.image("b")
        first.begin(squares(), "nuclei", threshold=0.5)
        second.begin(squares().replace(scores=[0.65, 0.35, 0.4]), "nuclei", threshold=0.3)
        queue = folder.queue()
        places = [(item.image_id, item.cell_id) for item in queue]
        assert places == [("a", 2), ("b", 2), ("b", 3), ("a", 3), ("b", 1), ("a", 1)]
        assert queue[1].score == pytest.approx(0.35)
        first.accept(2)
        second.reject(2)
        assert [item[:2] for item in folder.queue()] == places[2:]
        assert [item[:2] for item in folder.queue(["b"])] == [("b", 3), ("b", 1)]
        second.undo()
        assert ("b", 2) in [item[:2] for item in folder.queue()]
        with pytest.raises(CorrectionError, match="no image 'd'"):
            folder.queue(["d"])


def test_equal_cells_come_in_the_order_of_the_images(tmp_path: Path) -> None:
    cells = CellInstances.from_label_image(np.pad(np.array([[1, 2]]), ((0, 19), (0, 28))))
    with new_folder(tmp_path, "a", "b") as folder:
        for name in "ba":
            folder.image(name).begin(cells, "nuclei")
        assert [item[:2] for item in folder.queue()] == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
        assert [item.image_id for item in folder.queue(["b", "a"])] == ["b", "b", "a", "a"]
