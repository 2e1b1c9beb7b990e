"""Blocks of a few convolutions, and the base class of those that backbones are stacked from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from fvcore.nn import weight_init
from torch import nn

from .batch_norm import FrozenBatchNorm2d, get_norm
from .wrappers import Conv2d

Block = TypeVar("Block", bound="CNNBlockBase")


class CNNBlockBase(nn.Module):
    """A block [N, in_channels, H, W] -> [N, out_channels, H/stride, W/stride].

    Attributes:
        in_channels, out_channels: numbers of channels.
        stride: downsampling factor of the block.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.stride = stride

    def freeze(self: Block) -> Block:
        """Stop training of all parameters and turn batch norms into frozen ones; in place."""
        self.requires_grad_(False)
        FrozenBatchNorm2d.convert_frozen_batchnorm(self)
        return self


class DepthwiseSeparableConv2d(nn.Module):
    """A convolution of each channel for itself, then one of 1x1 over the channels.

    With norm and activation on the second it is the one of Xception (Chollet,
    arXiv:1610.02357), with both on both that of MobileNet (Howard et al., arXiv:1704.04861).

    Args:
        in_channels, out_channels: numbers of channels.
        kernel_size, padding, dilation: of the first convolution.
        norm1, norm2: see `get_norm`; a convolution with a norm has no bias.
        activation1, activation2: applied behind the norms.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        padding: int = 1,
        dilation: int = 1,
        *,
        norm1: str | Callable[[int], nn.Module] | None = None,
        activation1: Callable[[torch.Tensor], torch.Tensor] | None = None,
        norm2: str | Callable[[int], nn.Module] | None = None,
        activation2: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        window = {"padding": padding, "dilation": dilation, "groups": in_channels}
        sizes = (in_channels, in_channels, kernel_size)
        self.depthwise = _normed_conv(*sizes, norm1, activation1, **window)
        self.pointwise = _normed_conv(in_channels, out_channels, 1, norm2, activation2)
        for conv in (self.depthwise, self.pointwise):
            weight_init.c2_msra_fill(conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pointwise(self.depthwise(x))


def _normed_conv(
    in_channels: int, out_channels: int, size: int, norm: Any, activation: Any, **window: Any
) -> Conv2d:
    window["norm"] = get_norm(norm, out_channels)
    bias = not norm
    return Conv2d(in_channels, out_channels, size, bias=bias, activation=activation, **window)
