"""Other parts that configs can choose: losses, gradients and detections of each."""

from __future__ import annotations

from typing import Any

import torch
from comparison import numbers
from detectron2.modeling import GeneralizedRCNNWithTTA, build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from fixed_numbers import model_inputs, set_parameters
from model_scenarios import CASCADE, R18, SMALL, Options, build_cfg, run_lengths

C4: Options = {
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 16,
    "MODEL.RESNETS.OUT_FEATURES": ["res4"],
    "MODEL.RPN.IN_FEATURES": ["res4"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[16, 32, 64]],
    "MODEL.ROI_HEADS.NAME": "Res5ROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["res4"],
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 0,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
}
VARIANTS: dict[str, Options] = {
    "complete IoU losses, sigmoid classes": {
        "MODEL.RPN.BBOX_REG_LOSS_TYPE": "ciou",
        "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "ciou",
        "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": True,
        "MODEL.RPN.BOUNDARY_THRESH": 0,
    },
    "smooth L1, masks for predicted boxes": {
        "MODEL.RPN.SMOOTH_L1_BETA": 0.1,
        "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 1.0,
        "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": True,
        "MODEL.RPN.CONV_DIMS": [-1, 16],
    },
    "batch norm that learns, averaging FPN": {
        "MODEL.RESNETS.NORM": "BN",
        "MODEL.BACKBONE.FREEZE_AT": 3,
        "MODEL.FPN.NORM": "BN",
        "MODEL.FPN.FUSE_TYPE": "avg",
    },
    "ResNeXt": {
        "MODEL.RESNETS.DEPTH": 50,
        "MODEL.RESNETS.NUM_GROUPS": 4,
        "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
    },
    "dilated last stage without pyramid": {
        "MODEL.BACKBONE.NAME": "build_resnet_backbone",
        "MODEL.RESNETS.DEPTH": 50,
        "MODEL.RESNETS.OUT_FEATURES": ["res5"],
        "MODEL.RESNETS.RES5_DILATION": 2,
        "MODEL.RPN.IN_FEATURES": ["res5"],
        "MODEL.ANCHOR_GENERATOR.SIZES": [[16, 32, 64]],
        "MODEL.ROI_HEADS.IN_FEATURES": ["res5"],
    },
    "other poolers and anchors": {
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
        "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
        "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIPool",
        "MODEL.ANCHOR_GENERATOR.OFFSET": 0.5,
        "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[1.0], [0.7], [1.0], [1.5], [1.0]],
    },
    "thresholds and weights": {
        "MODEL.RPN.IOU_THRESHOLDS": [0.2, 0.6],
        "MODEL.RPN.POSITIVE_FRACTION": 0.25,
        "MODEL.RPN.NMS_THRESH": 0.5,
        "MODEL.RPN.LOSS_WEIGHT": 0.5,
        "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.3],
        "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.3,
        "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": [5.0, 5.0, 2.0, 2.0],
        "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": 3.0,
        "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": 6,
    },
    "cascade with other stages": CASCADE
    | {
        "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.4],
        "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": [0.4, 0.5, 0.6],
        "MODEL.ROI_BOX_HEAD.NORM": "GN",
        "MODEL.ROI_BOX_HEAD.NUM_CONV": 1,
        "MODEL.ROI_BOX_HEAD.CONV_DIM": 32,
    },
    "last stage as head": C4,
    "without masks, proposals only": {
        "MODEL.MASK_ON": False,
        "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": False,
        "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.3],
    },
}


def variants() -> dict[str, Any]:
    """One training step and one prediction of a small model for each variant."""
    return {name: _variant(options) for name, options in VARIANTS.items()}


def _variant(options: Options) -> dict[str, Any]:
    model = build_model(build_cfg(R18, SMALL, options))
    set_parameters(model, predictor_gain=0.1)
    batch = model_inputs()
    return {
        "cells in both images": training_step(model, batch),
        "cells in one image": training_step(model, [batch[0], without_cells(batch[1])]),
        "no cells": training_step(model, [without_cells(sample) for sample in batch]),
        "detections": detections_of(model.eval(), batch),
    }


def without_cells(sample: dict[str, Any]) -> dict[str, Any]:
    image_hw = sample["instances"].image_size
    none = Instances(image_hw, gt_boxes=Boxes(torch.zeros(0, 4)))
    none.gt_classes = torch.zeros(0, dtype=torch.int64)
    none.gt_masks = BitMasks(torch.zeros(0, *image_hw, dtype=torch.bool))
    return {**sample, "instances": none}


def training_step(model: Any, batch: list[dict[str, Any]]) -> dict[str, Any]:
    model.train()
    model.zero_grad()
    torch.manual_seed(4)
    with EventStorage():
        losses = model(batch)
    sum(losses.values()).backward()
    return {
        "losses": {name: numbers(loss) for name, loss in losses.items()},
        "gradients": _norms(model),
    }


def _norms(model: torch.nn.Module) -> dict[str, float]:
    """Norm of the gradients of each part of a model, such as "roi_heads.mask_head"."""
    squares: dict[str, float] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            part = ".".join(name.split(".")[:2])
            square = float(parameter.grad.double().square().sum())
            squares[part] = squares.get(part, 0.0) + square
    return {part: numbers(square**0.5) for part, square in squares.items()}


@torch.no_grad()
def detections_of(model: Any, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for cells in (output["instances"] for output in model(batch)):
        fields = {
            "boxes": numbers(cells.pred_boxes.tensor),
            "scores": numbers(cells.scores),
            "classes": cells.pred_classes.tolist(),
        }
        if cells.has("pred_masks"):
            fields["masks"] = [run_lengths(mask) for mask in cells.pred_masks.numpy()]
        found.append(fields)
    return found


def augmented_at_test_time() -> list[dict[str, Any]]:
    """Detections merged from three sizes, as they are and mirrored."""
    sizes: Options = {"TEST.AUG.MIN_SIZES": [80, 96, 112], "TEST.AUG.MAX_SIZE": 160}
    cfg = build_cfg(R18, SMALL, sizes)
    model = build_model(cfg).eval()
    set_parameters(model, predictor_gain=0.1)
    batch = [{"image": sample["image"]} for sample in model_inputs()]
    batch = [s | {"height": s["image"].shape[1], "width": s["image"].shape[2]} for s in batch]
    return detections_of(GeneralizedRCNNWithTTA(cfg, model), batch)
