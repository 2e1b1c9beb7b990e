"""Masks for those detections alone that can become cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from cellseg.cells.selection import DetectionThresholds
from cellseg.modeling.cell_types import CellTypeROIHeads
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Instances
from torch import Tensor, nn


@contextmanager
def masks_of_candidates_only(
    model: nn.Module, thresholds: DetectionThresholds, scores: Tensor | None = None
) -> Iterator[None]:
    """Within the context, heads compute masks for those detections alone that can become cells.

    A dense field has many detections below the score threshold, and masks are most of the work.
    Those detections are dropped between boxes and masks, in place of after them. Box NMS and
    TEST.DETECTIONS_PER_IMAGE have acted by then, on all detections as ever, and masks do not
    depend on each other, so the cells are the same ones. That takes heads in which a detection's
    score can only fall once its box is known: those of Detectron2, which leave it alone, and
    cellseg's, which multiply it by an estimated IoU or a probability. A model, region heads or a
    mask head with a `forward` of another package is taken to be so where its class has an attribute
    `scores_only_fall = True`; where one has not, or the model is no GeneralizedRCNN, nothing is
    dropped.

    Args:
        model: the engine's, in evaluation mode; the same as before once the context is left.
        thresholds: `score` and `vote` are looked at. A list holds per class where the class is
            known before the masks are; where it is not (CellTypeROIHeads, heads of other packages)
            or may change by vote, its lowest number holds for all.
        scores: stands for `thresholds.score`, one number per class, where that is an input of a
            traced graph and no constant.
    """
    strangers = list(_parts_of_other_packages(model))
    if not isinstance(model, GeneralizedRCNN) or not all(
        getattr(part, "scores_only_fall", False) for part in strangers
    ):
        yield
        return
    heads: Any = model.roi_heads
    class_is_known = not strangers and not isinstance(heads, CellTypeROIHeads)
    per_class = class_is_known and thresholds.vote == "none"
    limits = torch.tensor(thresholds.score) if scores is None else scores
    if not per_class:
        limits = limits.min()
    look_closer = heads.forward_with_given_boxes

    def look_closer_at_candidates(
        features: dict[str, Tensor], instances: Sequence[Instances]
    ) -> list[Instances]:
        candidates = [one[can_become_cells(one, limits)] for one in instances]
        closer: list[Instances] = look_closer(features, candidates)
        return closer

    heads.forward_with_given_boxes = look_closer_at_candidates
    try:
        yield
    finally:
        vars(heads).pop("forward_with_given_boxes", None)


def can_become_cells(found: Instances, limits: Tensor) -> Tensor:
    """Which detections have a score that reaches the threshold, bool [N]; compared as float32.

    Args:
        found: the detections of one image, with `scores` and `pred_classes`.
        limits: one score threshold, [], or one per class, [K].
    """
    limits = limits.to(found.scores)
    return found.scores >= (limits[found.pred_classes] if limits.dim() else limits)


def _parts_of_other_packages(model: nn.Module) -> Iterator[Any]:
    """Model, region heads and mask head, where other code than Detectron2's and cellseg's acts."""
    heads: Any = getattr(model, "roi_heads", None)
    mask_head = getattr(heads, "mask_head", None)
    # A mask head of one's own often has other layers alone; scores are `forward`'s business.
    forward = getattr(type(mask_head), "forward", type(mask_head))
    for part, code in ((model, type(model)), (heads, type(heads)), (mask_head, forward)):
        if code.__module__.partition(".")[0] not in ("detectron2", "cellseg"):
            yield part
