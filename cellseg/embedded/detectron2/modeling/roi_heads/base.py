"""What all sets of region heads share: the registry, the sampling of regions, poolers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2._missing import missing_part_message
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import ImageList, Instances, pairwise_iou
from detectron2.utils.events import get_event_storage
from detectron2.utils.registry import Registry
from torch import nn

from ..matcher import Matcher
from ..poolers import ROIPooler
from ..proposal_generator.proposal_utils import add_ground_truth_to_proposals
from ..sampling import subsample_labels

__all__ = [
    "ROI_HEADS_REGISTRY",
    "ROIHeads",
    "build_pooler",
    "build_roi_heads",
    "reject_keypoints",
    "select_foreground_proposals",
]

ROI_HEADS_REGISTRY = Registry("ROI_HEADS")
ROI_HEADS_REGISTRY.__doc__ = (
    "Region heads, called `f(cfg, input_shape: dict[str, ShapeSpec])`: see `ROIHeads`."
)

Features = dict[str, torch.Tensor]
Losses = dict[str, torch.Tensor]


def build_roi_heads(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> Any:
    """Build the heads that `cfg.MODEL.ROI_HEADS.NAME` names."""
    return ROI_HEADS_REGISTRY.get(cfg.MODEL.ROI_HEADS.NAME)(cfg, input_shape)


def select_foreground_proposals(
    proposals: Sequence[Instances], bg_label: int
) -> tuple[list[Instances], list[torch.Tensor]]:
    """Drop the proposals of each image whose `gt_classes` are background or ignored (-1).

    Returns:
        The foreground per image; and bool [R_i] per image, which proposals that is.
    """
    masks = [(p.gt_classes != bg_label) & (p.gt_classes != -1) for p in proposals]
    rows = [mask.nonzero(as_tuple=True)[0] for mask in masks]
    return [p[index] for p, index in zip(proposals, rows)], masks


def reject_keypoints(cfg: CfgNode) -> None:
    if cfg.MODEL.KEYPOINT_ON:
        raise NotImplementedError(missing_part_message("MODEL.KEYPOINT_ON"))


def _shared_channels(input_shape: dict[str, ShapeSpec], names: Sequence[str]) -> int:
    """Channels of the feature maps, which must be the same as one head serves all."""
    channels = {name: input_shape[name].channels or 0 for name in names}
    if len(set(channels.values())) != 1:
        raise ValueError(f"The feature maps of the region heads differ in channels: {channels}.")
    return channels[names[0]]


def build_pooler(
    options: CfgNode, input_shape: dict[str, ShapeSpec], names: Sequence[str]
) -> tuple[ROIPooler, ShapeSpec]:
    """The pooler that a head's part of the config describes, and the shape of what it pools."""
    resolution = options.POOLER_RESOLUTION
    pooler = ROIPooler(
        resolution,
        [1.0 / (input_shape[name].stride or 1) for name in names],
        options.POOLER_SAMPLING_RATIO,
        options.POOLER_TYPE,
    )
    return pooler, ShapeSpec(_shared_channels(input_shape, names), resolution, resolution)


class ROIHeads(nn.Module):
    """Base class of region heads: which proposals to train on, and what they should become.

    Args:
        num_classes: K; class K is the background.
        batch_size_per_image: proposals trained on per image.
        positive_fraction: upper limit of the share of foreground among them.
        proposal_matcher: labels proposals by their IoU with the ground truth.
        proposal_append_gt: add the true boxes to the proposals.
    """

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        batch_size_per_image: int,
        positive_fraction: float,
        proposal_matcher: Matcher,
        proposal_append_gt: bool = True,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.proposal_matcher = proposal_matcher
        self.proposal_append_gt = proposal_append_gt

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        options = cfg.MODEL.ROI_HEADS
        return {
            "num_classes": options.NUM_CLASSES,
            "batch_size_per_image": options.BATCH_SIZE_PER_IMAGE,
            "positive_fraction": options.POSITIVE_FRACTION,
            "proposal_matcher": Matcher(options.IOU_THRESHOLDS, options.IOU_LABELS),
            "proposal_append_gt": options.PROPOSAL_APPEND_GT,
        }

    def forward(
        self,
        images: ImageList,
        features: Features,
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], Losses]:
        """Work on the proposals of a batch.

        Args:
            images: the padded batch.
            features: feature maps [N, C, H, W] by name.
            proposals: per image, with `proposal_boxes` and `objectness_logits`.
            targets: per image, with `gt_boxes`, `gt_classes` and what else a head needs; needed
                in training.

        Returns:
            In training the sampled proposals and the losses; in testing the detections and {}.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method `forward`.")

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: Sequence[Instances], targets: Sequence[Instances]
    ) -> list[Instances]:
        """Choose the proposals to train on and give them the ground truth they belong to.

        Args:
            proposals: per image, with `proposal_boxes` and `objectness_logits`.
            targets: per image, with `gt_boxes` and `gt_classes`; may be empty.

        Returns:
            Per image, the sampled proposals, foreground first, with `gt_classes` (K for
            background) and, where the image has ground truth, all `gt_*` fields of the match.
        """
        if self.proposal_append_gt:
            proposals = add_ground_truth_to_proposals(targets, proposals)
        sampled = [self._label_and_sample(p, t) for p, t in zip(proposals, targets)]
        background = [(p.gt_classes == self.num_classes).sum() for p in sampled]
        num_background = int(torch.stack(background).sum()) if background else 0
        num_foreground = sum(map(len, sampled)) - num_background
        storage = get_event_storage()
        storage.put_scalar("roi_head/num_fg_samples", num_foreground / max(len(sampled), 1))
        storage.put_scalar("roi_head/num_bg_samples", num_background / max(len(sampled), 1))
        return sampled

    def _label_and_sample(self, proposals: Instances, targets: Instances) -> Instances:
        quality = pairwise_iou(targets.gt_boxes, proposals.proposal_boxes)
        matches, labels = self.proposal_matcher(quality)
        rows, classes = self._sample_proposals(matches, labels, targets.gt_classes)
        chosen = proposals[rows]
        chosen.gt_classes = classes
        if len(targets) > 0:
            for name, values in targets.get_fields().items():
                if name.startswith("gt_") and not chosen.has(name):
                    chosen.set(name, values[matches[rows]])
        return chosen

    def _sample_proposals(
        self, matched_idxs: torch.Tensor, matched_labels: torch.Tensor, gt_classes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Choose among R labelled proposals of one image.

        Args:
            matched_idxs: [R], index of the ground truth.
            matched_labels: [R], 1 foreground, 0 background, -1 ignored.
            gt_classes: of the ground truth; may be empty.

        Returns:
            int64 indices of the chosen, foreground first; and their classes.
        """
        classes = torch.full_like(matched_idxs, self.num_classes)
        if len(gt_classes):
            classes = gt_classes[matched_idxs].masked_fill(matched_labels == 0, self.num_classes)
            classes = classes.masked_fill(matched_labels == -1, -1)
        both = subsample_labels(
            classes, self.batch_size_per_image, self.positive_fraction, self.num_classes
        )
        rows = torch.cat(both)
        return rows, classes[rows]
