"""Tables of run lengths and lines of outlines: exact there and back, and what can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import builders
import numpy as np
import pytest
from cell_records import bitmaps_of, contents_of
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError
from cellseg.io import FORMATS, read_records
from cellseg.io.outline_lines import join_rings
from cellseg.io.run_length_csv import COLUMNS

Same = Callable[[list[ImageRecord], list[ImageRecord]], None]
CLASSES = ("round", "long")
HEAD = ",".join(COLUMNS)


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write one image of 3 x 4 pixels and the file of its cells."""
    builders.write_png(tmp_path / "s/images/a.png", np.zeros((3, 4), np.uint8))

    def put_text(name: str, text: str) -> Path:
        (tmp_path / "s" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "s" / name).write_bytes(text.encode("utf-8"))
        return tmp_path

    return put_text


def test_tables_there_and_back(
    tmp_path: Path, two_class_records: list[ImageRecord], same: Same
) -> None:
    one = FORMATS["run_length_csv"]
    one.write(two_class_records, tmp_path, "s", CLASSES, {})
    same(one.read(tmp_path, "s", CLASSES, {}), two_class_records)
    assert one.find_classes(tmp_path, "s", {}) == ("long", "round")
    text = (tmp_path / "s/run_lengths/no_cells.csv").read_text()
    assert text == HEAD + "\n"


def test_outlines_there_and_back(
    tmp_path: Path, scene_records: list[ImageRecord], same: Same
) -> None:
    one = FORMATS["outlines"]
    one.write(scene_records, tmp_path, "s", ("cell",), {})
    same(one.read(tmp_path, "s", ("cell",), {}), scene_records)


def test_crowds_are_left_out(tmp_path: Path, crowd_record: ImageRecord) -> None:
    for name in ("run_length_csv", "outlines"):
        FORMATS[name].write([crowd_record], tmp_path, name, ("cell",), {})
        (back,) = read_records(name, tmp_path, name)
        assert np.array_equal(bitmaps_of(back), bitmaps_of(crowd_record)[:1])


def test_columns_in_another_order_with_more_of_them(put: Callable[[str, str], Path]) -> None:
    text = "area,rle,width,height,score,class,label,image_id\n2,2 2,4,3,0.5,long,9,x\n"
    (record,) = read_records("run_length_csv", put("run_lengths/a.csv", text), "s", classes=CLASSES)
    assert np.argwhere(bitmaps_of(record)[0]).tolist() == [[1, 0], [2, 0]]
    assert record.cells.classes.tolist() == [1]
    assert record.cells.scores.tolist() == [0.5]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no column image_id"),
        ("label,rle\n", "no column image_id, class, score"),
        (f"{HEAD}\na,1,round\n", "line 2 has 3 columns"),
        (f"{HEAD}\na,1,round,1,4,3,1 2\n", r"a\.csv: the image of these cells is 3 x 4"),
        (f"{HEAD}\na,1,round,1,3,4,12 2\n", r"line 2: run `12 2` goes beyond the last pixel, 12"),
        (f"{HEAD}\na,1,round,1,3,4,1 x\n", r"line 2: '1 x' is not `start length"),
        (f"{HEAD}\na,1,round,1,3,4,\n", r"line 2: no run lengths; delete the row"),
        (f"{HEAD}\na,1,rund,1,3,4,1 2\n", r"unknown class 'rund'; did you mean round"),
        (f"{HEAD}\na,1,,1,3,4,1 2\n", r"1 without a class \(line 2\)"),
        (f"{HEAD}\na,1,round,nan,3,4,1 2\n", r"line 2: the score is 'nan', expected a number"),
        (f"{HEAD}\na,1,round,,3,4,1 2\n", r"line 2: the score is '', expected a number"),
    ],
)
def test_damaged_tables(put: Callable[[str, str], Path], text: str, says: str) -> None:
    root = put("run_lengths/a.csv", text)
    with pytest.raises(DatasetError, match=says) as caught:
        read_records("run_length_csv", root, "s", classes=CLASSES)
    assert "a.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1,2,3\n", r"line 1: expected x1,y1,x2,y2,\.\.\.; found '1,2,3'"),
        ("0,0,2,0,2,2\n\nx,y\n", r"line 3: expected x1,y1"),
        ("9,9,12,9,12,12\n", r"line 1: no pixel of the image"),
        ("0,0,nan,0,2,2\n", r"line 1: a ring has a coordinate that is not finite"),
        ("\x00", "line 1: expected x1,y1"),
    ],
)
def test_damaged_outlines(put: Callable[[str, str], Path], text: str, says: str) -> None:
    root = put("outlines/a.txt", text)
    with pytest.raises(DatasetError, match=says) as caught:
        read_records("outlines", root, "s")
    assert "a.txt" in str(caught.value)


def test_several_classes_cannot_be_read_from_lines(put: Callable[[str, str], Path]) -> None:
    root = put("outlines/a.txt", "0,0,2,0,2,2,0,2\n")
    with pytest.raises(DatasetError, match="lines of points have no room for classes"):
        read_records("outlines", root, "s", classes=CLASSES)
    assert read_records("outlines", root, "s")[0].cells.areas_px.tolist() == [4]


def test_ways_there_and_back_enclose_nothing() -> None:
    """By the shoelace formula: what an outline encloses less its hole, plus the other piece."""
    square = np.array([[0, 0], [9, 0], [9, 9], [0, 9]])
    hole = np.array([[2, 2], [2, 5], [5, 5], [5, 2]])
    piece = np.array([[20, 30], [24, 30], [24, 31], [20, 31]])
    x, y = join_rings([square, hole, piece]).T
    assert (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2 == 81 - 9 + 4
    assert join_rings([square]).tolist() == square.tolist()


def test_contents_of_no_cells(tmp_path: Path, scene_records: list[ImageRecord]) -> None:
    (empty,) = (one for one in scene_records if one.image_id == "no_cells")
    FORMATS["outlines"].write([empty], tmp_path, "s", ("cell",), {})
    assert (tmp_path / "s/outlines/no_cells.txt").read_bytes() == b""
    assert contents_of(read_records("outlines", tmp_path, "s")) == contents_of([empty])
