"""Tables of cells as CSV and Parquet: read back the same, whole or not there."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import builders
import numpy as np
import pytest
import tifffile
from cell_records import make_record
from cellseg.cells.instances import CellInstances
from cellseg.cells.measurements import measure_cells
from cellseg.cells.records import ImageRecord, PlaceInFile
from cellseg.errors import DatasetError, LabelError
from cellseg.images import open_planes
from cellseg.io.cell_tables import write_cell_tables
from cellseg.io.tables import open_table, read_rows, read_table, read_text_rows, write_rows

SUFFIXES = ["csv", "parquet"]
TABLE = {
    "label": np.array([1, 2, 70_000]),
    "class": np.array(["rund", "längs, quer", 'q"']),
    "area_um2": np.array([0.1, np.nan, 1 / 3]),
    "mean": np.array([np.float64(2**53), 1e-300, 12.0]),
    "touches_border": np.array([True, False, True]),
    "plate": np.array(["0700", "0701", "0702"]),
}


def need(suffix: str) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")


def assert_same(found: dict, expected: dict) -> None:
    assert list(found) == list(expected)
    for name, column in expected.items():
        if column.dtype.kind == "f":
            np.testing.assert_array_equal(found[name], column)
        else:
            assert found[name].tolist() == column.tolist()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pieces_are_read_back_as_one_table(tmp_path: Path, suffix: str) -> None:
    need(suffix)
    path = tmp_path / "new" / f"a_cells.{suffix}"
    with open_table(path) as write:
        for piece in (slice(0, 2), slice(2, 2), slice(2, 3)):
            write({name: column[piece] for name, column in TABLE.items()})
        assert not path.exists()
    assert_same(read_table(path), TABLE)
    assert list(path.parent.iterdir()) == [path]


def test_csv_by_other_readers(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    with open_table(tmp_path / "a.csv") as write:
        write(TABLE)
    text = (tmp_path / "a.csv").read_text("utf-8")
    assert text.splitlines()[:2] == [
        "label,class,area_um2,mean,touches_border,plate",
        "1,rund,0.1,9007199254740992.0,true,0700",
    ]
    frame = pandas.read_csv(tmp_path / "a.csv", dtype={"plate": str})
    for name, column in TABLE.items():
        if column.dtype.kind == "f":
            np.testing.assert_allclose(frame[name], column, rtol=1e-15)
        else:
            assert frame[name].tolist() == column.tolist()
    assert frame["touches_border"].dtype == bool


def test_parquet_by_pandas(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    need("parquet")
    with open_table(tmp_path / "a.parquet") as write:
        write(TABLE)
    frame = pandas.read_parquet(tmp_path / "a.parquet")
    assert_same({name: frame[name].to_numpy() for name in frame}, TABLE)
    assert frame["area_um2"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_table_that_is_not_finished_is_not_there(tmp_path: Path, suffix: str) -> None:
    need(suffix)

    def fail_half_way() -> None:
        with open_table(tmp_path / f"a.{suffix}") as write:
            write(TABLE)
            raise OSError("disk full")

    def write_other_columns() -> None:
        with open_table(tmp_path / f"a.{suffix}") as write:
            write(TABLE)
            write({"label": np.array([1]), "other": np.array([2])})

    def write_nothing() -> None:
        with open_table(tmp_path / f"a.{suffix}"):
            pass

    with pytest.raises(OSError, match="disk full"):
        fail_half_way()
    with pytest.raises(DatasetError, match=r"pieces of one table differ in columns: .*'other'"):
        write_other_columns()
    with pytest.raises(DatasetError, match="nothing was written"):
        write_nothing()
    assert list(tmp_path.iterdir()) == []


def test_other_endings_and_no_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name, says in (
        ("a.xlsx", r"a\.xlsx: a table is written as \.csv or \.parquet"),
        ("a.parquet", r"pip install 'cellseg\[tables\]'"),
    ):
        with pytest.raises(DatasetError, match=says), open_table(tmp_path / name):
            pass
    with pytest.raises(DatasetError, match=r"read from \.csv or \.parquet"):
        read_table(tmp_path / "a.xlsx")


def image_record(folder: Path) -> ImageRecord:
    """Cells with a file of two channels and a pixel size."""
    scene = builders.overlapping()
    image = np.stack([scene.image, scene.image // 2]).astype(np.uint16) * 100
    path = folder / "f.ome.tif"
    names = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(path, image, photometric="minisblack", metadata=names)
    record = make_record("f", path, scene.masks, classes=[1, 0], scores=[0.9, 0.8])
    return ImageRecord("f", record.cells, path, PlaceInFile(pixel_size_um=(0.5, 0.5)))


def test_the_table_of_an_image(tmp_path: Path) -> None:
    need("parquet")
    record = image_record(tmp_path)
    paths = [tmp_path / f"f_cells.{suffix}" for suffix in SUFFIXES]
    constants = {"image": "f", "well": "A01", "site": 3, "z": None}
    assert record.image_path is not None
    with open_planes(record.image_path) as planes:
        count = write_cell_tables(record, paths, ("long", "round"), planes[0], constants)
        channels = planes[0].read_channels(slice(None), slice(None))
    assert count == 2
    tables = [read_table(path) for path in paths]
    assert_same(tables[1], tables[0])
    assert list(tables[0])[:6] == ["image", "well", "site", "label", "class", "score"]
    assert tables[0]["well"].tolist() == ["A01", "A01"]
    assert tables[0]["class"].tolist() == ["round", "long"]
    assert tables[0]["area_um2"].tolist() == [16, 16]
    (measured,) = measure_cells(
        record, ("long", "round"), lambda r, c: channels[:, r, c], ("DAPI", "GFP")
    )
    assert_same({name: tables[0][name] for name in measured}, measured)
    assert "GFP_background" in measured


def test_an_image_without_cells_has_a_table_of_column_names(tmp_path: Path) -> None:
    path = tmp_path / "a_cells.csv"
    record = ImageRecord("a", CellInstances.empty((9, 9)))
    assert write_cell_tables(record, [path], constants={"image": "a"}) == 0
    (line,) = path.read_text().splitlines()
    assert line.startswith("image,label,class,score,area_px,")
    assert all(len(column) == 0 for column in read_table(path).values())


def test_an_image_that_cannot_be_measured_leaves_no_file(tmp_path: Path) -> None:
    record = make_record("a", None, builders.touching().masks, classes=[0, 5])
    with pytest.raises(LabelError, match="class 5"):
        write_cell_tables(record, [tmp_path / "a.csv"])
    assert list(tmp_path.iterdir()) == []


def test_rows_with_different_columns(tmp_path: Path) -> None:
    path = tmp_path / "summary.csv"
    rows = [
        {"image": "a", "well": None, "num_cells": 3, "confluence": 0.25, "z": None},
        {"image": "b", "well": "B02", "num_cells": 0, "confluence": float("nan"), "done": True},
    ]
    assert write_rows(path, iter(rows)) == 2
    with path.open(newline="") as stream:
        assert list(csv.reader(stream)) == [
            ["image", "well", "num_cells", "confluence", "done"],
            ["a", "", "3", "0.25", ""],
            ["b", "B02", "0", "", "true"],
        ]
    assert read_rows(path) == [
        {"image": "a", "well": None, "num_cells": 3, "confluence": 0.25, "done": None},
        {"image": "b", "well": "B02", "num_cells": 0, "confluence": None, "done": "true"},
    ]
    assert write_rows(tmp_path / "none.csv", []) == 0
    assert not (tmp_path / "none.csv").exists()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", None, "a.csv: No such file or directory"),
        ("a.csv", b'a\n"', "cannot be read as a CSV file"),
        ("a.csv", b"a,b\n1\n", "line 2 has not as many fields as the first line, 2"),
        ("a.parquet", None, "a.parquet: cannot be read as Parquet"),
        ("a.parquet", b"a,b\n", "a.parquet: cannot be read as Parquet"),
    ],
)
def test_files_that_are_no_tables(
    tmp_path: Path, name: str, content: bytes | None, says: str
) -> None:
    need(name.rpartition(".")[2])
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=says):
        read_table(tmp_path / name)


def test_somebodys_rows_as_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\ufeffid,group,more\na , x,1\nb\n", "utf-8")
    assert read_text_rows(path, ("id", "group")) == [
        {"id": "a", "group": "x", "more": "1"},
        {"id": "b", "group": ""},
    ]
