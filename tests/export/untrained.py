"""Weights for a model that no other test has."""

from __future__ import annotations

from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model


def save_untrained(cfg: CfgNode, path: Path) -> CfgNode:
    """The config with a checkpoint of its own model, untrained."""
    torch.manual_seed(1)
    torch.save({"model": build_model(cfg).state_dict()}, path)
    cfg.MODEL.WEIGHTS = str(path)
    return cfg
