"""Backbones: from images to feature maps."""

from __future__ import annotations

from typing import Any

from detectron2._missing import missing_module_attribute

from .backbone import Backbone
from .build import BACKBONE_REGISTRY, build_backbone
from .fpn import FPN
from .resnet import (
    BasicStem,
    BottleneckBlock,
    ResNet,
    ResNetBlockBase,
    build_resnet_backbone,
    make_stage,
)

__all__ = [
    "BACKBONE_REGISTRY",
    "FPN",
    "Backbone",
    "BasicStem",
    "BottleneckBlock",
    "ResNet",
    "ResNetBlockBase",
    "build_backbone",
    "build_resnet_backbone",
    "make_stage",
]

_LEFT_OUT = (
    "MViT",
    "RegNet",
    "SimpleFeaturePyramid",
    "SwinTransformer",
    "ViT",
    "get_vit_lr_decay_rate",
)


def __getattr__(name: str) -> Any:
    missing_module_attribute(__name__, name, _LEFT_OUT)
