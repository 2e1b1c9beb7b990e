"""One file with cells, without a data set around it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError
from cellseg.io.coco_results import write_coco_results
from cellseg.io.single_files import (
    CellsOfFile,
    holds_cells,
    read_single_file,
    write_single_file,
)

CELLS = CellInstances.from_label_image(
    [[0, 3, 3, 0], [7, 7, 0, 9]], classes=[1, 0, 1], scores=[0.25, 0.1, 1]
)
FOUND = CellsOfFile("a", CELLS, np.array([3, 7, 9]), ("long", "round"))


def test_labels_keep_their_numbers_and_the_table_says_the_rest(tmp_path: Path) -> None:
    written = write_single_file(FOUND, tmp_path / "a_labels.tif", (0.5, 0.5))
    assert [path.name for path in written] == ["a_labels.tif", "a_labels.csv"]
    assert tifffile.imread(written[0]).tolist() == [[0, 3, 3, 0], [7, 7, 0, 9]]
    lines = written[1].read_text("utf-8").split()
    assert lines == ["label,class,score", "3,round,0.25", "7,long,0.1", "9,round,1.0"]
    (again,) = read_single_file(written[0])
    assert (again.image_id, again.classes, again.ids.tolist()) == ("a", FOUND.classes, [3, 7, 9])
    assert again.cells.equals(CELLS)


def test_a_table_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    other = tmp_path / "a.csv"
    other.write_text("well,drug\nA01,none\n", "utf-8")
    with pytest.raises(DatasetError, match="no table of labels"):
        write_single_file(FOUND, tmp_path / "a.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert other.read_text("utf-8") == "well,drug\nA01,none\n"
    assert len(write_single_file(FOUND, tmp_path / "b.tif")) == 2
    assert len(write_single_file(FOUND, tmp_path / "b.tif")) == 2  # its own may be


def test_a_table_of_predict_has_no_scores(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a_labels.tif", np.array([[1, 2, 4]], np.uint16))
    (tmp_path / "a_labels.csv").write_text("label,class\n1,b\n2,a\n", "utf-8")
    (found,) = read_single_file(tmp_path / "a_labels.tif")
    assert found.classes == ("a", "b")
    assert found.cells.classes.tolist() == [1, 0, 0]
    assert found.cells.scores.tolist() == [1, 1, 1]
    (tmp_path / "a_labels.csv").write_text("label,class\nx,b\n", "utf-8")
    with pytest.raises(DatasetError, match=r"a_labels.csv: .*expected numbers"):
        read_single_file(tmp_path / "a_labels.tif")


def test_the_size_of_the_image_is_looked_for(tmp_path: Path) -> None:
    write_single_file(FOUND, tmp_path / "cells/a.geojson")
    (alone,) = read_single_file(tmp_path / "cells/a.geojson")
    (given,) = read_single_file(tmp_path / "cells/a.geojson", (5, 6))
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images/a.tif", np.zeros((9, 8), np.uint8))
    tifffile.imwrite(tmp_path / "images/ab.tif", np.zeros((3, 3), np.uint8))
    (beside,) = read_single_file(tmp_path / "cells/a.geojson")
    sizes = [one.cells.image_hw for one in (alone, given, beside)]
    assert sizes == [(2, 4), (5, 6), (9, 8)]
    assert alone.cells.scores.tolist() == CELLS.scores.tolist()


def test_results_of_several_images(tmp_path: Path) -> None:
    records = [ImageRecord(name, CELLS) for name in ("a", "b")]
    write_coco_results(records, tmp_path / "coco_results.json", FOUND.classes)
    found = read_single_file(tmp_path / "coco_results.json")
    assert [one.image_id for one in found] == ["a", "b"]
    assert all(one.classes == FOUND.classes and len(one.cells) == 3 for one in found)


def test_what_is_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"images": []}), "utf-8")
    (tmp_path / "a.zip").write_bytes(b"no zip")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 3), np.uint8))
    for name in ("a.json", "a.zip", "a.tif", "missing.json"):
        assert not holds_cells(tmp_path / name)
        with pytest.raises(DatasetError, match="no file of cells"):
            read_single_file(tmp_path / name)
    with pytest.raises(DatasetError, match=r"expected \.tif"):
        write_single_file(FOUND, tmp_path / "a.bmp")
    with pytest.raises(DatasetError, match="labels up to 99999999 for 3 cells"):
        write_single_file(FOUND._replace(ids=np.array([1, 2, 99_999_999])), tmp_path / "a.zip")
