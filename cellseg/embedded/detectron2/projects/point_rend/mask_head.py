"""Mask heads that predict coarsely, and then again at the points that matter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec, cat, interpolate
from detectron2.modeling import ROI_MASK_HEAD_REGISTRY
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_inference, mask_rcnn_loss
from detectron2.structures import Boxes, Instances
from torch import nn

from .coarse_mask_head import ConvFCHead
from .point_features import (
    generate_regular_grid_point_coords,
    get_point_coords_wrt_image,
    get_uncertain_point_coords_on_grid,
    get_uncertain_point_coords_with_randomness,
    point_sample,
    point_sample_fine_grained_features,
    sample_point_labels,
)
from .point_head import build_point_head, roi_mask_point_loss

__all__ = ["ConvFCHead", "ImplicitPointRendMaskHead", "PointRendMaskHead", "calculate_uncertainty"]

Features = dict[str, torch.Tensor]


def calculate_uncertainty(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """How near the logit of each object's class is to zero: its negative distance, [R, 1, ...].

    Args:
        logits: [R, K, ...], or [R, 1, ...] for the same mask whatever the class.
        classes: [R].
    """
    if logits.shape[1] > 1:
        logits = logits[torch.arange(len(logits), device=logits.device), classes][:, None]
    return -logits.abs()


@ROI_MASK_HEAD_REGISTRY.register()
class PointRendMaskHead(nn.Module):
    """Coarse masks, and a point head that predicts their uncertain points again.

    Args:
        cfg: its MODEL.ROI_MASK_HEAD and MODEL.POINT_HEAD count.
        input_shape: channels and stride of each feature map, by name.

    Raises:
        ValueError: the point head has another number of classes than the region heads.
    """

    def __init__(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        super().__init__()
        options = cfg.MODEL.ROI_MASK_HEAD
        self._feature_scales = {
            name: 1.0 / shape.stride for name, shape in input_shape.items() if shape.stride
        }
        self._init_point_head(cfg, input_shape)
        self.roi_pooler_in_features = options.IN_FEATURES
        self.roi_pooler_size = size = options.POOLER_RESOLUTION
        channels = _sum_channels(input_shape, self.roi_pooler_in_features)
        self._init_roi_head(cfg, ShapeSpec(channels=channels, height=size, width=size))

    def _init_roi_head(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        """Make the coarse head, for pooled features of that shape."""
        self.coarse_head = ConvFCHead(cfg, input_shape)

    def _init_point_head(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        """Make the point head, for feature maps of these shapes; none where it is off."""
        self.mask_point_on = cfg.MODEL.ROI_MASK_HEAD.POINT_HEAD_ON
        if not self.mask_point_on:
            return
        self._read_point_options(cfg, input_shape)
        options = cfg.MODEL.POINT_HEAD
        self.mask_point_oversample_ratio = options.OVERSAMPLE_RATIO
        self.mask_point_importance_sample_ratio = options.IMPORTANCE_SAMPLE_RATIO
        side = cfg.MODEL.ROI_MASK_HEAD.OUTPUT_SIDE_RESOLUTION
        # Where every pixel would be predicted again after an enlargement, begin with that.
        while 4 * side**2 <= self.mask_point_subdivision_num_points:
            side *= 2
            self.mask_point_subdivision_steps -= 1
        self.mask_point_subdivision_init_resolution = side

    def _read_point_options(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        options = cfg.MODEL.POINT_HEAD
        if cfg.MODEL.ROI_HEADS.NUM_CLASSES != options.NUM_CLASSES:
            raise ValueError(
                f"MODEL.POINT_HEAD.NUM_CLASSES is {options.NUM_CLASSES}, "
                f"MODEL.ROI_HEADS.NUM_CLASSES is {cfg.MODEL.ROI_HEADS.NUM_CLASSES}: expected equal."
            )
        self.mask_point_in_features = options.IN_FEATURES
        self.mask_point_train_num_points = options.TRAIN_NUM_POINTS
        self.mask_point_subdivision_steps = options.SUBDIVISION_STEPS
        self.mask_point_subdivision_num_points = options.SUBDIVISION_NUM_POINTS
        channels = _sum_channels(input_shape, self.mask_point_in_features)
        self.point_head = build_point_head(cfg, ShapeSpec(channels=channels, height=1, width=1))

    def forward(self, features: Features, instances: list[Instances]) -> Any:
        """Losses in training; the instances with `pred_masks` in testing.

        Args:
            features: feature maps [N, C, H, W] by name.
            instances: per image: in training foreground proposals with `proposal_boxes`,
                `gt_classes` and `gt_masks`, in testing detections.
        """
        if not self.training:
            boxes = [found.pred_boxes for found in instances]
            coarse = self.coarse_head(self._roi_pooler(features, boxes))
            if self.mask_point_on:
                return self._subdivision_inference(features, coarse, instances)
            mask_rcnn_inference(coarse, instances)
            return instances
        boxes = [found.proposal_boxes for found in instances]
        coarse = self.coarse_head(self._roi_pooler(features, boxes))
        losses = {"loss_mask": mask_rcnn_loss(coarse, instances)}
        if self.mask_point_on:
            points, labels = self._sample_train_points(coarse, instances)
            logits = self._get_point_logits(
                self._point_pooler(features, boxes, points), points, coarse
            )
            losses["loss_mask_point"] = roi_mask_point_loss(logits, instances, labels)
        return losses

    def _roi_pooler(self, features: Features, boxes: list[Boxes]) -> torch.Tensor:
        """A regular grid of points in each box, of all maps: [R, C, size, size]."""
        count, size = sum(map(len, boxes)), self.roi_pooler_size
        grid = generate_regular_grid_point_coords(count, size, boxes[0].device)
        pooled = self._sample_features(features, self.roi_pooler_in_features, boxes, grid)
        return pooled.reshape(count, pooled.shape[1], size, size)

    def _point_pooler(
        self, features: Features, proposal_boxes: list[Boxes], point_coords: torch.Tensor
    ) -> torch.Tensor:
        """What the point head sees of the image: [R, C, P]."""
        return self._sample_features(
            features, self.mask_point_in_features, proposal_boxes, point_coords
        )

    def _sample_features(
        self, features: Features, names: Sequence[str], boxes: list[Boxes], points: torch.Tensor
    ) -> torch.Tensor:
        maps = [features[name] for name in names]
        scales = [self._feature_scales[name] for name in names]
        return point_sample_fine_grained_features(maps, scales, boxes, points)[0]

    @torch.no_grad()
    def _sample_train_points(
        self, coarse_mask: torch.Tensor, instances: list[Instances]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Points to learn from, [R, P, 2] as shares of the boxes, and what is right at each."""
        classes = cat([found.gt_classes for found in instances])
        points = get_uncertain_point_coords_with_randomness(
            coarse_mask,
            lambda logits: calculate_uncertainty(logits, classes),
            self.mask_point_train_num_points,
            self.mask_point_oversample_ratio,
            self.mask_point_importance_sample_ratio,
        )
        return points, _labels_in_boxes(instances, points)

    def _get_point_logits(
        self,
        fine_grained_features: torch.Tensor,
        point_coords: torch.Tensor,
        coarse_mask: torch.Tensor,
    ) -> torch.Tensor:
        """Logits [R, K, P] from the features at points and what `_roi_pooler` led to."""
        coarse_features = point_sample(coarse_mask, point_coords, align_corners=False)
        return self.point_head(fine_grained_features, coarse_features)

    def _subdivision_inference(
        self, features: Features, mask_representations: torch.Tensor, instances: list[Instances]
    ) -> list[Instances]:
        """Give the instances masks that are enlarged and predicted again, step by step.

        Args:
            features: feature maps by name.
            mask_representations: what `_get_point_logits` takes last.
            instances: detections per image.
        """
        boxes = [found.pred_boxes for found in instances]
        classes = cat([found.pred_classes for found in instances])

        def predict(points: torch.Tensor) -> torch.Tensor:
            at_points = self._point_pooler(features, boxes, points)
            return self._get_point_logits(at_points, points, mask_representations)

        side = self.mask_point_subdivision_init_resolution
        grid = generate_regular_grid_point_coords(len(classes), side, classes.device)
        at_grid = predict(grid)
        logits = at_grid.reshape(*at_grid.shape[:2], side, side)
        for _ in range(self.mask_point_subdivision_steps if len(classes) else 0):
            logits = interpolate(logits, scale_factor=2, mode="bilinear", align_corners=False)
            uncertainty = calculate_uncertainty(logits, classes)
            logits = refine(logits, uncertainty, self.mask_point_subdivision_num_points, predict)
        mask_rcnn_inference(logits, instances)
        return instances


