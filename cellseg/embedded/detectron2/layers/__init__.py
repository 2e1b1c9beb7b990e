"""Building blocks of the networks: convolutions, norms, RoIAlign, NMS, mask pasting, losses."""

from __future__ import annotations

from typing import Any

from detectron2._missing import missing_module_attribute

from .batch_norm import FrozenBatchNorm2d, LayerNorm, NaiveSyncBatchNorm, get_norm
from .blocks import CNNBlockBase
from .losses import ciou_loss, diou_loss
from .mask_ops import paste_masks_in_image
from .nms import batched_nms, nms
from .roi_align import ROIAlign, roi_align
from .shape_spec import ShapeSpec
from .wrappers import (
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Linear,
    cat,
    cross_entropy,
    empty_input_loss_func_wrapper,
    interpolate,
    move_device_like,
    nonzero_tuple,
    shapes_to_tensor,
)

__all__ = [
    "BatchNorm2d",
    "CNNBlockBase",
    "Conv2d",
    "ConvTranspose2d",
    "FrozenBatchNorm2d",
    "LayerNorm",
    "Linear",
    "NaiveSyncBatchNorm",
    "ROIAlign",
    "ShapeSpec",
    "batched_nms",
    "cat",
    "ciou_loss",
    "cross_entropy",
    "diou_loss",
    "empty_input_loss_func_wrapper",
    "get_norm",
    "interpolate",
    "move_device_like",
    "nms",
    "nonzero_tuple",
    "paste_masks_in_image",
    "roi_align",
    "shapes_to_tensor",
]

_LEFT_OUT = (
    "ASPP",
    "CycleBatchNormList",
    "DeformConv",
    "DepthwiseSeparableConv2d",
    "ModulatedDeformConv",
    "ROIAlignRotated",
    "batched_nms_rotated",
    "nms_rotated",
    "roi_align_rotated",
)


def __getattr__(name: str) -> Any:
    missing_module_attribute(__name__, name, _LEFT_OUT)
