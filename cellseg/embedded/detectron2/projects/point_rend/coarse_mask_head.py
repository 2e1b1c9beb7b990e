"""The coarse prediction that PointRend starts from, and weights of its first version."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from fvcore.nn import weight_init
from torch import nn
from torch.nn import functional as F

__all__ = ["ConvFCHead", "rename_weights"]


def rename_weights(state_dict: dict[str, Any], names: dict[str, str]) -> None:
    """Rename weights of old files, by how their names begin; says so if there are any."""
    old = [key for key in state_dict if key.startswith(tuple(names))]
    for key in old:
        start = next(name for name in names if key.startswith(name))
        state_dict[names[start] + key.removeprefix(start)] = state_dict.pop(key)
    if old:
        logging.getLogger(__name__).warning("Weights of an old PointRend are renamed: %s", old)


class ConvFCHead(nn.Module):
    """From pooled features to a few numbers per object: convolutions, then linear layers.

    Args:
        input_shape: channels, height and width of the pooled features.
        conv_dim: channels of the convolutions; one to reduce them, where there are more, and one
            that halves the resolution.
        fc_dims: widths of the linear layers, one or more.
        output_shape: of the numbers.
    """

    _version = 2

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        conv_dim: int,
        fc_dims: Sequence[int],
        output_shape: Sequence[int],
    ) -> None:
        super().__init__()
        self.output_shape = tuple(output_shape)
        self.conv_layers = []
        channels = input_shape.channels or 0
        if channels > conv_dim:
            self.reduce_channel_dim_conv = Conv2d(channels, conv_dim, 1, activation=F.relu)
            self.conv_layers.append(self.reduce_channel_dim_conv)
        self.reduce_spatial_dim_conv = Conv2d(conv_dim, conv_dim, 2, stride=2, activation=F.relu)
        self.conv_layers.append(self.reduce_spatial_dim_conv)
        width = conv_dim * (input_shape.height or 0) * (input_shape.width or 0) // 4
        self.fcs = []
        for index, fc_dim in enumerate(fc_dims, 1):
            layer = nn.Linear(width, fc_dim)
            self.add_module(f"fc{index}", layer)
            self.fcs.append(layer)
            width = fc_dim
        self.prediction = nn.Linear(width, math.prod(self.output_shape))
        for conv in self.conv_layers:
            weight_init.c2_msra_fill(conv)
        for layer in self.fcs:
            weight_init.c2_xavier_fill(layer)
        nn.init.normal_(self.prediction.weight, std=0.001)  # undecided at first
        nn.init.zeros_(self.prediction.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        options = cfg.MODEL.ROI_MASK_HEAD
        side = options.OUTPUT_SIDE_RESOLUTION
        return {
            "input_shape": input_shape,
            "conv_dim": options.CONV_DIM,
            "fc_dims": [options.FC_DIM] * options.NUM_FC,
            "output_shape": (cfg.MODEL.ROI_HEADS.NUM_CLASSES, side, side),
        }

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[R, *output_shape] from pooled features [R, C, H, W]."""
        for conv in self.conv_layers:
            x = conv(x)
        x = x.flatten(1)
        for layer in self.fcs:
            x = F.relu(layer(x))
        return self.prediction(x).reshape(-1, *self.output_shape)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, *args: Any
    ) -> None:
        rename_weights(state_dict, {f"{prefix}coarse_mask_fc": f"{prefix}fc"})
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
