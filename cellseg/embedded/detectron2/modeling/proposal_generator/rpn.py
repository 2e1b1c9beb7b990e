"""Region proposal network (Ren et al., Faster R-CNN, arXiv:1506.01497)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, cat
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from detectron2.utils.events import get_event_storage
from detectron2.utils.memory import retry_if_cuda_oom
from detectron2.utils.registry import Registry
from torch import nn
from torch.nn import functional as F

from ..anchor_generator import build_anchor_generator
from ..box_regression import Box2BoxTransform, _dense_box_regression_loss
from ..matcher import Matcher
from ..sampling import subsample_labels
from .build import PROPOSAL_GENERATOR_REGISTRY
from .proposal_utils import find_top_rpn_proposals

RPN_HEAD_REGISTRY = Registry("RPN_HEAD")
RPN_HEAD_REGISTRY.__doc__ = (
    "Heads of the RPN, called `f(cfg, input_shapes: list[ShapeSpec])`: modules that turn a list of "
    "feature maps into a list of objectness logits and one of box deltas."
)


def build_rpn_head(cfg: CfgNode, input_shape: list[ShapeSpec]) -> Any:
    """Build the head that `cfg.MODEL.RPN.HEAD_NAME` names."""
    return RPN_HEAD_REGISTRY.get(cfg.MODEL.RPN.HEAD_NAME)(cfg, input_shape)


@RPN_HEAD_REGISTRY.register()
class StandardRPNHead(nn.Module):
    """3x3 convolutions with ReLU, then one 1x1 for objectness and one for box deltas.

    The same weights serve all feature maps.

    Args:
        in_channels: of every feature map.
        num_anchors: A, per cell.
        box_dim: parameters per box.
        conv_dims: output channels of each 3x3 convolution; -1 for as many as come in.

    Raises:
        ValueError: an entry of `conv_dims` is neither positive nor -1.
    """

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        num_anchors: int,
        box_dim: int = 4,
        conv_dims: Sequence[int] = (-1,),
    ) -> None:
        super().__init__()
        if any(dim <= 0 and dim != -1 for dim in conv_dims):
            raise ValueError(f"MODEL.RPN.CONV_DIMS are positive, or -1: {list(conv_dims)}.")
        convs = []
        for dim in conv_dims:
            convs.append(self._get_rpn_conv(in_channels, in_channels if dim == -1 else dim))
            in_channels = convs[-1].out_channels
        # a single one has no index in its name, as in the files of the model zoo
        self.conv: nn.Module = convs[0] if len(convs) == 1 else nn.Sequential()
        for index, conv in enumerate(convs if len(convs) > 1 else []):
            self.conv.add_module(f"conv{index}", conv)
        self.objectness_logits = nn.Conv2d(in_channels, num_anchors, kernel_size=1)
        self.anchor_deltas = nn.Conv2d(in_channels, num_anchors * box_dim, kernel_size=1)
        for layer in [*convs, self.objectness_logits, self.anchor_deltas]:
            nn.init.zeros_(layer.get_parameter("bias"))
            nn.init.normal_(layer.weight, std=0.01)

    def _get_rpn_conv(self, in_channels: int, out_channels: int) -> Conv2d:
        return Conv2d(in_channels, out_channels, kernel_size=3, padding=1, activation=nn.ReLU())

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        anchors = build_anchor_generator(cfg, input_shape)
        channels = {shape.channels for shape in input_shape}
        counts = set(anchors.num_anchors)
        if len(channels) != 1 or len(counts) != 1:
            raise ValueError(
                "The RPN's feature maps share one head, so they need the same number of channels "
                f"and of anchors per cell: {channels} channels, {anchors.num_anchors} anchors."
            )
        return {
            "in_channels": channels.pop(),
            "num_anchors": counts.pop(),
            "box_dim": anchors.box_dim,
            "conv_dims": cfg.MODEL.RPN.CONV_DIMS,
        }

    def forward(
        self, features: Sequence[torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """For maps [N, C, H, W]: objectness logits [N, A, H, W] and deltas [N, A*4, H, W] each."""
        hidden = [self.conv(feature) for feature in features]
        return list(map(self.objectness_logits, hidden)), list(map(self.anchor_deltas, hidden))


@PROPOSAL_GENERATOR_REGISTRY.register()
class RPN(nn.Module):
    """Proposals from anchors, with the losses to learn them.

    Args:
        in_features: names of the feature maps to use.
        head: see `StandardRPNHead`.
        anchor_generator: see `DefaultAnchorGenerator`.
        anchor_matcher: labels anchors by their IoU with the ground truth.
        box2box_transform: between anchors and boxes.
        batch_size_per_image: anchors that the losses of one image are computed on.
        positive_fraction: upper limit of the share of foreground among them.
        pre_nms_topk, post_nms_topk: (in training, in testing), see `find_top_rpn_proposals`.
        nms_thresh, min_box_size: see `find_top_rpn_proposals`.
        anchor_boundary_thresh: anchors further than this outside the image, pixels, are not
            trained on; negative for no limit.
        loss_weight: for both losses, or by name.
        box_reg_loss_type, smooth_l1_beta: see `_dense_box_regression_loss`.
    """

    @configurable
    def __init__(
        self,
        *,
        in_features: Sequence[str],
        head: nn.Module,
        anchor_generator: nn.Module,
        anchor_matcher: Matcher,
        box2box_transform: Box2BoxTransform,
        batch_size_per_image: int,
        positive_fraction: float,
        pre_nms_topk: tuple[int, int],
        post_nms_topk: tuple[int, int],
        nms_thresh: float = 0.7,
        min_box_size: float = 0.0,
        anchor_boundary_thresh: int = -1,
        loss_weight: float | dict[str, float] = 1.0,
        box_reg_loss_type: str = "smooth_l1",
        smooth_l1_beta: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.anchor_generator: Any = anchor_generator
        self.rpn_head: Any = head
        self.box2box_transform = box2box_transform
        self.anchor_matcher = anchor_matcher
        self.pre_nms_topk = dict(zip((True, False), pre_nms_topk))
        self.post_nms_topk = dict(zip((True, False), post_nms_topk))
        self.nms_thresh = nms_thresh
        self.min_box_size = float(min_box_size)
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.anchor_boundary_thresh = anchor_boundary_thresh
        self.box_reg_loss_type = box_reg_loss_type
        self.smooth_l1_beta = smooth_l1_beta
        names = ("loss_rpn_cls", "loss_rpn_loc")
        self.loss_weight: dict[str, float] = (
            loss_weight if isinstance(loss_weight, dict) else dict.fromkeys(names, loss_weight)
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        options = cfg.MODEL.RPN
        shapes = [input_shape[name] for name in options.IN_FEATURES]
        both = ("TRAIN", "TEST")
        weight = options.LOSS_WEIGHT
        return {
            "in_features": options.IN_FEATURES,
            "head": build_rpn_head(cfg, shapes),
            "anchor_generator": build_anchor_generator(cfg, shapes),
            "anchor_matcher": Matcher(options.IOU_THRESHOLDS, options.IOU_LABELS, True),
            "box2box_transform": Box2BoxTransform(options.BBOX_REG_WEIGHTS),
            "batch_size_per_image": options.BATCH_SIZE_PER_IMAGE,
            "positive_fraction": options.POSITIVE_FRACTION,
            "pre_nms_topk": tuple(options[f"PRE_NMS_TOPK_{mode}"] for mode in both),
            "post_nms_topk": tuple(options[f"POST_NMS_TOPK_{mode}"] for mode in both),
            "nms_thresh": options.NMS_THRESH,
            "min_box_size": cfg.MODEL.PROPOSAL_GENERATOR.MIN_SIZE,
            "anchor_boundary_thresh": options.BOUNDARY_THRESH,
            "loss_weight": {
                "loss_rpn_cls": weight,
                "loss_rpn_loc": weight * options.BBOX_REG_LOSS_WEIGHT,
            },
            "box_reg_loss_type": options.BBOX_REG_LOSS_TYPE,
            "smooth_l1_beta": options.SMOOTH_L1_BETA,
        }

    def forward(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        gt_instances: Sequence[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """Predict proposals, and in training the losses.

        Args:
            images: the padded batch; only the image sizes are used.
            features: feature maps [N, C, H, W] by name.
            gt_instances: per image, with `gt_boxes`; needed in training.

        Returns:
            Per image, see `find_top_rpn_proposals`; `loss_rpn_cls` and `loss_rpn_loc`, or nothing.
        """
        maps = [features[name] for name in self.in_features]
        anchors = self.anchor_generator(maps)
        logits, deltas = self.rpn_head(maps)
        logits = [_anchors_last(t, 1).squeeze(-1) for t in logits]
        deltas = [_anchors_last(t, self.anchor_generator.box_dim) for t in deltas]
        losses = {}
        if self.training:
            if gt_instances is None:
                raise ValueError("The RPN needs gt_instances in training.")
            labels, boxes = self.label_and_sample_anchors(anchors, gt_instances)
            losses = self.losses(anchors, logits, labels, deltas, boxes)
        return self.predict_proposals(anchors, logits, deltas, images.image_sizes), losses

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: Sequence[Instances]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Choose the anchors to train on.

        Args:
            anchors: per feature map, R in all.
            gt_instances: per image, with `gt_boxes`; may be empty.

        Returns:
            Per image, int8 [R]: 1 foreground, 0 background, -1 not chosen; and [R, 4], the true
            box that each anchor matches best (zeros for an image without any).
        """
        all_anchors = Boxes.cat(anchors)
        labels, boxes = [], []
        for instances in gt_instances:
            true = instances.gt_boxes
            quality = retry_if_cuda_oom(pairwise_iou)(true, all_anchors)
            matches, label = retry_if_cuda_oom(self.anchor_matcher)(quality)
            del quality  # the largest tensor of a training step on a dense image
            label = label.to(true.device)
            if self.anchor_boundary_thresh >= 0:
                inside = all_anchors.inside_box(instances.image_size, self.anchor_boundary_thresh)
                label.masked_fill_(~inside, -1)
            labels.append(self._subsample_labels(label))
            matched = true.tensor[matches] if len(true) else torch.zeros_like(all_anchors.tensor)
            boxes.append(matched)
        return labels, boxes

    def _subsample_labels(self, label: torch.Tensor) -> torch.Tensor:
        """Set all labels but a random choice to -1."""
        positive, negative = subsample_labels(
            label, self.batch_size_per_image, self.positive_fraction, 0
        )
        chosen = torch.full_like(label, -1)
        return chosen.index_fill_(0, positive, 1).index_fill_(0, negative, 0)

    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[torch.Tensor],
        gt_labels: list[torch.Tensor],
        pred_anchor_deltas: list[torch.Tensor],
        gt_boxes: list[torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """Cross entropy of objectness, and the box loss on the foreground.

        Both are divided by the number of anchors that could have been chosen: N times
        `batch_size_per_image`. Arguments as `label_and_sample_anchors` and the head give them:
        logits [N, R_i] and deltas [N, R_i, 4] per feature map.
        """
        num_images = len(gt_labels)
        labels = torch.stack(gt_labels)
        foreground = labels == 1
        for name, count in zip(("pos", "neg"), _counts(foreground, labels == 0)):
            get_event_storage().put_scalar(f"rpn/num_{name}_anchors", count / num_images)
        box_loss = _dense_box_regression_loss(
            anchors,
            self.box2box_transform,
            pred_anchor_deltas,
            gt_boxes,
            foreground,
            self.box_reg_loss_type,
            self.smooth_l1_beta,
        )
        chosen = (labels >= 0).nonzero(as_tuple=True)
        logits = cat(pred_objectness_logits, dim=1)[chosen]
        cls_loss = F.binary_cross_entropy_with_logits(
            logits, labels[chosen].float(), reduction="sum"
        )
        normalizer = num_images * self.batch_size_per_image
        losses = {"loss_rpn_cls": cls_loss / normalizer, "loss_rpn_loc": box_loss / normalizer}
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}

    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[torch.Tensor],
        pred_anchor_deltas: list[torch.Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[Instances]:
        """Decode all anchors and select; no gradient flows into proposals."""
        boxes = self._decode_proposals(anchors, pred_anchor_deltas)
        topk = {
            "pre_nms_topk": self.pre_nms_topk[self.training],
            "post_nms_topk": self.post_nms_topk[self.training],
        }
        return find_top_rpn_proposals(
            boxes,
            pred_objectness_logits,
            image_sizes,
            nms_thresh=self.nms_thresh,
            min_box_size=self.min_box_size,
            training=self.training,
            **topk,
        )

    def _decode_proposals(
        self, anchors: list[Boxes], pred_anchor_deltas: list[torch.Tensor]
    ) -> list[torch.Tensor]:
        """Boxes per feature map, [N, R_i, 4]."""
        decoded = []
        for boxes, deltas in zip(anchors, pred_anchor_deltas):
            sources = boxes.tensor.repeat(len(deltas), 1)
            flat = self.box2box_transform.apply_deltas(deltas.flatten(0, 1), sources)
            decoded.append(flat.view_as(deltas))
        return decoded


def _anchors_last(prediction: torch.Tensor, values: int) -> torch.Tensor:
    """[N, A*values, H, W] to [N, H*W*A, values]: the order of the anchors."""
    images, _, height, width = prediction.shape
    split = prediction.view(images, -1, values, height, width)
    return split.permute(0, 3, 4, 1, 2).flatten(1, 3)


def _counts(*masks: torch.Tensor) -> list[int]:
    """How many elements of each mask are true; waits for the device once."""
    return torch.stack([mask.sum() for mask in masks]).tolist()
