"""Boxes as offsets from other boxes, and the losses on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

import torch
from detectron2._missing import left_out_names
from detectron2.layers import cat, ciou_loss, diou_loss
from detectron2.structures import Boxes
from fvcore.nn import giou_loss, smooth_l1_loss

__all__ = ["Box2BoxTransform", "Box2BoxTransformLinear"]

# no box grows by more than this factor in one step, else exp() overflows early in training
_DEFAULT_SCALE_CLAMP = math.log(1000.0 / 16)
_IOU_LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "giou": giou_loss,
    "diou": diou_loss,
    "ciou": ciou_loss,
}


def _centres_and_sizes(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[..., 4] x0 y0 x1 y1 to centres (x, y) and sizes (width, height), [..., 2] each."""
    low, high = boxes.split(2, dim=-1)
    sizes = high - low
    return low + 0.5 * sizes, sizes


class Box2BoxTransform:
    """The parameters (dx, dy, dw, dh) of R-CNN (Girshick et al., arXiv:1311.2524, appendix C).

    The centre moves by (dx, dy) in units of the source box, its sides grow by exp(dw), exp(dh).

    Args:
        weights: scale of each parameter, to bring targets to about unit variance.
        scale_clamp: upper limit of dw and dh where deltas are applied.
    """

    def __init__(
        self,
        weights: Sequence[float],
        scale_clamp: float = _DEFAULT_SCALE_CLAMP,
    ) -> None:
        self.weights = weights
        self.scale_clamp = scale_clamp

    def get_deltas(self, src_boxes: torch.Tensor, target_boxes: torch.Tensor) -> torch.Tensor:
        """Deltas [N, 4] that turn `src_boxes` into `target_boxes`, both [N, 4] x0 y0 x1 y1.

        Raises:
            ValueError: a source box has no width or height.
        """
        src_centres, src_sizes = _centres_and_sizes(src_boxes)
        centres, sizes = _centres_and_sizes(target_boxes)
        if not (src_sizes > 0).all():
            raise ValueError("Boxes without area cannot be the source of a box regression.")
        moves = (centres - src_centres) / src_sizes
        growth = torch.log(sizes / src_sizes)
        columns = torch.cat((moves, growth), dim=1).unbind(dim=1)
        return torch.stack([w * c for w, c in zip(self.weights, columns)], dim=1)

    def apply_deltas(self, deltas: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Apply k sets of deltas to each box.

        Args:
            deltas: [N, 4 k]; computed in float32.
            boxes: [N, 4], x0 y0 x1 y1.

        Returns:
            float32 [N, 4 k], x0 y0 x1 y1 of each result.
        """
        parts = deltas.float().reshape(deltas.shape[0], deltas.shape[1] // 4, 4)
        dx, dy, dw, dh = (part / w for part, w in zip(parts.unbind(dim=-1), self.weights))
        centres, sizes = _centres_and_sizes(boxes.to(parts.dtype)[:, None])
        centres = torch.stack((dx, dy), dim=-1) * sizes + centres
        half = torch.stack((dw, dh), dim=-1).clamp(max=self.scale_clamp).exp() * sizes * 0.5
        return torch.cat((centres - half, centres + half), dim=-1).reshape(deltas.shape)


class Box2BoxTransformLinear:
    """Distances from a centre to the sides of a box (FCOS, Tian et al., arXiv:1904.01355).

    The parameters (left, top, right, bottom) are counted from the centre of the source box, which
    has to lie in the target box.

    Args:
        normalize_by_size: measure in widths and heights of the source box instead of pixels.
    """

    def __init__(self, normalize_by_size: bool = True) -> None:
        self.normalize_by_size = normalize_by_size

    def get_deltas(self, src_boxes: torch.Tensor, target_boxes: torch.Tensor) -> torch.Tensor:
        """Deltas [N, 4] that turn `src_boxes` into `target_boxes`, both [N, 4] x0 y0 x1 y1."""
        centres, sizes = _centres_and_sizes(src_boxes)
        low, high = target_boxes.split(2, dim=1)
        distances = torch.stack((centres - low, high - centres), dim=1)
        if self.normalize_by_size:
            distances = distances / sizes[:, None]
        return distances.flatten(1)

    def apply_deltas(self, deltas: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Apply k sets of deltas, [N, 4 k], to each of `boxes`, [N, 4]; negative ones count as 0.

        Returns:
            [N, 4 k] in the type of `deltas`, x0 y0 x1 y1 of each result.
        """
        centres, sizes = _centres_and_sizes(boxes.to(deltas.dtype)[:, None])
        distances = deltas.clamp(min=0).reshape(deltas.shape[0], deltas.shape[1] // 4, 2, 2)
        if self.normalize_by_size:
            distances = distances * sizes[:, :, None]
        to_low, to_high = distances.unbind(dim=2)
        return torch.cat((centres - to_low, centres + to_high), dim=-1).reshape(deltas.shape)


def _dense_box_regression_loss(
    anchors: Sequence[Boxes] | Sequence[torch.Tensor],
    box2box_transform: Any,
    pred_anchor_deltas: Sequence[torch.Tensor],
    gt_boxes: Sequence[torch.Tensor],
    fg_mask: torch.Tensor | EllipsisType,
    box_reg_loss_type: str = "smooth_l1",
    smooth_l1_beta: float = 0.0,
) -> torch.Tensor:
    """Sum of the box losses over the foreground anchors of N images.

    Args:
        anchors: per feature map, shared by the images; R boxes in all.
        box2box_transform: between anchors and boxes.
        pred_anchor_deltas: per feature map [N, R_i, 4].
        gt_boxes: per image [R, 4], the box that each anchor belongs to.
        fg_mask: bool [N, R], or `...` for all.
        box_reg_loss_type: "smooth_l1" (on deltas), "giou", "diou" or "ciou" (on boxes).
        smooth_l1_beta: where smooth L1 turns from a square to a line; 0 is plain L1.

    Raises:
        ValueError: `box_reg_loss_type` is unknown.
    """
    if box_reg_loss_type != "smooth_l1" and box_reg_loss_type not in _IOU_LOSSES:
        known = ["smooth_l1", *_IOU_LOSSES]
        raise ValueError(f"The type of a box loss is one of {known}, not {box_reg_loss_type!r}.")
    # indices found once: selecting by a mask would wait for the device at every use
    chosen = fg_mask.nonzero(as_tuple=True) if isinstance(fg_mask, torch.Tensor) else fg_mask
    sources = cat([a.tensor if isinstance(a, Boxes) else a for a in anchors])
    sources = sources.expand(len(gt_boxes), -1, -1)[chosen].reshape(-1, 4)
    targets = torch.stack(list(gt_boxes))[chosen].reshape(-1, 4)
    deltas = cat(list(pred_anchor_deltas), dim=1)[chosen].reshape(-1, 4)
    if box_reg_loss_type == "smooth_l1":
        wanted = box2box_transform.get_deltas(sources, targets)
        return smooth_l1_loss(deltas, wanted, beta=smooth_l1_beta, reduction="sum")
    boxes = box2box_transform.apply_deltas(deltas, sources)
    return _IOU_LOSSES[box_reg_loss_type](boxes, targets, reduction="sum")


__getattr__ = left_out_names(__name__, "Box2BoxTransformRotated")
