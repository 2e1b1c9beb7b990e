"""Instances and a semantic head on one backbone, and both in one picture of segments."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Instances
from torch import nn

from .build import META_ARCH_REGISTRY
from .rcnn import GeneralizedRCNN, ModelInputs, _postprocess_batch
from .semantic_seg import batch_of_classes, build_sem_seg_head, postprocess_scores

__all__ = ["PanopticFPN", "combine_semantic_and_instance_outputs"]

logger = logging.getLogger(__name__)


@META_ARCH_REGISTRY.register()
class PanopticFPN(GeneralizedRCNN):
    """`GeneralizedRCNN` with a semantic head (Kirillov et al., arXiv:1901.02446).

    Args:
        sem_seg_head: see `SEM_SEG_HEADS_REGISTRY`.
        combine_overlap_thresh, combine_stuff_area_thresh, combine_instances_score_thresh: see
            `combine_semantic_and_instance_outputs`.
        kwargs: of `GeneralizedRCNN`.
    """

    @configurable
    def __init__(
        self,
        *,
        sem_seg_head: nn.Module,
        combine_overlap_thresh: float = 0.5,
        combine_stuff_area_thresh: float = 4096,
        combine_instances_score_thresh: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sem_seg_head: Any = sem_seg_head
        self.combine_overlap_thresh = combine_overlap_thresh
        self.combine_stuff_area_thresh = combine_stuff_area_thresh
        self.combine_instances_score_thresh = combine_instances_score_thresh

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        arguments = super().from_config(cfg)
        options = cfg.MODEL.PANOPTIC_FPN
        combine = options.COMBINE
        if not combine.ENABLED:
            logger.warning("PANOPTIC_FPN.COMBINE.ENABLED is not used: call inference() instead.")
        if options.INSTANCE_LOSS_WEIGHT != 1.0:
            _scale_losses(arguments["roi_heads"], options.INSTANCE_LOSS_WEIGHT)
        shapes = arguments["backbone"].output_shape()
        return arguments | {
            "sem_seg_head": build_sem_seg_head(cfg, shapes),
            "combine_overlap_thresh": combine.OVERLAP_THRESH,
            "combine_stuff_area_thresh": combine.STUFF_AREA_LIMIT,
            "combine_instances_score_thresh": combine.INSTANCES_CONFIDENCE_THRESH,
        }

    def forward(self, batched_inputs: ModelInputs) -> Any:
        """Losses in training, segments in testing.

        Args:
            batched_inputs: as for `GeneralizedRCNN`, in training with `sem_seg`, int64 [H, W].

        Returns:
            In training a dict of scalar losses. In testing, per image, "instances" as from
            `GeneralizedRCNN`, "sem_seg" as from `SemanticSegmentor`, and "panoptic_seg", see
            `combine_semantic_and_instance_outputs`.

        Raises:
            KeyError: no `sem_seg` in training.
        """
        if not self.training:
            return self.inference(batched_inputs)
        images, features = self._encode(batched_inputs)
        classes = batch_of_classes(batched_inputs, self.backbone, self.sem_seg_head, self.device)
        _, losses = self.sem_seg_head(features, classes)
        targets = self._instances(batched_inputs, "instances")
        proposals, proposal_losses = self._propose(images, features, batched_inputs, targets)
        _, detector_losses = self.roi_heads(images, features, proposals, targets)
        return {**losses, **proposal_losses, **detector_losses}

    def inference(  # type: ignore[override]
        self, batched_inputs: ModelInputs, do_postprocess: bool = True
    ) -> Any:
        """Segment; only in testing.

        Args:
            batched_inputs: see `forward`.
            do_postprocess: rescale to the output size, paste the masks and combine.

        Returns:
            As `forward`; without `do_postprocess` the Instances as they leave the heads, per
            image, and the scores of the batch, [N, K, H, W].
        """
        images, features = self._encode(batched_inputs)
        scores, _ = self.sem_seg_head(features, None)
        proposals, _ = self._propose(images, features, batched_inputs, None)
        detections, _ = self.roi_heads(images, features, proposals, None)
        if not do_postprocess:
            return detections, scores
        sizes = images.image_sizes
        return [
            {"sem_seg": classes, "instances": found, "panoptic_seg": self._combine(found, classes)}
            for classes, found in zip(
                postprocess_scores(scores, batched_inputs, sizes),
                _postprocess_batch(detections, batched_inputs, sizes),
            )
        ]

    def _combine(
        self, instances: Instances, scores: torch.Tensor
    ) -> tuple[torch.Tensor, list[dict[str, Any]]]:
        return combine_semantic_and_instance_outputs(
            instances,
            scores.argmax(dim=0),
            self.combine_overlap_thresh,
            self.combine_stuff_area_thresh,
            self.combine_instances_score_thresh,
        )


def _scale_losses(roi_heads: Any, factor: float) -> None:
    """What PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT, of old configs, asks for."""
    logger.warning("PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT is old: give each head its own weight.")
    box_weights = roi_heads.box_predictor.loss_weight
    roi_heads.box_predictor.loss_weight = {k: v * factor for k, v in box_weights.items()}
    roi_heads.mask_head.loss_weight *= factor


def combine_semantic_and_instance_outputs(
    instance_results: Instances,
    semantic_results: torch.Tensor,
    overlap_threshold: float,
    stuff_area_thresh: float,
    instances_score_thresh: float,
) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """One segment per pixel, by the rule of COCO's panoptic API.

    Instances are laid down by descending score, each on the pixels that are still free; then
    every class of stuff on what is left.

    Args:
        instance_results: with `scores`, `pred_classes` and `pred_masks`, bool [N, H, W].
        semantic_results: int64 [H, W], class of each pixel; 0 is every thing.
        overlap_threshold: an instance of which a larger share is covered already is left out.
        stuff_area_thresh: stuff of fewer free pixels is left out.
        instances_score_thresh: instances below are left out.

    Returns:
        int32 [H, W] with the id of each pixel's segment, 0 for none; and per segment a dict with
        "id", "isthing", "category_id" and, of things, "score" and "instance_id", their row; of
        stuff "area", pixels.
    """
    segments = torch.zeros_like(semantic_results, dtype=torch.int32)
    described: list[dict[str, Any]] = []

    def lay_down(pixels: torch.Tensor, **description: Any) -> None:
        described.append({"id": len(described) + 1, **description})
        segments[pixels] = len(described)

    sure = instance_results.scores >= instances_score_thresh
    for row in torch.argsort(-instance_results.scores)[: int(sure.sum())].tolist():
        mask = instance_results.pred_masks[row].to(segments.device, torch.bool)
        free = mask & (segments == 0)
        area = int(mask.sum())
        if area and (area - int(free.sum())) / area <= overlap_threshold:
            lay_down(
                free,
                isthing=True,
                score=instance_results.scores[row].item(),
                category_id=instance_results.pred_classes[row].item(),
                instance_id=row,
            )
    for category, free in _free_stuff(semantic_results, segments):
        if (area := int(free.sum())) >= stuff_area_thresh:
            lay_down(free, isthing=False, category_id=category, area=area)
    return segments, described


def _free_stuff(
    classes: torch.Tensor, segments: torch.Tensor
) -> Iterator[tuple[int, torch.Tensor]]:
    """Each class of stuff, ascending, with its pixels that have no segment: bool [H, W]."""
    for category in torch.unique(classes).tolist():
        if category:
            yield category, (classes == category) & (segments == 0)
