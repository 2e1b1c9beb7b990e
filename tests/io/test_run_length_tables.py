"""Tables of run lengths: both orders of pixels, the writers, and damaged tables."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import builders
import numpy as np
import pytest
from cell_records import bitmaps_of, boxes_of, contents_of, make_record, names_of
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import bitmap_to_rle
from cellseg.cells.runs import (
    Runs,
    merge_touching,
    runs_to_boxes,
    transpose_runs,
)
from cellseg.errors import DatasetError
from cellseg.images import read_label_image
from cellseg.io import find_format, read_records
from cellseg.io.run_length_rows import cells_to_rows, rows_to_runs

HEADER = ["id", "annotation", "width", "height", "cell_type"]
IMAGE_HW = (4, 6)


def write_table(path: Path, rows: Sequence[Sequence[object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return path


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Write `train.csv` and images a, b, c of 6 x 4 pixels; gives the root."""

    def write(*rows: Sequence[object], header: Sequence[str] = HEADER) -> Path:
        for name in "abc":
            builders.write_png(tmp_path / "train" / f"{name}.png", np.zeros(IMAGE_HW, np.uint8))
        write_table(tmp_path / "train.csv", [header, *rows])
        return tmp_path

    return write


def rows_of_pixels(mask: np.ndarray, row_major: bool) -> str:
    """Run lengths by walking from pixel to pixel."""
    flat = mask.ravel(order="C" if row_major else "F").tolist()
    words, before = [], False
    for number, pixel in enumerate([*flat, False], 1):
        if pixel and not before:
            words += [number, 0]
        if pixel:
            words[-1] += 1
        before = pixel
    return " ".join(map(str, words))


def test_sartorius_pixels_count_row_by_row(put: Callable[..., Path]) -> None:
    root = put(
        ["b", "1 2 8 1", 6, 4, "astro"],
        ["a", "24 1", 6, 4, "cort"],
        ["b", "6 2", 6, 4, "astro"],  # from the end of a row into the next
        ["b", "1 24", "6.0", "4.0", "cort"],
    )
    classes = ["shsy5y", "astro", "cort"]
    records = read_records("sartorius_table", root, "train", classes=classes)
    assert [record.image_id for record in records] == ["a", "b", "c"]
    assert records[0].image_path == root / "train" / "a.png"
    assert names_of(records[1], classes) == ["astro", "astro", "cort"]
    expected = np.zeros((3, *IMAGE_HW), bool)
    expected[0, 0, :2] = expected[0, 1, 1] = expected[1, 0, 5] = expected[1, 1, 0] = True
    expected[2] = True
    assert np.array_equal(bitmaps_of(records[1]), expected)
    boxes = boxes_of(records[1])
    assert boxes == [(0, 0, 2, 2), (0, 0, 6, 2), (0, 0, 6, 4)]
    assert boxes_of(records[0]) == [(5, 3, 6, 4)]
    assert len(records[2].cells) == 0  # an image without a row


def test_dsb2018_pixels_count_column_by_column(tmp_path: Path) -> None:
    for name in "ab":
        path = tmp_path / "s1" / name / "images" / f"{name}.png"
        builders.write_png(path, np.zeros(IMAGE_HW, np.uint8))
    write_table(
        tmp_path / "s1_labels.csv", [["ImageId", "EncodedPixels"], ["a", "1 2 5 1"], ["b", ""]]
    )
    records = read_records("dsb2018_table", tmp_path, "s1", classes=["nucleus"])
    expected = np.zeros((1, *IMAGE_HW), bool)
    expected[0, :2, 0] = expected[0, 0, 1] = True
    assert np.array_equal(bitmaps_of(records[0]), expected)
    assert records[0].cells.classes.tolist() == [0] * len(expected)
    assert (records[1].image_id, len(records[1].cells)) == ("b", 0)
    with pytest.raises(DatasetError, match="has one class; declared are a, b"):
        read_records("dsb2018_table", tmp_path, "s1", classes=["a", "b"])


