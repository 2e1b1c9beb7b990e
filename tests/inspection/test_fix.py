"""The cleaned copy: what is removed, what stays, and that the original is not touched."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from builders import disc, rectangle, write_png
from cell_records import bitmaps_of
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError
from cellseg.inspection.fix import Fixes, write_fixed
from cellseg.inspection.report import inspect_splits
from cellseg.inspection.sources import Split, find_datasets, read_split
from cellseg.io import FORMATS
from inspection_scenes import make_record, texture

HW = (48, 64)
CELL = rectangle(HW, 10, 11, 22, 24)
RING = rectangle(HW, 30, 5, 45, 20) & ~rectangle(HW, 34, 9, 40, 15)
IN_RING = rectangle(HW, 34, 9, 38, 13)
PIECES = rectangle(HW, 3, 30, 9, 36) | rectangle(HW, 20, 30, 27, 38) | rectangle(HW, 40, 40, 42, 42)
MakeSplit = Callable[..., Split]


def read_back(folder: Path) -> dict[str, dict[str, ImageRecord]]:
    """Records of the copy through its own declaration, by split and id."""
    [(_, names)] = find_datasets(str(folder / "dataset.yaml")).items()
    splits = [read_split(name) for name in names]
    assert not any(split.problems for split in splits)
    return {s.name.split("_")[-1]: {r.image_id: r for r in s.records} for s in splits}


def rows_of(folder: Path) -> list[list[str]]:
    with (folder / "fixes.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))[1:]


def test_removed_and_kept_cells(make_split: MakeSplit, tmp_path: Path) -> None:
    masks = [CELL, np.zeros(HW, bool), disc(HW, 50, 40, 1), RING, PIECES]
    inspection = inspect_splits([make_split("cells_train", {"a": (texture(1), masks)})])
    out = tmp_path / "out"
    write_fixed(inspection, f"cells{tmp_path.name}", out)
    assert rows_of(out) == [
        ["cells_train", "a", "1", "cell removed", "no pixel"],
        ["cells_train", "a", "2", "cell removed", "5 px"],
    ]
    [[record]] = [list(split.values()) for split in read_back(out).values()]
    assert all(
        (a == b).all() for a, b in zip(bitmaps_of(record), [CELL, RING, PIECES], strict=True)
    )
    original = inspection.images[0].record.image_path
    assert record.image_path.read_bytes() == original.read_bytes()


def test_pieces_and_holes_only_where_asked(make_split: MakeSplit, tmp_path: Path) -> None:
    split = make_split("cells_train", {"a": (texture(1), [RING, IN_RING, PIECES])})
    inspection = inspect_splits([split])
    out = tmp_path / "out"
    fixes = Fixes(tiny_px=5, split_pieces=True, fill_holes=True)
    write_fixed(inspection, f"cells{tmp_path.name}", out, fixes)
    assert rows_of(out) == [
        ["cells_train", "a", "0", "hole filled", "20 px"],  # 6 x 6 less the cell of 4 x 4
        ["cells_train", "a", "2", "cell split", "3 pieces"],
        ["cells_train", "a", "2", "piece removed", "4 px"],
    ]
    [[record]] = [list(found.values()) for found in read_back(out).values()]
    areas = sorted(int(bitmap.sum()) for bitmap in bitmaps_of(record))
    assert areas == sorted([15 * 15 - 16, 16, 36, 56])


def test_copies_go_from_the_larger_split(make_split: MakeSplit, tmp_path: Path) -> None:
    train = make_split("d_train", {name: (texture(k), [CELL]) for k, name in enumerate("abc", 1)})
    test = make_split("d_test", {"x": (texture(2)[::-1].copy(), [CELL])})
    out = tmp_path / "out"
    write_fixed(inspect_splits([train, test]), "d", out)
    assert rows_of(out) == [["d_train", "b", "", "image removed", "the same image is in d_test"]]
    found = read_back(out)
    assert {name: list(split) for name, split in found.items()} == {
        "train": ["a", "c"],
        "test": ["x"],
    }


def test_overlapping_cells_and_empty_images_survive(make_split: MakeSplit, tmp_path: Path) -> None:
    other = rectangle(HW, 21, 20, 40, 33)
    content = {"a": (texture(1), [CELL, other]), "nothing": (texture(2), [])}
    inspection = inspect_splits([make_split("d_train", content)])
    out = tmp_path / "out"
    assert write_fixed(inspection, f"e{tmp_path.name}", out) == []
    [records] = read_back(out).values()
    assert len(records["nothing"].cells) == 0
    assert all((a == b).all() for a, b in zip(bitmaps_of(records["a"]), [CELL, other], strict=True))
    declared = yaml.safe_load((out / "dataset.yaml").read_text())
    assert next(iter(declared.values()))["format"] == "instance_masks"


def test_images_that_cannot_be_used_are_left_out(tmp_path: Path) -> None:
    good = write_png(tmp_path / "a.png", texture(1))
    records = (
        make_record("a", good, HW, [CELL]),
        make_record("gone", tmp_path / "gone.png", HW, [CELL]),
    )
    out = tmp_path / "out"
    write_fixed(inspect_splits([Split("d_train", ("cell",), records)]), f"f{tmp_path.name}", out)
    assert [row[1:4] for row in rows_of(out)] == [["gone", "", "image removed"]]
    assert list(read_back(out).popitem()[1]) == ["a"]


def test_nothing_is_written_over(make_split: MakeSplit, tmp_path: Path) -> None:
    inspection = inspect_splits([make_split("d_train", {"a": (texture(1), [CELL])})])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    with pytest.raises(DatasetError, match="new or an empty folder"):
        write_fixed(inspection, "d", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_split_that_cannot_be_read_or_nothing_left(tmp_path: Path) -> None:
    broken = inspect_splits([Split("s", ("cell",), (), ("a.png: truncated",))])
    with pytest.raises(DatasetError, match=r"a\.png: truncated"):
        write_fixed(broken, "s", tmp_path / "out")
    gone = make_record("gone", tmp_path / "gone.png", HW, [CELL])
    with pytest.raises(DatasetError, match="no image is left"):
        write_fixed(inspect_splits([Split("s", ("cell",), (gone,))]), "s", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format_name", ["coco_json", "sartorius_table", "instance_masks"])
def test_the_copy_has_the_format_of_the_original(
    make_split: MakeSplit, tmp_path: Path, format_name: str
) -> None:
    other = rectangle(HW, 21, 20, 40, 33)
    [record] = make_split("s", {"a": (texture(1), [CELL, other, disc(HW, 50, 40, 1)])}).records
    source, name = tmp_path / "source", f"{format_name}_{tmp_path.name}"
    write = FORMATS[format_name].write
    assert write is not None
    write([record], source, "train", ("cell",), {})
    content = {"format": format_name, "root": str(source), "splits": ["train"]}
    (tmp_path / "d.yaml").write_text(yaml.safe_dump({name: content}), "utf-8")
    [names] = find_datasets(str(tmp_path / "d.yaml")).values()
    inspection = inspect_splits([read_split(split) for split in names])
    write_fixed(inspection, name, tmp_path / "out")
    assert [row[1:4] for row in rows_of(tmp_path / "out")] == [["a", "2", "cell removed"]]
    declared = yaml.safe_load((tmp_path / "out" / "dataset.yaml").read_text())
    assert declared[f"{name}_fixed"]["format"] == format_name
    [[found]] = [list(split.values()) for split in read_back(tmp_path / "out").values()]
    assert all((a == b).all() for a, b in zip(bitmaps_of(found), [CELL, other], strict=True))
