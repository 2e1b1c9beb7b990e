"""Mask R-CNN's mask head with a choice of losses."""

from __future__ import annotations

from typing import Any

import torch
from cellseg.modeling.mask_losses import Loss, parse_loss
from detectron2.config import CfgNode, configurable
from detectron2.modeling.roi_heads import ROI_MASK_HEAD_REGISTRY, MaskRCNNConvUpsampleHead
from detectron2.structures import Instances
from torch import Tensor


@ROI_MASK_HEAD_REGISTRY.register()
class CellMaskHead(MaskRCNNConvUpsampleHead):
    """`MaskRCNNConvUpsampleHead`, trained with CELLSEG.MASK_HEAD.LOSS.

    Layers, parameter names and predictions are those of the base class, so its checkpoints load.
    With "bce" and no boundary weight the loss is Detectron2's.

    Args:
        input_shape: of the pooled features.
        mask_loss: see `cellseg.modeling.mask_losses`.
        options: of the base class.
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
        return {"loss_mask": self.loss_weight * self._loss(logits, instances)}

    def _loss(self, logits: Tensor, instances: list[Instances]) -> Tensor:
        if len(logits) == 0:  # and yet every parameter has a gradient
            return logits.sum() * 0.0
        side = logits.shape[-1]
        targets = torch.cat(
            [
                one.gt_masks.crop_and_resize(one.proposal_boxes.tensor.detach(), side)
                for one in instances
                if len(one)
            ]
        ).to(logits.device, logits.dtype)
        if logits.shape[1] == 1:
            return self.mask_loss(logits[:, 0], targets).mean()
        classes = torch.cat([one.gt_classes for one in instances if len(one)])
        rows = torch.arange(len(logits), device=logits.device)
        return self.mask_loss(logits[rows, classes], targets).mean()
