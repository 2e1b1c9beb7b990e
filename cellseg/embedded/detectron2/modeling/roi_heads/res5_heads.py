"""Heads without a feature pyramid: the last stage of a ResNet, applied to each region ("C4")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, ImageList, Instances
from torch import nn

from ..backbone.resnet import BottleneckBlock, ResNet
from .base import (
    ROI_HEADS_REGISTRY,
    Features,
    Losses,
    ROIHeads,
    build_pooler,
    reject_keypoints,
    select_foreground_proposals,
)
from .fast_rcnn import FastRCNNOutputLayers
from .mask_head import build_mask_head

__all__ = ["Res5ROIHeads"]


@ROI_HEADS_REGISTRY.register()
class Res5ROIHeads(ROIHeads):
    """Box and mask predictions from res5 of each region, which both share.

    Args:
        in_features: name of the one feature map.
        pooler: pools it.
        res5: blocks to apply to the pooled features, as a module or a list.
        box_predictor: see `FastRCNNOutputLayers`.
        mask_head: see `BaseMaskRCNNHead`; None for no masks.
        kwargs: of `ROIHeads`.
    """

    @configurable
    def __init__(
        self,
        *,
        in_features: Sequence[str],
        pooler: nn.Module,
        res5: nn.Module | Sequence[nn.Module],
        box_predictor: nn.Module,
        mask_head: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.in_features = in_features
        self.pooler = pooler
        self.res5 = res5 if isinstance(res5, nn.Module) else nn.Sequential(*res5)
        self.box_predictor: Any = box_predictor
        self.mask_on = mask_head is not None
        if self.mask_on:
            self.mask_head: Any = mask_head

    @classmethod
    def from_config(  # type: ignore[override]
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]
    ) -> dict[str, Any]:
        reject_keypoints(cfg)
        names = cfg.MODEL.ROI_HEADS.IN_FEATURES
        if len(names) != 1:
            raise ValueError(f"Res5ROIHeads takes one feature map, not {names}.")
        pooler, shape = build_pooler(cfg.MODEL.ROI_BOX_HEAD, input_shape, names)
        res5, channels = cls._build_res5_block(cfg)
        arguments = super().from_config(cfg) | {
            "in_features": names,
            "pooler": pooler,
            "res5": res5,
            "box_predictor": FastRCNNOutputLayers(cfg, ShapeSpec(channels, 1, 1)),
        }
        if cfg.MODEL.MASK_ON:
            shape.channels = channels
            arguments["mask_head"] = build_mask_head(cfg, shape)
        return arguments

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Module, int]:
        """The blocks of res5 and the channels that come out."""
        options = cfg.MODEL.RESNETS
        channels = 8 * options.RES2_OUT_CHANNELS
        blocks = ResNet.make_stage(
            BottleneckBlock,
            num_blocks=3,
            in_channels=channels // 2,
            out_channels=channels,
            bottleneck_channels=8 * options.NUM_GROUPS * options.WIDTH_PER_GROUP,
            stride_per_block=[2, 1, 1],
            num_groups=options.NUM_GROUPS,
            norm=options.NORM,
            stride_in_1x1=options.STRIDE_IN_1X1,
        )
        return nn.Sequential(*blocks), channels

    def _shared_roi_transform(self, features: Features, boxes: list[Boxes]) -> torch.Tensor:
        return self.res5(self.pooler([features[name] for name in self.in_features], boxes))

    def forward(
        self,
        images: ImageList,
        features: Features,
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], Losses]:
        """See `ROIHeads.forward`; in training without the proposals."""
        if self.training:
            if targets is None:
                raise ValueError("The region heads need targets in training.")
            proposals = self.label_and_sample_proposals(proposals, targets)
        shared = self._shared_roi_transform(features, [p.proposal_boxes for p in proposals])
        predictions = self.box_predictor(shared.mean(dim=(2, 3)))
        if not self.training:
            detections, _ = self.box_predictor.inference(predictions, proposals)
            return self.forward_with_given_boxes(features, detections), {}
        losses = self.box_predictor.losses(predictions, proposals)
        if self.mask_on:
            foreground, masks = select_foreground_proposals(proposals, self.num_classes)
            losses.update(self.mask_head(shared[torch.cat(masks)], foreground))
        return [], losses

    def forward_with_given_boxes(
        self, features: Features, instances: list[Instances]
    ) -> list[Instances]:
        """See `StandardROIHeads.forward_with_given_boxes`."""
        if not self.mask_on:
            return instances
        shared = self._shared_roi_transform(features, [i.pred_boxes for i in instances])
        return self.mask_head(shared, instances)
