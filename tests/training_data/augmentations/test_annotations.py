"""Annotations to labels and back lose nothing."""

from __future__ import annotations

import cellseg.training_data.augmentations as A
import numpy as np
import pytest
from builders import Scene, all_scenes
from cellseg.cells.label_planes import LabelPlanes
from cellseg.cells.labels import bitmap_to_rle
from pycocotools import mask as coco_mask


@pytest.mark.parametrize("scene", all_scenes().values(), ids=all_scenes().keys())
def test_there_and_back(scene: Scene) -> None:
    given = [
        {"segmentation": bitmap_to_rle(mask), "category_id": number % 3, "iscrowd": 0}
        for number, mask in enumerate(scene.masks)
    ]
    crowd = {"segmentation": bitmap_to_rle(scene.labels == 0), "category_id": 0, "iscrowd": 1}
    labelled = A.annotations_to_labelled_image(scene.image, [crowd, *given])
    assert labelled.image is scene.image
    found = A.labelled_image_to_annotations(labelled)
    assert len(found) == len(given)
    for one, other, mask in zip(given, found, scene.masks):
        np.testing.assert_array_equal(coco_mask.decode(other["segmentation"]), mask)
        assert other["category_id"] == one["category_id"]
        rows, cols = np.nonzero(mask)
        assert other["bbox"] == [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]


def test_polygons_are_drawn() -> None:
    cell = {"segmentation": [[2, 3, 7, 3, 7, 6, 2, 6]], "category_id": 1}
    labelled = A.annotations_to_labelled_image(np.zeros((10, 12, 3), np.uint8), [cell])
    assert labelled.cells.boxes_xyxy.tolist() == [[2, 3, 7, 6]]
    assert labelled.classes.tolist() == [1]


def test_a_cell_without_pixels_is_left_out() -> None:
    planes = LabelPlanes(np.full((1, 2, 2), 2, np.int32), np.zeros(2, np.int64))
    labelled = A.LabelledImage(np.zeros((2, 2)), planes, np.array([4, 5]))
    assert [cell["category_id"] for cell in A.labelled_image_to_annotations(labelled)] == [5]
