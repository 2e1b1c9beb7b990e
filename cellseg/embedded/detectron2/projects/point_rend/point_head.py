"""What a point is: small networks that are applied to each point on its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from detectron2.utils.registry import Registry
from fvcore.nn import weight_init
from torch import nn
from torch.nn import functional as F

__all__ = [
    "POINT_HEAD_REGISTRY",
    "ImplicitPointHead",
    "StandardPointHead",
    "build_point_head",
    "roi_mask_point_loss",
]

POINT_HEAD_REGISTRY = Registry("POINT_HEAD")
POINT_HEAD_REGISTRY.__doc__ = (
    "Heads that predict at points, called `f(cfg, input_shape: ShapeSpec)`: the channels are those "
    "of the features at a point."
)

_FREQUENCIES = 128
"""Each gives a sine and a cosine of where a point is."""


def build_point_head(cfg: CfgNode, input_channels: ShapeSpec) -> Any:
    """Build the head that `cfg.MODEL.POINT_HEAD.NAME` names."""
    return POINT_HEAD_REGISTRY.get(cfg.MODEL.POINT_HEAD.NAME)(cfg, input_channels)


def roi_mask_point_loss(
    mask_logits: torch.Tensor, instances: Sequence[Instances], point_labels: torch.Tensor
) -> torch.Tensor:
    """Binary cross entropy of the true classes at points, averaged over all of them.

    Puts the share of points on the right side into the event storage.

    Args:
        mask_logits: [R, K, P], or [R, 1, P] for the same mask whatever the class.
        instances: per image, with `gt_classes`; R in all.
        point_labels: [R, P], 0 to 1; points of -1 count as zero loss.

    Returns:
        A scalar; zero, with a gradient, where there are no instances.
    """
    if not len(point_labels):
        return 0.0 * mask_logits.sum()
    if mask_logits.shape[1] == 1:
        logits = mask_logits[:, 0]
    else:
        classes = torch.cat([found.gt_classes for found in instances if len(found)]).long()
        logits = mask_logits[torch.arange(len(classes), device=classes.device), classes]
    used = point_labels != -1
    right = (logits > 0) == point_labels.to(torch.uint8)
    share = right[used].sum() / max(int(used.sum()), 1)
    get_event_storage().put_scalar("point/accuracy", share.item())
    return F.binary_cross_entropy_with_logits(logits, point_labels.float(), weight=used)


@POINT_HEAD_REGISTRY.register()
class StandardPointHead(nn.Module):
    """Layers that see the features of the image and the coarse prediction at a point.

    Args:
        cfg: its MODEL.POINT_HEAD counts.
        input_shape: channels of the features of the image.
    """

    def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        super().__init__()
        options = cfg.MODEL.POINT_HEAD
        classes, width = options.NUM_CLASSES, options.FC_DIM
        self.coarse_pred_each_layer = options.COARSE_PRED_EACH_LAYER
        again = classes if self.coarse_pred_each_layer else 0
        self.fc_layers = []
        channels = (input_shape.channels or 0) + classes
        for index in range(1, options.NUM_FC + 1):
            layer = nn.Conv1d(channels, width, kernel_size=1)
            weight_init.c2_msra_fill(layer)
            self.add_module(f"fc{index}", layer)
            self.fc_layers.append(layer)
            channels = width + again
        outputs = 1 if options.CLS_AGNOSTIC_MASK else classes
        self.predictor = nn.Conv1d(channels, outputs, kernel_size=1)
        nn.init.normal_(self.predictor.weight, std=0.001)  # undecided at first
        nn.init.zeros_(self.predictor.get_parameter("bias"))

    def forward(
        self, fine_grained_features: torch.Tensor, coarse_features: torch.Tensor
    ) -> torch.Tensor:
        """Logits [R, K, P].

        Args:
            fine_grained_features: [R, C, P], of the image.
            coarse_features: [R, number of classes, P], logits of the coarse prediction.
        """
        x = torch.cat([fine_grained_features, coarse_features], dim=1)
        for layer in self.fc_layers:
            x = F.relu(layer(x))
            if self.coarse_pred_each_layer:
                x = torch.cat([x, coarse_features], dim=1)
        return self.predictor(x)


@POINT_HEAD_REGISTRY.register()
class ImplicitPointHead(nn.Module):
    """Layers whose weights are predicted for each object.

    Args:
        cfg: its MODEL.POINT_HEAD and MODEL.IMPLICIT_POINTREND count.
        input_shape: channels of the features of the image.

    Attributes:
        num_params: how many numbers the layers of one object consist of.

    Raises:
        ValueError: the layers would see nothing, or there is but one.
    """

    positional_encoding_gaussian_matrix: torch.Tensor

    def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        super().__init__()
        options, implicit = cfg.MODEL.POINT_HEAD, cfg.MODEL.IMPLICIT_POINTREND
        self.image_feature_enabled = implicit.IMAGE_FEATURE_ENABLED
        self.positional_encoding_enabled = implicit.POS_ENC_ENABLED
        self.num_classes = 1 if options.CLS_AGNOSTIC_MASK else options.NUM_CLASSES
        self.in_channels = (input_shape.channels or 0) if self.image_feature_enabled else 0
        if self.positional_encoding_enabled:
            self.in_channels += 2 * _FREQUENCIES
            frequencies = torch.randn(2, _FREQUENCIES)
            self.register_buffer("positional_encoding_gaussian_matrix", frequencies)
        if not self.in_channels or options.NUM_FC < 1:
            raise ValueError(
                "The layers of Implicit PointRend need IMAGE_FEATURE_ENABLED or POS_ENC_ENABLED, "
                f"and NUM_FC of at least 1; got NUM_FC {options.NUM_FC}."
            )
        widths = [self.in_channels, *[options.FC_DIM] * options.NUM_FC, self.num_classes]
        self._shapes = [(c_out, c_in) for c_in, c_out in pairwise(widths)]
        self._counts = [c_out * c_in for c_out, c_in in self._shapes] + widths[1:]
        self.num_params = sum(self._counts)

    def forward(
        self,
        fine_grained_features: torch.Tensor,
        point_coords: torch.Tensor,
        parameters: torch.Tensor,
    ) -> torch.Tensor:
        """Logits [R, K, P].

        Args:
            fine_grained_features: [R, C, P], of the image.
            point_coords: [R, P, 2], shares of the boxes.
            parameters: [R, num_params]: the weights of all layers, then their biases.
        """
        if not len(fine_grained_features):
            return fine_grained_features.new_zeros(0, 1, fine_grained_features.shape[2])
        inputs = []
        if self.positional_encoding_enabled:
            inputs.append(self._encode_places(point_coords))
        if self.image_feature_enabled:
            inputs.append(fine_grained_features)
        x = torch.cat(inputs, dim=1)
        parts = parameters.split(self._counts, dim=1)
        layers = len(self._shapes)
        for index, (shape, weight, bias) in enumerate(
            zip(self._shapes, parts[:layers], parts[layers:])
        ):
            x = torch.bmm(weight.reshape(-1, *shape), x) + bias[:, :, None]
            x = F.relu(x) if index < layers - 1 else x
        return x

    def _encode_places(self, point_coords: torch.Tensor) -> torch.Tensor:
        """Sines and cosines of random frequencies, [R, 256, P] (Tancik et al., 2006.10739)."""
        angles = (2 * point_coords - 1) @ self.positional_encoding_gaussian_matrix
        angles = 2 * math.pi * angles
        return torch.cat([angles.sin(), angles.cos()], dim=2).transpose(1, 2)
