"""The classes of a set that user code registered are checked as those of a declared one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellseg import load_config
from cellseg.engine import CellTrainer
from cellseg.errors import ConfigError
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from PIL import Image

NAME = "two_classes_of_the_user"


def box(x: int) -> list[list[int]]:
    return [[x, 10, x + 12, 10, x + 12, 22, x, 22]]


@pytest.fixture
def registered(tmp_path: Path) -> Iterator[str]:
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "a.png")
    cells = [
        {
            **{"id": k + 1, "image_id": 5, "category_id": (7, 3)[k], "iscrowd": 0},
            **{"segmentation": box(10 + 25 * k), "bbox": [10 + 25 * k, 10, 12, 12], "area": 144},
        }
        for k in (0, 1)
    ]
    content: dict[str, Any] = {
        "images": [{"id": 5, "file_name": "a.png", "height": 64, "width": 64}],
        "annotations": cells,
        "categories": [{"id": 3, "name": "A"}, {"id": 7, "name": "B"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    register_coco_instances(NAME, {}, str(tmp_path / "a.json"), str(tmp_path))
    yield NAME
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def configured(tiny_training: list[str], number: int, *opts: Any) -> CfgNode:
    classes = ["MODEL.ROI_HEADS.NUM_CLASSES", number, *opts]
    return load_config("quick_start.yaml", [*tiny_training, *classes])


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
def test_another_number_is_an_error_before_training(
    registered: str, tiny_training: list[str], number: int, split: str
) -> None:
    sets = ["DATASETS.TRAIN", (), "DATASETS.TEST", (), f"DATASETS.{split}", (registered,)]
    cfg = configured(tiny_training, number, *sets)
    with pytest.raises(ConfigError, match=rf"NUM_CLASSES is {number}, but {NAME} has 2 \(A, B\)"):
        CellTrainer(cfg)


def test_the_right_number_trains(registered: str, tiny_training: list[str]) -> None:
    cfg = configured(tiny_training, 2, "DATASETS.TRAIN", (registered,), "DATASETS.TEST", ())
    CellTrainer(cfg)


def test_classes_counted_from_one_are_an_error(tiny_training: list[str]) -> None:
    cell = {"bbox": [1, 1, 5, 5], "bbox_mode": 1, "category_id": 1, "segmentation": box(1)}
    DatasetCatalog.register(NAME, lambda: [{"file_name": "a.png", "annotations": [cell]}])
    try:
        cfg = configured(tiny_training, 1, "DATASETS.TRAIN", (NAME,), "DATASETS.TEST", ())
        with pytest.raises(ConfigError, match=r"a\.png has a cell with category_id 1; expected 0"):
            CellTrainer(cfg)
    finally:
        DatasetCatalog.remove(NAME)
