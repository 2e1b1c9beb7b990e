"""Base class of the blocks that backbones are stacked from."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from .batch_norm import FrozenBatchNorm2d

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
