"""submission.csv: hand-computed rows, what is refused, and back through the readers."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import rle_to_bitmap
from cellseg.errors import LabelError
from cellseg.io import read_records
from cellseg.io.run_length_rows import rows_to_runs
from cellseg.io.submission import (
    Submission,
    cells_to_submission_rows,
    find_row_problems,
    write_submission,
)


def two_cells() -> CellInstances:
    """In 3 x 4 pixels: the lower score has rows 0-1 of columns 0-2, the higher one column 2."""
    bitmaps = np.zeros((2, 3, 4), bool)
    bitmaps[0, :2, :3] = True
    bitmaps[1, :, 2] = True
    return CellInstances.from_bitmaps(bitmaps, scores=[0.4, 0.8])


def test_rows_by_hand() -> None:
    """The first cell loses its part of column 2.

    Row by row the pixels are 1 2 3 4 / 5 6 7 8 / 9 10 11 12, column by column 1 4 7 10 / 2 5 8 11 /
    3 6 9 12; a run goes on into the next column.
    """
    assert cells_to_submission_rows(two_cells(), "sartorius") == ["1 2 5 2", "3 1 7 1 11 1"]
    assert cells_to_submission_rows(two_cells(), "dsb2018") == ["1 2 4 2", "7 3"]


def test_a_cell_that_vanishes_is_dropped() -> None:
    bitmaps = np.zeros((3, 2, 2), bool)
    bitmaps[0, 0, 0] = bitmaps[2, 0] = True  # the second has no pixel to begin with
    cells = CellInstances.from_bitmaps(bitmaps, scores=[0.5, 0.9, 0.6])
    assert cells_to_submission_rows(cells, "sartorius") == ["1 2"]


def test_the_file_by_hand(tmp_path: Path) -> None:
    images = [("b", two_cells()), ("a, or so", CellInstances.empty((5, 5)))]
    path = tmp_path / "new" / "submission.csv"
    assert write_submission(iter(images), path, "sartorius") == 2
    assert path.read_text() == 'id,predicted\nb,1 2 5 2\nb,3 1 7 1 11 1\n"a, or so",\n'
    assert write_submission(images, path, "dsb2018") == 2
    assert path.read_text() == 'ImageId,EncodedPixels\nb,1 2 4 2\nb,7 3\n"a, or so",\n'
    assert [entry.name for entry in path.parent.iterdir()] == ["submission.csv"]


def test_without_images_there_is_a_header(tmp_path: Path) -> None:
    assert write_submission([], tmp_path / "s.csv", "dsb2018") == 0
    assert (tmp_path / "s.csv").read_text() == "ImageId,EncodedPixels\n"


def random_cells(seed: int) -> CellInstances:
    rng = np.random.default_rng(seed)
    bitmaps = np.zeros((12, 30, 41), bool)
    for bitmap in bitmaps:
        row, col = rng.integers(0, 30), rng.integers(0, 41)
        bitmap[row : row + rng.integers(1, 14), col : col + rng.integers(1, 14)] = True
        bitmap &= rng.random(bitmap.shape) < 0.9
    return CellInstances.from_bitmaps(bitmaps, scores=rng.random(12))


def apart(cells: CellInstances) -> list[np.ndarray]:
    """Bitmaps of what is left of each cell, by brute force."""
    free = np.ones(cells.image_hw, bool)
    left = {}
    for k in np.argsort(-cells.scores):
        left[k] = cells.to_bitmaps()[k] & free
        free &= ~left[k]
    return [left[k] for k in sorted(left) if left[k].any()]


def test_dsb2018_round_trip_through_the_reader_of_the_training_table(tmp_path: Path) -> None:
    images = {f"image_{seed}": random_cells(seed) for seed in range(3)}
    images["image_3"] = CellInstances.empty((30, 41))
    for name, cells in images.items():
        folder = tmp_path / "test" / name / "images"
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / f"{name}.png"), np.zeros(cells.image_hw, np.uint8))
    write_submission(images.items(), tmp_path / "test_labels.csv", "dsb2018")
    records = read_records("dsb2018_table", tmp_path, "test", classes=["nucleus"])
    assert [record.image_id for record in records] == list(images)
    for record in records:
        found = [rle_to_bitmap(cell.rle) for cell in record.cells]
        assert np.array_equal(found, apart(images[record.image_id]))


def test_sartorius_round_trip_through_the_reader_of_the_training_table(tmp_path: Path) -> None:
    """That table has the same rows under another name, and columns more."""
    images = {"one": random_cells(5), "two": CellInstances.empty((30, 41))}
    (tmp_path / "test").mkdir()
    for name in images:
        cv2.imwrite(str(tmp_path / "test" / f"{name}.png"), np.zeros((30, 41), np.uint8))
    write_submission(images.items(), tmp_path / "submission.csv", "sartorius")
    rows = list(csv.reader((tmp_path / "submission.csv").open()))
    assert rows[0] == ["id", "predicted"]
    assert rows[-1] == ["two", ""]
    with (tmp_path / "test.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["id", "annotation", "width", "height", "cell_type"])
        table.writerows([*row, "41", "30", "cell"] for row in rows[1:])
    records = read_records("sartorius_table", tmp_path, "test", classes=["cell"])
    for record in records:
        found = [rle_to_bitmap(cell.rle) for cell in record.cells]
        assert np.array_equal(found, apart(images[record.image_id]))


@pytest.mark.parametrize("format_name", ["sartorius", "dsb2018"])
def test_what_is_written_passes_its_own_check(format_name: str) -> None:
    for seed in range(20):
        rows = cells_to_submission_rows(random_cells(seed), format_name)
        assert find_row_problems(rows, (30, 41), format_name) == []
        runs, _ = rows_to_runs(rows, (30, 41), row_major=format_name == "sartorius")
        pixels = np.concatenate([np.arange(*span) for span in zip(runs.starts, runs.ends)])
        assert len(pixels) == len(set(pixels.tolist()))


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (["1 3", "3 1"], "cells 0 and 1 share pixels"),
        (["20 1", "1 9", "2 1"], "cells 1 and 2 share pixels"),
        (["5 1", "1 5"], "cells 0 and 1 share pixels"),
        (["1 1", "24 2"], "cell 1: run `24 2` goes beyond the last pixel, 24"),
        (["5 1 3 1"], "cell 0: run `3 1` overlaps the run before it or stands in the wrong order"),
        (["0 2"], "cell 0: run `0 2` starts before pixel 1 or has no length"),
        (["1 2 3"], "cell 0: 3 numbers; expected pairs of start and length"),
        (["1 x"], "cell 0: '1 x' is not `start length ...`"),
        (["1 1", ""], "cell 1: no run lengths"),
    ],
)
def test_what_a_competition_would_refuse(rows: list[str], problem: str) -> None:
    for format_name in ("dsb2018", "sartorius"):
        assert find_row_problems(rows, (4, 6), format_name) == [problem]
        with pytest.raises(LabelError, match="image 'x' cannot be submitted") as caught:
            Submission(format_name).add_rows("x", rows, (4, 6))
        assert problem in str(caught.value)


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    path.write_text("before")
    with pytest.raises(LabelError, match="image 'a' comes twice"):
        write_submission([("a", two_cells())] * 2, path, "sartorius")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_no_such_format() -> None:
    with pytest.raises(LabelError, match="no submission format 'kaggle'; expected sartorius or"):
        Submission("kaggle")
