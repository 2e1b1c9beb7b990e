"""The registry of keypoint heads: empty here, for heads of users."""

from __future__ import annotations

from typing import Any

from detectron2._missing import left_out_names
from detectron2.config import CfgNode
from detectron2.utils.registry import Registry

__all__ = ["ROI_KEYPOINT_HEAD_REGISTRY", "build_keypoint_head"]

ROI_KEYPOINT_HEAD_REGISTRY = Registry("ROI_KEYPOINT_HEAD")
ROI_KEYPOINT_HEAD_REGISTRY.__doc__ = "Keypoint heads, called `f(cfg, input_shape)`."


def build_keypoint_head(cfg: CfgNode, input_shape: Any) -> Any:
    """Build the head that `cfg.MODEL.ROI_KEYPOINT_HEAD.NAME` names.

    Raises:
        KeyError: no head of that name is registered; the embedded engine brings none.
    """
    return ROI_KEYPOINT_HEAD_REGISTRY.get(cfg.MODEL.ROI_KEYPOINT_HEAD.NAME)(cfg, input_shape)


__getattr__ = left_out_names(
    __name__,
    "BaseKeypointRCNNHead",
    "KRCNNConvDeconvUpsampleHead",
    "keypoint_rcnn_inference",
    "keypoint_rcnn_loss",
)
