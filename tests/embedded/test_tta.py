"""Test-time augmentation: versions of an image, and the merge of what is found in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import DatasetMapperTTA, GeneralizedRCNN, GeneralizedRCNNWithTTA
from detectron2.structures import Boxes, Instances
from torch import nn

CORNER = [[2.0, 4.0, 10.0, 14.0]]  # of a file of 20 x 40 pixels


class FixedModel(GeneralizedRCNN):
    """Finds a box of the file, wherever resizing and mirroring have put it.

    The image's first channel says by its value at the upper left whether it was mirrored. The
    mask is 1 on the left half of the cell.
    """

    def __init__(self, score_by_width: dict[int, float]) -> None:
        nn.Module.__init__(self)
        self.score_by_width = score_by_width
        self.roi_heads = nn.Identity()
        self.roi_heads.mask_on = True
        self.input_format = "BGR"
        self.calls: list[int] = []

    def inference(
        self, batched_inputs: Any, detected_instances: Any = None, do_postprocess: bool = True
    ) -> list[Instances]:
        assert not do_postprocess
        assert self.roi_heads.mask_on == (detected_instances is not None)
        self.calls.append(len(batched_inputs))
        given = detected_instances or [None] * len(batched_inputs)
        return [self.find(x["image"], i) for x, i in zip(batched_inputs, given)]

    def find(self, image: torch.Tensor, given: Instances | None) -> Instances:
        _, height, width = image.shape
        mirrored = bool(image[0, 0, 0] < image[0, 0, -1])
        if given is not None:
            assert given.image_size == (height, width)
            mask = torch.zeros(len(given), 1, 28, 28)
            half = slice(14, 28) if mirrored else slice(0, 14)
            mask[..., half] = 1.0
            given.pred_masks = mask
            return given
        box = torch.tensor(CORNER) * torch.tensor([width / 40, height / 20] * 2)
        if mirrored:
            box = torch.stack((width - box[:, 2], box[:, 1], width - box[:, 0], box[:, 3]), dim=1)
        score = torch.tensor([self.score_by_width[width]])
        return Instances(
            (height, width),
            pred_boxes=Boxes(box),
            scores=score,
            pred_classes=torch.ones(1, dtype=torch.int64),
        )


def tta_cfg(*, flip: bool = True, masks: bool = True) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = masks
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    cfg.TEST.AUG.MIN_SIZES = (10, 40)
    cfg.TEST.AUG.MAX_SIZE = 100
    cfg.TEST.AUG.FLIP = flip
    return cfg


def ramp() -> torch.Tensor:
    """A BGR image of 20 x 40 pixels that is brighter on the left."""
    return torch.arange(240, 0, -6, dtype=torch.uint8).expand(3, 20, 40)


def test_versions_of_an_image() -> None:
    given = {"image": ramp(), "height": 20, "width": 40, "image_id": 7}
    versions = DatasetMapperTTA(tta_cfg())(given)
    assert [tuple(v["image"].shape) for v in versions] == [(3, 10, 20)] * 2 + [(3, 40, 80)] * 2
    assert all(v["image_id"] == 7 for v in versions)
    assert torch.equal(versions[1]["image"], versions[0]["image"].flip(2))
    boxes = [v["transforms"].apply_box(np.array(CORNER))[0].tolist() for v in versions]
    assert boxes == [[1, 2, 5, 7], [15, 2, 19, 7], [4, 8, 20, 28], [60, 8, 76, 28]]
    assert "transforms" not in given


def test_versions_lead_from_the_file_and_not_from_the_input() -> None:
    given = {"image": ramp(), "height": 40, "width": 80}
    versions = DatasetMapperTTA(min_sizes=[10], max_size=100, flip=False)(given)
    assert len(versions) == 1
    box = versions[0]["transforms"].apply_box(np.array([[4.0, 8, 20, 28]]))
    assert box.tolist() == [[1, 2, 5, 7]]


@pytest.mark.parametrize(("batch_size", "calls"), [(1, [1] * 8), (3, [3, 1, 3, 1])])
def test_boxes_are_merged_and_masks_averaged(batch_size: int, calls: list[int]) -> None:
    model = FixedModel({20: 0.6, 80: 0.9})
    augmented = GeneralizedRCNNWithTTA(tta_cfg(), model, batch_size=batch_size)
    (found,) = augmented([{"image": ramp(), "height": 20, "width": 40}])
    instances = found["instances"]
    assert instances.image_size == (20, 40)
    assert instances.pred_boxes.tensor.tolist() == CORNER
    assert instances.scores.tolist() == pytest.approx([0.9])
    assert instances.pred_classes.tolist() == [1]
    expected = torch.zeros(20, 40, dtype=torch.bool)
    expected[4:14, 2:6] = True
    assert torch.equal(instances.pred_masks[0], expected)
    assert model.calls == calls
    assert model.roi_heads.mask_on


def test_boxes_alone() -> None:
    model = FixedModel({20: 0.6, 80: 0.9})
    augmented = GeneralizedRCNNWithTTA(tta_cfg(flip=False, masks=False), model)
    (found,) = augmented([{"image": ramp(), "height": 20, "width": 40}])
    assert not found["instances"].has("pred_masks")
    assert found["instances"].pred_boxes.tensor.tolist() == CORNER


def test_image_is_read_where_it_is_not_given(tmp_path: Path) -> None:
    path = tmp_path / "cells.png"
    cv2.imwrite(str(path), ramp().permute(1, 2, 0).numpy())
    augmented = GeneralizedRCNNWithTTA(tta_cfg(), FixedModel({20: 0.6, 80: 0.9}))
    (found,) = augmented([{"file_name": str(path)}])
    assert found["instances"].pred_boxes.tensor.tolist() == CORNER


@pytest.mark.embedded_only
def test_masks_are_on_again_after_an_error() -> None:
    model = FixedModel({})
    with pytest.raises(KeyError):
        GeneralizedRCNNWithTTA(tta_cfg(), model)([{"image": ramp()}])
    assert model.roi_heads.mask_on


def test_what_cannot_be_augmented() -> None:
    with pytest.raises((AssertionError, TypeError)):
        GeneralizedRCNNWithTTA(tta_cfg(), nn.Identity())
    for key in ("KEYPOINT_ON", "LOAD_PROPOSALS"):
        cfg = tta_cfg()
        cfg.MODEL[key] = True
        with pytest.raises((AssertionError, NotImplementedError)):
            GeneralizedRCNNWithTTA(cfg, FixedModel({}))
