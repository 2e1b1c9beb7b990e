"""submission.csv: hand-computed rows, what is refused, and back through the readers."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
from cell_records import bitmaps_of
from cellseg.cells.instances import CellInstances
from cellseg.errors import DatasetError
from cellseg.io import ImageRecord, read_records, write_predictions
from cellseg.io.run_length_rows import rows_to_runs
from cellseg.io.run_length_tables import cells_to_submission_rows


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
    assert cells_to_submission_rows(two_cells(), row_major=True) == ["1 2 5 2", "3 1 7 1 11 1"]
    assert cells_to_submission_rows(two_cells(), row_major=False) == ["1 2 4 2", "7 3"]


def test_a_cell_that_vanishes_is_dropped() -> None:
    bitmaps = np.zeros((3, 2, 2), bool)
    bitmaps[0, 0, 0] = bitmaps[2, 0] = True  # the second has no pixel to begin with
    cells = CellInstances.from_bitmaps(bitmaps, scores=[0.5, 0.9, 0.6])
    assert cells_to_submission_rows(cells, row_major=True) == ["1 2"]


def test_the_file_by_hand(tmp_path: Path) -> None:
    records = [
        ImageRecord("b", two_cells()),
        ImageRecord("a, or so", CellInstances.empty((5, 5))),
    ]
    path = tmp_path / "new" / "submission.csv"
    assert write_predictions(iter(records), path.parent, "sartorius_table") == 2
    assert path.read_text() == 'id,predicted\nb,1 2 5 2\nb,3 1 7 1 11 1\n"a, or so",\n'
    assert write_predictions(records, path.parent, "dsb2018_table") == 2
    assert path.read_text() == 'ImageId,EncodedPixels\nb,1 2 4 2\nb,7 3\n"a, or so",\n'
    assert [entry.name for entry in path.parent.iterdir()] == ["submission.csv"]


def test_without_images_there_is_a_header(tmp_path: Path) -> None:
    assert write_predictions([], tmp_path, "dsb2018_table") == 0
    assert (tmp_path / "submission.csv").read_text() == "ImageId,EncodedPixels\n"


def random_cells(seed: int) -> CellInstances:
    rng = np.random.default_rng(seed)
    bitmaps = np.zeros((12, 30, 41), bool)
    for bitmap in bitmaps:
        row, col = rng.integers(0, 30), rng.integers(0, 41)
        bitmap[row : row + rng.integers(1, 14), col : col + rng.integers(1, 14)] = True
        bitmap &= rng.random(bitmap.shape) < 0.9
    return CellInstances.from_bitmaps(bitmaps, scores=rng.random(12))


def apart(cells: CellInstances) -> np.ndarray:
    """Bitmaps of what is left of each cell, by brute force."""
    free = np.ones(cells.image_hw, bool)
    left = {}
    for k in np.argsort(-cells.scores):
        left[k] = cells.to_bitmaps()[k] & free
        free &= ~left[k]
    kept = [left[k] for k in sorted(left) if left[k].any()]
    return np.array(kept, bool).reshape(-1, *cells.image_hw)


def test_dsb2018_round_trip_through_the_reader_of_the_training_table(tmp_path: Path) -> None:
    images = {f"image_{seed}": random_cells(seed) for seed in range(3)}
    images["image_3"] = CellInstances.empty((30, 41))
    for name, cells in images.items():
        folder = tmp_path / "test" / name / "images"
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / f"{name}.png"), np.zeros(cells.image_hw, np.uint8))
    records = [ImageRecord(name, cells) for name, cells in images.items()]
    write_predictions(records, tmp_path, "dsb2018_table")
    (tmp_path / "submission.csv").rename(tmp_path / "test_labels.csv")
    records = read_records("dsb2018_table", tmp_path, "test", classes=["nucleus"])
    assert [record.image_id for record in records] == list(images)
    for record in records:
        assert np.array_equal(bitmaps_of(record), apart(images[record.image_id]))


def test_sartorius_round_trip_through_the_reader_of_the_training_table(tmp_path: Path) -> None:
    """That table has the same rows under another name, and columns more."""
    images = {"one": random_cells(5), "two": CellInstances.empty((30, 41))}
    (tmp_path / "test").mkdir()
    for name in images:
        cv2.imwrite(str(tmp_path / "test" / f"{name}.png"), np.zeros((30, 41), np.uint8))
    records = [ImageRecord(name, cells) for name, cells in images.items()]
    write_predictions(records, tmp_path, "sartorius_table")
    rows = list(csv.reader((tmp_path / "submission.csv").open()))
    assert rows[0] == ["id", "predicted"]
    assert rows[-1] == ["two", ""]
    with (tmp_path / "test.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["id", "annotation", "width", "height", "cell_type"])
        table.writerows([*row, "41", "30", "cell"] for row in rows[1:])
    records = read_records("sartorius_table", tmp_path, "test", classes=["cell"])
    for record in records:
        assert np.array_equal(bitmaps_of(record), apart(images[record.image_id]))


@pytest.mark.parametrize("row_major", [True, False])
def test_no_pixel_twice_and_runs_that_ascend(row_major: bool) -> None:
    for seed in range(20):
        rows = cells_to_submission_rows(random_cells(seed), row_major=row_major)
        runs, problems = rows_to_runs(rows, (30, 41), row_major=row_major)
        assert problems == {}
        pixels = np.concatenate([np.arange(*span) for span in zip(runs.starts, runs.ends)])
        assert len(pixels) == len(set(pixels.tolist()))


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    path.write_text("before")
    with pytest.raises(DatasetError, match="image 'a' comes twice"):
        write_predictions([ImageRecord("a", two_cells())] * 2, tmp_path, "sartorius_table")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
