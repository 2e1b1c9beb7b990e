"""The confusion matrix of cell types: against brute force, in the evaluator, and on paper."""

from __future__ import annotations

import csv
import logging
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import bitmap_to_rle
from cellseg.cells.selection import DetectionThresholds
from cellseg.evaluation import CellIoUEvaluator, class_confusion, compare
from cellseg.evaluation.confusion import (
    confusion_table,
    count_confusion,
    draw_confusion,
    write_confusion,
)
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances

HW = (8, 40)
TYPES = ("round", "flat", "spindle")


def bars(*spans: tuple[int, int], classes: list[int], scores: object = None) -> CellInstances:
    bitmaps = np.zeros((len(spans), *HW), bool)
    for bitmap, (start, stop) in zip(bitmaps, spans):
        bitmap[:, start:stop] = True
    return CellInstances.from_bitmaps(bitmaps, scores, classes)


TRUE = bars((0, 4), (6, 10), (12, 16), (18, 22), (30, 34), classes=[0, 0, 1, 2, 2])
PRED = bars((0, 4), (6, 9), (12, 16), (18, 19), (24, 28), classes=[0, 1, 1, 2, 0])
EXPECTED = [
    [1, 1, 0, 0],
    [0, 1, 0, 0],
    [0, 0, 0, 2],
    [1, 0, 1, 0],
]


def test_by_hand() -> None:
    assert count_confusion(compare(TRUE, PRED), 3).tolist() == EXPECTED
    assert class_confusion([TRUE], [PRED], num_classes=3).tolist() == EXPECTED
    assert count_confusion(compare(TRUE, PRED), 3, 0.8)[0].tolist() == [1, 0, 0, 1]


def test_nothing_to_find_and_nothing_found() -> None:
    none = CellInstances.empty(HW)
    assert not count_confusion(compare(none, none), 2).any()
    assert count_confusion(compare(TRUE, none), 3)[:, -1].tolist() == [2, 1, 2, 0]
    assert count_confusion(compare(none, PRED), 3)[-1].tolist() == [2, 2, 1, 0]


def test_a_crowd_forgives_what_is_left_over() -> None:
    crowd = bars((23, 40), (0, 10), classes=[0, 0])
    bitmaps = np.concatenate([TRUE.to_bitmaps(), crowd.to_bitmaps()])
    classes = [*TRUE.classes, *crowd.classes]
    true = CellInstances.from_bitmaps(bitmaps, classes=classes)
    true = true.replace(is_crowd=[False] * len(TRUE) + [True] * len(crowd))
    table = count_confusion(compare(true, PRED), 3)
    assert table[-1].tolist() == [0, 0, 1, 0]  # of the two left over one lies in the crowd
    assert table[:-1].tolist() == EXPECTED[:-1]


def brute_force(true: CellInstances, pred: CellInstances) -> np.ndarray:
    """Above an IoU of a half no cell has two partners, if the cells of a side share no pixel."""
    table = np.zeros((4, 4), int)
    left = set(range(len(pred)))
    for k, bitmap in enumerate(true.to_bitmaps()):
        partner = 3
        for j, other in enumerate(pred.to_bitmaps()):
            if (bitmap & other).sum() > 0.5 * (bitmap | other).sum():
                partner = pred.classes[j]
                left.discard(j)
        table[true.classes[k], partner] += 1
    for j in left:
        table[3, pred.classes[j]] += 1
    return table


def test_equal_to_brute_force() -> None:
    rng = np.random.default_rng(0)
    matched = 0
    for _ in range(60):
        sides = []
        for _ in range(2):
            cuts = np.arange(0, 41, 5) + rng.integers(0, 3, 9)
            spans = [(a, b) for a, b in pairwise(cuts) if rng.random() < 0.8]
            classes = rng.integers(0, 3, len(spans)).tolist()
            sides.append(bars(*spans, classes=classes))
        table = count_confusion(compare(*sides), 3, 0.5000001)
        assert table.tolist() == brute_force(*sides).tolist()
        assert table[:3].sum() == len(sides[0])
        assert table[:, :3].sum() == len(sides[1])
        matched += table[:3, :3].sum()
    assert matched > 150


def test_on_paper(tmp_path: Path) -> None:
    table = np.array(EXPECTED)
    lines = confusion_table(table, TYPES).splitlines()
    assert [word.strip() for word in lines[2].strip("|").split("|")] == [
        *("round", "1", "1", "0", "0", "50.0%")
    ]
    assert [word.strip() for word in lines[5].strip("|").split("|")] == [
        *("no cell", "1", "0", "1", "", "")
    ]
    write_confusion(tmp_path / "a.csv", table, TYPES)
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["true type", *TYPES, "missed"]
    assert rows[3] == ["spindle", "0", "0", "0", "2"]
    draw_confusion(tmp_path / "a.png", table, TYPES)
    assert cv2.imread(str(tmp_path / "a.png")).shape[0] > 300


@pytest.fixture
def dataset() -> str:
    name = "typed_cells_of_a_test"
    entry = {
        "file_name": "a.png",
        "image_id": "a",
        "height": HW[0],
        "width": HW[1],
        "annotations": [
            {"segmentation": bitmap_to_rle(mask), "category_id": int(k), "iscrowd": 0}
            for mask, k in zip(TRUE.to_bitmaps(), TRUE.classes)
        ],
    }
    DatasetCatalog.register(name, lambda: [entry])
    MetadataCatalog.get(name).set(thing_classes=list(TYPES))
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def output_of(cells: CellInstances, scores: list[float]) -> dict[str, Instances]:
    found = Instances(
        HW,
        pred_boxes=Boxes(torch.tensor(cells.boxes_xyxy)),
        scores=torch.tensor(scores),
        pred_classes=torch.tensor(cells.classes),
        pred_masks=torch.tensor(cells.to_bitmaps()),
    )
    return {"instances": found}


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (DetectionThresholds(0.5), EXPECTED),
        # class 1 has scores 0.6 + 0.95, class 0 only 1.3, class 2 0.8; the one below 0.5 is mute
        (
            DetectionThresholds(0.5, vote="image"),
            [[0, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 2], [0, 2, 0, 0]],
        ),
    ],
)
def test_in_the_evaluator(
    dataset: str,
    selection: DetectionThresholds,
    expected: list[list[int]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    evaluator = CellIoUEvaluator(dataset, selection=selection, output_dir=tmp_path)
    both = bars((0, 4), (6, 9), (12, 16), (18, 19), (24, 28), (30, 34), classes=[0, 1, 1, 2, 0, 0])
    output = output_of(both, [0.7, 0.6, 0.95, 0.8, 0.6, 0.49])
    with caplog.at_level(logging.INFO):
        evaluator.process([{"image_id": "a"}], [output])
        evaluator.evaluate()
    with (tmp_path / "confusion.csv").open() as file:
        rows = [[int(count) for count in row[1:]] for row in list(csv.reader(file))[1:]]
    assert rows == expected
    assert (tmp_path / "confusion.png").is_file()
    assert "| no cell" in caplog.text
    evaluator.reset()
    assert evaluator.evaluate() == {}
