"""Many image files: going on after failures and interruptions, with a stub as the network."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.errors import ConfigError, ImageReadError
from cellseg.images import PlaneImage, open_planes
from cellseg.inference.file_work import Outcome
from cellseg.inference.files import predict_files
from cellseg.inference.inputs import InputFile, find_inputs
from cellseg.inference.magnification import Found
from cellseg.inference.result_folder import FileState, ResultFolder
from cellseg.inference.saving import ResultWriter, Saving


def two_squares(image: np.ndarray) -> CellInstances:
    """A cell of 4x6 px at row 2, column 3, of class 1, and one of 2x2 px at row 9, column 0."""
    mask = np.zeros((2, *image.shape[:2]), dtype=bool)
    mask[0, 2:6, 3:9] = mask[1, 9:11, 0:2] = True
    return CellInstances.from_bitmaps(mask, scores=[0.75, 0.875], classes=[1, 0])


class Stub:
    """Finds the same cells everywhere; an image whose first pixel is 66 is too much for it."""

    def __init__(self, tiled: bool = False) -> None:
        self.tiled = tiled
        self.seen: list[tuple[int, ...]] = []

    def open_planes(self, path: Path) -> AbstractContextManager[Sequence[PlaneImage]]:
        return open_planes(path)

    def is_tiled(self, plane: PlaneImage) -> bool:
        return self.tiled

    def predict_images(self, images: Sequence[np.ndarray]) -> list[Found]:
        if any(image.flat[0] == 66 for image in images):
            raise RuntimeError("expected 3 channels,\n but got 2")
        self.seen.append((len(images), *images[0].shape))
        return [Found(two_squares(image)) for image in images]

    @contextmanager
    def predict_plane(self, plane: PlaneImage, image_id: str) -> Iterator[ImageRecord]:
        (found,) = self.predict_images([plane.read_whole()])
        yield ImageRecord(image_id, found.cells, plane.path)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """first, second (which cannot be read), sub/third (which the network does not like), stack."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    cv2.imwrite(str(folder / "first.png"), np.full((20, 30, 3), 90, np.uint8))
    (folder / "second.png").write_bytes(b"not a picture")
    cv2.imwrite(str(folder / "sub" / "third.png"), np.full((20, 30, 3), 66, np.uint8))
    tifffile.imwrite(
        folder / "stack.tif", np.full((2, 25, 15), 4000, np.uint16), metadata={"axes": "TYX"}
    )
    return folder


def predict(
    folder: Path,
    out: Path,
    model: Stub | None = None,
    *,
    settings: str = "a",
    save: Sequence[str] = ("labels", "overlay", "coco"),
    overwrite: bool = False,
    **options: Any,
) -> Outcome:
    found = find_inputs([str(folder)])
    results = ResultFolder(out, settings)
    files = results.claim_names(found.files)
    saving = Saving(tuple(save), ("a", "b"), (1, 2))
    writer = ResultWriter(results, saving, overwrite=overwrite)
    outcome = predict_files(model or Stub(), files, results, writer, **options)
    writer.write_all(files, found.passed_over)
    return outcome


