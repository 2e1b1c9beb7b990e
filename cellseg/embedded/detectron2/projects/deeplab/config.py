"""The config keys of DeepLab, which Mask2Former and others build on."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode

__all__ = ["add_deeplab_config"]

_KEYS: dict[str, dict[str, Any]] = {
    "INPUT.CROP": {
        # A crop is drawn anew while one category covers more of it than this share.
        "SINGLE_CATEGORY_MAX_AREA": 1.0
    },
    # Of WarmupPolyLR: see there.
    "SOLVER": {"POLY_LR_POWER": 0.9, "POLY_LR_CONSTANT_ENDING": 0.0},
    "MODEL.SEM_SEG_HEAD": {
        "LOSS_TYPE": "hard_pixel_mining",
        # Feature maps that the decoder joins, and the channels that each is brought to.
        "PROJECT_FEATURES": ["res2"],
        "PROJECT_CHANNELS": [48],
        "ASPP_CHANNELS": 256,
        "ASPP_DILATIONS": [6, 12, 18],
        "ASPP_DROPOUT": 0.1,
        "USE_DEPTHWISE_SEPARABLE_CONV": False,
    },
    "MODEL.RESNETS": {
        "STEM_TYPE": "deeplab",
        "RES4_DILATION": 1,
        "RES5_MULTI_GRID": [1, 2, 4],
    },
}


def add_deeplab_config(cfg: CfgNode) -> None:
    """Add DeepLab's keys, with its defaults, to `cfg`."""
    for section, keys in _KEYS.items():
        node = cfg
        for name in section.split("."):
            node = node[name]
        for name, value in keys.items():
            node[name] = [*value] if isinstance(value, list) else value
