"""Mask R-CNN's mask head with a choice of losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from cellseg.modeling.mask_losses import Loss, parse_loss
from detectron2.config import CfgNode, configurable
from detectron2.modeling.roi_heads import ROI_MASK_HEAD_REGISTRY, MaskRCNNConvUpsampleHead
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor


@ROI_MASK_HEAD_REGISTRY.register()
class CellMaskHead(MaskRCNNConvUpsampleHead):
    """`MaskRCNNConvUpsampleHead`, trained with CELLSEG.MASK_HEAD.LOSS.

    Layers, parameter names and predictions are those of the base class, so its checkpoints load.
    With "bce" and no boundary weight the loss is Detectron2's.

    Args:
        input_shape: channels, height and width of the pooled features.
        mask_loss: from logits and true masks to a loss per pixel or cell; see
            `cellseg.modeling.mask_losses`.
        options: further keywords of the base class.
    """

    @configurable
    def __init__(self, input_shape: Any, *, mask_loss: Loss, **options: Any) -> None:
        super().__init__(input_shape, **options)
        self.mask_loss = mask_loss

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        node = cfg.CELLSEG.MASK_HEAD
        loss = parse_loss(node.LOSS, node.BOUNDARY_WEIGHT)
        return super().from_config(cfg, input_shape) | {"mask_loss": loss}

    def forward(  # type: ignore[override]  # as in the base class
        self, x: Tensor, instances: list[Instances]
    ) -> Any:
        """Losses in training, in testing the instances with `pred_masks`; as the base class."""
        if not self.training:
            return super().forward(x, instances)
        logits = self.layers(x)
        foreground = [one for one in instances if len(one)]
        targets = true_masks(logits, foreground)
        return self._losses(x, of_true_class(logits, foreground), targets, foreground)

    def _losses(
        self, x: Tensor, logits: Tensor, targets: Tensor, foreground: Sequence[Instances]
    ) -> dict[str, Tensor]:
        """`loss_mask`; a head with more to learn adds to it.

        Args:
            x: pooled features [N, C, S, S] of all foreground proposals.
            logits: of their masks [N, M, M], for their true classes.
            targets: the true masks in the proposals, bool [N, M, M].
            foreground: the proposals, of the images that have any.
        """
        if len(logits) == 0:  # and yet every parameter has a gradient
            return {"loss_mask": logits.sum() * 0.0}
        put_mask_statistics(logits, targets, self.vis_period)
        loss = self.mask_loss(logits, targets.to(logits.dtype)).mean()
        return {"loss_mask": self.loss_weight * loss}


def of_true_class(values: Tensor, foreground: Sequence[Instances]) -> Tensor:
    """From [N, K, ...] the entry of each proposal's class, [N, ...]; where K is 1 the only one.

    Args:
        values: one row per foreground proposal, one column per class.
        foreground: the proposals with `gt_classes`, of the images that have any.
    """
    if values.shape[1] == 1 or not foreground:
        return values[:, 0]
    classes = torch.cat([one.gt_classes for one in foreground]).to(values.device)
    return values[torch.arange(len(values), device=values.device), classes]


def true_masks(logits: Tensor, foreground: Sequence[Instances]) -> Tensor:
    """What `logits` [N, K, M, M] should become: the true masks in the proposals, bool [N, M, M].

    Args:
        logits: what the mask head gave; the targets are as wide and on the same device.
        foreground: the proposals with `gt_masks`, of the images that have any.
    """
    if not foreground:
        return torch.zeros_like(logits[:, 0], dtype=torch.bool)
    cut = [
        one.gt_masks.crop_and_resize(one.proposal_boxes.tensor.detach(), logits.shape[-1])
        for one in foreground
    ]
    return torch.cat(cut).to(logits.device, torch.bool)


def put_mask_statistics(logits: Tensor, targets: Tensor, picture_period: int = 0) -> None:
    """Put the training metrics of Detectron2's mask head into the open event storage.

    `mask_rcnn/accuracy` is the share of pixels on the right side of 0.5, `false_positive` that of
    the background which is not, `false_negative` that of the cells.

    Args:
        logits: of the true class of each proposal, [N, M, M].
        targets: the true masks in the proposals, bool [N, M, M].
        picture_period: iterations between pictures (prediction beside truth); 0 for none.

    Raises:
        AssertionError: no event storage is open, as from the engine.
    """
    storage = get_event_storage()
    inside = logits.detach() > 0
    pairs = ((inside == targets), targets, inside & ~targets, targets & ~inside)
    right, cell, invented, missed = torch.stack([pair.sum() for pair in pairs]).tolist()
    pixels = targets.numel()
    storage.put_scalar("mask_rcnn/accuracy", right / max(pixels, 1))
    storage.put_scalar("mask_rcnn/false_positive", invented / max(pixels - cell, 1))
    storage.put_scalar("mask_rcnn/false_negative", missed / max(cell, 1))
    if picture_period > 0 and storage.iter % picture_period == 0:
        _put_pictures(storage, logits.detach().sigmoid(), targets)


def _put_pictures(storage: EventStorage, soft_masks: Tensor, targets: Tensor) -> None:
    pairs = torch.cat([soft_masks.float(), targets.float()], dim=2)
    for number, pair in enumerate(pairs):
        storage.put_image(f"masks: predicted, true ({number})", pair.repeat(3, 1, 1))
