"""A mask head that judges its own masks (Mask Scoring R-CNN, Huang et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from cellseg.errors import ConfigError
from cellseg.modeling.mask_head import CellMaskHead, of_true_class
from cellseg.modeling.mask_pooling import pool_masks
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_MASK_HEAD_REGISTRY
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_inference
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn import functional as F


class MaskIoUBranch(nn.Module):
    """From pooled features and a soft mask to the mask's IoU with the true one, per class.

    Args:
        input_shape: of the pooled features, with height and width.
        num_classes: K, or 1 for the same estimate whatever the class.
        conv_dim, num_conv: channels and number of its 3x3 convolutions, the last of which halves
            the resolution.
        fc_dim: width of its two hidden layers.

    Raises:
        ConfigError: the features have no known height and width.
    """

    def __init__(
        self, input_shape: ShapeSpec, num_classes: int, *, conv_dim: int, num_conv: int, fc_dim: int
    ) -> None:
        super().__init__()
        if not input_shape.height or not input_shape.width:
            raise ConfigError("the IoU branch needs pooled features: set ROI_MASK_HEAD.POOLER_TYPE")
        channels = [(input_shape.channels or 0) + 1, *[conv_dim] * num_conv]
        strides = [1] * (num_conv - 1) + [2]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride, padding=1)
            for before, after, stride in zip(channels, channels[1:], strides)
        )
        halved = ((input_shape.height + 1) // 2) * ((input_shape.width + 1) // 2)
        self.hidden = nn.ModuleList(
            nn.Linear(before, fc_dim) for before in (conv_dim * halved, fc_dim)
        )
        self.predictor = nn.Linear(fc_dim, num_classes)
        for layer in (*self.convs, *self.hidden):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        # A small predictor whose first answer, 0.5, is no further than that from any truth.
        nn.init.normal_(self.predictor.weight, std=0.01)
        nn.init.constant_(self.predictor.bias, 0.5)

    def forward(self, features: Tensor, soft_masks: Tensor) -> Tensor:
        """From [N, C, S, S] and [N, M, M] (0 to 1) to [N, K]; not limited to 0..1."""
        pooled = pool_masks(soft_masks[:, None], features, mean=False)
        x = torch.cat([features, pooled.to(features.dtype)], dim=1)
        for conv in self.convs:
            x = F.relu(conv(x))
        x = x.flatten(1)
        for hidden in self.hidden:
            x = F.relu(hidden(x))
        return self.predictor(x)


@ROI_MASK_HEAD_REGISTRY.register()
class MaskIoUHead(CellMaskHead):
    """`CellMaskHead` that also predicts how well each mask will fit, and scores cells by it.

    A class score says whether there is a cell, not how good its mask is. The branch of Mask
    Scoring R-CNN predicts the IoU of the mask, cut at 0.5, with the true one, and in testing each
    detection's score is multiplied by it. Its loss is the squared error (the paper's), whose
    gradient reaches the pooled features but not the mask. All other parameters have the names of
    the base class. Scores become lower than those of a model without the branch, good masks' the
    least: a score threshold has to be chosen anew (docs/thresholds.md).

    Detections keep their order, which callers that match them by position rely on:
    `detections_to_cells` and `MaskRCNN` sort them by their new scores. Detectron2's test-time
    augmentation takes boxes and scores from a pass without masks, so there scores are those of
    the classes alone; cellseg's (`AugmentedRCNN`) heeds this head.

    Args:
        input_shape: of the pooled features, with height and width.
        num_classes: K, or 1 for the same mask whatever the class.
        mask_iou_weight: factor by which `loss_mask_iou` enters the sum of the losses.
        mask_iou_layers: sizes of the branch, as keywords of `MaskIoUBranch`.
        options: further keywords of the base class.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        mask_iou_weight: float = 1.0,
        mask_iou_layers: dict[str, int],
        **options: Any,
    ) -> None:
        super().__init__(input_shape, num_classes=num_classes, **options)
        self.mask_iou_weight = mask_iou_weight
        self.mask_iou = MaskIoUBranch(input_shape, num_classes, **mask_iou_layers)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        node = cfg.CELLSEG.MASK_IOU
        layers = {key.lower(): node[key] for key in ("CONV_DIM", "NUM_CONV", "FC_DIM")}
        return super().from_config(cfg, input_shape) | {
            "mask_iou_weight": node.LOSS_WEIGHT,
            "mask_iou_layers": layers,
        }

    def layers(self, x: Tensor) -> Tensor:
        """Mask logits [N, K, M, M]; the IoU branch, though in the same sequence, is left out."""
        for layer in self:
            if layer is not self.mask_iou:
                x = layer(x)
        return x

    def forward(  # type: ignore[override]  # as in the base class
        self, x: Tensor, instances: list[Instances]
    ) -> Any:
        """Losses in training; in testing the instances with `pred_masks` and `mask_ious`.

        Args:
            x: pooled features [N, C, S, S] of the instances of all images.
            instances: per image; in testing with `pred_classes`, and `scores` unless boxes were
                given without; changed in place, their order is not.
        """
        if self.training:
            return super().forward(x, instances)
        mask_rcnn_inference(self.layers(x), instances)
        self._rescore(x, instances)
        return instances

    def _losses(
        self, x: Tensor, logits: Tensor, targets: Tensor, foreground: Sequence[Instances]
    ) -> dict[str, Tensor]:
        losses = super()._losses(x, logits, targets, foreground)
        estimates = self.mask_iou(x, logits.detach().sigmoid())
        found = of_true_class(estimates, foreground).float()
        if len(found) == 0:
            return losses | {"loss_mask_iou": found.sum() * 0.0}
        ious, known = true_mask_ious(logits.detach() > 0, targets, foreground)
        errors = (found - ious) * known
        count = known.sum().clamp(min=1)
        metrics = torch.stack([(ious * known).sum(), errors.detach().abs().sum()]) / count
        for name, metric in zip(("mean", "mean_error"), metrics.tolist()):
            get_event_storage().put_scalar(f"mask_iou/{name}", metric)
        return losses | {"loss_mask_iou": self.mask_iou_weight * (errors**2).sum() / count}

    def _rescore(self, x: Tensor, instances: Sequence[Instances]) -> None:
        soft_masks = torch.cat([one.pred_masks for one in instances])[:, 0]
        found = self.mask_iou(x, soft_masks).float().clamp(0, 1)
        columns = torch.cat([one.pred_classes for one in instances]).clamp(max=found.shape[1] - 1)
        ious = found.gather(1, columns[:, None])[:, 0]
        for one, mask_ious in zip(instances, ious.split([len(one) for one in instances])):
            one.mask_ious = mask_ious
            if one.has("scores"):
                one.scores = one.scores * mask_ious.to(one.scores.dtype)


