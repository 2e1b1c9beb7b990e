"""Box heads: from the pooled features of a region to a vector."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.utils.registry import Registry
from fvcore.nn import weight_init
from torch import nn

__all__ = ["ROI_BOX_HEAD_REGISTRY", "FastRCNNConvFCHead", "build_box_head"]

ROI_BOX_HEAD_REGISTRY = Registry("ROI_BOX_HEAD")
ROI_BOX_HEAD_REGISTRY.__doc__ = (
    "Box heads, called `f(cfg, input_shape: ShapeSpec)`: modules with an `output_shape` that turn "
    "pooled features into what the box predictor takes."
)


@ROI_BOX_HEAD_REGISTRY.register()
class FastRCNNConvFCHead(nn.Sequential):
    """3x3 convolutions, then fully connected layers, each with ReLU.

    Args:
        input_shape: of the pooled features: channels, height and width.
        conv_dims: output channels of the convolutions; may be empty.
        fc_dims: outputs of the fully connected layers; may be empty.
        conv_norm: of the convolutions, see `get_norm`; with a norm they have no bias.

    Raises:
        ValueError: there is no layer at all.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        conv_dims: Sequence[int],
        fc_dims: Sequence[int],
        conv_norm: str | Callable[[int], nn.Module] = "",
    ) -> None:
        super().__init__()
        if not conv_dims and not fc_dims:
            raise ValueError("A box head needs a layer: NUM_CONV and NUM_FC are both 0.")
        shape = (input_shape.channels, input_shape.height, input_shape.width)
        self._output_size: tuple[Any, ...] = shape
        self.conv_norm_relus = [self._add_conv(dim, conv_norm) for dim in conv_dims]
        if fc_dims:
            self.add_module("flatten", nn.Flatten())
        self.fcs = [self._add_fc(dim) for dim in fc_dims]
        for conv in self.conv_norm_relus:
            weight_init.c2_msra_fill(conv)
        for fc in self.fcs:
            weight_init.c2_xavier_fill(fc)

    def _add_conv(self, dim: int, norm: str | Callable[[int], nn.Module]) -> Conv2d:
        channels, *size = self._output_size
        layer_norm = get_norm(norm, dim)
        conv = Conv2d(
            channels, dim, 3, padding=1, bias=not norm, norm=layer_norm, activation=nn.ReLU()
        )
        self.add_module(f"conv{len(self) + 1}", conv)
        self._output_size = (dim, *size)
        return conv

    def _add_fc(self, dim: int) -> nn.Linear:
        index = sum(isinstance(layer, nn.Linear) for layer in self) + 1
        fc = nn.Linear(math.prod(self._output_size), dim)
        self.add_module(f"fc{index}", fc)
        self.add_module(f"fc_relu{index}", nn.ReLU())
        self._output_size = (dim,)
        return fc

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        options = cfg.MODEL.ROI_BOX_HEAD
        return {
            "input_shape": input_shape,
            "conv_dims": [options.CONV_DIM] * options.NUM_CONV,
            "fc_dims": [options.FC_DIM] * options.NUM_FC,
            "conv_norm": options.NORM,
        }

    @property
    @torch.jit.unused
    def output_shape(self) -> ShapeSpec:
        """Channels of the output; also height and width if there is no fully connected layer."""
        return ShapeSpec(*self._output_size)


def build_box_head(cfg: CfgNode, input_shape: ShapeSpec) -> Any:
    """Build the head that `cfg.MODEL.ROI_BOX_HEAD.NAME` names."""
    return ROI_BOX_HEAD_REGISTRY.get(cfg.MODEL.ROI_BOX_HEAD.NAME)(cfg, input_shape)
