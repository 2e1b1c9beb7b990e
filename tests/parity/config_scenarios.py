"""The config that everything starts from."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model

_NAMES = {
    "COCO-InstanceSegmentation": """
        mask_rcnn_R_101_C4_3x mask_rcnn_R_101_DC5_3x mask_rcnn_R_101_FPN_3x mask_rcnn_R_50_C4_1x
        mask_rcnn_R_50_C4_3x mask_rcnn_R_50_DC5_1x mask_rcnn_R_50_DC5_3x mask_rcnn_R_50_FPN_1x
        mask_rcnn_R_50_FPN_1x_giou mask_rcnn_R_50_FPN_3x mask_rcnn_X_101_32x8d_FPN_3x
    """,
    "COCO-PanopticSegmentation": """
        panoptic_fpn_R_101_3x panoptic_fpn_R_50_1x panoptic_fpn_R_50_3x
    """,
    "Cityscapes": """
        mask_rcnn_R_50_FPN
    """,
    "LVISv0.5-InstanceSegmentation": """
        mask_rcnn_R_101_FPN_1x mask_rcnn_R_50_FPN_1x mask_rcnn_X_101_32x8d_FPN_1x
    """,
    "LVISv1-InstanceSegmentation": """
        mask_rcnn_R_101_FPN_1x mask_rcnn_R_50_FPN_1x mask_rcnn_X_101_32x8d_FPN_1x
    """,
    "Misc": """
        cascade_mask_rcnn_R_50_FPN_1x cascade_mask_rcnn_R_50_FPN_3x
        cascade_mask_rcnn_X_152_32x8d_FPN_IN5k_gn_dconv panoptic_fpn_R_101_dconv_cascade_gn_3x
        mask_rcnn_R_50_FPN_1x_dconv_c3-c5 mask_rcnn_R_50_FPN_3x_dconv_c3-c5
        mask_rcnn_R_50_FPN_1x_cls_agnostic mask_rcnn_R_50_FPN_3x_gn mask_rcnn_R_50_FPN_3x_syncbn
        scratch_mask_rcnn_R_50_FPN_3x_gn scratch_mask_rcnn_R_50_FPN_9x_gn
        scratch_mask_rcnn_R_50_FPN_9x_syncbn semantic_R_50_FPN_1x
    """,
}
ZOO = [f"{folder}/{name}.yaml" for folder, names in _NAMES.items() for name in names.split()]


def config_defaults() -> dict[str, str]:
    """Every key with its default as Python writes it, which tells types apart too."""
    return dict(_leaves(get_cfg()))


def model_zoo_configs() -> dict[str, dict[str, str]]:
    """What the configs of the published models change of the defaults."""
    defaults = config_defaults()
    return {
        name: {k: v for k, v in _leaves(model_zoo.get_config(name)) if defaults[k] != v}
        for name in ZOO
    }


def model_zoo_parameters() -> dict[str, dict[str, int]]:
    """Names and shapes of what each published model learns, as a sum over all of them.

    Models are built without memory, on PyTorch's device "meta"; those with deformable
    convolution are left out, for which Detectron2 needs its compiled part.
    """
    found = {}
    for name in ZOO:
        if "dconv" in name:
            continue
        cfg = model_zoo.get_config(name)
        cfg.MODEL.DEVICE = "meta"
        with torch.device("meta"):
            state = build_model(cfg).state_dict()
        shapes = sorted(f"{key} {tuple(value.shape)}" for key, value in state.items())
        numbers = sum(value.numel() for value in state.values())
        checksum = zlib.crc32("\n".join(shapes).encode())
        found[name] = {"tensors": len(state), "numbers": numbers, "checksum": checksum}
    return found


def _leaves(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in sorted(node.items()):
        if isinstance(value, CfgNode):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", repr(value)
