"""torchvision's keywords for a Mask R-CNN, as a configuration of Detectron2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cellseg.arguments import REAL, check_argument, either, or_nothing, several
from cellseg.config.engine_keys import ENGINE_RULES
from cellseg.errors import InputTypeError, InputValueError
from cellseg.names import find_near_names
from cellseg.rules import Rule, number
from detectron2.config import CfgNode, get_cfg

# torchvision's keyword -> the key of Detectron2 that means the same.
KEYWORDS = {
    "min_size": "INPUT.MIN_SIZE_TEST",
    "max_size": "INPUT.MAX_SIZE_TEST",
    "rpn_pre_nms_top_n_train": "MODEL.RPN.PRE_NMS_TOPK_TRAIN",
    "rpn_pre_nms_top_n_test": "MODEL.RPN.PRE_NMS_TOPK_TEST",
    "rpn_post_nms_top_n_train": "MODEL.RPN.POST_NMS_TOPK_TRAIN",
    "rpn_post_nms_top_n_test": "MODEL.RPN.POST_NMS_TOPK_TEST",
    "rpn_nms_thresh": "MODEL.RPN.NMS_THRESH",
    "rpn_batch_size_per_image": "MODEL.RPN.BATCH_SIZE_PER_IMAGE",
    "rpn_positive_fraction": "MODEL.RPN.POSITIVE_FRACTION",
    "box_score_thresh": "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
    "box_nms_thresh": "MODEL.ROI_HEADS.NMS_THRESH_TEST",
    "box_detections_per_img": "TEST.DETECTIONS_PER_IMAGE",
    "box_batch_size_per_image": "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE",
    "box_positive_fraction": "MODEL.ROI_HEADS.POSITIVE_FRACTION",
}
_CLASSES = number(2, 100_000, whole=True).remark("it counts the background")
_IOU = number(above=0, high=1)
_RGB = several(REAL, "three numbers, for red, green and blue")
KEYWORD_RULES: dict[str, Rule] = {
    **{name: ENGINE_RULES[key] for name, key in KEYWORDS.items()},
    "min_size": either(ENGINE_RULES["INPUT.MIN_SIZE_TEST"], ENGINE_RULES["INPUT.MIN_SIZE_TRAIN"]),
    "image_mean": or_nothing(_RGB),
    "image_std": or_nothing(_RGB),
    **dict.fromkeys(("rpn_fg_iou_thresh", "rpn_bg_iou_thresh"), _IOU),
    **dict.fromkeys(("box_fg_iou_thresh", "box_bg_iou_thresh"), _IOU),
    "bbox_reg_weights": or_nothing(ENGINE_RULES["MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS"]),
    "trainable_backbone_layers": or_nothing(number(0, 5, whole=True)),
    "anchor_sizes": several(number(above=0), "five lengths in pixels, one per pyramid level"),
}
"""What each of torchvision's keywords may be."""

# Modules of torchvision's own model: what they are asked for, Detectron2's model has elsewhere.
FOREIGN_MODULES = (
    *("rpn_anchor_generator", "rpn_head", "box_roi_pool", "box_head", "box_predictor"),
    *("mask_roi_pool", "mask_head", "mask_predictor"),
)

