"""The declarations that come with cellseg read the layouts in which the data are published."""

from __future__ import annotations

import json
from pathlib import Path

import builders
import numpy as np
import pytest
from cell_records import boxes_of
from cellseg.cells.records import ImageRecord
from cellseg.datasets.declarations import Declaration, builtin_declarations, read_declarations
from cellseg.io import read_records

IMAGE = np.zeros((4, 6), np.uint8)


def find_declaration(name: str) -> Declaration:
    declared = [one for path in builtin_declarations() for one in read_declarations(path)]
    (found,) = [one for one in declared if one.name == name]
    return found


def read_declared(name: str, datasets: Path) -> list[ImageRecord]:
    one = find_declaration(name)
    return read_records(
        one.format_name, datasets / one.root, one.split, classes=one.classes, **one.options
    )


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_livecell(tmp_path: Path, split: str) -> None:
    root = tmp_path / "LIVECell_dataset_2021"
    folder = "livecell_test_images" if split == "test" else "livecell_train_val_images"
    for name in ("A172_Phase_A7_1", "SkBr3_Phase_E3_1"):
        path = root / "images" / folder / name.split("_")[0] / f"{name}.tif"
        builders.write_png(path, IMAGE)
    annotation = {
        "id": 7,
        "image_id": 3,
        "category_id": 1,
        "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]],
    }
    tree = {
        "images": [{"id": 3, "file_name": "SkBr3_Phase_E3_1.tif", "height": 4, "width": 6}],
        "categories": [{"id": 1, "name": "cell", "supercategory": "cell"}],
        "annotations": [annotation],
    }
    file = root / "annotations" / "LIVECell" / f"livecell_coco_{split}.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(tree))
    (record,) = read_declared(f"livecell_{split}", tmp_path)
    assert record.image_path == root / "images" / folder / "SkBr3" / "SkBr3_Phase_E3_1.tif"
    assert boxes_of(record) == [(1, 1, 4, 3)]


def test_sartorius(tmp_path: Path) -> None:
    root = tmp_path / "sartorius-cell-instance-segmentation"
    builders.write_png(root / "train" / "0030fd0e6378.png", IMAGE)
    (root / "train.csv").write_text(
        "id,annotation,width,height,cell_type,plate_time,sample_date,sample_id,elapsed_timedelta\n"
        "0030fd0e6378,7 2,6,4,shsy5y,11h30m00s,2019-06-16,shsy5y[diff],0 days 11:30:00\n"
    )
    (record,) = read_declared("sartorius_train", tmp_path)
    assert boxes_of(record) == [(0, 1, 2, 2)]
    assert record.cells.classes.tolist() == [0]


@pytest.mark.parametrize(
    ("name", "images", "cells"), [("usiigaci_full", 12, 857), ("usiigaci_table_train", 12, 542)]
)
def test_usiigaci(real_datasets: Path, name: str, images: int, cells: int) -> None:
    records = read_declared(name, real_datasets)
    assert (len(records), sum(len(record.cells) for record in records)) == (images, cells)
    assert all((record.cells.classes == 0).all() for record in records)
