"""Semantic heads, alone and beside instances, and PointRend's heads."""

from __future__ import annotations

from typing import Any

import torch
from comparison import numbers, summary
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.projects.point_rend import add_pointrend_config
from fixed_numbers import model_inputs, set_parameters
from model_scenarios import MASK_RCNN, R18, SMALL, Options, build_cfg
from variant_scenarios import detections_of, training_step, without_cells

IGNORED = 255
SEMANTIC: Options = {
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 3,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": 0.5,
}
POINTS: Options = {
    "MODEL.ROI_MASK_HEAD.NAME": "PointRendMaskHead",
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "",
    "MODEL.ROI_MASK_HEAD.FC_DIM": 64,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 16,
    "MODEL.ROI_MASK_HEAD.POINT_HEAD_ON": True,
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": True,
    "MODEL.POINT_HEAD.NUM_CLASSES": 2,
    "MODEL.POINT_HEAD.FC_DIM": 32,
    "MODEL.POINT_HEAD.TRAIN_NUM_POINTS": 40,
    "MODEL.POINT_HEAD.SUBDIVISION_STEPS": 3,
    "MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS": 196,
}
INSTANCES: dict[str, Options] = {
    "PointRend": POINTS,
    "PointRend, two maps, one mask for all classes": POINTS
    | {
        "MODEL.ROI_HEADS.NAME": "PointRendROIHeads",
        "MODEL.ROI_MASK_HEAD.IN_FEATURES": ["p2", "p3"],
        "MODEL.POINT_HEAD.IN_FEATURES": ["p2", "p3"],
        "MODEL.POINT_HEAD.CLS_AGNOSTIC_MASK": True,
        "MODEL.POINT_HEAD.COARSE_PRED_EACH_LAYER": False,
    },
    "Implicit PointRend": POINTS
    | {
        "MODEL.ROI_MASK_HEAD.NAME": "ImplicitPointRendMaskHead",
        "MODEL.POINT_HEAD.NAME": "ImplicitPointHead",
        "MODEL.POINT_HEAD.SUBDIVISION_STEPS": 1,
        "MODEL.IMPLICIT_POINTREND.PARAMS_L2_REGULARIZER": 0.1,
    },
}
PIXELS: dict[str, Options] = {
    "semantic head": SEMANTIC | {"MODEL.META_ARCHITECTURE": "SemanticSegmentor"},
    "semantic head at another stride, without norm": SEMANTIC
    | {
        "MODEL.META_ARCHITECTURE": "SemanticSegmentor",
        "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["p5", "p3"],
        "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 8,
        "MODEL.SEM_SEG_HEAD.NORM": "",
    },
    "semantic PointRend": SEMANTIC
    | {
        "MODEL.META_ARCHITECTURE": "SemanticSegmentor",
        "MODEL.SEM_SEG_HEAD.NAME": "PointRendSemSegHead",
        "MODEL.POINT_HEAD.NUM_CLASSES": 3,
        "MODEL.POINT_HEAD.FC_DIM": 32,
        "MODEL.POINT_HEAD.TRAIN_NUM_POINTS": 200,
        "MODEL.POINT_HEAD.SUBDIVISION_STEPS": 2,
        "MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS": 300,
    },
    "Panoptic FPN": SEMANTIC
    | {
        "MODEL.META_ARCHITECTURE": "PanopticFPN",
        "MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT": 0.5,
        "MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT": 64,
        "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH": 0.3,
    },
}


def point_rend() -> dict[str, Any]:
    """One training step with cells in both images and in one, and one prediction."""
    found = {}
    for name, options in INSTANCES.items():
        model, batch = _model(options), model_inputs()
        found[name] = {
            "cells in both images": training_step(model, batch),
            "cells in one image": training_step(model, [batch[0], without_cells(batch[1])]),
            "detections": detections_of(model.eval(), batch),
        }
    return found


def semantic_heads() -> dict[str, Any]:
    """One training step and what is said of each pixel."""
    found = {}
    for name, options in PIXELS.items():
        model, batch = _model(options), [_with_classes(sample) for sample in model_inputs()]
        found[name] = {"step": training_step(model, batch), "pixels": _pixels(model.eval(), batch)}
    return found


def _model(options: Options) -> Any:
    cfg = build_cfg(R18, SMALL, {})
    add_pointrend_config(cfg)
    for key, value in (MASK_RCNN | R18 | SMALL | options).items():
        *path, last = key.split(".")
        node: CfgNode = cfg
        for part in path:
            node = node[part]
        node[last] = value
    model = build_model(cfg)
    set_parameters(model, predictor_gain=0.1)
    with torch.no_grad():  # coarse masks, and layers that are predicted, of usual size
        for name, parameter in model.named_parameters():
            if ".prediction." in name:
                parameter *= 0.1
    return model


def _with_classes(sample: dict[str, Any]) -> dict[str, Any]:
    """Cells are class 0; left and right of the middle is 1 and 2; a corner is not learned."""
    covered = sample["instances"].gt_masks.tensor.any(0)
    classes = torch.ones(covered.shape, dtype=torch.int64)
    classes[:, classes.shape[1] // 2 :] = 2
    classes[covered] = 0
    classes[:10, :10] = IGNORED
    return {**sample, "sem_seg": classes}


@torch.no_grad()
def _pixels(model: Any, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for output in model(batch):
        scores = output["sem_seg"]
        sizes = torch.bincount(scores.argmax(0).flatten(), minlength=3)
        fields = {"scores": summary(scores), "shares": numbers(sizes / sizes.sum())}
        if "panoptic_seg" in output:
            segments, described = output["panoptic_seg"]
            fields["segments"] = [
                {key: value for key, value in each.items() if key not in ("area", "score")}
                for each in described
            ]
            fields["pixels of segments"] = numbers(torch.bincount(segments.flatten()) / 1.0)
        found.append(fields)
    return found
