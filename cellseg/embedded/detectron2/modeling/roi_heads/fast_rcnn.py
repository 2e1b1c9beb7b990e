"""Classes and boxes of regions (Girshick, Fast R-CNN, arXiv:1504.08083).

In this module R is the number of regions of all images, K the number of classes. Class K, the
last column of the logits, is the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2._missing import missing_part_message
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, batched_nms, cat, cross_entropy
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import get_event_storage
from torch import nn
from torch.nn import functional as F

from ..box_regression import Box2BoxTransform, _dense_box_regression_loss

__all__ = ["FastRCNNOutputLayers", "fast_rcnn_inference"]

Predictions = tuple[torch.Tensor, torch.Tensor]


def fast_rcnn_inference(
    boxes: Sequence[torch.Tensor],
    scores: Sequence[torch.Tensor],
    image_shapes: Sequence[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[list[Instances], list[torch.Tensor]]:
    """Select the detections of each image.

    Args:
        boxes: per image [R_i, 4 K], or [R_i, 4] for the same box whatever the class.
        scores: per image [R_i, K + 1].
        image_shapes: (height, width) of each image, pixels; boxes are clipped to it.
        score_thresh: a detection has a higher score than this.
        nms_thresh: IoU above which the lower-scored of two detections of one class goes.
        topk_per_image: upper limit of detections; negative for none.

    Returns:
        Per image, Instances with `pred_boxes`, `scores` (descending) and `pred_classes`; and the
        row of `boxes` that each detection came from.
    """
    options = (score_thresh, nms_thresh, topk_per_image)
    found = [
        fast_rcnn_inference_single_image(b, s, hw, *options)
        for b, s, hw in zip(boxes, scores, image_shapes)
    ]
    return [instances for instances, _ in found], [rows for _, rows in found]


def fast_rcnn_inference_single_image(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    image_shape: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[Instances, torch.Tensor]:
    """Same as `fast_rcnn_inference`, of one image. Rows with a non-finite value are ignored."""
    finite = boxes.isfinite().all(dim=1) & scores.isfinite().all(dim=1)
    # rows count the finite ones, as in Detectron2
    boxes, scores = boxes[finite], scores[finite][:, :-1]
    clipped = Boxes(boxes.reshape(-1, 4))
    clipped.clip(image_shape)
    per_class = clipped.tensor.view(boxes.shape[0], boxes.shape[1] // 4, 4)

    rows, classes = (scores > score_thresh).nonzero(as_tuple=True)
    columns = classes if per_class.shape[1] > 1 else torch.zeros_like(classes)
    candidates, candidate_scores = per_class[rows, columns], scores[rows, classes]
    keep = batched_nms(candidates, candidate_scores, classes, nms_thresh)
    keep = keep if topk_per_image < 0 else keep[:topk_per_image]
    detections = Instances(
        image_shape,
        pred_boxes=Boxes(candidates[keep]),
        scores=candidate_scores[keep],
        pred_classes=classes[keep],
    )
    return detections, rows[keep]


def _log_classification_stats(
    pred_logits: torch.Tensor, gt_classes: torch.Tensor, prefix: str = "fast_rcnn"
) -> None:
    """Put into the event storage how many of the R regions are classified rightly.

    Args:
        pred_logits: [R, K + 1].
        gt_classes: [R], K for background.
        prefix: of the names.
    """
    if gt_classes.numel() == 0:
        return
    background = pred_logits.shape[1] - 1
    predicted = pred_logits.argmax(dim=1)
    foreground = (gt_classes >= 0) & (gt_classes < background)
    right = predicted == gt_classes
    missed = foreground & (predicted == background)
    sums = torch.stack([m.sum() for m in (right, foreground, right & foreground, missed)])
    num_right, num_foreground, num_foreground_right, num_missed = sums.tolist()

    storage = get_event_storage()
    storage.put_scalar(f"{prefix}/cls_accuracy", num_right / gt_classes.numel())
    if num_foreground > 0:
        storage.put_scalar(f"{prefix}/fg_cls_accuracy", num_foreground_right / num_foreground)
        storage.put_scalar(f"{prefix}/false_negative", num_missed / num_foreground)


class FastRCNNOutputLayers(nn.Module):
    """One linear layer for the class of a region, one for its box.

    Args:
        input_shape: of a region's features, or the number of them.
        box2box_transform: between proposals and boxes.
        num_classes: K.
        test_score_thresh, test_nms_thresh, test_topk_per_image: see `fast_rcnn_inference`.
        cls_agnostic_bbox_reg: predict one box per region instead of one per class.
        smooth_l1_beta, box_reg_loss_type: see `_dense_box_regression_loss`.
        loss_weight: for both losses, or by name: `loss_cls`, `loss_box_reg`.
        use_sigmoid_ce: let classes be independent of each other, instead of softmax.
        use_fed_loss: must be False; the federated loss of LVIS is left out.

    Raises:
        NotImplementedError: `use_fed_loss` is set.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec | int,
        *,
        box2box_transform: Box2BoxTransform,
        num_classes: int,
        test_score_thresh: float = 0.0,
        test_nms_thresh: float = 0.5,
        test_topk_per_image: int = 100,
        cls_agnostic_bbox_reg: bool = False,
        smooth_l1_beta: float = 0.0,
        box_reg_loss_type: str = "smooth_l1",
        loss_weight: float | dict[str, float] = 1.0,
        use_sigmoid_ce: bool = False,
        use_fed_loss: bool = False,
    ) -> None:
        super().__init__()
        if use_fed_loss:
            raise NotImplementedError(missing_part_message("MODEL.ROI_BOX_HEAD.USE_FED_LOSS"))
        shape = ShapeSpec(input_shape) if isinstance(input_shape, int) else input_shape
        features = (shape.channels or 0) * (shape.height or 1) * (shape.width or 1)
        num_boxes = 1 if cls_agnostic_bbox_reg else num_classes
        self.cls_score = nn.Linear(features, num_classes + 1)
        self.bbox_pred = nn.Linear(features, num_boxes * len(box2box_transform.weights))
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
        self.num_classes = num_classes
        self.box2box_transform = box2box_transform
        self.test_score_thresh = test_score_thresh
        self.test_nms_thresh = test_nms_thresh
        self.test_topk_per_image = test_topk_per_image
        self.smooth_l1_beta = smooth_l1_beta
        self.box_reg_loss_type = box_reg_loss_type
        self.use_sigmoid_ce = use_sigmoid_ce
        names = ("loss_cls", "loss_box_reg")
        self.loss_weight: dict[str, float] = (
            loss_weight if isinstance(loss_weight, dict) else dict.fromkeys(names, loss_weight)
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        heads, options = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD
        return {
            "input_shape": input_shape,
            "box2box_transform": Box2BoxTransform(options.BBOX_REG_WEIGHTS),
            "num_classes": heads.NUM_CLASSES,
            "test_score_thresh": heads.SCORE_THRESH_TEST,
            "test_nms_thresh": heads.NMS_THRESH_TEST,
            "test_topk_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "cls_agnostic_bbox_reg": options.CLS_AGNOSTIC_BBOX_REG,
            "smooth_l1_beta": options.SMOOTH_L1_BETA,
            "box_reg_loss_type": options.BBOX_REG_LOSS_TYPE,
            "loss_weight": {"loss_box_reg": options.BBOX_REG_LOSS_WEIGHT},
            "use_sigmoid_ce": options.USE_SIGMOID_CE,
            "use_fed_loss": options.USE_FED_LOSS,
        }

    def forward(self, x: torch.Tensor) -> Predictions:
        """From features [R, ...] to logits [R, K + 1] and deltas [R, 4 K] (or [R, 4])."""
        x = x.flatten(start_dim=1)
        return self.cls_score(x), self.bbox_pred(x)

    def losses(
        self, predictions: Predictions, proposals: Sequence[Instances]
    ) -> dict[str, torch.Tensor]:
        """`loss_cls` and `loss_box_reg` of the regions of all images.

        Args:
            predictions: what `forward` returned.
            proposals: per image, with `proposal_boxes`, `gt_classes` (K for background) and,
                unless the image has no ground truth, `gt_boxes`.
        """
        logits, deltas = predictions
        sources, targets = deltas.new_zeros((2, 0, 4), dtype=torch.float32)
        classes = torch.empty(0, dtype=torch.int64, device=logits.device)
        if len(proposals):
            classes = cat([p.gt_classes for p in proposals])
            sources = cat([p.proposal_boxes.tensor for p in proposals])
            # without ground truth there is no foreground: any boxes do
            names = ["gt_boxes" if p.has("gt_boxes") else "proposal_boxes" for p in proposals]
            targets = cat([p.get(name).tensor for p, name in zip(proposals, names)])
        _log_classification_stats(logits, classes)
        cls_loss = self.sigmoid_cross_entropy_loss if self.use_sigmoid_ce else cross_entropy
        losses = {
            "loss_cls": cls_loss(logits, classes),
            "loss_box_reg": self.box_reg_loss(sources, targets, deltas, classes),
        }
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}

    def sigmoid_cross_entropy_loss(
        self, pred_class_logits: torch.Tensor, gt_classes: torch.Tensor
    ) -> torch.Tensor:
        """Binary cross entropy, summed over the K classes and averaged over the regions."""
        num_regions, num_columns = pred_class_logits.shape
        target = F.one_hot(gt_classes, num_columns).to(pred_class_logits.dtype)
        total = F.binary_cross_entropy_with_logits(
            pred_class_logits[:, :-1], target[:, :-1], reduction="sum"
        )
        return total / max(num_regions, 1)

    def box_reg_loss(
        self,
        proposal_boxes: torch.Tensor,
        gt_boxes: torch.Tensor,
        pred_deltas: torch.Tensor,
        gt_classes: torch.Tensor,
    ) -> torch.Tensor:
        """Box loss of the foreground, divided by the number R of all regions.

        Background counts in the divisor so that the weight of a foreground region does not
        depend on how many there are in the batch.
        """
        (rows,) = ((gt_classes >= 0) & (gt_classes < self.num_classes)).nonzero(as_tuple=True)
        per_class = pred_deltas.unflatten(1, (-1, proposal_boxes.shape[1]))
        columns = gt_classes[rows] if per_class.shape[1] > 1 else 0
        total = _dense_box_regression_loss(
            [proposal_boxes[rows]],
            self.box2box_transform,
            [per_class[rows, columns][None]],
            [gt_boxes[rows]],
            ...,
            self.box_reg_loss_type,
            self.smooth_l1_beta,
        )
        return total / max(gt_classes.numel(), 1)

    def inference(
        self, predictions: Predictions, proposals: Sequence[Instances]
    ) -> tuple[list[Instances], list[torch.Tensor]]:
        """Detections per image, see `fast_rcnn_inference`."""
        return fast_rcnn_inference(
            boxes=self.predict_boxes(predictions, proposals),
            scores=self.predict_probs(predictions, proposals),
            image_shapes=[p.image_size for p in proposals],
            score_thresh=self.test_score_thresh,
            nms_thresh=self.test_nms_thresh,
            topk_per_image=self.test_topk_per_image,
        )

    def predict_boxes_for_gt_classes(
        self, predictions: Predictions, proposals: Sequence[Instances]
    ) -> Sequence[torch.Tensor]:
        """Per image [R_i, 4], the predicted box of each proposal's true class.

        For background that of the last class.
        """
        boxes = self.predict_boxes(predictions, proposals)
        chosen = []
        for all_classes, proposal in zip(boxes, proposals):
            per_class = all_classes.view(len(proposal), all_classes.shape[1] // 4, 4)
            columns = proposal.gt_classes.clamp(0, per_class.shape[1] - 1)
            chosen.append(per_class[torch.arange(len(proposal), device=columns.device), columns])
        return chosen

    def predict_boxes(
        self, predictions: Predictions, proposals: Sequence[Instances]
    ) -> Sequence[torch.Tensor]:
        """Per image [R_i, 4 K] (or [R_i, 4]), x0 y0 x1 y1 in pixels; not clipped."""
        if not len(proposals):
            return []
        sources = cat([p.proposal_boxes.tensor for p in proposals])
        boxes = self.box2box_transform.apply_deltas(predictions[1], sources)
        return boxes.split([len(p) for p in proposals])

    def predict_probs(
        self, predictions: Predictions, proposals: Sequence[Instances]
    ) -> Sequence[torch.Tensor]:
        """Per image [R_i, K + 1], in 0 to 1."""
        logits = predictions[0]
        scores = logits.sigmoid() if self.use_sigmoid_ce else logits.softmax(dim=-1)
        return scores.split([len(p) for p in proposals])
