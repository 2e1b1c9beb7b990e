"""Feature pyramid network (Lin et al., arXiv:1612.03144)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from fvcore.nn import weight_init
from torch import nn
from torch.nn import functional as F

from .backbone import Backbone
from .build import BACKBONE_REGISTRY
from .resnet import build_resnet_backbone

__all__ = ["FPN", "LastLevelMaxPool", "LastLevelP6P7", "build_resnet_fpn_backbone"]


class FPN(Backbone):
    """Maps `p2`, `p3`, ... of equal channels out of the stages of a bottom-up network.

    The map of stride 2^k is called `p<k>`.

    Args:
        bottom_up: the network to take features from.
        in_features: names of its outputs, from fine to coarse, each of twice the stride before.
        out_channels: channels of every output.
        norm: see `get_norm`; with a norm the convolutions have no bias.
        top_block: module with `num_levels` and `in_feature` that adds coarser maps; it takes the
            map of that name, of `bottom_up` or of the pyramid, and returns a list.
        fuse_type: "sum" or "avg" of the lateral and the top-down map.
        square_pad: pad images to squares of this many pixels; 0 for no such demand.

    Raises:
        ValueError: the strides do not double, or `fuse_type` is unknown.
    """

    def __init__(
        self,
        bottom_up: Backbone,
        in_features: Sequence[str],
        out_channels: int,
        norm: str = "",
        top_block: Any = None,
        fuse_type: str = "sum",
        square_pad: int = 0,
    ) -> None:
        super().__init__()
        if fuse_type not in ("sum", "avg"):
            raise ValueError(f"MODEL.FPN.FUSE_TYPE is 'sum' or 'avg', not {fuse_type!r}.")
        shapes = bottom_up.output_shape()
        self.in_features = tuple(in_features)
        self._levels = _pyramid_levels({name: shapes[name] for name in in_features})
        for name, level in zip(self.in_features, self._levels):
            self._add_level(level, shapes[name].channels or 0, out_channels, norm)
        self.top_block = top_block
        self.bottom_up = bottom_up
        extra = 0 if top_block is None else top_block.num_levels
        levels = range(self._levels[0], self._levels[-1] + extra + 1)
        self._out_features = [f"p{level}" for level in levels]
        self._out_feature_strides = {f"p{level}": 2**level for level in levels}
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)
        self._fuse_scale = 0.5 if fuse_type == "avg" else 1.0
        self._square_pad = square_pad

    def _add_level(self, level: int, in_channels: int, channels: int, norm: str) -> None:
        bias = norm == ""
        lateral = Conv2d(in_channels, channels, 1, bias=bias, norm=get_norm(norm, channels))
        output = Conv2d(channels, channels, 3, padding=1, bias=bias, norm=get_norm(norm, channels))
        for kind, layer in (("lateral", lateral), ("output", output)):
            weight_init.c2_xavier_fill(layer)
            self.add_module(f"fpn_{kind}{level}", layer)

    @property
    def size_divisibility(self) -> int:
        """The coarsest stride that takes part in the top-down path, pixels."""
        return 2 ** self._levels[-1]

    @property
    def padding_constraints(self) -> dict[str, int]:
        """The side of the square to pad to, 0 for none."""
        return {"square_size": self._square_pad}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the maps by name, from fine to coarse, of images [N, C, H, W]."""
        bottom_up = self.bottom_up(x)
        pyramid: dict[str, torch.Tensor] = {}
        merged = None
        for name, level in reversed(list(zip(self.in_features, self._levels))):
            lateral = self.get_submodule(f"fpn_lateral{level}")(bottom_up[name])
            merged = lateral if merged is None else self._fuse(lateral, merged)
            pyramid[f"p{level}"] = self.get_submodule(f"fpn_output{level}")(merged)
        if self.top_block is not None:
            source = {**pyramid, **bottom_up}[self.top_block.in_feature]
            pyramid.update(zip(self._out_features[len(self._levels) :], self.top_block(source)))
        return {name: pyramid[name] for name in self._out_features}

    def _fuse(self, lateral: torch.Tensor, coarser: torch.Tensor) -> torch.Tensor:
        total = lateral + F.interpolate(coarser, scale_factor=2.0, mode="nearest")
        return total if self._fuse_scale == 1.0 else total * self._fuse_scale


def _pyramid_levels(shapes: dict[str, ShapeSpec]) -> list[int]:
    """Binary logarithms of the strides, which must double from map to map."""
    strides = [shape.stride or 0 for shape in shapes.values()]
    levels = [stride.bit_length() - 1 for stride in strides]
    expected = [2 ** (levels[0] + index) for index in range(len(levels))]
    if strides != expected:
        found = ", ".join(f"{name}: {stride}" for name, stride in zip(shapes, strides))
        raise ValueError(
            f"The strides of an FPN's inputs must double from one to the next: {found}."
        )
    return levels


class LastLevelMaxPool(nn.Module):
    """Adds p6 by taking every second cell of p5, as in the paper."""

    num_levels = 1
    in_feature = "p5"

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [F.max_pool2d(x, kernel_size=1, stride=2)]


class LastLevelP6P7(nn.Module):
    """Adds p6 and p7 by convolutions of stride 2 (RetinaNet, Lin et al., arXiv:1708.02002).

    Args:
        in_channels: of the map called `in_feature`.
        out_channels: of p6 and p7.
        in_feature: name of the map to start from.
    """

    num_levels = 2

    def __init__(self, in_channels: int, out_channels: int, in_feature: str = "res5") -> None:
        super().__init__()
        self.in_feature = in_feature
        self.p6 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1)
        self.p7 = nn.Conv2d(out_channels, out_channels, kernel_size=3, stride=2, padding=1)
        for layer in (self.p6, self.p7):
            weight_init.c2_xavier_fill(layer)

    def forward(self, c5: torch.Tensor) -> list[torch.Tensor]:
        p6 = self.p6(c5)
        return [p6, self.p7(F.relu(p6))]


def _build_fpn(cfg: CfgNode, bottom_up: Backbone, top_block: nn.Module) -> FPN:
    options = cfg.MODEL.FPN
    return FPN(
        bottom_up,
        options.IN_FEATURES,
        options.OUT_CHANNELS,
        norm=options.NORM,
        top_block=top_block,
        fuse_type=options.FUSE_TYPE,
    )


@BACKBONE_REGISTRY.register()
def build_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Build a ResNet with an FPN on top, p2 to p6, from `cfg.MODEL.RESNETS` and `.FPN`."""
    return _build_fpn(cfg, build_resnet_backbone(cfg, input_shape), LastLevelMaxPool())


@BACKBONE_REGISTRY.register()
def build_retinanet_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Same with p6 and p7 by convolutions, as RetinaNet has them."""
    bottom_up = build_resnet_backbone(cfg, input_shape)
    channels = bottom_up.output_shape()["res5"].channels or 0
    return _build_fpn(cfg, bottom_up, LastLevelP6P7(channels, cfg.MODEL.FPN.OUT_CHANNELS))
