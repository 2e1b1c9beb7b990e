from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from cellseg.cells.labels import bitmap_to_rle
from cellseg.evaluation import PictureEvaluator
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluators
from detectron2.structures import Boxes, Instances

NAME = "cells_for_the_picture_evaluator"
RED = (255, 40, 40)


@pytest.fixture
def dataset(tmp_path):
    images = []
    for image_id in ("z/first", "b", "a"):
        path = tmp_path / f"{image_id.replace('/', '')}.png"
        cv2.imwrite(str(path), np.full((40, 50), 9, np.uint8))
        cell = np.zeros((40, 50), bool)
        cell[5:15, 5:15] = True
        annotations = [{"segmentation": bitmap_to_rle(cell), "category_id": 0}]
        record = {"file_name": str(path), "image_id": image_id, "height": 40, "width": 50}
        images.append(record | {"annotations": annotations})
    DatasetCatalog.register(NAME, lambda: images)
    MetadataCatalog.get(NAME).set(thing_classes=["cell"])
    yield images
    DatasetCatalog.pop(NAME)
    MetadataCatalog.pop(NAME)


def output(*scores: float) -> dict:
    instances = Instances((40, 50))
    instances.pred_boxes = Boxes(torch.zeros(len(scores), 4))
    instances.scores = torch.tensor(scores)
    instances.pred_classes = torch.zeros(len(scores), dtype=torch.int64)
    instances.pred_masks = torch.zeros(len(scores), 40, 50, dtype=torch.bool)
    instances.pred_masks[:, 5:15, 5:15] = True
    return {"instances": instances}


def has_red(picture: np.ndarray) -> bool:
    return bool((picture == RED[::-1]).all(axis=-1).any())


def test_first_images_of_the_dataset_are_drawn(dataset, tmp_path):
    evaluator = PictureEvaluator(NAME, tmp_path / "out", max_images=2, score_threshold=0.6)
    for image, given in zip(reversed(dataset), [output(0.9), output(0.9), output(0.5)]):
        evaluator.process([image], [given])
    assert evaluator.evaluate() == {}
    pictures = {path.name: cv2.imread(str(path)) for path in (tmp_path / "out").rglob("*")}
    assert sorted(path.name for path in (tmp_path / "out" / "pictures").iterdir()) == [
        "b.png",
        "z_first.png",
    ]
    # The only detection of z/first is below the threshold: its cell is missed.
    assert has_red(pictures["z_first.png"])
    assert not has_red(pictures["b.png"])


def test_no_pictures(dataset, tmp_path):
    evaluators = DatasetEvaluators([PictureEvaluator(NAME, tmp_path / "out", max_images=0)])
    evaluators.reset()
    evaluators.process(dataset, [output()] * 3)
    assert evaluators.evaluate() == {}
    assert not (tmp_path / "out").exists()
