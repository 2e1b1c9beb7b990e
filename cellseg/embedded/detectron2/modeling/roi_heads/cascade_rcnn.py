"""Box heads in a row, each with stricter matches (Cai and Vasconcelos, arXiv:1712.00726)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import get_event_storage
from torch import nn

from ..box_regression import Box2BoxTransform
from ..matcher import Matcher
from .base import ROI_HEADS_REGISTRY, Features, Losses, build_pooler
from .box_head import build_box_head
from .fast_rcnn import FastRCNNOutputLayers, fast_rcnn_inference
from .roi_heads import StandardROIHeads

__all__ = ["CascadeROIHeads"]


class _ScaleGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by a constant."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        return grad * ctx.factor, None


@ROI_HEADS_REGISTRY.register()
class CascadeROIHeads(StandardROIHeads):
    """`StandardROIHeads` with several box stages; each refines the boxes of the one before.

    Args:
        box_in_features, box_pooler: as there; the stages share them.
        box_heads: one per stage.
        box_predictors: one per stage; the same box whatever the class.
        proposal_matchers: one per stage; the first labels the proposals.
        kwargs: of `StandardROIHeads`, without a `proposal_matcher`.

    Raises:
        ValueError: the lists differ in length.
    """

    @configurable
    def __init__(
        self,
        *,
        box_in_features: Sequence[str],
        box_pooler: nn.Module,
        box_heads: Sequence[nn.Module],
        box_predictors: Sequence[nn.Module],
        proposal_matchers: Sequence[Matcher],
        **kwargs: Any,
    ) -> None:
        lengths = {len(box_heads), len(box_predictors), len(proposal_matchers)}
        if len(lengths) != 1:
            raise ValueError("A cascade needs as many heads as predictors and matchers.")
        super().__init__(
            box_in_features=box_in_features,
            box_pooler=box_pooler,
            box_head=nn.ModuleList(box_heads),
            box_predictor=nn.ModuleList(box_predictors),
            proposal_matcher=proposal_matchers[0],
            **kwargs,
        )
        self.proposal_matchers = proposal_matchers
        self.num_cascade_stages = len(box_heads)

    @classmethod
    def from_config(  # type: ignore[override]
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]
    ) -> dict[str, Any]:
        arguments = super().from_config(cfg, input_shape)
        del arguments["proposal_matcher"]
        return arguments

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        ious = cfg.MODEL.ROI_BOX_CASCADE_HEAD.IOUS
        weights = cfg.MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS
        _check_cascade_config(cfg)
        names = cfg.MODEL.ROI_HEADS.IN_FEATURES
        pooler, shape = build_pooler(cfg.MODEL.ROI_BOX_HEAD, input_shape, names)
        heads, predictors = [], []
        for stage_weights in weights:
            head = build_box_head(cfg, shape)
            transform = Box2BoxTransform(stage_weights)
            heads.append(head)
            predictors.append(
                FastRCNNOutputLayers(cfg, head.output_shape, box2box_transform=transform)
            )
        return {
            "box_in_features": names,
            "box_pooler": pooler,
            "box_heads": heads,
            "box_predictors": predictors,
            "proposal_matchers": [Matcher([iou], [0, 1]) for iou in ious],
        }

    def _training_losses(
        self, features: Features, proposals: list[Instances], targets: list[Instances]
    ) -> Losses:
        losses = self._forward_box(features, proposals, targets)
        return {**losses, **self._forward_mask(features, proposals)}

    def _forward_box(
        self,
        features: Features,
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> Any:
        """Losses of all stages, by name with `_stage<k>` behind; detections in testing.

        Detections have the boxes of the last stage and the mean scores of all.
        """
        maps = [features[name] for name in self.box_in_features]
        image_sizes = [p.image_size for p in proposals]
        losses: Losses = {}
        probabilities = []
        boxes: Sequence[torch.Tensor] = []
        for stage, predictor in enumerate(self.box_predictor):
            if stage > 0:
                proposals = self._create_proposals_from_boxes(boxes, image_sizes)
            if self.training and stage > 0:
                proposals = self._match_and_label_boxes(proposals, stage, targets or [])
            predictions = self._run_stage(maps, proposals, stage)
            boxes = predictor.predict_boxes(predictions, proposals)
            if self.training:
                losses.update(_stage_losses(predictor, predictions, proposals, stage))
            else:
                probabilities.append(predictor.predict_probs(predictions, proposals))
        if self.training:
            return losses
        scores = [sum(stages) / self.num_cascade_stages for stages in zip(*probabilities)]
        options = ("test_score_thresh", "test_nms_thresh", "test_topk_per_image")
        limits = [getattr(self.box_predictor[-1], name) for name in options]
        detections, _ = fast_rcnn_inference(boxes, scores, image_sizes, *limits)
        return detections

    def _run_stage(
        self, maps: list[torch.Tensor], proposals: list[Instances], stage: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = self.box_pooler(maps, [p.proposal_boxes for p in proposals])
        if self.training:
            # the stages add up in the backbone: together they weigh as much as one head
            pooled = _ScaleGradient.apply(pooled, 1.0 / self.num_cascade_stages)
        return self.box_predictor[stage](self.box_head[stage](pooled))

    def _create_proposals_from_boxes(
        self, boxes: Sequence[torch.Tensor], image_sizes: Sequence[tuple[int, int]]
    ) -> list[Instances]:
        """Proposals of the next stage; boxes without area are dropped in training alone.

        In testing the rows of all stages must stay aligned, for their scores are averaged.
        """
        proposals = []
        for predicted, image_size in zip(boxes, image_sizes):
            clipped = Boxes(predicted.detach())
            clipped.clip(image_size)
            if self.training:
                clipped = clipped[clipped.nonempty()]
            proposals.append(Instances(image_size, proposal_boxes=clipped))
        return proposals

    @torch.no_grad()
    def _match_and_label_boxes(
        self, proposals: list[Instances], stage: int, targets: Sequence[Instances]
    ) -> list[Instances]:
        """Give all proposals `gt_classes` and `gt_boxes` by the matcher of a stage; in place."""
        foreground = []
        for instances, target in zip(proposals, targets):
            quality = pairwise_iou(target.gt_boxes, instances.proposal_boxes)
            matches, labels = self.proposal_matchers[stage](quality)
            instances.gt_classes = torch.full_like(matches, self.num_classes)
            instances.gt_boxes = Boxes(torch.zeros_like(instances.proposal_boxes.tensor))
            if len(target) > 0:
                classes = target.gt_classes[matches]
                instances.gt_classes = classes.masked_fill(labels == 0, self.num_classes)
                instances.gt_boxes = target.gt_boxes[matches]
            foreground.append((labels == 1).sum())
        num_foreground = int(torch.stack(foreground).sum())
        num_background = sum(map(len, proposals)) - num_foreground
        for name, count in (("fg", num_foreground), ("bg", num_background)):
            get_event_storage().put_scalar(
                f"stage{stage}/roi_head/num_{name}_samples", count / len(proposals)
            )
        return proposals


def _check_cascade_config(cfg: CfgNode) -> None:
    cascade = cfg.MODEL.ROI_BOX_CASCADE_HEAD
    if len(cascade.IOUS) != len(cascade.BBOX_REG_WEIGHTS):
        raise ValueError("MODEL.ROI_BOX_CASCADE_HEAD: IOUS and BBOX_REG_WEIGHTS differ in length.")
    if not cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG:
        raise ValueError("CascadeROIHeads needs MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG: True.")
    if cascade.IOUS[0] != cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS[0]:
        raise ValueError(
            "The first of MODEL.ROI_BOX_CASCADE_HEAD.IOUS must be MODEL.ROI_HEADS.IOU_THRESHOLDS."
        )


def _stage_losses(
    predictor: Any,
    predictions: tuple[torch.Tensor, torch.Tensor],
    proposals: list[Instances],
    stage: int,
) -> Losses:
    with get_event_storage().name_scope(f"stage{stage}"):
        losses = predictor.losses(predictions, proposals)
    return {f"{name}_stage{stage}": loss for name, loss in losses.items()}
