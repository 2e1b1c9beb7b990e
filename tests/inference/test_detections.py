"""What a model finds, as cells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cellseg.errors import LabelError
from cellseg.inference.detections import detections_to_cells
from detectron2.structures import Boxes, Instances


def raw_instances(boxes: list[list[float]], image_size: tuple[int, int]) -> Instances:
    found = Instances(image_size)
    found.pred_boxes = Boxes(torch.tensor(boxes).reshape(-1, 4))
    found.scores = torch.linspace(0.9, 0.5, len(boxes))
    found.pred_classes = torch.arange(len(boxes))
    found.pred_masks = torch.ones(len(boxes), 1, 28, 28)
    return found


def test_soft_masks_are_scaled_clipped_and_dropped() -> None:
    """Network frame 100x200, image 50x400: y halves, x doubles."""
    found = raw_instances([[10, 20, 30, 40], [190, 90, 230, 130], [220, 0, 240, 10]], (100, 200))
    cells = detections_to_cells(found, image_hw=(50, 400))
    assert cells.image_hw == (50, 400)
    assert cells.boxes_xyxy.tolist() == [[20, 10, 60, 20], [380, 45, 400, 50]]
    assert cells.classes.tolist() == [0, 1]
    assert cells.scores.tolist() == pytest.approx([0.9, 0.7])
    assert [crop.shape for crop in cells.crops] == [(10, 40), (5, 20)]
    assert cells.offsets_rc.tolist() == [[10, 20], [45, 380]]
    assert found.pred_boxes.tensor[0].tolist() == [10, 20, 30, 40]  # untouched


def test_no_detections() -> None:
    cells = detections_to_cells(raw_instances([], (100, 200)), image_hw=(50, 60))
    assert len(cells) == 0
    assert cells.image_hw == (50, 60)


def test_the_mask_threshold_decides() -> None:
    found = raw_instances([[10, 10, 30, 30]], (100, 100))
    found.pred_masks *= 0.4
    assert detections_to_cells(found, image_hw=(100, 100), mask_threshold=0.5).crops[0].size == 0
    assert detections_to_cells(found, image_hw=(100, 100), mask_threshold=0.3).crops[0].shape == (
        20,
        20,
    )


def test_bitmaps_become_crops_by_descending_score() -> None:
    """One row in the middle, one pixel in the corner, an empty mask, one below the threshold."""
    found = raw_instances([[0, 1, 3, 2], [3, 0, 4, 1], [0, 0, 1, 1], [0, 0, 4, 2]], (2, 4))
    found.scores = torch.tensor([0.6, 0.9, 0.6, 0.2])
    found.pred_masks = torch.zeros(4, 2, 4, dtype=torch.bool)
    found.pred_masks[0, 1, :3] = found.pred_masks[1, 0, 3] = found.pred_masks[3] = True
    cells = detections_to_cells(found, 0.5)
    assert cells.classes.tolist() == [1, 0, 2]
    assert cells.scores.tolist() == pytest.approx([0.9, 0.6, 0.6])
    assert [crop.shape for crop in cells.crops] == [(1, 1), (1, 3), (0, 0)]
    assert np.array_equal(cells.to_bitmaps(), found.pred_masks[[1, 0, 2]].numpy())


def test_bitmaps_and_soft_masks_that_say_the_same_give_the_same_cells() -> None:
    found = raw_instances([[2.0, 1.0, 6.0, 4.0], [0.0, 0.0, 2.0, 2.0]], (8, 9))
    soft = detections_to_cells(found)
    found.pred_masks = torch.from_numpy(soft.to_bitmaps())
    cells = detections_to_cells(found)
    assert np.array_equal(cells.to_bitmaps(), soft.to_bitmaps())
    assert np.array_equal(cells.boxes_xyxy, soft.boxes_xyxy)


def test_refuses_detections_without_masks() -> None:
    found = raw_instances([[0, 0, 1, 1]], (4, 4))
    found.remove("pred_masks")
    with pytest.raises(LabelError, match="boxes but no masks"):
        detections_to_cells(found)