# What configs/base_mask_rcnn_R_50_FPN.yaml sets, so that checkpoints go both ways.
RESNET50_FPN = [
    *("MODEL.MASK_ON", True),
    *("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"),
    *("MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"]),
    *("MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4", "res5"]),
    *("MODEL.RPN.IN_FEATURES", ["p2", "p3", "p4", "p5", "p6"]),
    *("MODEL.ROI_HEADS.NAME", "StandardROIHeads"),
    *("MODEL.ROI_HEADS.IN_FEATURES", ["p2", "p3", "p4", "p5"]),
    *("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead"),
    *("MODEL.ROI_BOX_HEAD.NUM_FC", 2),
    *("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7),
    *("MODEL.ROI_MASK_HEAD.NUM_CONV", 4),
    *("MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", 14),
    *("INPUT.MASK_FORMAT", "bitmask"),
]
# Grey microscopy replicated to three channels; frozen batch norm instead comes with weights that
# expect Detectron2's own means, deviations and strides.
CELL_INPUT = [
    *("MODEL.PIXEL_MEAN", [64.0, 64.0, 64.0]),
    *("MODEL.PIXEL_STD", [64.0, 64.0, 64.0]),
    *("MODEL.RESNETS.STRIDE_IN_1X1", False),
]
# What goes with a backbone that torchvision trained on ImageNet (docs/weights.md).
IMAGENET_BACKBONE = "torchvision://resnet50"
IMAGENET_INPUT = [
    *("MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53]),
    *("MODEL.PIXEL_STD", [58.395, 57.12, 57.375]),
    *("MODEL.RESNETS.STRIDE_IN_1X1", False),
    *("INPUT.FORMAT", "RGB"),
]


def resnet50_fpn_config(
    num_classes: int, norm: str | None, settings: dict[str, Any], *, imagenet: bool = False
) -> CfgNode:
    """The configuration of `maskrcnn_resnet50_fpn`, which lists the keywords and the errors.

    Args:
        num_classes: how many classes there are, with the background.
        norm: normalization; None takes what goes with the weights.
        settings: torchvision's keywords that were given, by name.
        imagenet: the backbone starts from torchvision's ImageNet weights.
    """
    check_argument("num_classes", num_classes, _CLASSES)
    for name in settings.keys() & KEYWORD_RULES.keys():
        check_argument(name, settings[name], KEYWORD_RULES[name])
    norm = norm or ("FrozenBN" if imagenet else "GN")
    if imagenet and norm == "GN":
        raise InputValueError(
            "norm is 'GN'; the ImageNet weights need batch norm: 'FrozenBN', 'BN' or 'SyncBN'"
        )
    settings = {"box_detections_per_img": 500, "rpn_post_nms_top_n_test": 2000, **settings}
    cfg = get_cfg()
    cfg.merge_from_list(RESNET50_FPN)
    if imagenet:
        cfg.merge_from_list(IMAGENET_INPUT)
    elif norm != "FrozenBN":
        cfg.merge_from_list([*CELL_INPUT, "MODEL.FPN.NORM", norm])
    cfg.MODEL.RESNETS.NORM = norm
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes - 1
    _take_layers(cfg, settings, imagenet)
    _take_pixels(cfg, settings)
    _take_overlaps(cfg, settings)
    _apply_keywords(cfg, settings)
    return cfg


def is_imagenet(weights_backbone: Any) -> bool:
    """Whether `weights_backbone`, a name or a member of torchvision's enum, asks for ImageNet's.

    Raises:
        ValueError: other weights than `IMAGENET1K_V1`.
    """
    if weights_backbone is None:
        return False
    if str(weights_backbone).rpartition(".")[2] != "IMAGENET1K_V1":
        raise InputValueError(
            f"weights_backbone is {weights_backbone}; expected IMAGENET1K_V1 or None"
        )
    return True


def _take_layers(cfg: CfgNode, settings: dict[str, Any], imagenet: bool) -> None:
    """What is trained, and the anchors of each level."""
    trainable = settings.pop("trainable_backbone_layers", None)
    if trainable is None:
        trainable = 3 if imagenet else 5
    cfg.MODEL.BACKBONE.FREEZE_AT = 5 - trainable
    anchor_sizes = settings.pop("anchor_sizes", (16, 32, 64, 128, 256))
    if len(anchor_sizes) != 5:
        raise InputValueError(f"anchor_sizes is {anchor_sizes}; expected 5, one per pyramid level")
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[size] for size in anchor_sizes]


def _take_pixels(cfg: CfgNode, settings: dict[str, Any]) -> None:
    """torchvision counts intensities from 0 to 1 and channels as RGB."""
    for name, key in (("image_mean", "PIXEL_MEAN"), ("image_std", "PIXEL_STD")):
        values = settings.pop(name, None)
        if values is not None:
            channels = values[::-1] if cfg.INPUT.FORMAT == "BGR" else values
            cfg.MODEL[key] = [255.0 * value for value in channels]


def _take_overlaps(cfg: CfgNode, settings: dict[str, Any]) -> None:
    """Which IoU makes an anchor or a proposal an object, and what a box regression is scaled by."""
    for part, prefix in ((cfg.MODEL.RPN, "rpn"), (cfg.MODEL.ROI_HEADS, "box")):
        low, high = part.IOU_THRESHOLDS[0], part.IOU_THRESHOLDS[-1]
        low = settings.pop(f"{prefix}_bg_iou_thresh", low)
        high = settings.pop(f"{prefix}_fg_iou_thresh", high)
        if low > high:
            raise InputValueError(
                f"{prefix}_bg_iou_thresh {low} is above {prefix}_fg_iou_thresh {high}"
            )
        part.IOU_THRESHOLDS = [low, high] if low < high else [high]
        part.IOU_LABELS = [0, -1, 1] if low < high else [0, 1]
    weights: Sequence[float] | None = settings.pop("bbox_reg_weights", None)
    if weights is not None:
        cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS = tuple(weights)


def _apply_keywords(cfg: CfgNode, settings: dict[str, Any]) -> None:
    skip_resize = settings.pop("_skip_resize", False)  # references/detection with its own resizing
    for name in settings.keys() - KEYWORDS.keys():
        raise InputTypeError(
            f"maskrcnn_resnet50_fpn() has no keyword {name!r}{_hint_for_keyword(name)}"
        )
    min_size = settings.get("min_size", cfg.INPUT.MIN_SIZE_TEST)
    choices = (min_size,) if isinstance(min_size, int) else tuple(min_size)
    cfg.INPUT.MIN_SIZE_TRAIN = (0,) if skip_resize else choices
    cfg.INPUT.MAX_SIZE_TRAIN = settings.get("max_size", cfg.INPUT.MAX_SIZE_TRAIN)
    for name, value in {**settings, "min_size": choices[-1]}.items():
        is_threshold = name.endswith(("_thresh", "_fraction"))
        cfg.merge_from_list([KEYWORDS[name], float(value) if is_threshold else value])


def _hint_for_keyword(name: str) -> str:
    if name in FOREIGN_MODULES:
        return ": a module of torchvision does not fit Detectron2's model; see docs/custom_head.md"
    near = find_near_names(name, KEYWORDS, 1)
    return f"; did you mean {near[0]!r}?" if near else ""
