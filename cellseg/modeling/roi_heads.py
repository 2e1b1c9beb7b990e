"""Region heads of cellseg: Detectron2's, with a box loss that knows how well a proposal fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from cellseg.config import check_value
from cellseg.errors import ConfigError
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY, StandardROIHeads
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances
from detectron2.structures.boxes import matched_pairwise_iou
from torch import Tensor
from torch.nn import functional as F

# Keeps the normalization finite where every foreground proposal is classified perfectly.
_LEAST_LOSS = 1e-6


def check_box_head_config(cfg: CfgNode) -> None:
    """Check that CELLSEG.BOX_HEAD goes with MODEL.ROI_BOX_HEAD.

    Raises:
        ConfigError: naming the keys, what was found and what was expected.
    """
    _check_iou_weight(cfg.CELLSEG.BOX_HEAD.IOU_WEIGHT, cfg.MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE)


def _check_iou_weight(iou_weight: float, use_sigmoid_ce: bool) -> None:
    check_value("BOX_HEAD.IOU_WEIGHT", iou_weight)
    if iou_weight and use_sigmoid_ce:
        raise ConfigError(
            f"CELLSEG.BOX_HEAD.IOU_WEIGHT is {iou_weight}, which weights the softmax "
            "cross-entropy; expected MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE False"
        )


class CellBoxPredictor(FastRCNNOutputLayers):
    """Detectron2's classes and boxes of regions, with IoU-weighted classification as an option.

    Layers, parameter names and predictions are those of the base class.

    Args:
        input_shape: channels (and height and width, if it has any) of a region's features.
        iou_weight: the exponent of `iou_balanced_cross_entropy`; 0 is Detectron2's loss.
        options: further keywords of the base class.

    Raises:
        ConfigError: `iou_weight` is negative, or set together with sigmoid cross-entropy.
    """

    @configurable
    def __init__(self, input_shape: ShapeSpec, *, iou_weight: float = 0.0, **options: Any) -> None:
        super().__init__(input_shape, **options)
        _check_iou_weight(iou_weight, self.use_sigmoid_ce)
        self.iou_weight = iou_weight

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        options: dict[str, Any] = super().from_config(cfg, input_shape)
        return options | {"iou_weight": cfg.CELLSEG.BOX_HEAD.IOU_WEIGHT}

    def losses(
        self, predictions: tuple[Tensor, Tensor], proposals: Sequence[Instances]
    ) -> dict[str, Tensor]:
        """`loss_cls` and `loss_box_reg`, and the base class's statistics in the event storage."""
        losses: dict[str, Tensor] = super().losses(predictions, list(proposals))
        logits = predictions[0]
        if self.iou_weight and len(logits):
            classes = torch.cat([one.gt_classes for one in proposals])
            ious = torch.cat([_iou_with_truth(one) for one in proposals])
            loss = iou_balanced_cross_entropy(logits, classes, ious, self.iou_weight)
            losses["loss_cls"] = loss * self.loss_weight.get("loss_cls", 1.0)
        return losses


def _iou_with_truth(proposals: Instances) -> Tensor:
    """float [N]: IoU of each proposal with the box that it was matched with."""
    boxes: Boxes = proposals.proposal_boxes
    if not proposals.has("gt_boxes"):  # no cell in the image: everything is background
        return boxes.tensor.new_zeros(len(boxes))
    return matched_pairwise_iou(boxes, proposals.gt_boxes)


def iou_balanced_cross_entropy(
    logits: Tensor, classes: Tensor, ious: Tensor, exponent: float
) -> Tensor:
    """Cross-entropy in which foreground that fits its cell better weighs more.

    The IoU-balanced classification loss (Wu, Li and Wang, arXiv:1908.05641): a foreground region
    weighs iou**exponent, times what makes the sum of the foreground's losses the same as without
    weights; background weighs 1. Weights have no gradient, so values are those of the plain mean
    and only its gradient moves towards the better regions. The paper takes the IoU of the box
    that a one-stage detector predicts; here it is that of the proposal, which the class is
    predicted from.

    Args:
        logits: [R, K + 1]; the last column is the background.
        classes: int64 [R], K for background.
        ious: [R], in 0 to 1; those of background play no part.
        exponent: 0 or more; the paper finds 1.5 best.

    Returns:
        The mean over all R regions, float32 at least.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    losses = F.cross_entropy(logits, classes, reduction="none")
    with torch.no_grad():
        foreground = classes < logits.shape[1] - 1
        fits = ious.to(losses).clamp(0, 1) ** exponent
        before = (losses * foreground).sum()
        after = (losses * fits * foreground).sum()
        weights = torch.where(foreground, fits * before / after.clamp(min=_LEAST_LOSS), 1.0)
    return (weights * losses).mean()


@ROI_HEADS_REGISTRY.register()
class CellROIHeads(StandardROIHeads):
    """`StandardROIHeads` whose box predictor is `CellBoxPredictor`; selected by its name alone.

    Parameter names are those of the base class, so its checkpoints load.
    """

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        parts: dict[str, Any] = super()._init_box_head(cfg, input_shape)
        predictor = CellBoxPredictor(cfg, parts["box_head"].output_shape)
        return parts | {"box_predictor": predictor}
