"""What models compute with fixed parameters on fixed images, from feature maps to masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from comparison import numbers, summary
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from fixed_numbers import model_inputs, set_parameters

Options = dict[str, Any]

MASK_RCNN: Options = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.MASK_ON": True,
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[8], [16], [32], [64], [128]],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
}
CASCADE: Options = {
    "MODEL.ROI_HEADS.NAME": "CascadeROIHeads",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
}
R18: Options = {"MODEL.RESNETS.DEPTH": 18, "MODEL.RESNETS.RES2_OUT_CHANNELS": 64}
SMALL: Options = {
    "MODEL.PIXEL_STD": [58.0, 57.0, 56.0],
    "MODEL.FPN.OUT_CHANNELS": 32,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[16], [24], [32], [64], [96]],
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 32,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 100,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 60,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 60,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 30,
    "MODEL.ROI_HEADS.NUM_CLASSES": 2,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.01,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 64,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 32,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 2,
    "TEST.DETECTIONS_PER_IMAGE": 12,
}
# Deeper networks with group norm amplify rounding errors, which hides what is looked for.
R18_GN: Options = {
    **R18,
    "MODEL.RESNETS.NORM": "GN",
    "MODEL.FPN.NORM": "GN",
    "MODEL.FPN.OUT_CHANNELS": 64,
    "MODEL.BACKBONE.FREEZE_AT": 0,
}
OTHER_LOSSES: Options = {
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": "giou",
    "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": 2.0,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "diou",
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.5,
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 1,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 32,
    "MODEL.ROI_BOX_HEAD.NORM": "GN",
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": True,
    "MODEL.ROI_MASK_HEAD.NORM": "GN",
}


def build_cfg(*options: Options) -> CfgNode:
    """The defaults with the options of several dicts, the later ones winning."""
    cfg = get_cfg()
    for part in (MASK_RCNN, *options):
        cfg.merge_from_list([word for pair in part.items() for word in pair])
    return cfg


def mask_rcnn() -> dict[str, Any]:
    """Mask R-CNN R18-FPN with frozen batch norm and frozen first stages."""
    return _everything_of(build_cfg(R18, SMALL))


def cascade_mask_rcnn() -> dict[str, Any]:
    """Cascade Mask R-CNN R18-FPN that trains on polygons."""
    return _everything_of(build_cfg(R18, SMALL, CASCADE), polygons=True)


def mask_rcnn_group_norm() -> dict[str, Any]:
    """Group norm everywhere, nothing frozen, IoU losses, class-agnostic heads."""
    cfg = build_cfg(SMALL, R18_GN, OTHER_LOSSES)
    return _everything_of(cfg, predictor_gain=0.3)


def parameters() -> dict[str, Any]:
    """Name, shape and kind of everything in the models that are trained most.

    Shapes need no memory, so the models are built without any.
    """
    models = {
        f"{kind} R{depth}-FPN": build_cfg({"MODEL.DEVICE": "meta"}, backbone, heads)
        for kind, heads in (("Mask R-CNN", {}), ("Cascade Mask R-CNN", CASCADE))
        for depth, backbone in ((18, R18), (50, {}), (101, {"MODEL.RESNETS.DEPTH": 101}))
    }
    return {name: _parameters_of(cfg) for name, cfg in models.items()}


def _parameters_of(cfg: CfgNode) -> list[str]:
    """In the order of the model, which is also that of an optimizer's state."""
    with torch.device("meta"):
        model = build_model(cfg)
    saved = model.state_dict()
    kinds = {
        name: "trained" if value.requires_grad else "frozen"
        for name, value in model.named_parameters()
    }
    kinds |= {n: "buffer" if n in saved else "unsaved" for n, _ in model.named_buffers()}
    values = dict(model.named_parameters()) | dict(model.named_buffers())
    return [f"{name} {list(values[name].shape)} {kind}" for name, kind in kinds.items()]


def _everything_of(
    cfg: CfgNode, *, predictor_gain: float = 0.1, polygons: bool = False
) -> dict[str, Any]:
    model = build_model(cfg)
    set_parameters(model, predictor_gain)
    batch = model_inputs(polygons=polygons)
    return {
        **_stages(model, batch),
        **_training_step(model, batch),
        "detections": _detections(model.eval(), batch),
    }


@torch.no_grad()
def _stages(model: Any, batch: list[dict[str, Any]]) -> dict[str, Any]:
    """Feature maps, proposals, and what is sampled of anchors and proposals for training."""
    cells = [sample["instances"] for sample in batch]
    images = model.preprocess_image(batch)
    features = model.backbone(images.tensor)
    rpn = model.proposal_generator
    proposals, _ = rpn.eval()(images, features)
    anchors = rpn.anchor_generator([features[name] for name in rpn.in_features])
    torch.manual_seed(1)
    labels, _ = rpn.label_and_sample_anchors(anchors, cells)
    torch.manual_seed(2)
    found = [Instances(p.image_size, **p.get_fields()) for p in proposals]
    with EventStorage():
        sampled = model.roi_heads.label_and_sample_proposals(found, cells)
    return {
        "features": {name: summary(value) for name, value in features.items()},
        "anchors": {"count": sum(map(len, anchors)), "sum": numbers(_box_sum(anchors))},
        "sampled anchors": [
            {str(kind): (label == kind).nonzero().flatten().tolist() for kind in (0, 1)}
            for label in labels
        ],
        "proposals": [
            {"boxes": numbers(p.proposal_boxes.tensor), "logits": numbers(p.objectness_logits)}
            for p in proposals
        ],
        "sampled proposals": [
            {"boxes": numbers(p.proposal_boxes.tensor), "classes": p.gt_classes.tolist()}
            for p in sampled
        ],
    }


def _box_sum(anchors: list[Boxes]) -> torch.Tensor:
    return torch.cat([boxes.tensor for boxes in anchors]).double().sum(0)


def _training_step(model: Any, batch: list[dict[str, Any]]) -> dict[str, Any]:
    """Losses, gradients and logged figures of one step."""
    model.train()
    torch.manual_seed(3)
    with EventStorage() as storage:
        losses = model(batch)
    sum(losses.values()).backward()
    return {
        "losses": {name: numbers(loss) for name, loss in losses.items()},
        "events": {name: float(value) for name, (value, _) in storage.latest().items()},
        "gradients": {
            name: None if parameter.grad is None else summary(parameter.grad, count=5)
            for name, parameter in model.named_parameters()
        },
    }


@torch.no_grad()
def _detections(model: Any, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What an image ends in; and masks for boxes that are given instead of detected."""
    raw = model.inference(batch, do_postprocess=False)
    given = [
        Instances(
            cells.image_size, pred_boxes=cells.pred_boxes, pred_classes=1 - cells.pred_classes
        )
        for cells in raw
    ]
    masks_of_given = model.inference(batch, given, do_postprocess=False)
    return [
        {
            "boxes": numbers(done.pred_boxes.tensor),
            "scores": numbers(done.scores),
            "classes": done.pred_classes.tolist(),
            "masks": [run_lengths(mask) for mask in done.pred_masks.numpy()],
            "soft masks": summary(soft.pred_masks),
            "soft masks of the other class": summary(other.pred_masks),
        }
        for done, soft, other in zip(
            (out["instances"] for out in model(batch)), raw, masks_of_given
        )
    ]


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """COCO's compressed run lengths of a bool [H, W] mask."""
    rle = mask_util.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}
