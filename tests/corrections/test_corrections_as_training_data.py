"""What is saved for training: what counts, for whom, and that cellseg's commands take it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import yaml
from cellseg.cells.instances import CellInstances
from cellseg.cells.synthetic import make_cells
from cellseg.corrections import CorrectedImage, CorrectionFolder, TrainingData
from cellseg.corrections.training_data import choose_sides, what_counts
from cellseg.datasets.declarations import read_declarations, read_declared_records
from cellseg.datasets.registration import register_declarations
from cellseg.errors import CorrectionError
from cellseg.evaluation.comparison import compare
from cellseg.io import ImageRecord
from cellseg.training_data.mapper import CellDatasetMapper
from commands import Command
from correction_scenes import new_folder, squares
from detectron2.data import DatasetCatalog
from hypothesis import given
from hypothesis import strategies as st


def read_back(declaration: Path) -> dict[str, ImageRecord]:
    """The records of all splits, by split and image id."""
    return {
        f"{declared.split_name}/{record.image_id}": record
        for declared in read_declarations(declaration)
        for record in read_declared_records(declared, "nowhere")
    }


def find_cells(folder: CorrectionFolder, *names: str) -> list[CorrectedImage]:
    images = [folder.image(name) for name in names]
    for image in images:
        image.begin(squares(), "nuclei")
    return images


def test_only_what_was_looked_at_counts(tmp_path: Path) -> None:
    with new_folder(tmp_path) as folder:
        (image,) = find_cells(folder, "a")
        image.accept(1)
        image.mark_done(np.s_[:, 20:])
        image.draw(np.ones((2, 2)), 1, offset_rc=(0, 28))
        data = folder.save_training_data(tmp_path / "out")
        expected = image.counted_region()
    assert (data.num_images, data.num_cells, data.num_held_out) == (1, 2, 0)
    assert (data.train, data.val, data.classes) == ("out_train", "", ("nucleus", "debris"))
    (record,) = read_back(data.declaration).values()
    assert record.image_path is not None
    assert record.image_path.read_bytes() == (tmp_path / "images" / "a.png").read_bytes()
    cells = record.cells.counted
    assert cells.classes.tolist() == [0, 1]
    assert np.array_equal(cells.to_bitmaps().any(axis=0), np.isin(image.label_image(), [1, 4]))
    crowds = record.cells.crowds
    assert crowds.classes.tolist() == [0, 1]
    for region in crowds.to_bitmaps():
        assert np.array_equal(region, ~expected)


def test_an_image_that_is_done_has_no_uncounted_region(tmp_path: Path) -> None:
    with new_folder(tmp_path, "a", "b", "c") as folder:
        for image in find_cells(folder, "a", "b"):
            image.mark_done()
        folder.image("b").reject([1, 2, 3])
        data = folder.save_training_data(tmp_path / "out")
    records = read_back(data.declaration)
    assert sorted(name.split("/")[1] for name in records) == ["a", "b"]  # c: nobody was there
    assert sorted(len(record.cells) for record in records.values()) == [0, 3]
    assert not any(record.cells.is_crowd.any() for record in records.values())


def test_predictions_where_nobody_looked_are_not_false(tmp_path: Path) -> None:
    with new_folder(tmp_path) as folder:
        (image,) = find_cells(folder, "a")
        image.accept(1)
        image.mark_done(np.s_[:, 20:])
        true = what_counts(image)
        every = compare(true, squares()).count(0.5)
        assert (every.tp, every.fp, every.fn) == (1, 0, 0)
        wrong = CellInstances.from_crops([np.ones((4, 4), bool)], [(3, 22)], (20, 30))
        assert compare(true, wrong).count(0.5).fp == 1
        of_other_class = squares().replace(classes=[1, 1, 1])
        for number in (0, 1):
            found = compare(true.of_class(number), of_other_class.of_class(number)).count(0.5)
            assert found.fp == (number == 1)  # cell 1 is of class 0


def test_who_corrected_what_is_said(tmp_path: Path) -> None:
    with new_folder(tmp_path) as folder:
        (image,) = find_cells(folder, "a")
        image.accept([1, 2])
        folder.author = "Bob"
        image.draw(np.ones((2, 2)))
        folder.save_training_data(tmp_path / "out")
    said = json.loads((tmp_path / "out" / "corrections.json").read_text())
    assert said["classes"] == ["nucleus", "debris"]
    assert said["saved_by"] == "Bob"
    (row,) = said["images"]
    assert row["found_by"] == "nuclei"
    assert row["corrected_by"] == ["Ada", "Bob"]
    assert row["corrected_at"].endswith("Z")
    assert (row["num_accepted"], row["num_drawn"], row["num_left_out"]) == (2, 1, 1)
    assert row["counted_share"] == pytest.approx(36 / 600)
    assert (row["split"], row["file"]) == ("train", str(tmp_path / "images" / "a.png"))


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    with new_folder(tmp_path) as folder:
        find_cells(folder, "a")
        with pytest.raises(CorrectionError, match="nothing counts yet: accept or draw cells"):
            folder.save_training_data(tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_other_files_are_never_written_over_and_own_ones_are(tmp_path: Path) -> None:
    with new_folder(tmp_path) as folder:
        folder.image("a").draw(np.ones((2, 2)))
        other = tmp_path / "thesis"
        other.mkdir()
        (other / "chapter.txt").write_text("three years")
        with pytest.raises(CorrectionError, match="was not saved from corrections; nothing is"):
            folder.save_training_data(other)
        assert [path.name for path in other.iterdir()] == ["chapter.txt"]
        first = folder.save_training_data(tmp_path / "out")
        folder.image("a").draw(np.ones((2, 2)), offset_rc=(9, 9))
        assert folder.save_training_data(tmp_path / "out").num_cells == 2
        (record,) = read_back(first.declaration).values()
        assert len(record.cells.counted) == 2


def refuse(*args: object, **options: object) -> str:
    raise OSError(28, "No space left on device", "declaration.yaml")


def test_what_cannot_be_saved_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_folder(tmp_path) as folder:
        folder.image("a").draw(np.ones((2, 2)))
        folder.save_training_data(tmp_path / "out")
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        monkeypatch.setattr(yaml, "safe_dump", refuse)
        with pytest.raises(CorrectionError, match=r"out: cannot be written: .*No space left"):
            folder.save_training_data(tmp_path / "out")
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert {path for path in before if path.name != "in_use.lock"} <= set(after)
    assert not [path for path in after if "partial" in path.name]


def test_changed_images_are_not_saved(tmp_path: Path) -> None:
    with new_folder(tmp_path) as folder:
        folder.image("a").draw(np.ones((2, 2)))
        (tmp_path / "images" / "a.png").write_bytes(b"something else")
        with pytest.raises(CorrectionError, match=r"nothing was saved; .*\n.*is not the file"):
            folder.save_training_data(tmp_path / "out")


def test_planes_of_a_file_are_on_one_side(tmp_path: Path) -> None:
    for name in ("s", "t", "u"):
        stack = np.random.default_rng(0).integers(0, 99, (3, 20, 30), np.uint8)
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", stack, metadata={"axes": "TYX"})
    with CorrectionFolder.open(tmp_path / "corrections") as folder:
        folder.add_images([tmp_path / f"{name}.ome.tif" for name in "stu"])
        for one in folder.images:
            folder.image(one.image_id).draw(np.ones((2, 2)))
        data = folder.save_training_data(tmp_path / "out", held_out=0.4)
        whole = tifffile.imread(tmp_path / "s.ome.tif")
    sides: dict[str, set[str]] = {}
    for name in read_back(data.declaration):
        side, image_id = name.split("/")
        sides.setdefault(image_id[0], set()).add(side)
    assert all(len(each) == 1 for each in sides.values())
    assert {side for each in sides.values() for side in each} == {"train", "val"}
    (path,) = (tmp_path / "out").rglob("s_t1.tif")
    assert np.array_equal(tifffile.imread(path), whole[1])


def test_images_of_folders_get_names_of_files(tmp_path: Path) -> None:
    with new_folder(tmp_path, "day_1/a", "day_2/a") as folder:
        for one in folder.images:
            folder.image(one.image_id).draw(np.ones((2, 2)))
        data = folder.save_training_data(tmp_path / "my cells; round 2")
    assert sorted(name.split("/")[1] for name in read_back(data.declaration)) == [
        "day_1_a",
        "day_2_a",
    ]
    assert data.train == "my_cells_round_2_train"


# Sides.


@given(
    st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=8, unique=True),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.2, 0.5, 0.9]),
    st.integers(0, 3),
)
def test_no_image_changes_sides_when_others_come(
    names: list[str], first: int, held_out: float, seed: int
) -> None:
    known: dict[str, str] = {}
    for count in range(first, len(names) + 1):
        sides = choose_sides(names[:count], known, held_out, seed)
        assert list(sides) == names[:count]
        assert all(sides[name] == side for name, side in known.items())
        if held_out == 0:
            assert set(sides.values()) <= {"train"}
        elif count > 1 and len(known) != 1:
            assert set(sides.values()) == {"train", "val"}
        known = sides


def test_sides_are_kept_by_the_folder(tmp_path: Path) -> None:
    names = [f"field_{number}" for number in range(7)]
    chosen: dict[str, set[str]] = {name: set() for name in names}
    with new_folder(tmp_path, *names) as folder:
        for name in names:
            folder.image(name).draw(np.ones((2, 2)))
            data = folder.save_training_data(tmp_path / "out")
            for record in read_back(data.declaration):
                side, image_id = record.split("/")
                chosen[image_id].add(side)
    assert all(len(sides) == 1 for sides in chosen.values())
    with CorrectionFolder.open(tmp_path / "corrections", read_only=True) as folder:
        again = folder.save_training_data(tmp_path / "out")
        for record in read_back(again.declaration):
            side, image_id = record.split("/")
            assert chosen[image_id] == {side}


# The commands.


@pytest.fixture
def corrected(tmp_path: Path, request: pytest.FixtureRequest) -> TrainingData:
    """Four images of cells, half of them half corrected."""
    (tmp_path / "images").mkdir()
    with CorrectionFolder.open(tmp_path / "corrections", ("nucleus", "debris")) as folder:
        for number in range(4):
            scene = make_cells(number, (96, 128))
            cv2.imwrite(str(tmp_path / "images" / f"{number}.png"), scene.image)
            (image_id,) = folder.add_images(tmp_path / "images").image_ids
            image = folder.image(image_id)
            image.begin(CellInstances.from_label_image(scene.labels), "nuclei")
            image.accept(image.ids[:5])
            image.set_class(image.ids[:1], 1)
            if number % 2:
                image.mark_done(np.s_[:48, :])
            if number == 2:
                image.mark_done()
        return folder.save_training_data(tmp_path / request.node.name)  # catalogs keep names


def test_inspect_finds_it_clean(
    corrected: TrainingData, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Command("inspect").main([str(corrected.declaration)]) == 0
    assert "0 errors, 0 warnings, 0 notes" in capsys.readouterr().out


def test_training_takes_it(corrected: TrainingData) -> None:
    names = register_declarations([corrected.declaration])
    assert names == [corrected.train, corrected.val]
    mapper = CellDatasetMapper(True, augmentations=[])
    for name in names:
        for entry in DatasetCatalog.get(name):
            cells = [one for one in entry["annotations"] if not one["iscrowd"]]
            mapped = mapper(entry)
            assert mapped["image"].shape == (3, 96, 128)
            assert len(mapped["instances"]) == len(cells) > 0


def test_the_declaration_is_plain(corrected: TrainingData) -> None:
    assert yaml.safe_load(corrected.declaration.read_text()) == {
        "test_the_declaration_is_plain": {
            "format": "coco_json",
            "root": str(corrected.declaration.parent),
            "splits": ["train", "val"],
            "classes": ["nucleus", "debris"],
        }
    }
