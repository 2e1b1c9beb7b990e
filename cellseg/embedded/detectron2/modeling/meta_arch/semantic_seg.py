"""Semantic segmentation: a class for each pixel, alone or beside instances."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.structures import ImageList
from detectron2.utils.registry import Registry
from fvcore.nn import weight_init
from torch import nn
from torch.nn import functional as F

from ..backbone import Backbone, build_backbone
from ..postprocessing import sem_seg_postprocess
from .build import META_ARCH_REGISTRY
from .rcnn import ModelInputs, _ImageModel

__all__ = [
    "SEM_SEG_HEADS_REGISTRY",
    "SemSegFPNHead",
    "SemanticSegmentor",
    "build_sem_seg_head",
]

SEM_SEG_HEADS_REGISTRY = Registry("SEM_SEG_HEADS")
SEM_SEG_HEADS_REGISTRY.__doc__ = (
    "Semantic heads, called `f(cfg, input_shape: dict[str, ShapeSpec])`: modules called with "
    "feature maps by name and, in training, classes of pixels, that return (None, losses) in "
    "training, and in testing (a score per class and pixel of the padded batch, {})."
)


def build_sem_seg_head(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> Any:
    """Build the head that `cfg.MODEL.SEM_SEG_HEAD.NAME` names."""
    return SEM_SEG_HEADS_REGISTRY.get(cfg.MODEL.SEM_SEG_HEAD.NAME)(cfg, input_shape)


def batch_of_classes(
    batched_inputs: ModelInputs, backbone: Backbone, sem_seg_head: Any, device: torch.device
) -> torch.Tensor:
    """Classes of the pixels, "sem_seg" of each input, padded like the images: int64 [N, H, W].

    The padding has the class that the head does not learn.
    """
    return ImageList.from_tensors(
        [x["sem_seg"].to(device) for x in batched_inputs],
        backbone.size_divisibility,
        sem_seg_head.ignore_value,
        backbone.padding_constraints,
    ).tensor


@META_ARCH_REGISTRY.register()
class SemanticSegmentor(_ImageModel):
    """A backbone and a semantic head.

    Args:
        backbone: see `Backbone`.
        sem_seg_head: see `SEM_SEG_HEADS_REGISTRY`.
        pixel_mean, pixel_std: per channel, in the units of the input images.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        super().__init__(backbone, pixel_mean, pixel_std)
        self.sem_seg_head: Any = sem_seg_head

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        backbone = build_backbone(cfg)
        return {
            "backbone": backbone,
            "sem_seg_head": build_sem_seg_head(cfg, backbone.output_shape()),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    def forward(self, batched_inputs: ModelInputs) -> Any:
        """Losses in training, scores in testing.

        Args:
            batched_inputs: per image a dict with `image`, [C, H, W]; in training `sem_seg`, int64
                [H, W]; in testing optionally `height` and `width`, pixels, of the output.

        Returns:
            In training a dict of scalar losses. In testing, per image, {"sem_seg": ...}, a score
            per class and pixel of the output, [K, height, width].
        """
        images, features = self._encode(batched_inputs)
        targets = None
        if "sem_seg" in batched_inputs[0]:
            targets = batch_of_classes(
                batched_inputs, self.backbone, self.sem_seg_head, self.device
            )
        scores, losses = self.sem_seg_head(features, targets)
        if self.training:
            return losses
        return [
            {"sem_seg": found}
            for found in postprocess_scores(scores, batched_inputs, images.image_sizes)
        ]


def postprocess_scores(
    scores: torch.Tensor, batched_inputs: ModelInputs, image_sizes: Sequence[Any]
) -> list[torch.Tensor]:
    """Scores of each image in the frame of its output; see `sem_seg_postprocess`."""
    return [
        sem_seg_postprocess(found, size, x.get("height", size[0]), x.get("width", size[1]))
        for found, x, size in zip(scores, batched_inputs, image_sizes)
    ]


@SEM_SEG_HEADS_REGISTRY.register()
class SemSegFPNHead(nn.Module):
    """The semantic head of Panoptic FPN (Kirillov et al., arXiv:1901.02446).

    Every map of the pyramid is convolved and enlarged by 2, again and again, up to one common
    stride; their sum is classified pixel by pixel.

    Args:
        input_shape: channels and stride of each feature map, by name.
        num_classes: K.
        conv_dims: channels of all convolutions.
        common_stride: pixels of the image per pixel of the sum.
        loss_weight: factor of the loss.
        norm: of the convolutions, see `get_norm`; with a norm they have no bias.
        ignore_value: class of pixels that are not learned.

    Raises:
        ValueError: no feature maps.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        conv_dims: int,
        common_stride: int,
        loss_weight: float = 1.0,
        norm: str | Callable[[int], nn.Module] | None = None,
        ignore_value: int = -1,
    ) -> None:
        super().__init__()
        if not input_shape:
            raise ValueError("The semantic head needs at least one feature map (IN_FEATURES).")
        self.common_stride, self.loss_weight = common_stride, loss_weight
        self.ignore_value = ignore_value
        self.in_features = sorted(input_shape, key=lambda name: input_shape[name].stride or 0)
        self.scale_heads = []
        for name in self.in_features:
            head = self._make_scale_head(input_shape[name], conv_dims, norm or "")
            self.add_module(name, head)
            self.scale_heads.append(head)
        self.predictor = Conv2d(conv_dims, num_classes, kernel_size=1)
        weight_init.c2_msra_fill(self.predictor)

    def _make_scale_head(
        self, shape: ShapeSpec, conv_dims: int, norm: str | Callable[[int], nn.Module]
    ) -> nn.Sequential:
        stride, channels = shape.stride or self.common_stride, shape.channels or 0
        doublings = int(math.log2(stride) - math.log2(self.common_stride))
        layers: list[nn.Module] = []
        for index in range(max(doublings, 1)):
            conv = Conv2d(
                conv_dims if index else channels,
                conv_dims,
                kernel_size=3,
                padding=1,
                bias=not norm,
                norm=get_norm(norm, conv_dims),
                activation=F.relu,
            )
            weight_init.c2_msra_fill(conv)
            layers.append(conv)
            if stride != self.common_stride:
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        return nn.Sequential(*layers)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        options = cfg.MODEL.SEM_SEG_HEAD
        used = {name: shape for name, shape in input_shape.items() if name in options.IN_FEATURES}
        return {
            "input_shape": used,
            "num_classes": options.NUM_CLASSES,
            "conv_dims": options.CONVS_DIM,
            "common_stride": options.COMMON_STRIDE,
            "loss_weight": options.LOSS_WEIGHT,
            "norm": options.NORM,
            "ignore_value": options.IGNORE_VALUE,
        }

    def forward(self, features: dict[str, torch.Tensor], targets: Any = None) -> Any:
        """Losses in training, scores in testing.

        Args:
            features: feature maps [N, C, H, W] by name.
            targets: int64 [N, H, W], classes of the pixels of the batch; in training only.

        Returns:
            (None, losses) in training; ([N, K, H, W] scores, {}) in testing.
        """
        scores = self.layers(features)
        if self.training:
            return None, self.losses(scores, targets)
        return self._enlarge(scores), {}

    def layers(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Scores [N, K, H / common_stride, W / common_stride] from the feature maps."""
        first, *others = (
            head(features[name]) for name, head in zip(self.in_features, self.scale_heads)
        )
        return self.predictor(sum(others, first))

    def losses(self, predictions: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """Cross entropy of `layers`' scores, enlarged to the classes of the pixels."""
        scores = self._enlarge(predictions.float())
        loss = F.cross_entropy(scores, targets, ignore_index=self.ignore_value)
        return {"loss_sem_seg": loss * self.loss_weight}

    def _enlarge(self, scores: torch.Tensor) -> torch.Tensor:
        return F.interpolate(
            scores, scale_factor=self.common_stride, mode="bilinear", align_corners=False
        )
