"""The standard set of region heads: boxes and masks."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from detectron2._missing import left_out_names
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, ImageList, Instances
from torch import nn

from ..poolers import ROIPooler
from .base import (
    ROI_HEADS_REGISTRY,
    Features,
    Losses,
    ROIHeads,
    build_pooler,
    build_roi_heads,
    reject_keypoints,
    select_foreground_proposals,
)
from .box_head import build_box_head
from .fast_rcnn import FastRCNNOutputLayers
from .mask_head import build_mask_head
from .res5_heads import Res5ROIHeads

__all__ = [
    "ROI_HEADS_REGISTRY",
    "ROIHeads",
    "Res5ROIHeads",
    "StandardROIHeads",
    "build_roi_heads",
    "select_foreground_proposals",
]


@ROI_HEADS_REGISTRY.register()
class StandardROIHeads(ROIHeads):
    """A box head and an optional mask head, which share nothing but the feature maps.

    Args:
        box_in_features: names of the feature maps for boxes.
        box_pooler: pools them.
        box_head: from pooled features to a vector.
        box_predictor: see `FastRCNNOutputLayers`.
        mask_in_features: names of the feature maps for masks; None for no mask head.
        mask_pooler: pools them; None if the head takes the dict of maps itself.
        mask_head: see `BaseMaskRCNNHead`.
        train_on_pred_boxes: train the mask head on predicted boxes instead of proposals.
        kwargs: of `ROIHeads`.
    """

    keypoint_on = False

    @configurable
    def __init__(
        self,
        *,
        box_in_features: Sequence[str],
        box_pooler: nn.Module,
        box_head: nn.Module,
        box_predictor: nn.Module,
        mask_in_features: Sequence[str] | None = None,
        mask_pooler: nn.Module | None = None,
        mask_head: nn.Module | None = None,
        train_on_pred_boxes: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.box_in_features = self.in_features = box_in_features
        self.box_pooler = box_pooler
        self.box_head: Any = box_head
        self.box_predictor: Any = box_predictor
        self.mask_on = mask_in_features is not None
        if mask_in_features is not None:
            self.mask_in_features, self.mask_pooler = mask_in_features, mask_pooler
            self.mask_head: Any = mask_head
        self.train_on_pred_boxes = train_on_pred_boxes

    @classmethod
    def from_config(  # type: ignore[override]
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]
    ) -> dict[str, Any]:
        reject_keypoints(cfg)
        arguments = super().from_config(cfg)
        arguments["train_on_pred_boxes"] = cfg.MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES
        for part in (cls._init_box_head, cls._init_mask_head):
            # Older subclasses define these as methods of the instance and call them themselves.
            if inspect.ismethod(part):
                arguments.update(part(cfg, input_shape))
        return arguments

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments of the constructor for the box head."""
        names = cfg.MODEL.ROI_HEADS.IN_FEATURES
        pooler, shape = build_pooler(cfg.MODEL.ROI_BOX_HEAD, input_shape, names)
        head = build_box_head(cfg, shape)
        return {
            "box_in_features": names,
            "box_pooler": pooler,
            "box_head": head,
            "box_predictor": FastRCNNOutputLayers(cfg, head.output_shape),
        }

    @classmethod
    def _init_mask_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments of the constructor for the mask head; none when it is off."""
        if not cfg.MODEL.MASK_ON:
            return {}
        names = cfg.MODEL.ROI_HEADS.IN_FEATURES
        pooler: ROIPooler | None = None
        shape: Any = {name: input_shape[name] for name in names}
        if cfg.MODEL.ROI_MASK_HEAD.POOLER_TYPE:
            pooler, shape = build_pooler(cfg.MODEL.ROI_MASK_HEAD, input_shape, names)
        return {
            "mask_in_features": names,
            "mask_pooler": pooler,
            "mask_head": build_mask_head(cfg, shape),
        }

    def forward(
        self,
        images: ImageList,
        features: Features,
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], Losses]:
        """See `ROIHeads.forward`."""
        if not self.training:
            detections = self._forward_box(features, proposals)
            return self.forward_with_given_boxes(features, detections), {}
        if targets is None:
            raise ValueError("The region heads need targets in training.")
        proposals = self.label_and_sample_proposals(proposals, targets)
        losses = self._training_losses(features, proposals, targets)
        return proposals, losses

    def _training_losses(
        self, features: Features, proposals: list[Instances], targets: list[Instances]
    ) -> Losses:
        losses = self._forward_box(features, proposals)
        masks = self._forward_mask(features, proposals)
        return {**losses, **masks, **self._forward_keypoint(features, proposals)}

    def forward_with_given_boxes(
        self, features: Features, instances: list[Instances]
    ) -> list[Instances]:
        """Predict what is not a box, for boxes that are known; only in testing.

        Args:
            features: feature maps [N, C, H, W] by name.
            instances: per image, with `pred_boxes` and `pred_classes`.

        Returns:
            The same instances, with `pred_masks` if there is a mask head.
        """
        return self._forward_keypoint(features, self._forward_mask(features, instances))

    def _forward_box(self, features: Features, proposals: list[Instances]) -> Any:
        """Losses in training, detections in testing.

        With `train_on_pred_boxes` the proposals get the predicted boxes.
        """
        predictions = self._predict_boxes(features, proposals)
        if not self.training:
            detections, _ = self.box_predictor.inference(predictions, proposals)
            return detections
        losses = self.box_predictor.losses(predictions, proposals)
        if self.train_on_pred_boxes:  # only now: the losses are about the proposals
            with torch.no_grad():
                boxes = self.box_predictor.predict_boxes_for_gt_classes(predictions, proposals)
            for instances, predicted in zip(proposals, boxes):
                instances.proposal_boxes = Boxes(predicted)
        return losses

    def _predict_boxes(self, features: Features, proposals: list[Instances]) -> Any:
        maps = [features[name] for name in self.box_in_features]
        pooled = self.box_pooler(maps, [p.proposal_boxes for p in proposals])
        return self.box_predictor(self.box_head(pooled))

    def _forward_mask(self, features: Features, instances: list[Instances]) -> Any:
        """Losses of the foreground in training; in testing the instances with `pred_masks`."""
        if not self.mask_on:
            return {} if self.training else instances
        box_name = "pred_boxes"
        if self.training:
            instances, _ = select_foreground_proposals(instances, self.num_classes)
            box_name = "proposal_boxes"
        inputs: Any = {name: features[name] for name in self.mask_in_features}
        if self.mask_pooler is not None:
            inputs = self.mask_pooler(list(inputs.values()), [i.get(box_name) for i in instances])
        return self.mask_head(inputs, instances)

    def _forward_keypoint(self, features: Features, instances: list[Instances]) -> Any:
        """Where subclasses add keypoints: no losses, or the instances as they are."""
        return {} if self.training else instances


__getattr__ = left_out_names(__name__, "select_proposals_with_visible_keypoints")
