"""The registry of whole models."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers.memory_format import prefer_channels_last
from detectron2.utils.registry import Registry

META_ARCH_REGISTRY = Registry("META_ARCH")
META_ARCH_REGISTRY.__doc__ = (
    "Whole models, called `f(cfg) -> nn.Module`, by their name in the config."
)


def build_model(cfg: CfgNode) -> Any:
    """Build the model that `cfg.MODEL.META_ARCHITECTURE` names, on `cfg.MODEL.DEVICE`.

    Its weights are random; `DetectionCheckpointer` loads `cfg.MODEL.WEIGHTS`.
    """
    model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    device = torch.device(cfg.MODEL.DEVICE)
    model.to(device)
    if device.type == "cpu":
        for part in model.children():
            prefer_channels_last(part)
    return model
