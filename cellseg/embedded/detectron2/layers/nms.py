"""Non-maximum suppression, overall and per class."""

from __future__ import annotations

import torch
from detectron2._missing import left_out_names
from torchvision.ops import boxes as box_ops
from torchvision.ops import nms

__all__ = ["batched_nms", "nms"]


def batched_nms(
    boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """Suppress overlapping boxes within each group.

    Args:
        boxes: [N, 4], x0 y0 x1 y1 in pixels, of any float type.
        scores: [N].
        idxs: [N] integers; boxes of different groups never suppress each other.
        iou_threshold: a box goes when its IoU with a better one is above this.

    Returns:
        int64 indices of the boxes that stay, by descending score.
    """
    # in half precision, neighbouring pixels beyond 2048 are the same number
    return box_ops.batched_nms(boxes.float(), scores.float(), idxs, iou_threshold)


__getattr__ = left_out_names(__name__, "batched_nms_rotated", "nms_rotated")
