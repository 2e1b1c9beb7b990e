"""The config keys of PointRend."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode

__all__ = ["add_pointrend_config"]

_ROI_MASK_HEAD: dict[str, Any] = {
    # The coarse head: pools these feature maps, and has NUM_FC layers of FC_DIM.
    "IN_FEATURES": ("p2",),
    "FC_DIM": 1024,
    "NUM_FC": 2,
    "OUTPUT_SIDE_RESOLUTION": 7,
    # Refine its masks at points.
    "POINT_HEAD_ON": False,
}
_POINT_HEAD: dict[str, Any] = {
    "NAME": "StandardPointHead",
    # As many as the heads that it refines have.
    "NUM_CLASSES": 80,
    # Feature maps that are read at the points.
    "IN_FEATURES": ("p2",),
    # Points to learn from per object; so many times more are drawn, of which this share, the most
    # uncertain ones, is kept.
    "TRAIN_NUM_POINTS": 196,
    "OVERSAMPLE_RATIO": 3,
    "IMPORTANCE_SAMPLE_RATIO": 0.75,
    # In prediction masks are enlarged by 2 so many times, and so many points predicted anew.
    "SUBDIVISION_STEPS": 5,
    "SUBDIVISION_NUM_POINTS": 784,
    # Layers, and whether each of them sees the coarse prediction.
    "FC_DIM": 256,
    "NUM_FC": 3,
    "COARSE_PRED_EACH_LAYER": True,
    "CLS_AGNOSTIC_MASK": False,
    # The head that PointRendSemSegHead refines.
    "COARSE_SEM_SEG_HEAD_NAME": "SemSegFPNHead",
}
_IMPLICIT_POINTREND: dict[str, Any] = {
    # What the layers of an object see: features of the image, and where the point is.
    "IMAGE_FEATURE_ENABLED": True,
    "POS_ENC_ENABLED": True,
    # Weight of the squares of the layers' parameters in the loss.
    "PARAMS_L2_REGULARIZER": 1e-5,
}


def add_pointrend_config(cfg: CfgNode) -> None:
    """Add the keys of PointRend and of Implicit PointRend with their defaults.

    Args:
        cfg: changed in place.
    """
    # The largest share of a crop that may have one class in semantic segmentation.
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0
    # `ColorAugSSDTransform` in the training of semantic segmentation.
    cfg.INPUT.COLOR_AUG_SSD = False
    cfg.MODEL.ROI_MASK_HEAD.update(_ROI_MASK_HEAD)
    cfg.MODEL.POINT_HEAD = CfgNode(_POINT_HEAD)
    cfg.MODEL.IMPLICIT_POINTREND = CfgNode(_IMPLICIT_POINTREND)