def true_mask_ious(
    predicted: Tensor, targets: Tensor, foreground: Sequence[Instances]
) -> tuple[Tensor, Tensor]:
    """IoU of predicted masks with the whole true ones, also with what is outside the proposal.

    As in the paper: intersection and predicted area are counted in the proposal's raster, the
    whole true area is the one counted there, divided by the share of the true mask that the
    proposal covers.

    Args:
        predicted: bool [N, M, M], in the proposals.
        targets: bool [N, M, M], the true masks in them.
        foreground: the proposals with `proposal_boxes` and `gt_masks`, of the images that have any.

    Returns:
        float32 [N] in 0 to 1, and bool [N]: whether there is a true mask at all.
    """
    shared, found, cut = (
        each.sum(dim=(1, 2)).float() for each in (predicted & targets, predicted, targets)
    )
    boxes_px = torch.cat([one.proposal_boxes.area() for one in foreground]).to(found)
    whole_px = torch.cat(list(_areas_px(foreground))).to(found)
    whole = whole_px * predicted[0].numel() / boxes_px.clamp(min=1e-6)
    # The raster may show more of a mask than it has pixels; never less than what was counted.
    union = found + torch.maximum(whole, cut) - shared
    return shared / union.clamp(min=1.0), whole_px > 0


def _areas_px(foreground: Sequence[Instances]) -> Iterator[Tensor]:
    """Pixels of every true mask, also beyond its proposal."""
    for one in foreground:
        masks = one.gt_masks
        yield masks.area() if hasattr(masks, "area") else masks.tensor.flatten(1).sum(dim=1)
