"""Detectron2's Mask R-CNN behind the calling contract of torchvision's."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from cellseg.errors import ConfigError
from cellseg.inference.postprocess import paste_soft_masks, scale_boxes
from cellseg.modeling.validation import check_images, check_targets
from cellseg.modeling.weights import load_weights
from detectron2.config import CfgNode, get_cfg
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import GeneralizedRCNN, build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage, has_event_storage
from torch import Tensor, nn
from torch.nn.functional import interpolate

LOSS_NAMES = {
    "loss_cls": "loss_classifier",
    "loss_rpn_cls": "loss_objectness",
    "loss_rpn_loc": "loss_rpn_box_reg",
}

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


class MaskRCNN(nn.Module):
    """The model that a configuration builds, called as torchvision's Mask R-CNN is.

    Its modules, parameters and `state_dict` are those of the Detectron2 model itself, under the
    same names: `torch.save(model.state_dict(), path)` gives a file for `MODEL.WEIGHTS`, and
    `load_weights` reads the checkpoints of `tools/train_net.py`.

    Args:
        cfg: a configuration of Detectron2 with `MODEL.MASK_ON`; it is copied. `INPUT` gives sizes
            (0 keeps the size) and channel order, `MODEL.DEVICE` where the model is built ("cuda"
            becomes "cpu" where there is none). `MODEL.WEIGHTS` is not read: see `load_weights`.

    Raises:
        ConfigError: `MODEL.MASK_ON` is False.

    Attributes:
        cfg: the copy; `model.cfg.dump()` is a configuration file for the tools.
        detector: the Detectron2 model (`GeneralizedRCNN`, or what is called like it).
        num_classes: with the background, as torchvision counts.

    Example:
        >>> model = cellseg.maskrcnn_resnet50_fpn(num_classes=2).eval()  # doctest: +SKIP
        >>> cells = model([torch.rand(3, 256, 320)])[0]  # doctest: +SKIP
        >>> cellseg.binarize(cells["masks"]).shape  # doctest: +SKIP
        torch.Size([17, 1, 256, 320])
    """

    detector: GeneralizedRCNN

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        if not cfg.MODEL.MASK_ON:
            raise ConfigError("MODEL.MASK_ON is False; MaskRCNN needs a mask head: set it to True")
        self.cfg = cfg.clone()
        self.cfg.defrost()
        if not torch.cuda.is_available() and self.cfg.MODEL.DEVICE.startswith("cuda"):
            self.cfg.MODEL.DEVICE = "cpu"
        self.num_classes = self.cfg.MODEL.ROI_HEADS.NUM_CLASSES + 1
        detector = build_model(self.cfg)
        # One tree of modules under two roots, not a child: everything keeps the names that
        # Detectron2 gives it, in checkpoints, optimizer groups and when this model is nested.
        object.__setattr__(self, "detector", detector)
        for tree in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
            object.__setattr__(self, tree, getattr(detector, tree))

    def train(self, mode: bool = True) -> MaskRCNN:
        """Switch to training (or evaluation) mode."""
        self.detector.train(mode)
        return super().train(mode)

    def load_weights(self, path: str | Path, *, partial: bool = False) -> MaskRCNN:
        """Load a checkpoint; see `cellseg.modeling.load_weights` for what and its errors."""
        load_weights(self.detector, path, partial=partial)
        return self

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None
    ) -> Any:
        """Losses in training mode, cells in evaluation mode.

        Args:
            images: per image a float tensor [C, H, W] in 0 to 1, of any size, on any device; C is
                the model's (3: RGB) or 1 (grey, replicated).
            targets: in training mode per image a dict with `boxes` (float [N, 4], x1 y1 x2 y2,
                0 <= x1 < x2 <= W, 0 <= y1 < y2 <= H, pixels), `labels` (int64 [N], 1-based: 0 is
                the background) and `masks` (uint8 or bool [N, H, W]); N may be 0. Not looked at
                in evaluation mode.

        Returns:
            In training mode a dict of scalar losses: `loss_classifier`, `loss_box_reg`,
            `loss_mask`, `loss_objectness`, `loss_rpn_box_reg`, and what a custom head adds.
            In evaluation mode per image a dict of `boxes` (float [N, 4]), `labels` (int64 [N],
            1-based), `scores` (float [N]) and `masks` (float [N, 1, H, W], soft, in 0 to 1), in
            the frame of the image that was given in and by descending score; N may be 0. The
            masks take N * H * W floats.

        Raises:
            InputTypeError, InputValueError: naming the image and the field.
        """
        check_images(images, len(self.cfg.MODEL.PIXEL_MEAN))
        images_hw = [(image.shape[1], image.shape[2]) for image in images]
        if not self.training:
            return self._predict([self._network_input(image) for image in images], images_hw)
        check_targets(targets, images_hw, self.num_classes)
        inputs = [self._network_input(image) for image in images]
        for item, target in zip(inputs, targets or ()):
            item["instances"] = _target_to_instances(target, item["image"].shape[1:])
        return self._losses(inputs)

    def _losses(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        # Detectron2's heads report their statistics to an open EventStorage and fail without one.
        with nullcontext() if has_event_storage() else EventStorage():
            losses = self.detector(inputs)
        return {LOSS_NAMES.get(name, name): loss for name, loss in losses.items()}

    @torch.no_grad()
    def _predict(
        self, inputs: list[dict[str, Any]], images_hw: Sequence[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        detections = self.detector.inference(inputs, do_postprocess=False)
        return [_instances_to_dict(found, hw) for found, hw in zip(detections, images_hw)]

    def _network_input(self, image: Tensor) -> dict[str, Any]:
        """One item of the batch that Detectron2's model takes: resized, 0 to 255, its channels."""
        height, width = image.shape[1:]
        image = image.float().expand(len(self.cfg.MODEL.PIXEL_MEAN), -1, -1) * 255
        if self.cfg.INPUT.FORMAT == "BGR":
            image = image.flip(0)
        size = self._network_hw(height, width)
        if size != (height, width):
            image = interpolate(image[None], size=size, mode="bilinear", align_corners=False)[0]
        return {"image": image, "height": height, "width": width}

    def _network_hw(self, height: int, width: int) -> tuple[int, int]:
        sizes = self.cfg.INPUT
        shorter, longest = sizes.MIN_SIZE_TEST, sizes.MAX_SIZE_TEST
        if self.training:
            shorter, longest = _draw_size(sizes), sizes.MAX_SIZE_TRAIN
        if shorter == 0:
            return height, width
        return ResizeShortestEdge.get_output_shape(height, width, shorter, longest)


