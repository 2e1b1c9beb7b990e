"""Semantic segmentation that is refined at the points where two classes are near each other."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn
from torch.nn import functional as F

from .mask_head import refine
from .point_features import get_uncertain_point_coords_with_randomness, point_sample
from .point_head import build_point_head

__all__ = ["PointRendSemSegHead", "calculate_uncertainty"]


def calculate_uncertainty(sem_seg_logits: torch.Tensor) -> torch.Tensor:
    """How near the two best classes are: their negative distance, [N, 1, ...].

    Args:
        sem_seg_logits: [N, K, ...], two or more classes.
    """
    best, second = sem_seg_logits.topk(2, dim=1).values.split(1, dim=1)
    return second - best


@SEM_SEG_HEADS_REGISTRY.register()
class PointRendSemSegHead(nn.Module):
    """A semantic head, and a point head that predicts its uncertain points again.

    Args:
        cfg: its MODEL.SEM_SEG_HEAD and MODEL.POINT_HEAD count.
        input_shape: channels and stride of each feature map, by name.

    Raises:
        ValueError: the two heads differ in their number of classes.
    """

    def __init__(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        super().__init__()
        options, semantic = cfg.MODEL.POINT_HEAD, cfg.MODEL.SEM_SEG_HEAD
        if semantic.NUM_CLASSES != options.NUM_CLASSES:
            raise ValueError(
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {semantic.NUM_CLASSES}, "
                f"MODEL.POINT_HEAD.NUM_CLASSES is {options.NUM_CLASSES}: expected equal."
            )
        self.ignore_value = semantic.IGNORE_VALUE
        self.in_features = options.IN_FEATURES
        self.train_num_points = options.TRAIN_NUM_POINTS
        self.oversample_ratio = options.OVERSAMPLE_RATIO
        self.importance_sample_ratio = options.IMPORTANCE_SAMPLE_RATIO
        self.subdivision_steps = options.SUBDIVISION_STEPS
        self.subdivision_num_points = options.SUBDIVISION_NUM_POINTS
        make_coarse = SEM_SEG_HEADS_REGISTRY.get(options.COARSE_SEM_SEG_HEAD_NAME)
        self.coarse_sem_seg_head = make_coarse(cfg, input_shape)
        channels = sum(input_shape[name].channels or 0 for name in self.in_features)
        self.point_head = build_point_head(cfg, ShapeSpec(channels=channels, height=1, width=1))

    def forward(self, features: dict[str, torch.Tensor], targets: Any = None) -> Any:
        """Losses in training, scores in testing; as for `SemSegFPNHead`."""
        coarse = self.coarse_sem_seg_head.layers(features)

        def predict(points: torch.Tensor) -> torch.Tensor:
            fine = [
                point_sample(features[name], points, align_corners=False)
                for name in self.in_features
            ]
            at_points = point_sample(coarse, points, align_corners=False)
            return self.point_head(torch.cat(fine, dim=1), at_points)

        if not self.training:
            return self._refined(coarse, predict), {}
        with torch.no_grad():
            points = get_uncertain_point_coords_with_randomness(
                coarse,
                calculate_uncertainty,
                self.train_num_points,
                self.oversample_ratio,
                self.importance_sample_ratio,
            )
            maps = targets[:, None].float()
            true = point_sample(maps, points, mode="nearest", align_corners=False)[:, 0].long()
        losses = self.coarse_sem_seg_head.losses(coarse, targets)
        loss = F.cross_entropy(predict(points), true, ignore_index=self.ignore_value)
        return None, {**losses, "loss_sem_seg_point": loss}

    def _refined(self, coarse: torch.Tensor, predict: Any) -> torch.Tensor:
        scores = coarse
        for _ in range(self.subdivision_steps):
            scores = F.interpolate(scores, scale_factor=2, mode="bilinear", align_corners=False)
            uncertainty = calculate_uncertainty(scores)
            scores = refine(scores, uncertainty, self.subdivision_num_points, predict)
        return scores
