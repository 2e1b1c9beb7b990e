"""A Mask R-CNN of torchvision's keywords that trains in a test."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cellseg.modeling import MaskRCNN
from cellseg.modeling.torchvision_keywords import resnet50_fpn_config
from torchvision_data import BuildModel


@pytest.fixture
def build_tiny(tiny_model: list[str]) -> BuildModel:
    """`maskrcnn_resnet50_fpn` with a backbone of 18 layers and few channels, for 64 px."""

    def build(num_classes: int = 2, norm: str = "GN", **settings: Any) -> MaskRCNN:
        small = {"min_size": 64, "max_size": 128, "box_detections_per_img": 12}
        cfg = resnet50_fpn_config(num_classes, norm, {**small, **settings})
        cfg.merge_from_list(tiny_model)
        torch.manual_seed(0)
        return MaskRCNN(cfg)

    return build