def maskrcnn_resnet50_fpn(
    num_classes: int = 2, *, weights: str | Path | None = None, norm: str = "GN", **settings: Any
) -> MaskRCNN:
    """Mask R-CNN with a ResNet-50 and a feature pyramid, set up for cells, on the CPU.

    Args:
        num_classes: with the background, as torchvision counts; 2 is one kind of cell.
        weights: a checkpoint file to start from. Parameters that do not fit (other classes) keep
            their random values and are logged. None: from scratch.
        norm: normalization of backbone and pyramid: "GN" learns from scratch and at small
            batches; "FrozenBN" is what Detectron2's model zoo was trained with (its pixel means
            and strides then hold too, and the pyramid has no normalization); also "BN", "SyncBN".
        **settings: torchvision's keywords, with torchvision's meaning: `min_size` (px, shorter
            side; an int or a choice of several for training; 0 keeps the size), `max_size` (px),
            `rpn_pre_nms_top_n_train`, `rpn_pre_nms_top_n_test`, `rpn_post_nms_top_n_train`,
            `rpn_post_nms_top_n_test`, `rpn_nms_thresh`, `rpn_batch_size_per_image`,
            `rpn_positive_fraction`, `box_score_thresh`, `box_nms_thresh`,
            `box_detections_per_img` (500 by default: cells are many),
            `box_batch_size_per_image`, `box_positive_fraction`; `trainable_backbone_layers`
            (0 to 5, all by default); and `anchor_sizes` (px, one per pyramid level, 8 to 128 by
            default).

    Raises:
        TypeError: a keyword that is not known.
        ValueError: fewer than 2 classes, or a value out of range.
        CheckpointError: `weights` is missing or nothing in it fits.
    """
    model = MaskRCNN(_resnet50_fpn_config(num_classes, norm, settings))
    return model if weights is None else model.load_weights(weights, partial=True)


