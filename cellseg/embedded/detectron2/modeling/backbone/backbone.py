"""What every backbone offers."""

# no postponed annotations: torch.jit.script reads those of the attributes
from abc import ABCMeta, abstractmethod
from typing import Any

import torch
from detectron2.layers import ShapeSpec
from torch import nn

__all__ = ["Backbone"]


class Backbone(nn.Module, metaclass=ABCMeta):
    """Base class: a module from images [N, C, H, W] to a dict of named feature maps.

    A subclass either fills `_out_features` (names), `_out_feature_channels` and
    `_out_feature_strides` (dicts by name), or overrides `output_shape`.
    """

    _out_features: list[str]
    _out_feature_channels: dict[str, int]
    _out_feature_strides: dict[str, int]

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Compute the feature maps, [N, channels, H/stride, W/stride] each."""

    @property
    def size_divisibility(self) -> int:
        """Images are padded to a multiple of this many pixels; 0 for no demand."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """Further demands on padding: "size_divisibility" and "square_size", both in pixels."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of every feature map that `forward` returns."""
        channels, strides = self._out_feature_channels, self._out_feature_strides
        return {k: ShapeSpec(channels=channels[k], stride=strides[k]) for k in self._out_features}
