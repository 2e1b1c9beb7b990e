"""Deformable convolutions (Dai et al., arXiv:1703.06211; Zhu et al., arXiv:1811.11168).

The operator is torchvision's, which runs on CPU and GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.utils import _pair
from torchvision.ops import deform_conv2d as deformable_convolution

__all__ = ["DeformConv", "ModulatedDeformConv", "deform_conv", "modulated_deform_conv"]

Size = int | tuple[int, int]


def deform_conv(
    input: torch.Tensor,
    offset: torch.Tensor,
    weight: torch.Tensor,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    deformable_groups: int = 1,
    im2col_step: int = 64,
) -> torch.Tensor:
    """Convolution that reads each tap of its kernel `offset` pixels beside its place.

    Args:
        input: [N, C, H, W].
        offset: [N, 2 x deformable_groups x kernel height x kernel width, H', W'] with the size of
            the output: (y, x) in pixels for every tap in turn. Outside the image are zeros.
        weight: [C', C / groups, kernel height, kernel width].
        stride, padding, dilation, groups: those of a convolution.
        deformable_groups: groups of input channels that share offsets. The operator reads it off
            `offset`; it stands here for calls by position.
        im2col_step: how many images go together; no effect on the result, and not used here.

    Returns:
        [N, C', H', W'].
    """
    return deformable_convolution(
        input, offset, weight, None, _pair(stride), _pair(padding), _pair(dilation)
    )


def modulated_deform_conv(
    input: torch.Tensor,
    offset: torch.Tensor,
    mask: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
    deformable_groups: int = 1,
) -> torch.Tensor:
    """`deform_conv` with a factor for each tap at each place.

    Args:
        mask: [N, deformable_groups x kernel height x kernel width, H', W']: the factors.
        bias: [C'], or None.
        input, offset, weight, stride, padding, dilation, groups, deformable_groups: see
            `deform_conv`.
    """
    return deformable_convolution(
        input, offset, weight, bias, _pair(stride), _pair(padding), _pair(dilation), mask
    )


class _DeformableConvolution(nn.Module):
    """What the two layers share: the weight, and a norm and an activation behind it."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = False,
        norm: nn.Module | None = None,
        activation: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups or in_channels % deformable_groups:
            raise ValueError(
                f"{in_channels} channels in and {out_channels} out are not multiples of "
                f"{groups} groups and {deformable_groups} deformable groups"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = _pair(kernel_size)
        self.stride, self.padding, self.dilation = _pair(stride), _pair(padding), _pair(dilation)
        self.groups, self.deformable_groups = groups, deformable_groups
        self.norm, self.activation = norm, activation
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = nn.Parameter(torch.empty(shape))
        nn.init.kaiming_uniform_(self.weight, nonlinearity="relu")
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def _convolve(
        self, x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        taps = self.kernel_size[0] * self.kernel_size[1]
        if offset.shape[1] != 2 * self.deformable_groups * taps:
            raise ValueError(
                f"offset has {offset.shape[1]} channels; {self.deformable_groups} deformable "
                f"groups of {taps} taps need {2 * self.deformable_groups * taps}"
            )
        if len(x) == 0:  # the operator divides by the number of images
            out = x.new_zeros(0, self.out_channels, *offset.shape[2:]) + 0 * self.weight.sum()
        else:
            out = deformable_convolution(
                x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask
            )
        if self.norm is not None:
            out = self.norm(out)
        return out if self.activation is None else self.activation(out)

    def extra_repr(self) -> str:
        """The arguments of the convolution, for `print`."""
        names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")
        shown = (*names, "groups", "deformable_groups")
        return ", ".join(f"{name}={getattr(self, name)}" for name in shown)


class DeformConv(_DeformableConvolution):
    """Convolution whose taps are moved by a second input; without bias.

    Args:
        in_channels, out_channels: numbers of channels.
        kernel_size, stride, padding, dilation, groups: those of a convolution.
        deformable_groups: groups of input channels that share offsets.
        bias: False; kept for calls by position.
        norm: module applied to the output, or None.
        activation: callable applied last, or None.

    Raises:
        ValueError: channels and groups do not go together, or a bias is asked for; in `forward`,
            offsets of another number of channels.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.bias is not None:
            raise ValueError("DeformConv has no bias; ModulatedDeformConv does")

    def forward(self, x: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        """Images [N, C, H, W] and the offsets of `deform_conv` to [N, C', H', W']."""
        return self._convolve(x, offset, None)


class ModulatedDeformConv(_DeformableConvolution):
    """`DeformConv` with a factor for each tap, and with a bias.

    Takes the arguments of `DeformConv`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        bias: bool = True,
        **kwargs: Any,
    ) -> None:
        sizes = (kernel_size, stride, padding, dilation)
        super().__init__(
            in_channels, out_channels, *sizes, groups, deformable_groups, bias, **kwargs
        )

    def forward(self, x: torch.Tensor, offset: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Images, offsets and factors as in `modulated_deform_conv`, to [N, C', H', W']."""
        return self._convolve(x, offset, mask)
