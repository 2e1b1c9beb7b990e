"""A Mask R-CNN that is small enough to be built and trained in a test."""

from __future__ import annotations

import pytest
import torch
from cellseg.modeling import MaskRCNN
from cellseg.modeling.torchvision_keywords import RESNET50_FPN
from detectron2.config import CfgNode, get_cfg


@pytest.fixture(scope="session")
def tiny_cfg(tiny_model: list[str]) -> CfgNode:
    """Two kinds of cells, network size 64 px, everything small; treat it as read-only."""
    cfg = get_cfg()
    cfg.merge_from_list([*RESNET50_FPN, *tiny_model])
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.NORM = "GN"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64], [128]]
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.TEST.DETECTIONS_PER_IMAGE = 12
    cfg.INPUT.MIN_SIZE_TRAIN = (64,)
    cfg.INPUT.MIN_SIZE_TEST = 64
    cfg.INPUT.MAX_SIZE_TRAIN = cfg.INPUT.MAX_SIZE_TEST = 128
    return cfg


@pytest.fixture
def model(tiny_cfg: CfgNode) -> MaskRCNN:
    torch.manual_seed(0)
    return MaskRCNN(tiny_cfg)
