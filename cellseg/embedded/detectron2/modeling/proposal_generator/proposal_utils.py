"""Selection of proposals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.layers import batched_nms, cat
from detectron2.structures import Boxes, Instances

# the logit of a true box
_CERTAINTY = 1.0 - 1e-10
_CERTAIN_LOGIT = math.log(_CERTAINTY / (1.0 - _CERTAINTY))


def find_top_rpn_proposals(
    proposals: Sequence[torch.Tensor],
    pred_objectness_logits: Sequence[torch.Tensor],
    image_sizes: Sequence[tuple[int, int]],
    nms_thresh: float,
    pre_nms_topk: int,
    post_nms_topk: int,
    min_box_size: float,
    training: bool,
) -> list[Instances]:
    """Select the best proposals of each image.

    Args:
        proposals: boxes per feature map, [N, R_i, 4].
        pred_objectness_logits: per feature map, [N, R_i].
        image_sizes: (height, width) of each image, pixels; boxes are clipped to it.
        nms_thresh: IoU above which the lower-scored of two boxes of the same map goes.
        pre_nms_topk: boxes kept per feature map before that.
        post_nms_topk: boxes kept per image, over all maps, after that.
        min_box_size: boxes with a side up to this, pixels, are dropped.
        training: whether a value that is not finite is an error; otherwise its box is dropped.

    Returns:
        Per image, Instances with `proposal_boxes` and `objectness_logits`, descending.

    Raises:
        FloatingPointError: a value is not finite in training.
    """
    top = [
        logits.topk(_at_most(pre_nms_topk, logits.shape[1]), dim=1)
        for logits in pred_objectness_logits
    ]
    scores = cat([values for values, _ in top], dim=1)
    boxes = cat(
        [p.gather(1, index[:, :, None].expand(-1, -1, 4)) for p, (_, index) in zip(proposals, top)],
        dim=1,
    )
    levels = cat([torch.full_like(index[0], level) for level, (_, index) in enumerate(top)])
    finite = boxes.isfinite().all(dim=2) & scores.isfinite()
    if training and not finite.all():
        raise FloatingPointError("Training has diverged: predicted boxes or scores are not finite.")
    results = []
    for image, image_size in enumerate(image_sizes):
        usable = finite[image] if not training else slice(None)
        clipped = Boxes(boxes[image][usable])
        clipped.clip(image_size)
        (large,) = clipped.nonempty(threshold=min_box_size).nonzero(as_tuple=True)
        found = Instances(
            image_size,
            proposal_boxes=clipped[large],
            objectness_logits=scores[image][usable][large],
        )
        groups = levels[usable][large]
        keep = batched_nms(found.proposal_boxes.tensor, found.objectness_logits, groups, nms_thresh)
        results.append(found[keep[:post_nms_topk]])
    return results


def _at_most(limit: int, size: Any) -> Any:
    # in a trace the size of a tensor is a tensor, and has to stay one
    return size.clamp(max=limit) if isinstance(size, torch.Tensor) else min(size, limit)


def add_ground_truth_to_proposals(
    gt: Sequence[Instances | Boxes], proposals: Sequence[Instances]
) -> list[Instances]:
    """Append the true boxes to the proposals of each image.

    Early in training no proposal may fit a true box; this way there is always one.

    Args:
        gt: per image, true boxes or Instances with `gt_boxes`.
        proposals: per image, Instances with `proposal_boxes` and `objectness_logits`; any other
            field must also be one of `gt`.

    Returns:
        New Instances per image, with the fields of `proposals`.

    Raises:
        ValueError: there are not as many of one as of the other.
        AssertionError: `gt` lacks a field; callers of Detectron2 expect this one.
    """
    if len(gt) != len(proposals):
        raise ValueError(f"Ground truth for {len(gt)} images and proposals for {len(proposals)}.")
    return [
        add_ground_truth_to_proposals_single_image(true, found)
        for true, found in zip(gt, proposals)
    ]


def add_ground_truth_to_proposals_single_image(
    gt: Instances | Boxes, proposals: Instances
) -> Instances:
    """Same as `add_ground_truth_to_proposals`, of one image."""
    fields: dict[str, Any] = {"gt_boxes": gt} if isinstance(gt, Boxes) else dict(gt.get_fields())
    true_boxes = fields["gt_boxes"]
    fields["proposal_boxes"] = true_boxes
    fields["objectness_logits"] = torch.full(
        (len(true_boxes),), _CERTAIN_LOGIT, device=proposals.objectness_logits.device
    )
    wanted = proposals.get_fields()
    lacking = [name for name in wanted if name not in fields]
    if lacking:
        raise AssertionError(f"The proposals have {lacking}, which the ground truth has not.")
    extra = Instances(proposals.image_size, **{name: fields[name] for name in wanted})
    return Instances.cat([proposals, extra])