def test_a_split_may_be_a_table_of_its_own(put: Callable[..., Path]) -> None:
    root = put()
    write_table(root / "folds" / "1.csv", [HEADER, ["b", "1 1", 6, 4, "x"], ["c", "", 6, 4, ""]])
    records = read_records("sartorius_table", root, "folds/1.csv", images="train")
    assert [(record.image_id, len(record.cells)) for record in records] == [("b", 1), ("c", 0)]
    by_pattern = read_records("sartorius_table", root, "train", table="folds/1.csv")
    assert [record.image_id for record in by_pattern] == ["a", "b", "c"]


def test_classes_in_the_table(put: Callable[..., Path]) -> None:
    root = put(["a", "1 1", 6, 4, "cort"], ["a", "3 1", 6, 4, "astro"])
    format_ = find_format("sartorius_table")
    assert format_.find_classes is not None
    assert format_.find_classes(root, "train", {}) == ("astro", "cort")
    (record, *_) = read_records("sartorius_table", root, "train")
    assert record.cells.classes.tolist() == [0, 0]
    with pytest.raises(DatasetError, match="unknown class 'cort'; did you mean corti"):
        read_records("sartorius_table", root, "train", classes=["astro", "corti"])


@pytest.fixture
def usual_field_limit() -> Iterator[int]:
    """The limit that csv begins with; packages that other tests import raise it for good."""
    before = csv.field_size_limit(1 << 17)
    yield 1 << 17
    csv.field_size_limit(before)


def test_long_rows_and_a_byte_order_mark(tmp_path: Path, usual_field_limit: int) -> None:
    image_hw = (300, 400)
    mask = np.indices(image_hw).sum(axis=0) % 2 == 0  # 60,000 runs of one pixel
    builders.write_png(tmp_path / "train" / "a.png", np.zeros(image_hw, np.uint8))
    text = rows_of_pixels(mask, row_major=True)
    assert len(text) > usual_field_limit
    rows = f"id,annotation,width,height,cell_type\na,{text},400,300,x\n"
    (tmp_path / "train.csv").write_text(rows, encoding="utf-8-sig")
    (record,) = read_records("sartorius_table", tmp_path, "train")
    assert np.array_equal(bitmaps_of(record)[0], mask)
    assert csv.field_size_limit() == usual_field_limit


def row(annotation: object, **more: object) -> list[object]:
    return list({**dict(zip(HEADER, ["a", annotation, 6, 4, "x"])), **more}.values())


DAMAGED: list[tuple[str, list[object], str]] = [
    ("beyond the image", row("24 2"), r"line 2 \(a\): run `24 2` goes beyond the last pixel, 24"),
    ("starts beyond", row("25 1"), "run `25 1` goes beyond"),
    ("too large for integers", row("9223372036854775807 9223372036854775807"), "goes beyond"),
    ("pixel 0", row("0 3"), "run `0 3` starts before pixel 1"),
    ("no length", row("3 0"), "run `3 0` starts before pixel 1 or has no length"),
    ("odd", row("1 2 5"), r"line 2 \(a\): 3 numbers; expected pairs"),
    ("overlapping", row("1 3 3 2"), "run `3 2` overlaps the run before it"),
    ("unsorted", row("9 2 1 2"), "run `1 2` overlaps the run before it or stands in the wrong"),
    ("letters", row("1 x"), "'1 x' is not `start length ...`"),
    ("negative", row("1 -2"), "'1 -2' is not"),
    ("decimals", row("1.0 2.0"), "'1.0 2.0' is not"),
    ("two lines", row("1 2\n5 1"), "is not `start length"),
    ("other letters", row("1 ²"), "is not `start length"),
    ("unknown id", row("1 2", id="q"), "line 2: there is no image 'q' in"),
    ("another size", row("1 2", width=7), "the image is 6 x 4 .* train.csv says 7 x 4"),
    ("no size", row("1 2", width=""), "says  x 4"),
    ("too few columns", ["a", "1 2"], "line 2 has 2 columns, the first line 5; is the file cut"),
]


@pytest.mark.parametrize(
    ("bad", "says"), [case[1:] for case in DAMAGED], ids=[case[0] for case in DAMAGED]
)
def test_damaged_rows(put: Callable[..., Path], bad: list[object], says: str) -> None:
    root = put(bad, ["b", "1 2", 6, 4, "x"])
    with pytest.raises(DatasetError, match=says) as caught:
        read_records("sartorius_table", root, "train")
    assert str(root / "train.csv") in str(caught.value)


