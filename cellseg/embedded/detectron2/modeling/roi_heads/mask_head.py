"""Mask heads: a soft mask per region (He et al., Mask R-CNN, arXiv:1703.06870)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ConvTranspose2d, ShapeSpec, cat, get_norm
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage, get_event_storage
from detectron2.utils.registry import Registry
from fvcore.nn import weight_init
from torch import nn
from torch.nn import functional as F

__all__ = [
    "ROI_MASK_HEAD_REGISTRY",
    "BaseMaskRCNNHead",
    "MaskRCNNConvUpsampleHead",
    "build_mask_head",
    "mask_rcnn_inference",
    "mask_rcnn_loss",
]

ROI_MASK_HEAD_REGISTRY = Registry("ROI_MASK_HEAD")
ROI_MASK_HEAD_REGISTRY.__doc__ = (
    "Mask heads, called `f(cfg, input_shape: ShapeSpec)`: modules called with pooled features and "
    "instances that return losses in training, and in testing the instances with `pred_masks`."
)


def mask_rcnn_loss(
    pred_mask_logits: torch.Tensor, instances: Sequence[Instances], vis_period: int = 0
) -> torch.Tensor:
    """Binary cross entropy of the masks of the true classes, averaged over all their pixels.

    Puts accuracy, false positives and false negatives (shares of pixels) into the event storage.

    Args:
        pred_mask_logits: [B, K, M, M], or [B, 1, M, M] for the same mask whatever the class.
        instances: foreground per image, B in all, with `proposal_boxes`, `gt_classes` and
            `gt_masks`; the latter only need `crop_and_resize(boxes, M)`.
        vis_period: put pictures into the event storage every so many iterations; 0 for never.

    Returns:
        A scalar; zero, with a gradient, where there are no instances.
    """
    side = pred_mask_logits.shape[-1]
    occupied = [found for found in instances if len(found) > 0]
    if not occupied:
        return 0.0 * pred_mask_logits.sum()
    device = pred_mask_logits.device
    targets = cat(
        [f.gt_masks.crop_and_resize(f.proposal_boxes.tensor, side).to(device) for f in occupied]
    )
    logits = _masks_of_classes(pred_mask_logits, [f.gt_classes for f in occupied])
    inside = targets if targets.dtype == torch.bool else targets > 0.5
    targets = targets.float()
    storage = get_event_storage()
    _log_mask_stats(storage, logits > 0.0, inside)
    if vis_period > 0 and storage.iter % vis_period == 0:
        _put_mask_pictures(storage, logits.sigmoid(), targets)
    return F.binary_cross_entropy_with_logits(logits, targets)


def _masks_of_classes(masks: torch.Tensor, classes: Sequence[torch.Tensor]) -> torch.Tensor:
    """[B, K, M, M] to [B, M, M]: for each the mask of its class, or the only one."""
    if masks.shape[1] == 1:
        return masks[:, 0]
    columns = cat(list(classes)).long()
    return masks[torch.arange(masks.shape[0], device=columns.device), columns]


def _log_mask_stats(storage: EventStorage, predicted: torch.Tensor, inside: torch.Tensor) -> None:
    wrong = predicted != inside
    sums = torch.stack([wrong.sum(), (wrong & inside).sum(), inside.sum()]).tolist()
    num_wrong, num_missed, num_inside = sums
    num_pixels = inside.numel()
    outside = max(num_pixels - num_inside, 1.0)
    storage.put_scalar("mask_rcnn/accuracy", 1 - num_wrong / max(num_pixels, 1.0))
    storage.put_scalar("mask_rcnn/false_positive", (num_wrong - num_missed) / outside)
    storage.put_scalar("mask_rcnn/false_negative", num_missed / max(num_inside, 1.0))


def _put_mask_pictures(
    storage: EventStorage, predicted: torch.Tensor, targets: torch.Tensor
) -> None:
    side_by_side = torch.cat([predicted.detach(), targets], dim=2)
    for index, picture in enumerate(side_by_side):
        name = f"Left: mask prediction;   Right: mask GT ({index})"
        storage.put_image(name, picture.expand(3, -1, -1))


def mask_rcnn_inference(
    pred_mask_logits: torch.Tensor, pred_instances: Sequence[Instances]
) -> None:
    """Give each image's instances `pred_masks`: [N_i, 1, M, M], in 0 to 1.

    Args:
        pred_mask_logits: [B, K, M, M] or [B, 1, M, M], B instances of all images.
        pred_instances: per image, with `pred_classes`; changed in place. N_i may be 0.
    """
    logits = _masks_of_classes(pred_mask_logits, [i.pred_classes for i in pred_instances])
    probabilities = logits[:, None].sigmoid()
    for instances, masks in zip(
        pred_instances, probabilities.split([len(i) for i in pred_instances])
    ):
        instances.pred_masks = masks


class BaseMaskRCNNHead(nn.Module):
    """Loss and inference of a mask head; a subclass has `layers`.

    Args:
        loss_weight: factor of the loss.
        vis_period: see `mask_rcnn_loss`.
    """

    @configurable
    def __init__(self, *, loss_weight: float = 1.0, vis_period: int = 0) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.vis_period = vis_period

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        return {"vis_period": cfg.VIS_PERIOD}

    def forward(self, x: torch.Tensor, instances: list[Instances]) -> Any:
        """Losses in training; the instances with `pred_masks` in testing.

        Args:
            x: features of all instances, [B, ...].
            instances: per image; see `mask_rcnn_loss` and `mask_rcnn_inference`.
        """
        logits = self.layers(x)
        if self.training:
            loss = mask_rcnn_loss(logits, instances, self.vis_period)
            return {"loss_mask": self.loss_weight * loss}
        mask_rcnn_inference(logits, instances)
        return instances

    def layers(self, x: torch.Tensor) -> torch.Tensor:
        """Mask logits [B, K, M, M] from region features [B, ...]."""
        raise NotImplementedError(f"{type(self).__name__} needs a method `layers`.")


@ROI_MASK_HEAD_REGISTRY.register()
class MaskRCNNConvUpsampleHead(BaseMaskRCNNHead, nn.Sequential):  # type: ignore[misc]
    """3x3 convolutions, an upsampling by 2, and a 1x1 convolution to masks.

    Args:
        input_shape: of the pooled features; only channels are used.
        num_classes: K, or 1 for the same mask whatever the class.
        conv_dims: output channels of each convolution, and lastly of the upsampling.
        conv_norm: of the convolutions, see `get_norm`; with a norm they have no bias.
        kwargs: of `BaseMaskRCNNHead`.

    Raises:
        ValueError: `conv_dims` is empty.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: Sequence[int],
        conv_norm: str | Callable[[int], nn.Module] = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not conv_dims:
            raise ValueError("The mask head needs at least one entry of conv_dims.")
        channels = [input_shape.channels or 0, *conv_dims]
        self.conv_norm_relus = []
        for index, (c_in, c_out) in enumerate(zip(channels, conv_dims[:-1]), 1):
            norm = get_norm(conv_norm, c_out)
            relu = nn.ReLU()
            conv = Conv2d(c_in, c_out, 3, padding=1, bias=not conv_norm, norm=norm, activation=relu)
            self.add_module(f"mask_fcn{index}", conv)
            self.conv_norm_relus.append(conv)
        self.deconv = ConvTranspose2d(channels[-2], channels[-1], kernel_size=2, stride=2)
        self.deconv_relu = nn.ReLU()
        self.predictor = Conv2d(channels[-1], num_classes, kernel_size=1)
        for layer in (*self.conv_norm_relus, self.deconv):
            weight_init.c2_msra_fill(layer)
        # near zero, so that every mask starts undecided
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.constant_(self.predictor.get_parameter("bias"), 0)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        options = cfg.MODEL.ROI_MASK_HEAD
        agnostic = options.CLS_AGNOSTIC_MASK
        return super().from_config(cfg, input_shape) | {
            "input_shape": input_shape,
            "num_classes": 1 if agnostic else cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "conv_dims": [options.CONV_DIM] * (options.NUM_CONV + 1),
            "conv_norm": options.NORM,
        }

    def layers(self, x: torch.Tensor) -> torch.Tensor:
        return nn.Sequential.forward(self, x)


def build_mask_head(cfg: CfgNode, input_shape: Any) -> Any:
    """Build the head that `cfg.MODEL.ROI_MASK_HEAD.NAME` names."""
    return ROI_MASK_HEAD_REGISTRY.get(cfg.MODEL.ROI_MASK_HEAD.NAME)(cfg, input_shape)
