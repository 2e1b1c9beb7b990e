"""Cells on disk, read back in batches."""

from __future__ import annotations

import numpy as np
import pytest
from cell_scenes import random_bitmaps
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import PlaceInFile
from cellseg.cells.runs import Runs
from cellseg.cells.spool import SpooledCells
from cellseg.errors import LabelError


@pytest.mark.parametrize("seed", range(5))
def test_the_same_cells_come_back(seed: int, tmp_path) -> None:
    rng = np.random.default_rng(seed)
    cells = CellInstances.from_bitmaps(
        random_bitmaps(rng, 12, (30, 20)), rng.random(12), rng.integers(0, 3, 12)
    ).replace(is_crowd=rng.random(12) < 0.2)
    with SpooledCells(tmp_path / "new", (30, 20)) as spooled:
        for part in (cells[:5], cells[5:5], cells[5:6], cells[6:]):
            spooled.append(part)
        assert [len(batch) for batch in spooled.batches()] == [5, 1, 6]
        assert spooled.cells.equals(cells)
        assert spooled.num_cells == 12
        both = zip(spooled.batches(), spooled.batches())  # two writers at once
        assert all(one.equals(other) for one, other in both)


def test_no_cells(tmp_path) -> None:
    with SpooledCells(tmp_path, (3, 4)) as spooled:
        assert (spooled.num_cells, list(spooled.batches())) == (0, [])
        assert spooled.cells.equals(CellInstances.empty((3, 4)))


def test_it_says_what_a_record_says(tmp_path) -> None:
    place = PlaceInFile((("T", 3),), pixel_size_um=(0.5, 0.5))
    with SpooledCells(tmp_path, (3, 4), "slide", tmp_path / "slide.tif", place) as spooled:
        assert (spooled.image_id, spooled.image_path, spooled.place, spooled.image_hw) == (
            "slide",
            tmp_path / "slide.tif",
            place,
            (3, 4),
        )


def test_pixels_beyond_32_bits(tmp_path) -> None:
    hw = (100_000, 100_000)
    runs = Runs(np.array([0, 1]), np.array([7, 9_999_999_990]), np.array([12, 10_000_000_000]))
    cells = CellInstances.from_runs(runs, 2, hw)
    with SpooledCells(tmp_path, hw) as spooled:
        spooled.append(cells)
        assert spooled.cells.equals(cells)


def test_nothing_is_left_behind(tmp_path) -> None:
    with SpooledCells(tmp_path, (3, 4)) as spooled:
        spooled.append(CellInstances.from_label_image(np.eye(3, 4, dtype=int)))
        assert list(tmp_path.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_cells_of_another_image_are_refused(tmp_path) -> None:
    with (
        SpooledCells(tmp_path, (3, 4)) as spooled,
        pytest.raises(LabelError, match=r"image of \(4, 3\); expected \(3, 4\)"),
    ):
        spooled.append(CellInstances.empty((4, 3)))