def test_all_damaged_rows_in_one_message(put: Callable[..., Path]) -> None:
    root = put(row("0 3"), row("1 2"), ["b", "25 1", 6, 4, "x"], ["b", "1 30", 6, 4, "x"])
    with pytest.raises(DatasetError, match=r"problems \(3\)") as caught:
        read_records("sartorius_table", root, "train")
    assert all(f"line {number} " in str(caught.value) for number in (2, 4, 5))


def test_sizes_that_disagree_within_an_image(put: Callable[..., Path]) -> None:
    root = put(row("1 2"), row("5 1", height=5))
    with pytest.raises(DatasetError, match="says 6 x 5 in a row of it"):
        read_records("sartorius_table", root, "train")


def test_tables_that_cannot_be_read(tmp_path: Path, put: Callable[..., Path]) -> None:
    with pytest.raises(DatasetError, match=r"train\.csv: No such file"):
        read_records("sartorius_table", tmp_path, "train")
    write_table(tmp_path / "train.csv", [HEADER])
    with pytest.raises(DatasetError, match="train: no such folder"):
        read_records("sartorius_table", tmp_path, "train")
    (tmp_path / "train").mkdir()
    with pytest.raises(DatasetError, match="no rows in it, and no images in"):
        read_records("sartorius_table", tmp_path, "train")
    root = put(row("1 2"), header=["id", "rle", "width", "height", "type"])
    with pytest.raises(DatasetError, match=r"no column annotation, cell_type; expected id, .* rle"):
        read_records("sartorius_table", root, "train")
    (root / "train.csv").write_bytes(b"\xff\xfe\x00i\x00d")
    with pytest.raises(DatasetError, match="cannot be read as a table"):
        read_records("sartorius_table", root, "train")
    put()
    (root / "train" / "a.png").write_bytes(b"not a picture")
    with pytest.raises(DatasetError, match=r"a\.png"):
        read_records("sartorius_table", root, "train")
    builders.write_png(root / "train" / "a.tif", np.zeros(IMAGE_HW, np.uint8))
    with pytest.raises(DatasetError, match=r"a\.tif: same id as a\.png"):
        read_records("sartorius_table", root, "train")


def test_a_folder_of_two_images(tmp_path: Path) -> None:
    for name in "ab":
        builders.write_png(tmp_path / "s" / "x" / "images" / f"{name}.png", np.zeros((4, 4)))
    write_table(tmp_path / "s_labels.csv", [["ImageId", "EncodedPixels"]])
    with pytest.raises(DatasetError, match="expected one image; found 2"):
        read_records("dsb2018_table", tmp_path, "s")


def random_masks(rng: np.random.Generator, image_hw: tuple[int, int]) -> np.ndarray:
    masks = rng.random((7, *image_hw)) < rng.uniform(0.05, 0.95, (7, 1, 1))
    masks[0], masks[-1] = True, False
    masks[-1, -1, -1] = masks[1, 0, 0] = True
    return masks


@pytest.mark.parametrize("row_major", [True, False])
@pytest.mark.parametrize("image_hw", [(1, 1), (1, 9), (9, 1), (5, 8), (13, 4)])
def test_rows_and_cells_there_and_back(row_major: bool, image_hw: tuple[int, int]) -> None:
    masks = random_masks(np.random.default_rng(image_hw[0]), image_hw)
    masks = masks[masks.any(axis=(1, 2))]
    texts = [rows_of_pixels(mask, row_major) for mask in masks]
    runs, problems = rows_to_runs(texts, image_hw, row_major=row_major)
    assert problems == {}
    cells = CellInstances.from_runs(runs, len(masks), image_hw)
    assert cells.to_rles() == [bitmap_to_rle(mask) for mask in masks]
    assert cells_to_rows(cells, row_major=row_major) == texts


def test_runs_of_no_cells() -> None:
    empty = Runs(*(np.zeros(0, np.int64) for _ in range(3)))
    assert all(part.size == 0 for part in merge_touching(empty))
    assert all(part.size == 0 for part in transpose_runs(empty, 3, 4))
    assert runs_to_boxes(empty, 2, 5).tolist() == [[0] * 4] * 2
    assert cells_to_rows(CellInstances.empty((3, 4)), row_major=True) == []
    assert rows_to_runs([], (3, 4), row_major=True)[1] == {}


