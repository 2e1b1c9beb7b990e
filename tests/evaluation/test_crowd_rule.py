"""Regions of uncounted cells: one rule at every door to the metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from builders import rectangle
from cell_scenes import bars
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import bitmap_to_rle
from cellseg.evaluation import (
    CellIoUEvaluator,
    Comparisons,
    class_confusion,
    compare,
    score,
)
from cellseg.evaluation.tables import Sides, evaluate
from cellseg.evaluation.tuning import tune_thresholds
from cellseg.io.coco_results import cells_to_coco_results
from cellseg.report.results import read_dataset_result
from detectron2.data import DatasetCatalog, MetadataCatalog

HW = (40, 60)
NAME = "cells_with_a_crowd"
CELL, CROWD = rectangle(HW, 2, 2, 12, 12), rectangle(HW, 30, 0, 60, 20)
# found; wholly in the crowd; 6 of its 10 rows in the crowd
FOUND = [CELL, rectangle(HW, 35, 5, 45, 15), rectangle(HW, 48, 14, 58, 24)]


def sides() -> tuple[CellInstances, CellInstances]:
    true = CellInstances.from_bitmaps(np.stack([CELL, CROWD])).replace(is_crowd=[False, True])
    return true, CellInstances.from_bitmaps(np.stack(FOUND), scores=[0.9, 0.8, 0.7])


@pytest.fixture
def dataset() -> Iterator[str]:
    annotations = [
        {
            "segmentation": bitmap_to_rle(mask),
            "category_id": 0,
            "bbox": [0, 0, 1, 1],
            "bbox_mode": 0,
            "iscrowd": k,
        }
        for k, mask in enumerate((CELL, CROWD))
    ]
    entry = {"file_name": "a.png", "height": HW[0], "width": HW[1], "image_id": "a"}
    DatasetCatalog.register(NAME, lambda: [entry | {"annotations": annotations}])
    MetadataCatalog.get(NAME).set(thing_classes=["cell"])
    yield NAME
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


@pytest.mark.parametrize(("threshold", "false"), [(0.5, 0), (0.6, 0), (0.65, 1), (1.0, 1)])
def test_the_same_false_positives_at_every_door(
    dataset: str, tmp_path: Path, threshold: float, false: int
) -> None:
    """The third detection lies by 0.6 in the crowd: forgiven up to that threshold, not above."""
    true, found = sides()
    metric = f"fp@{threshold:.2f}"
    of_score = score([true], [found], [metric])[metric]
    of_command = evaluate(Sides(["a"], [true], [found]), [metric])["metrics"][metric]
    of_tuning = tune_thresholds([true], [found], metric).before
    evaluator = CellIoUEvaluator(dataset, thresholds=[threshold], metrics=[metric])
    evaluator.add_image("a", found)
    of_training = evaluator.evaluate()["cell_iou"][metric]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(cells_to_coco_results("a", found, [0])))
    of_report = read_dataset_result(dataset, path).compared.metrics([metric])[metric]
    assert of_score == of_command == of_tuning == of_training == of_report == false


def test_precision_is_that_of_coco() -> None:
    """COCO's precision at the highest recall, at each threshold, knows the same false cells."""
    true, found = sides()
    compared = Comparisons([compare(true, found)])
    numbers = compared.coco().numbers()
    assert numbers.ap == 1  # false ones have lower scores
    ranked = found.replace(scores=np.array([0.7, 0.8, 0.9]))
    precision = Comparisons([compare(true, ranked)]).coco().numbers().precision[:, -1, 0]
    at_each = [score([true], [found], [f"precision@{t:.2f}"]) for t in np.linspace(0.5, 0.95, 10)]
    assert precision.tolist() == pytest.approx([value for one in at_each for value in one.values()])


def test_confusion_and_metrics_without_threshold_forgive_at_one_half() -> None:
    true, found = sides()
    assert class_confusion([true], [found]).tolist() == [[1, 0], [0, 0]]
    metrics = score([true], [found], ["count_error", "errors_spurious", "dice_foreground", "aji"])
    assert list(metrics.values()) == [0, 0, 1, 1]


def test_a_true_cell_in_the_crowd_is_found_and_not_forgiven() -> None:
    """In the crowd, in it but a true cell, mostly outside, elsewhere; one without a pixel."""
    true = CellInstances.from_bitmaps(
        np.concatenate([bars((10, 20)).to_bitmaps(), bars((0, 21)).to_bitmaps()])
    ).replace(is_crowd=[False, True])
    found = bars((0, 8), (10, 20), (17, 26), (40, 50), (0, 0))
    kept = compare(true, found).counted.pred.cells
    assert kept.offsets_rc[:, 1].tolist() == [10, 17, 40, 0]
    assert compare(true, found).count(0.5) == (1, 3, 0, 1.0)


def test_one_region_and_not_the_sum_of_two() -> None:
    regions = bars((0, 4), (6, 10))
    true = regions.replace(is_crowd=[True, True])
    assert compare(true, bars((0, 10))).count(0.5).fp == 1
    assert compare(true, bars((0, 8))).count(0.5).fp == 0