def refine(logits: torch.Tensor, uncertainty: torch.Tensor, count: int, predict: Any) -> Any:
    """Predict the most uncertain pixels again.

    Args:
        logits: [R, K, H, W].
        uncertainty: [R, 1, H, W].
        count: how many pixels of each map.
        predict: from points [R, P, 2], shares of the map, to logits [R, K, P].
    """
    indices, points = get_uncertain_point_coords_on_grid(uncertainty, count)
    indices = indices[:, None].expand(-1, logits.shape[1], -1)
    return logits.flatten(2).scatter(2, indices, predict(points)).reshape(logits.shape)


def _sum_channels(shapes: dict[str, ShapeSpec], names: Sequence[str]) -> int:
    return sum(shapes[name].channels or 0 for name in names)


def _labels_in_boxes(instances: list[Instances], points: torch.Tensor) -> torch.Tensor:
    boxes = Boxes.cat([found.proposal_boxes for found in instances])
    return sample_point_labels(instances, get_point_coords_wrt_image(boxes.tensor, points))


@ROI_MASK_HEAD_REGISTRY.register()
class ImplicitPointRendMaskHead(PointRendMaskHead):
    """A point head whose layers are predicted for each object, in place of coarse masks.

    Args:
        cfg: its MODEL.ROI_MASK_HEAD, MODEL.POINT_HEAD and MODEL.IMPLICIT_POINTREND count.
        input_shape: channels and stride of each feature map, by name.

    Raises:
        ValueError: another number of classes than the region heads', or a number of points that
            is not a square.
    """

    def _init_roi_head(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        size = (self.point_head.num_params,)
        self.parameter_head = ConvFCHead(cfg, input_shape, output_shape=size)
        self.regularizer = cfg.MODEL.IMPLICIT_POINTREND.PARAMS_L2_REGULARIZER

    def _init_point_head(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        self.mask_point_on = True
        self._read_point_options(cfg, input_shape)
        self.num_params = self.point_head.num_params
        points = self.mask_point_subdivision_num_points
        side = self.mask_point_subdivision_init_resolution = math.isqrt(points)
        if side**2 != points:
            raise ValueError(f"MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS must be a square: {points}.")

    def forward(self, features: Features, instances: list[Instances]) -> Any:
        """See `PointRendMaskHead.forward`."""
        if not self.training:
            boxes = [found.pred_boxes for found in instances]
            parameters = self.parameter_head(self._roi_pooler(features, boxes))
            return self._subdivision_inference(features, parameters, instances)
        boxes = [found.proposal_boxes for found in instances]
        parameters = self.parameter_head(self._roi_pooler(features, boxes))
        points, labels = self._uniform_sample_train_points(instances)
        logits = self._get_point_logits(
            self._point_pooler(features, boxes, points), points, parameters
        )
        size = parameters.square().mean() if len(parameters) else parameters.sum()
        return {
            "loss_l2": self.regularizer * size,
            "loss_mask_point": roi_mask_point_loss(logits, instances, labels),
        }

    def _uniform_sample_train_points(
        self, instances: list[Instances]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Points by chance, as `_sample_train_points` gives them."""
        device = instances[0].proposal_boxes.device
        count = sum(map(len, instances))
        points = torch.rand(count, self.mask_point_train_num_points, 2, device=device)
        return points, _labels_in_boxes(instances, points)

    def _get_point_logits(
        self,
        fine_grained_features: torch.Tensor,
        point_coords: torch.Tensor,
        coarse_mask: torch.Tensor,
    ) -> torch.Tensor:
        return self.point_head(fine_grained_features, point_coords, coarse_mask)
