"""Regions where nobody counted cells teach no model that there is none.

What lies in such a region is not known. An anchor or a proposal there that fits no annotated cell
is left out before any are drawn for the losses; one that fits a cell is trained on as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from cellseg.training_data.uncounted_regions import UncountedRegions
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor, nn


def leave_out_uncounted(model: nn.Module) -> nn.Module:
    """Let the losses of a model leave out what lies in the uncounted regions of its images.

    The model's own RPN and heads stay, also those of a plug-in: the methods by which Detectron2
    chooses what the losses see are called through what is defined here. An image without the field
    `uncounted` (see `UncountedRegions`) is trained on as ever, to the bit.

    Args:
        model: as `detectron2.modeling.build_model` gives it; changed in place.

    Returns:
        The same model.
    """
    for part in model.modules():
        for choice in (_AnchorChoice, _ProposalChoice, _StageChoice):
            if all(hasattr(part, name) for name in choice.needs):
                choice(part)
    return model


def _regions_of(targets: Instances) -> UncountedRegions | None:
    return targets.uncounted if targets.has("uncounted") else None


class _AnchorChoice:
    """What an RPN draws its anchors through.

    An object and not a function within a function, so that a model can still be copied and pickled.
    """

    needs = ("label_and_sample_anchors", "_subsample_labels")

    def __init__(self, rpn: Any) -> None:
        self.rpn = rpn
        self.uncounted: Iterator[Tensor | None] = iter(())
        rpn.label_and_sample_anchors = self.label_and_sample
        rpn._subsample_labels = self.subsample

    def label_and_sample(self, anchors: list[Boxes], targets: Sequence[Instances]) -> Any:
        regions = [_regions_of(one) for one in targets]
        if any(one is not None for one in regions):
            boxes = Boxes.cat(anchors).tensor
            self.uncounted = iter([None if one is None else one.hold(boxes) for one in regions])
        else:
            self.uncounted = iter(())
        return type(self.rpn).label_and_sample_anchors(self.rpn, anchors, targets)

    def subsample(self, labels: Tensor) -> Any:
        """Called once per image, in their order, with 1, 0 or -1 for each anchor."""
        uncounted = next(self.uncounted, None)
        if uncounted is not None:
            labels = labels.masked_fill(uncounted & (labels == 0), -1)
        return type(self.rpn)._subsample_labels(self.rpn, labels)


class _ProposalChoice:
    """What the heads draw their proposals through."""

    needs = ("label_and_sample_proposals", "proposal_matcher")

    def __init__(self, heads: Any) -> None:
        self.heads = heads
        heads.label_and_sample_proposals = self.label_and_sample

    def label_and_sample(self, proposals: Sequence[Instances], targets: Sequence[Instances]) -> Any:
        kept = [self._keep(*pair) for pair in zip(proposals, targets)]
        return type(self.heads).label_and_sample_proposals(self.heads, kept, targets)

    @torch.no_grad()
    def _keep(self, proposals: Instances, targets: Instances) -> Instances:
        """Without uncounted proposals but those that the heads' own matcher calls foreground."""
        regions = _regions_of(targets)
        if regions is None:
            return proposals
        boxes = proposals.proposal_boxes
        kept = ~regions.hold(boxes.tensor)
        (doubtful,) = (~kept).nonzero(as_tuple=True)
        overlaps = pairwise_iou(targets.gt_boxes, boxes[doubtful])
        _, labels = self.heads.proposal_matcher(overlaps)
        kept[doubtful] = labels == 1
        return proposals[kept]


class _StageChoice:
    """What the later stages of a cascade label their boxes through; they draw none."""

    needs = ("_match_and_label_boxes",)

    def __init__(self, heads: Any) -> None:
        self.heads = heads
        heads._match_and_label_boxes = self.match_and_label

    def match_and_label(
        self, proposals: list[Instances], stage: int, targets: Sequence[Instances]
    ) -> list[Instances]:
        heads = self.heads
        labelled = type(heads)._match_and_label_boxes(heads, proposals, stage, targets)
        return [self._keep(*pair) for pair in zip(labelled, targets)]

    def _keep(self, proposals: Instances, targets: Instances) -> Instances:
        regions = _regions_of(targets)
        if regions is None:
            return proposals
        is_background = proposals.gt_classes == self.heads.num_classes
        return proposals[~(is_background & regions.hold(proposals.proposal_boxes.tensor))]
