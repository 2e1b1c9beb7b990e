"""Detectron2's Mask R-CNN behind the calling contract of torchvision's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from cellseg.arguments import FLAG, array_of, check_argument, checked, either, of_type, or_nothing
from cellseg.config.engine_keys import ENGINE_RULES
from cellseg.errors import CheckpointError, ConfigError, InputTypeError
from cellseg.modeling.building import build_model
from cellseg.modeling.pasting import paste_soft_masks, scale_boxes, sort_by_score
from cellseg.modeling.torchvision_keywords import (
    IMAGENET_BACKBONE,
    is_imagenet,
    resnet50_fpn_config,
)
from cellseg.modeling.validation import check_images, check_targets
from cellseg.modeling.weights import load_weights
from cellseg.rules import PATH, number
from cellseg.training_data.augmentations import input_scale, scale_hw
from cellseg.training_data.uncounted_regions import UncountedRegions
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage, has_event_storage
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor

LOSS_NAMES = {
    "loss_cls": "loss_classifier",
    "loss_rpn_cls": "loss_objectness",
    "loss_rpn_loc": "loss_rpn_box_reg",
}

_MASKS = either(of_type(Tensor, "a tensor of soft masks"), array_of(2, 3, 4, words="an array"))
_WEIGHTS = or_nothing(either(PATH, of_type(Enum, "a member of torchvision's enum")))
_NORM = or_nothing(ENGINE_RULES["MODEL.RESNETS.NORM"])


class MaskRCNN(TorchvisionMaskRCNN):
    """The model that a configuration builds, called as torchvision's Mask R-CNN is.

    Its modules, parameters and `state_dict` are those of the Detectron2 model itself, under the
    same names: `torch.save(model.state_dict(), path)` gives a file for `MODEL.WEIGHTS`, and
    `load_weights` reads the checkpoints of `tools/train_net.py`.

    It is a torchvision `MaskRCNN` for code that asks with `isinstance` whether there are masks, as
    the evaluation of torchvision's references does. Of that class it has the calls and nothing
    else: no `transform`, no `rpn`, none of its heads. docs/torchvision.md lists the differences.

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
        check_argument("cfg", cfg, of_type(CfgNode, "a config, as load_config gives it"))
        nn.Module.__init__(self)  # torchvision's own would build torchvision's modules
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
        load_weights(self.detector, path, partial=partial, cfg=self.cfg)
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
                the background) and `masks` (uint8 or bool [N, H, W]); N may be 0. `uncounted` (the
                same, [H, W]) may be there: where nobody counted cells, which no loss takes for
                background. Not looked at in evaluation mode.

        Returns:
            In training mode a dict of scalar losses: `loss_classifier`, `loss_box_reg`,
            `loss_mask`, `loss_objectness`, `loss_rpn_box_reg`, and what a custom head adds.
            In evaluation mode per image a dict of `boxes` (float [N, 4]), `labels` (int64 [N],
            1-based), `scores` (float [N]) and `masks` (float [N, 1, H, W], soft, in 0 to 1), in
            the frame of the image that was given in and by descending score; N may be 0. The
            masks take N * H * W floats.

        Raises:
            InputTypeError, InputValueError: naming the image and the field.
            ConfigError: a predictor of torchvision was put into the heads.
        """
        self._check_modules()
        check_images(images, len(self.cfg.MODEL.PIXEL_MEAN))
        images_hw = [(image.shape[1], image.shape[2]) for image in images]
        if not self.training:
            return self._predict_images([self._network_input(image) for image in images], images_hw)
        check_targets(targets, images_hw, self.num_classes)
        inputs = [self._network_input(image) for image in images]
        for item, target in zip(inputs, targets or ()):
            item["instances"] = _target_to_instances(target, item["image"].shape[1:])
        return self._training_losses(inputs)

    def _check_modules(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, FastRCNNPredictor | MaskRCNNPredictor):
                raise ConfigError(
                    f"{name} is torchvision's {type(module).__name__}, which Detectron2's heads "
                    "cannot use; build the model with the num_classes that you need, and give "
                    "`weights` to keep the rest of a trained one (docs/torchvision.md)"
                )
        dtype = next(self.detector.parameters()).dtype
        if dtype in (torch.float16, torch.bfloat16):
            raise InputTypeError(
                f"the model's weights are {dtype}; keep them float32 and call the model under "
                "torch.autocast"
            )

    def _training_losses(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        # Detectron2's heads report their statistics to an open EventStorage and fail without one.
        with nullcontext() if has_event_storage() else EventStorage():
            losses = self.detector(inputs)
        return {LOSS_NAMES.get(name, name): loss for name, loss in losses.items()}

    @torch.no_grad()
    def _predict_images(
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
        size = scale_hw(size, input_scale(self.cfg))
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


@checked(weights=_WEIGHTS, progress=FLAG, norm=_NORM)
def maskrcnn_resnet50_fpn(
    num_classes: int = 2,
    *,
    weights: str | Path | None = None,
    weights_backbone: Any = None,
    progress: bool = True,
    norm: str | None = None,
    **settings: Any,
) -> MaskRCNN:
    """Mask R-CNN with a ResNet-50 and a feature pyramid, set up for cells, on the CPU.

    Args:
        num_classes: with the background, as torchvision counts; 2 is one kind of cell.
        weights: a checkpoint file to start from. Parameters that do not fit (other classes) keep
            their random values and are logged. None: from scratch.
        weights_backbone: "IMAGENET1K_V1", or that member of torchvision's enum: the backbone starts
            from ImageNet. None: from scratch.
        progress: not used; torchvision's builders have it.
        norm: normalization of backbone and pyramid: "GN" learns from scratch and at small
            batches; "FrozenBN" is what Detectron2's model zoo was trained with (its pixel means
            and strides then hold too, and the pyramid has no normalization); also "BN", "SyncBN".
            None: "FrozenBN" with `weights_backbone`, else "GN".
        **settings: torchvision's keywords, with torchvision's meaning: `min_size` (px, shorter
            side; an int or a choice of several for training; 0 keeps the size), `max_size` (px),
            `rpn_pre_nms_top_n_train`, `rpn_pre_nms_top_n_test`, `rpn_post_nms_top_n_train`,
            `rpn_post_nms_top_n_test`, `rpn_nms_thresh`, `rpn_batch_size_per_image`,
            `rpn_positive_fraction`, `box_score_thresh`, `box_nms_thresh`,
            `box_detections_per_img` (500 by default: cells are many),
            `box_batch_size_per_image`, `box_positive_fraction`, `rpn_fg_iou_thresh`,
            `rpn_bg_iou_thresh`, `box_fg_iou_thresh`, `box_bg_iou_thresh`, `bbox_reg_weights`,
            `image_mean`, `image_std` (RGB, 0 to 1); `trainable_backbone_layers` (0 to 5; None is 3
            with `weights_backbone`, else all); and `anchor_sizes` (px, one per pyramid level, 16
            to 256 by default).

    Raises:
        TypeError: a keyword that is not known.
        ValueError: fewer than 2 classes, or a value out of range.
        CheckpointError: `weights` is missing or nothing in it fits.
    """
    if isinstance(weights, Enum) or weights in ("DEFAULT", "COCO_V1"):
        raise CheckpointError(
            f"weights is {weights}: torchvision's Mask R-CNN does not fit Detectron2's; give the "
            'file of a training, or weights_backbone="IMAGENET1K_V1"'
        )
    imagenet = is_imagenet(weights_backbone)
    model = MaskRCNN(resnet50_fpn_config(num_classes, norm, settings, imagenet=imagenet))
    if imagenet and weights is None:
        weights = IMAGENET_BACKBONE
    return model if weights is None else model.load_weights(weights, partial=True)


@checked(masks=_MASKS, threshold=number(0, 1))
def binarize(masks: Tensor, threshold: float = 0.5) -> Tensor:
    """Soft masks to the final segmentation: bool of the same shape, True where `>= threshold`."""
    return masks >= threshold


def _draw_size(sizes: CfgNode) -> int:
    """A shorter side for one training image: one of the choices, or from the range they span."""
    choices = list(sizes.MIN_SIZE_TRAIN)
    if sizes.MIN_SIZE_TRAIN_SAMPLING == "range":
        return int(torch.randint(choices[0], choices[-1] + 1, ()))
    return choices[int(torch.randint(len(choices), ()))]


def _target_to_instances(target: Mapping[str, Tensor], network_hw: Sequence[int]) -> Instances:
    (height, width), (network_h, network_w) = target["masks"].shape[1:], network_hw
    boxes = Boxes(target["boxes"].float().clone())
    boxes.scale(network_w / width, network_h / height)
    instances = Instances(
        (network_h, network_w),
        gt_boxes=boxes,
        gt_classes=target["labels"] - 1,
        gt_masks=BitMasks(_resize_masks(target["masks"], network_hw)),
    )
    if "uncounted" in target:
        uncounted = _resize_masks(target["uncounted"][None], network_hw)[0]
        instances.uncounted = UncountedRegions.of_cells(uncounted, len(instances))
    return instances


def _resize_masks(masks: Tensor, network_hw: Sequence[int]) -> Tensor:
    """uint8 or bool [N, H, W] to bool in the network's size."""
    if masks.shape[1:] == tuple(network_hw):
        return masks.bool()
    sizes = zip(masks.shape[1:], network_hw)
    rows, cols = (_nearest_sources(old, new, masks.device) for old, new in sizes)
    return masks.bool()[:, rows][:, :, cols]


def _nearest_sources(old: int, new: int, device: torch.device) -> Tensor:
    """Index of the old pixel under the centre of each new one: int64[new]."""
    return ((torch.arange(new, device=device) + 0.5) * old / new).long().clamp(max=old - 1)


def _instances_to_dict(instances: Instances, image_hw: tuple[int, int]) -> dict[str, Tensor]:
    instances = sort_by_score(instances)
    boxes, kept = scale_boxes(instances, image_hw)
    return {
        "boxes": boxes,
        "labels": instances.pred_classes[kept] + 1,
        "scores": instances.scores[kept].float(),  # bfloat16 under autocast
        "masks": paste_soft_masks(instances.pred_masks[kept], boxes, image_hw)[:, None],
    }