def test_runs_in_an_image_of_more_pixels_than_32_bits_count() -> None:
    """Row-major pixels (0, 1), (0, 2) and (1, 0) of cell 0; the last pixel of cell 1."""
    side = 50_000
    runs = Runs(
        np.array([0, 0, 1]), np.array([1, side, side**2 - 1]), np.array([3, side + 1, side**2])
    )
    turned = transpose_runs(runs, side, side)
    assert [part.tolist() for part in turned] == [
        [0, 0, 0, 1],
        [1, side, 2 * side, side**2 - 1],
        [2, side + 1, 2 * side + 1, side**2],
    ]


def test_runs_that_touch_become_one_but_not_those_of_two_cells() -> None:
    runs = Runs(np.array([0, 0, 1]), np.array([1, 3, 5]), np.array([3, 5, 6]))
    assert [part.tolist() for part in merge_touching(runs)] == [[0, 1], [1, 5], [5, 6]]


@pytest.mark.parametrize("name", ["sartorius_table", "dsb2018_table"])
def test_written_and_read_again(tmp_path: Path, name: str) -> None:
    """Overlaps, holes, pieces, borders and images without cells come through."""
    records = []
    for image_id, scene in sorted(builders.all_scenes().items()):
        path = builders.write_png(tmp_path / "from" / f"{image_id}.png", scene.image)
        records.append(make_record(image_id, path, scene.masks, scene.labels.shape))
    format_ = find_format(name)
    assert format_.write is not None
    format_.write(records, tmp_path, "new", ("nucleus",), {})
    back = read_records(name, tmp_path, "new", classes=["nucleus"])
    assert contents_of(back) == contents_of(records)
    for old, new in zip(records, back):
        assert new.image_path.read_bytes() == old.image_path.read_bytes()
    with pytest.raises(DatasetError, match="is there already"):
        format_.write(records, tmp_path, "new", ("nucleus",), {})
    with pytest.raises(DatasetError, match="a folder and a table of its name"):
        format_.write(records, tmp_path, "new.csv", ("nucleus",), {})
    gone = make_record("gone", tmp_path / "gone.png", np.zeros((0, 4, 4), bool))
    with pytest.raises(DatasetError, match="cannot be copied"):
        format_.write([*records, gone], tmp_path / "other", "new", ("nucleus",), {})
    assert list((tmp_path / "other").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="cannot be written"):
        format_.write(records, tmp_path / "file", "new", ("nucleus",), {})


@pytest.mark.parametrize("split", ["val", "devtest"])
def test_dsb2018_folders_and_table_hold_the_same_cells(real_datasets: Path, split: str) -> None:
    root = real_datasets / "dsb2018"
    folders = read_records("instance_masks", root, split, classes=["nucleus"])
    table = read_records(
        "dsb2018_table", root, split, classes=["nucleus"], table="rle/{split}_labels.csv"
    )
    assert sum(len(record.cells) for record in table) == {"val": 590, "devtest": 875}[split]
    assert table == folders


def test_usiigaci_table_and_label_images_hold_the_same_cells(real_datasets: Path) -> None:
    """The table's images are windows of the label images."""
    root = real_datasets / "usiigaci"
    records = {
        one.image_id: one
        for one in read_records("sartorius_table", root, "train", classes=["t98g"])
    }
    assert sum(len(record.cells) for record in records.values()) == 542
    with (root / "images.csv").open(newline="") as stream:
        windows = list(csv.DictReader(stream))
    assert {window["crop_id"] for window in windows} == set(records)
    for window in windows:
        x, y = int(window["crop_x"]), int(window["crop_y"])
        labels = read_label_image(root / "full" / "labels" / f"{window['name']}.png")
        labels = labels[y : y + 520, x : x + 704]
        expected = {
            rle["counts"]
            for rle in (bitmap_to_rle(labels == label) for label in np.unique(labels[labels > 0]))
        }
        found = {rle["counts"] for rle in records[window["crop_id"]].cells.to_rles()}
        assert found == expected
