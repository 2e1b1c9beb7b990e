"""The region heads that PointRend's published weights were trained with."""

from __future__ import annotations

import logging
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY, StandardROIHeads

from .coarse_mask_head import rename_weights

__all__ = ["PointRendROIHeads"]


@ROI_HEADS_REGISTRY.register()
class PointRendROIHeads(StandardROIHeads):
    """`StandardROIHeads` that also read configs and weights of the first PointRend."""

    _version = 2

    @classmethod
    def _init_mask_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        head = cfg.MODEL.ROI_MASK_HEAD
        if cfg.MODEL.MASK_ON and head.NAME == "CoarseMaskHead":
            logging.getLogger(__name__).warning(
                "MODEL.ROI_MASK_HEAD.NAME CoarseMaskHead is now PointRendMaskHead, without pooler."
            )
            cfg = cfg.clone()
            cfg.defrost()
            cfg.MODEL.ROI_MASK_HEAD.NAME = "PointRendMaskHead"
            cfg.MODEL.ROI_MASK_HEAD.POOLER_TYPE = ""
        return super()._init_mask_head(cfg, input_shape)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, *args: Any
    ) -> None:
        heads = {f"{prefix}mask_{part}_head": f"{prefix}mask_head.{part}_head" for part in _PARTS}
        rename_weights(state_dict, heads)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


_PARTS = ("point", "coarse")
