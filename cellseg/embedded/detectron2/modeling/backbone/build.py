"""The registry of backbones."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry

from .backbone import Backbone

BACKBONE_REGISTRY = Registry("BACKBONE")
BACKBONE_REGISTRY.__doc__ = (
    "Backbones, called `f(cfg, input_shape: ShapeSpec) -> Backbone`, by their name in the config."
)


def build_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> Backbone:
    """Build the backbone that `cfg.MODEL.BACKBONE.NAME` names.

    Args:
        cfg: the whole config.
        input_shape: of the images; by default one channel per entry of `cfg.MODEL.PIXEL_MEAN`.

    Raises:
        TypeError: what is registered under the name did not return a Backbone.
    """
    name = cfg.MODEL.BACKBONE.NAME
    backbone = BACKBONE_REGISTRY.get(name)(
        cfg, input_shape or ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    )
    if not isinstance(backbone, Backbone):
        raise TypeError(f"{name!r} built a {type(backbone).__name__}, which is not a Backbone.")
    return backbone