def binarize(masks: Tensor, threshold: float = 0.5) -> Tensor:
    """Soft masks to the final segmentation: bool of the same shape, True where `>= threshold`."""
    return masks >= threshold


def _resnet50_fpn_config(num_classes: int, norm: str, settings: dict[str, Any]) -> CfgNode:
    if num_classes < 2:
        raise ValueError(f"num_classes is {num_classes}; it counts the background: at least 2")
    settings = {"box_detections_per_img": 500, "rpn_post_nms_top_n_test": 2000, **settings}
    anchor_sizes = settings.pop("anchor_sizes", (8, 16, 32, 64, 128))
    trainable = settings.pop("trainable_backbone_layers", 5)
    if trainable not in range(6):
        raise ValueError(f"trainable_backbone_layers is {trainable}; expected 0 to 5")
    if len(anchor_sizes) != 5:
        raise ValueError(f"anchor_sizes is {anchor_sizes}; expected 5, one per pyramid level")
    cfg = get_cfg()
    cfg.merge_from_list(RESNET50_FPN)
    if norm != "FrozenBN":
        cfg.merge_from_list([*CELL_INPUT, "MODEL.FPN.NORM", norm])
    cfg.MODEL.RESNETS.NORM = norm
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.FREEZE_AT = 5 - trainable
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = num_classes - 1
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[size] for size in anchor_sizes]
    _apply_keywords(cfg, settings)
    return cfg


def _apply_keywords(cfg: CfgNode, settings: dict[str, Any]) -> None:
    for name in settings.keys() - KEYWORDS.keys():
        near = difflib.get_close_matches(name, KEYWORDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise TypeError(f"maskrcnn_resnet50_fpn() has no keyword {name!r}{hint}")
    min_size = settings.get("min_size", cfg.INPUT.MIN_SIZE_TEST)
    choices = (min_size,) if isinstance(min_size, int) else tuple(min_size)
    cfg.INPUT.MIN_SIZE_TRAIN = choices
    cfg.INPUT.MAX_SIZE_TRAIN = settings.get("max_size", cfg.INPUT.MAX_SIZE_TRAIN)
    for name, value in {**settings, "min_size": choices[-1]}.items():
        is_threshold = name.endswith(("_thresh", "_fraction"))
        cfg.merge_from_list([KEYWORDS[name], float(value) if is_threshold else value])


def _draw_size(sizes: CfgNode) -> int:
    """A shorter side for one training image: one of the choices, or from the range they span."""
    choices = list(sizes.MIN_SIZE_TRAIN)
    if sizes.MIN_SIZE_TRAIN_SAMPLING == "range":
        return int(torch.randint(choices[0], choices[-1] + 1, ()))
    return choices[int(torch.randint(len(choices), ()))]


def _target_to_instances(target: Mapping[str, Tensor], network_hw: Sequence[int]) -> Instances:
    masks = target["masks"].bool()
    (height, width), (network_h, network_w) = masks.shape[1:], network_hw
    if (height, width) != (network_h, network_w):
        rows = _nearest(height, network_h, masks.device)
        masks = masks[:, rows][:, :, _nearest(width, network_w, masks.device)]
    boxes = Boxes(target["boxes"].float().clone())
    boxes.scale(network_w / width, network_h / height)
    return Instances(
        (network_h, network_w),
        gt_boxes=boxes,
        gt_classes=target["labels"] - 1,
        gt_masks=BitMasks(masks),
    )


def _nearest(old: int, new: int, device: torch.device) -> Tensor:
    """Index of the old pixel under the centre of each new one: int64[new]."""
    return ((torch.arange(new, device=device) + 0.5) * old / new).long().clamp(max=old - 1)


def _instances_to_dict(instances: Instances, image_hw: tuple[int, int]) -> dict[str, Tensor]:
    boxes, kept = scale_boxes(instances, image_hw)
    return {
        "boxes": boxes,
        "labels": instances.pred_classes[kept] + 1,
        "scores": instances.scores[kept],
        "masks": paste_soft_masks(instances.pred_masks[kept], boxes, image_hw)[:, None],
    }
