"""What other projects take from DeepLab: its config keys and its learning rate schedule."""

from __future__ import annotations

from detectron2._missing import left_out_names

from .build_solver import build_lr_scheduler
from .config import add_deeplab_config
from .lr_scheduler import WarmupPolyLR

__all__ = ["WarmupPolyLR", "add_deeplab_config", "build_lr_scheduler"]

__getattr__ = left_out_names(
    __name__, "DeepLabV3Head", "DeepLabV3PlusHead", "build_resnet_deeplab_backbone"
)
