"""Reading a run's folder; the fixture `run` is in conftest.py."""

from __future__ import annotations

import json

import numpy as np
import pytest
from builders import rectangle
from cellseg.cells.labels import bitmap_to_rle
from cellseg.cells.selection import DetectionThresholds
from cellseg.errors import DatasetError
from cellseg.report.results import read_dataset_result, read_history
from detectron2.data import DatasetCatalog, MetadataCatalog

DATASET = "report_of_evil_names"
RLE = bitmap_to_rle(rectangle((60, 80), 1, 2, 4, 6))
ENTRY = {"image_id": "perfect", "category_id": 0, "score": 0.5, "segmentation": RLE}


def test_true_and_predicted_cells(run):
    result = read_dataset_result(DATASET, run.predictions)
    assert not result.missing
    assert result.classes[0] == "nucleus"
    perfect = result.images[0]
    assert (perfect.name, perfect.path.name) == ("perfect", "perfect.png")
    assert perfect.true.areas_px.tolist() == [100, 400]
    assert perfect.detections.areas_px.tolist() == [100, 400, 100]
    assert perfect.detections.scores.tolist() == pytest.approx([0.95, 0.9, 0.2])
    kept = result.compared.keep(DetectionThresholds(score=0.9)).images[0]
    assert kept.pred.classes.tolist() == [0, 1]
    assert [len(image.detections) for image in result.images] == [3, 4, 2, 0]


def test_no_predictions_is_said(run, tmp_path):
    result = read_dataset_result(DATASET, tmp_path / "none.json")
    assert not result.images
    assert "none.json does not exist" in result.missing


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[", "no JSON"),
        ({"annotations": []}, "expected a list of detections"),
        ([{**ENTRY, "image_id": "other"}], "does not have"),
        ([{**ENTRY, "category_id": 3}], "category_id"),
        ([{**ENTRY, "category_id": -1}], "category_id"),
        ([{"image_id": "perfect", "bbox": [0, 0, 1, 1], "category_id": 0, "score": 1}],
         "segmentation"),
        ([{**ENTRY, "segmentation": {"size": [8, 8], "counts": RLE["counts"]}}], "size"),
        ([{**ENTRY, "score": None}], "'perfect'"),
        ([{**ENTRY, "segmentation": [[0, 0, 3, 0, 3, 3]]}], "'perfect'"),
    ],
)  # fmt: skip
def test_predictions_that_cannot_be_used(run, tmp_path, content, text):
    path = tmp_path / "results.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    with pytest.raises(DatasetError, match=text) as raised:
        read_dataset_result(DATASET, path)
    assert str(path) in str(raised.value)


@pytest.fixture
def crowd_dataset():
    """One image with number 7 as id, one cell and a crowd region; category ids 5 and 9."""
    cell = {"bbox": [0, 0, 10, 10], "bbox_mode": 0, "category_id": 1}
    dicts = [
        {"file_name": "x.png", "height": 60, "width": 80, "image_id": 7, "annotations": [
            {**cell, "segmentation": bitmap_to_rle(rectangle((60, 80), 0, 0, 10, 10))},
            {**cell, "iscrowd": 1,
             "segmentation": bitmap_to_rle(rectangle((60, 80), 0, 0, 80, 30))},
        ]}
    ]  # fmt: skip
    name = "report_with_crowd"
    DatasetCatalog.register(name, lambda: dicts)
    MetadataCatalog.get(name).set(
        thing_classes=["a", "b"], thing_dataset_id_to_contiguous_id={5: 0, 9: 1}
    )
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_crowds_numbers_and_category_ids(crowd_dataset, tmp_path):
    boxes = [(0, 0, 10, 10), (40, 0, 50, 10), (40, 26, 50, 40)]  # found, in the crowd, outside
    entries = [
        {"image_id": 7, "category_id": 9, "score": 0.9,
         "segmentation": bitmap_to_rle(rectangle((60, 80), *box))}
        for box in boxes
    ]  # fmt: skip
    path = tmp_path / "results.json"
    path.write_text(json.dumps(entries), "utf-8")
    (image,) = read_dataset_result(crowd_dataset, path).images
    assert image.name == "7"
    assert image.true.is_crowd.tolist() == [False, True]
    assert image.detections.classes.tolist() == [1, 1, 1]
    (compared,) = read_dataset_result(crowd_dataset, path).compared.images
    assert compared.counted.pred.areas_px.tolist() == [100, 140]
    assert compared.count(0.5)[:3] == (1, 1, 0)


def test_history_of_a_run(run):
    history = read_history(run.folder)
    assert history["total_loss"] == [(19, 2.0 - 0.19), (39, 2.0 - 0.39), (59, 2.0 - 0.59)]
    assert history["cell_iou/f1@0.50"] == [(60, 0.75)]
    assert "cell_iou/ap_dsb" not in history  # NaN only


def test_history_after_a_resumed_run(tmp_path):
    lines = [{"iteration": k, "lr": value} for k, value in ((5, 1.0), (9, 2.0), (5, 3.0))]
    text = "\n".join([*map(json.dumps, lines), "[]", "{}", "null", '{"iteration": 1, "lr": "x"}'])
    (tmp_path / "metrics.json").write_text(text, "utf-8")
    assert read_history(tmp_path) == {"lr": [(5, 3.0), (9, 2.0)]}
    assert read_history(tmp_path / "none") == {}


def test_masks_are_crops_and_not_bitmaps(run):
    result = read_dataset_result(DATASET, run.predictions)
    crops = [crop for image in result.images for crop in image.detections.crops]
    assert max(np.size(crop) for crop in crops) <= 400