def results_in(out: Path) -> set[str]:
    return {
        path.relative_to(out).as_posix()
        for path in out.rglob("*")
        if path.is_file() and ".cellseg" not in path.parts
    }


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(("tiled", "batch_size"), [(False, 1), (False, 3), (True, 1), (True, 3)])
def test_writes_results_and_goes_on_after_failures(
    tiled: bool, batch_size: int, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "deep" / "out"
    with caplog.at_level(logging.ERROR):
        outcome = predict(images, out, Stub(tiled), batch_size=batch_size)
    assert (outcome.done, outcome.skipped, outcome.cells) == (3, 0, 6)
    assert results_in(out) == {
        *("first_overlay.png", "first_labels.tif", "first_labels.csv"),  # .csv: their classes
        *("stack_t0_overlay.png", "stack_t0_labels.tif", "stack_t0_labels.csv"),
        *("stack_t1_overlay.png", "stack_t1_labels.tif", "stack_t1_labels.csv"),
        *("coco_results.json", "coco_results.categories.json", "summary.csv", "failed.csv"),
        "inputs.csv",
    }
    labels = tifffile.imread(out / "first_labels.tif")
    assert labels.dtype == np.uint16
    assert labels.shape == (20, 30)
    assert [(labels == k).sum() for k in (1, 2)] == [24, 4]
    assert labels[2, 3] == labels[5, 8] == 1
    results = json.loads((out / "coco_results.json").read_text())
    ids = ["first"] * 2 + ["stack_t0"] * 2 + ["stack_t1"] * 2
    assert [result["image_id"] for result in results] == ids
    assert results[0]["bbox"] == [3, 2, 6, 4]
    assert [result["category_id"] for result in results[:2]] == [2, 1]
    assert [result["score"] for result in results[:2]] == [0.75, 0.875]
    failed = {row["file"]: row["reason"] for row in rows_of(out / "failed.csv")}
    assert failed.keys() == {str(images / "second.png"), str(images / "sub" / "third.png")}
    third = failed[str(images / "sub" / "third.png")]
    assert third.endswith("third.png: RuntimeError: expected 3 channels, but got 2")
    assert all(reason in caplog.text for reason in failed.values())
    assert [row["image"] for row in rows_of(out / "summary.csv")] == [
        "first",
        "stack_t0",
        "stack_t1",
    ]
    assert [row["t"] for row in rows_of(out / "summary.csv")] == ["", "0", "1"]


def test_a_second_run_without_failures_removes_their_list(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert len(predict(images, out).failed) == 2
    (images / "second.png").unlink()
    (images / "sub" / "third.png").unlink()
    assert predict(images, out).failed == []
    assert not (out / "failed.csv").exists()


def test_resume_leaves_out_what_is_complete(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(images, out)
    (images / "second.png").unlink()
    cv2.imwrite(str(images / "sub" / "third.png"), np.full((20, 30, 3), 1, np.uint8))
    (out / "stack_t1_labels.tif").unlink()
    again = Stub()
    outcome = predict(images, out, again, resume=True)
    assert (outcome.done, outcome.skipped, outcome.failed) == (2, 2, [])
    assert sorted(again.seen) == [(1, 20, 30, 3), (1, 25, 15)]
    results = json.loads((out / "coco_results.json").read_text())
    assert {result["image_id"] for result in results} == {
        *("first", "stack_t0", "stack_t1", "sub/third"),
    }
    assert (out / "sub" / "third_labels.tif").is_file()


def test_resume_predicts_again_what_other_settings_or_another_image_gave(
    images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict(images, out)
    assert predict(images, out, resume=True).skipped == 3
    assert predict(images, out, settings="b", resume=True).skipped == 0
    cv2.imwrite(str(images / "first.png"), np.full((21, 30, 3), 90, np.uint8))
    outcome = predict(images, out, settings="b", resume=True)
    assert (outcome.done, outcome.skipped) == (1, 2)
    assert tifffile.imread(out / "first_labels.tif").shape == (21, 30)


class _Interrupted(BaseException):
    pass


def test_after_an_interruption_resume_goes_on(images: Path, tmp_path: Path) -> None:
    """What was complete when it came is kept, and nothing else is there."""
    for name in ("second.png", "sub/third.png"):
        (images / name).unlink()

    class Impatient(Stub):
        def predict_images(self, images: Sequence[np.ndarray]) -> list[Found]:
            if self.seen:
                raise _Interrupted
            return super().predict_images(images)

    out = tmp_path / "out"
    with pytest.raises(_Interrupted):
        predict(images, out, Impatient())
    assert results_in(out) == {"first_overlay.png", "first_labels.tif", "first_labels.csv"}
    outcome = predict(images, out, resume=True)
    assert (outcome.done, outcome.skipped) == (2, 1)


@pytest.mark.parametrize("resume", [False, True])
def test_what_was_killed_while_it_wrote_is_done_again(
    resume: bool, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its labels are there, its overlay is not, and half a line of the next step is."""
    out = tmp_path / "out"

    def is_killed(*_: object) -> None:
        raise _Interrupted

    with monkeypatch.context() as patch:
        patch.setattr("cellseg.inference.saving.draw_overview", is_killed)
        predict(images, out)
    assert "stack_t1_labels.tif" in results_in(out)
    assert "stack_t1_overlay.png" not in results_in(out)
    for state in (out / ".cellseg" / "images").rglob("*.jsonl"):
        lines = [line for line in state.read_text().splitlines() if "complete" not in line]
        state.write_text("\n".join([*lines, '{"image": "stack_t1", "fil']))
    for _ in range(2):
        outcome = predict(images, out, resume=resume)
        assert len(outcome.failed) == 2  # those that never work
        assert outcome.done + outcome.skipped == 3
    assert outcome.skipped == (3 if resume else 0)
    assert "stack_t1_overlay.png" in results_in(out)


def test_parts_make_the_same_files_as_one_run(images: Path, tmp_path: Path) -> None:
    files = find_inputs([str(images)]).files
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    predict(images, whole)
    for part in (files[::2], files[1::2]):
        results = ResultFolder(parts, "a")
        writer = ResultWriter(results, Saving(("labels", "overlay", "coco"), ("a", "b"), (1, 2)))
        predict_files(Stub(), part, results, writer)
        writer.write_all(files)
    assert results_in(parts) == results_in(whole)
    for name in results_in(whole):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name


def test_batches_hold_images_of_one_size(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, side in enumerate([20, 20, 20, 24, 24, 20]):
        cv2.imwrite(str(folder / f"{number}.png"), np.zeros((side, 30), np.uint8))
    stub = Stub()
    assert predict(folder, tmp_path / "out", stub, batch_size=2).done == 6
    assert stub.seen == [(2, 20, 30), (1, 20, 30), (2, 24, 30), (1, 20, 30)]


def test_one_bad_image_of_a_batch_fails_alone(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number, value in enumerate([0, 66, 1]):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((20, 30), value, np.uint8))
    outcome = predict(folder, tmp_path / "out", batch_size=3)
    assert outcome.done == 2
    assert [image_id for _, image_id, _ in outcome.failed] == ["1"]


def test_all_images_in_one_table(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'label' cannot be saved; did you mean labels"):
        Saving(("label",))
    with pytest.raises(ConfigError, match=r"both tables would be submission\.csv"):
        Saving(("sartorius", "dsb2018"))
    out = tmp_path / "out"
    predict(images, out, save=["sartorius_table"])
    assert results_in(out) == {"submission.csv", "summary.csv", "failed.csv", "inputs.csv"}
    assert {row["id"] for row in rows_of(out / "submission.csv")} == {
        "first",
        "stack_t0",
        "stack_t1",
    }


def test_a_file_whose_state_cannot_be_kept_fails_alone(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = ResultFolder.start

    def refuse(self: ResultFolder, file: InputFile, *, resume: bool) -> Any:
        if file.name == "first":
            raise OSError(36, "File name too long")
        return start(self, file, resume=resume)

    monkeypatch.setattr(ResultFolder, "start", refuse)
    outcome = predict(images, tmp_path / "out")
    assert outcome.done == 2
    assert any("File name too long" in reason for _, _, reason in outcome.failed)


def test_a_file_of_somebody_else_is_not_replaced(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "first_labels.tif").write_bytes(b"by hand")
    outcome = predict(images, out)
    assert (out / "first_labels.tif").read_bytes() == b"by hand"
    assert outcome.done == 2
    (reason,) = [reason for _, image_id, reason in outcome.failed if image_id == "first"]
    assert "first_labels.tif: is there and was not written by an earlier prediction" in reason
    assert predict(images, out, overwrite=True).done == 3
    assert predict(images, out).done == 3  # its own results it may replace
    assert tifffile.imread(out / "first_labels.tif").max() == 2


def test_results_of_an_earlier_prediction_do_not_lie_beside_the_new_ones(
    images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    predict(images, out)
    predict(images, out, save=["labels"], settings="b")
    assert {name for name in results_in(out) if "overlay" in name} == set()


def test_a_record_says_which_output_belongs_to_which_input(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (images / "again.png").symlink_to("first.png")
    (images / "notes.txt").write_text("x")
    predict(images, out, save=["labels", "coco"])
    rows = {row["image"] or Path(row["file"]).name: row for row in rows_of(out / "inputs.csv")}
    assert rows["again"]["outputs"] == "again_labels.tif; again_labels.csv"
    assert rows["again"]["file"] == str(images / "again.png")
    assert rows["stack_t1"]["file"] == str(images / "stack.tif")
    assert rows["first.png"]["note"] == f"another name of {images / 'again.png'}"
    assert "not an image" in rows["notes.txt"]["note"]
    assert (rows["sub/third"]["outputs"], "RuntimeError" in rows["sub/third"]["note"]) == ("", True)


def test_two_files_of_one_name_never_share_results(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for day, size in (("day_1", 30), ("day_2", 40)):
        (tmp_path / day).mkdir()
        for name in ("a.png", "a.tif"):
            cv2.imwrite(str(tmp_path / day / name), np.full((20, size), 9, np.uint8))
        predict(tmp_path / day, out)
    predict(tmp_path / "day_1", out)  # finds its own again
    sizes = {path.name: tifffile.imread(path).shape[1] for path in out.glob("*_labels.tif")}
    assert sizes == {
        **{"a_labels.tif": 30, "a_2_labels.tif": 30},
        **{"a_3_labels.tif": 40, "a_2_2_labels.tif": 40},
    }
    files = {row["image"]: Path(row["file"]).parent.name for row in rows_of(out / "inputs.csv")}
    assert files == {"a": "day_1", "a_2": "day_1", "a_3": "day_2", "a_2_2": "day_2"}


@pytest.mark.parametrize("save", [["labels"], ["coco"]])
def test_a_plane_and_a_file_of_its_name(tmp_path: Path, save: list[str]) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    stack = np.full((2, 25, 15), 40, np.uint16)
    tifffile.imwrite(folder / "a.tif", stack, metadata={"axes": "TYX"})
    tifffile.imwrite(folder / "a_t0.tif", stack, metadata={"axes": "ZYX"})
    cv2.imwrite(str(folder / "a_t1.png"), np.full((20, 30), 90, np.uint8))
    assert predict(folder, out, save=save).done == 5
    images = {row["image"]: Path(row["file"]).name for row in rows_of(out / "inputs.csv")}
    assert images == {
        **{"a~t0": "a.tif", "a~t1": "a.tif", "a_t1": "a_t1.png"},
        **{"a_t0_z0": "a_t0.tif", "a_t0_z1": "a_t0.tif"},
    }
    assert len({*rows_of_images(out)}) == 5


def rows_of_images(out: Path) -> list[str]:
    return [row["image"] for row in rows_of(out / "summary.csv")]


def test_a_writer_that_fails_is_a_failure_of_that_image(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "first_labels.tif").mkdir(parents=True)
    outcome = predict(images, out, overwrite=True)
    assert outcome.done == 2
    assert any(image_id == "first" for _, image_id, _ in outcome.failed)
    assert "first" not in {row["image"] for row in rows_of(out / "summary.csv")}


def test_no_more_images_are_read_than_are_needed_soon(tmp_path: Path) -> None:
    """Memory does not grow with the number of files."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(30):
        cv2.imwrite(str(folder / f"{number:02d}.png"), np.full((20, 30), number, np.uint8))
    alive: list[int] = []

    class Counting(Stub):
        read = done = 0

        def is_tiled(self, plane: PlaneImage) -> bool:
            self.read += 1
            alive.append(self.read - self.done)
            return False

        def predict_images(self, images: Sequence[np.ndarray]) -> list[Found]:
            self.done += len(images)
            return super().predict_images(images)

    assert predict(folder, tmp_path / "out", Counting()).done == 30
    assert max(alive) <= 5


def test_an_unreadable_plane_does_not_stop_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pages = np.zeros((3, 20, 30), np.uint8)
    tifffile.imwrite(folder / "a.tif", pages, photometric="minisblack", metadata={"axes": "TYX"})

    class Picky(Stub):
        def is_tiled(self, plane: PlaneImage) -> bool:
            if plane.position == (("T", 1),):
                raise ImageReadError("a page is missing")
            return False

    outcome = predict(folder, tmp_path / "out", Picky())
    assert outcome.done == 2
    assert outcome.failed == [
        (str(folder / "a.tif"), "a_t1", f"{folder / 'a.tif'}: a page is missing")
    ]


def test_a_file_of_planes_that_are_not_there_is_given_up(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    pages = np.zeros((50, 20, 30), np.uint8)
    tifffile.imwrite(folder / "a.tif", pages, photometric="minisblack", metadata={"axes": "TYX"})

    class Picky(Stub):
        def is_tiled(self, plane: PlaneImage) -> bool:
            if plane.position[0][1] not in (5, 49):
                raise ImageReadError("a page is missing")
            return False

    outcome = predict(folder, tmp_path / "out", Picky())
    assert outcome.done == 1
    assert len(outcome.failed) == 5 + 20 + 1
    assert "20 planes in a row cannot be read; the other 24, from a_t26 on" in outcome.failed[-1][2]


def test_a_full_disk_is_a_failure_and_no_silence(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be noted any more; the outcome, and so the exit status, says it."""

    def full(self: FileState, step: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FileState, "add", full)
    outcome = predict(images, tmp_path / "out")
    assert outcome.done == 0
    failed = {Path(path).name for path, _, _ in outcome.failed}
    assert failed == {"first.png", "second.png", "third.png", "stack.tif"}
    assert any("No space left on device" in reason for _, _, reason in outcome.failed)
