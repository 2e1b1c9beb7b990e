"""Atrous spatial pyramid pooling (Chen et al., DeepLabv3, arXiv:1706.05587)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from fvcore.nn import weight_init
from torch import nn
from torch.nn import functional as F

from .batch_norm import get_norm
from .blocks import DepthwiseSeparableConv2d
from .wrappers import Conv2d


class ASPP(nn.Module):
    """See each place at several scales: 1x1, three dilated 3x3 and pooling, then 1x1 over all.

    Args:
        in_channels, out_channels: numbers of channels.
        dilations: of the three 3x3 convolutions.
        norm: see `get_norm`; of all convolutions but the one behind the pooling.
        activation: of every convolution; a module is copied for each.
        pool_kernel_size: (height, width) of the pooling window, divisors of the map's size; None
            pools the whole map.
        dropout: probability, on the output.
        use_depthwise_separable_conv: make the 3x3 convolutions depthwise separable (DeepLabv3+,
            arXiv:1802.02611).

    Raises:
        AssertionError: there are not three dilations.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dilations: Sequence[int],
        *,
        norm: str | Callable[[int], nn.Module],
        activation: Callable[[torch.Tensor], torch.Tensor],
        pool_kernel_size: Sequence[int] | None = None,
        dropout: float = 0.0,
        use_depthwise_separable_conv: bool = False,
    ) -> None:
        super().__init__()
        if len(dilations) != 3:
            raise AssertionError(f"ASPP takes 3 dilations, not {len(dilations)}.")
        self.pool_kernel_size, self.dropout = pool_kernel_size, dropout

        def conv(channels: int, size: int, **options: Any) -> Conv2d:
            options.setdefault("norm", get_norm(norm, out_channels))
            options.setdefault("bias", norm == "")
            made = Conv2d(channels, out_channels, size, activation=deepcopy(activation), **options)
            weight_init.c2_xavier_fill(made)
            return made

        def separable(dilation: int) -> DepthwiseSeparableConv2d:
            options: dict[str, Any] = {"norm1": norm, "activation1": deepcopy(activation)}
            options |= {"norm2": norm, "activation2": deepcopy(activation)}
            window = (3, dilation, dilation)
            return DepthwiseSeparableConv2d(in_channels, out_channels, *window, **options)

        self.convs = nn.ModuleList([conv(in_channels, 1)])
        for dilation in dilations:
            if use_depthwise_separable_conv:
                self.convs.append(separable(dilation))
            else:
                self.convs.append(conv(in_channels, 3, padding=dilation, dilation=dilation))
        pool: nn.Module = nn.AdaptiveAvgPool2d(1)
        if pool_kernel_size is not None:
            height, width = pool_kernel_size
            pool = nn.AvgPool2d((height, width), stride=1)
        # no norm: it would see a single cell
        self.convs.append(nn.Sequential(pool, conv(in_channels, 1, bias=True, norm=None)))
        self.project = conv(len(self.convs) * out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in_channels, H, W] to [N, out_channels, H, W].

        Raises:
            ValueError: the size is no multiple of `pool_kernel_size`.
        """
        image_hw = x.shape[-2:]
        if any(side % step for side, step in zip(image_hw, self.pool_kernel_size or (1, 1))):
            raise ValueError(
                f"A map of {tuple(image_hw)} cells is no multiple of {self.pool_kernel_size}."
            )
        *scales, context = [branch(x) for branch in self.convs]
        context = F.interpolate(context, size=image_hw, mode="bilinear", align_corners=False)
        return F.dropout(
            self.project(torch.cat([*scales, context], dim=1)), self.dropout, self.training
        )
