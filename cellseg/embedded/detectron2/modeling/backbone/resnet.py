"""Residual networks (He et al., arXiv:1512.03385) and ResNeXt (Xie et al., arXiv:1611.05431)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from detectron2.config import CfgNode
from detectron2.layers import (
    CNNBlockBase,
    Conv2d,
    DeformConv,
    ModulatedDeformConv,
    ShapeSpec,
    get_norm,
)
from fvcore.nn import weight_init
from torch import nn
from torch.nn import functional as F

from .backbone import Backbone
from .build import BACKBONE_REGISTRY

__all__ = [
    "BasicBlock",
    "BasicStem",
    "BottleneckBlock",
    "DeformBottleneckBlock",
    "ResNet",
    "ResNetBlockBase",
    "build_resnet_backbone",
    "make_stage",
]

Norm = str | Callable[[int], nn.Module]
ResNetBlockBase = CNNBlockBase
Net = TypeVar("Net", bound="ResNet")

_BLOCKS_PER_STAGE = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_STAGE_NAMES = ("res2", "res3", "res4", "res5")


def _conv(in_channels: int, out_channels: int, size: int, norm: Norm, **kwargs: Any) -> Conv2d:
    """Convolution without bias, with a norm, that keeps the size at stride 1."""
    kwargs.setdefault("padding", kwargs.get("dilation", 1) * (size // 2))
    layer_norm = get_norm(norm, out_channels)
    return Conv2d(in_channels, out_channels, size, bias=False, norm=layer_norm, **kwargs)


class _ResidualBlock(CNNBlockBase):
    """relu(convs(x) + shortcut(x)); the shortcut is a projection where the channels change.

    Subclasses add conv1, conv2, ... and then call `_initialize`; their `forward` ends with
    `_add_shortcut`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.shortcut = (
            None
            if in_channels == out_channels
            else _conv(in_channels, out_channels, 1, norm, stride=stride)
        )

    def _initialize(self) -> None:
        # the shortcut last: the order of the random draws is part of the behaviour
        for name in ("conv1", "conv2", "conv3", "shortcut"):
            if (layer := getattr(self, name, None)) is not None:
                weight_init.c2_msra_fill(layer)

    def _add_shortcut(self, out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        if self.shortcut is not None:
            x = self.shortcut(x)
        out += x
        return F.relu_(out)


class BasicBlock(_ResidualBlock):
    """Two 3x3 convolutions: the block of ResNet-18 and ResNet-34.

    Args:
        in_channels, out_channels: numbers of channels.
        stride: of the first convolution.
        norm: see `get_norm`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, norm: Norm = "BN"
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(in_channels, out_channels, 3, norm, stride=stride)
        self.conv2 = _conv(out_channels, out_channels, 3, norm)
        self._initialize()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._add_shortcut(self.conv2(F.relu_(self.conv1(x))), x)


class BottleneckBlock(_ResidualBlock):
    """1x1, 3x3, 1x1 convolutions: the block of ResNet-50, 101 and 152.

    Args:
        in_channels, out_channels: numbers of channels.
        bottleneck_channels: channels between the 1x1 convolutions.
        stride: of the block.
        num_groups: groups of the 3x3 convolution; more than 1 makes a ResNeXt.
        norm: see `get_norm`.
        stride_in_1x1: put the stride into the first 1x1 convolution (the networks of MSRA)
            instead of the 3x3 one.
        dilation: of the 3x3 convolution.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        width = bottleneck_channels
        strides = (stride, 1) if stride_in_1x1 else (1, stride)
        middle = {"stride": strides[1], "groups": num_groups, "dilation": dilation}
        self.conv1 = _conv(in_channels, width, 1, norm, stride=strides[0])
        self.conv2 = _conv(width, width, 3, norm, **middle)
        self.conv3 = _conv(width, out_channels, 1, norm)
        self._initialize()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu_(self.conv2(F.relu_(self.conv1(x))))
        return self._add_shortcut(self.conv3(out), x)


class DeformBottleneckBlock(_ResidualBlock):
    """A bottleneck block with a deformable 3x3 convolution, whose offsets a 3x3 one predicts.

    Args:
        in_channels, out_channels, bottleneck_channels, stride, num_groups, norm, stride_in_1x1,
            dilation: see `BottleneckBlock`.
        deform_modulated: predict a factor for each tap as well (a sigmoid's).
        deform_num_groups: groups of channels that share offsets.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        bottleneck_channels: int,
        stride: int = 1,
        num_groups: int = 1,
        norm: Norm = "BN",
        stride_in_1x1: bool = False,
        dilation: int = 1,
        deform_modulated: bool = False,
        deform_num_groups: int = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, stride, norm)
        self.deform_modulated = deform_modulated
        width = bottleneck_channels
        strides = (stride, 1) if stride_in_1x1 else (1, stride)
        middle: dict[str, Any]
        middle = {"stride": strides[1], "padding": dilation, "dilation": dilation}
        self.conv1 = _conv(in_channels, width, 1, norm, stride=strides[0])
        predictions = (27 if deform_modulated else 18) * deform_num_groups  # y, x (, factor) of 9
        self.conv2_offset = Conv2d(width, predictions, 3, **middle)
        layer = ModulatedDeformConv if deform_modulated else DeformConv
        self.conv2 = layer(
            width,
            width,
            3,
            groups=num_groups,
            deformable_groups=deform_num_groups,
            bias=False,
            norm=get_norm(norm, width),
            **middle,
        )
        self.conv3 = _conv(width, out_channels, 1, norm)
        self._initialize()
        # no tap is moved yet: the training begins with an ordinary convolution
        for parameter in self.conv2_offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu_(self.conv1(x))
        moved = self.conv2_offset(out)
        if self.deform_modulated:
            taps = moved.shape[1] // 3
            out = self.conv2(out, moved[:, : 2 * taps], moved[:, 2 * taps :].sigmoid())
        else:
            out = self.conv2(out, moved)
        return self._add_shortcut(self.conv3(F.relu_(out)), x)


class BasicStem(CNNBlockBase):
    """7x7 convolution of stride 2, then max pooling of stride 2: 4 in all."""

    def __init__(self, in_channels: int = 3, out_channels: int = 64, norm: Norm = "BN") -> None:
        super().__init__(in_channels, out_channels, 4)
        self.conv1 = _conv(in_channels, out_channels, 7, norm, stride=2)
        weight_init.c2_msra_fill(self.conv1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(F.relu_(self.conv1(x)), kernel_size=3, stride=2, padding=1)


class ResNet(Backbone):
    """A stem and stages of residual blocks.

    Args:
        stem: the first block.
        stages: blocks per stage; they become `res2`, `res3`, ...
        num_classes: adds average pooling and a linear classifier, whose output is `linear`.
        out_features: which outputs to return: "stem", "res2", ..., "linear"; by default the
            last. Stages behind the last one asked for are dropped.
        freeze_at: freeze the stem (1), and the stages up to res2 (2), res3 (3), ...; 0 for none.

    Raises:
        ValueError: `out_features` names what the network does not have.
    """

    def __init__(
        self,
        stem: CNNBlockBase,
        stages: Sequence[Sequence[CNNBlockBase]],
        num_classes: int | None = None,
        out_features: Sequence[str] | None = None,
        freeze_at: int = 0,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.num_classes = num_classes
        names = [f"res{index}" for index in range(2, len(stages) + 2)]
        if out_features is not None:
            asked = [index for index, name in enumerate(_STAGE_NAMES, 1) if name in out_features]
            names = names[: max(asked, default=0)]
        self.stage_names = tuple(names)
        self._out_feature_strides = {"stem": stem.stride}
        self._out_feature_channels = {"stem": stem.out_channels}
        for name, blocks in zip(names, stages):
            self._add_stage(name, blocks)
        if num_classes is not None:
            self._add_classifier(num_classes)
        self._out_features = list(out_features or [[*self._modules][-1]])
        unknown = set(self._out_features) - set(self._modules)
        if unknown:
            raise ValueError(
                f"No outputs are called {sorted(unknown)}; there are {[*self._modules]}."
            )
        self.freeze(freeze_at)

    def _add_stage(self, name: str, blocks: Sequence[CNNBlockBase]) -> None:
        stride = list(self._out_feature_strides.values())[-1]
        self._out_feature_strides[name] = stride * math.prod(block.stride for block in blocks)
        self._out_feature_channels[name] = blocks[-1].out_channels
        self.add_module(name, nn.Sequential(*blocks))

    def _add_classifier(self, num_classes: int) -> None:
        channels = list(self._out_feature_channels.values())[-1]
        linear = nn.Linear(channels, num_classes)
        nn.init.normal_(linear.weight, std=0.01)  # Goyal et al., arXiv:1706.02677, 5.1
        self.avgpool, self.linear = nn.AdaptiveAvgPool2d(1), linear

    @property
    @torch.jit.unused
    def stages(self) -> list[nn.Module]:
        """The stages, from the stem on."""
        return [self.get_submodule(name) for name in self.stage_names]

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the feature maps asked for of images [N, C, H, W]; `linear` is [N, classes]."""
        if x.dim() != 4:
            raise ValueError(f"ResNet takes images [N, C, H, W], not a tensor {x.shape}.")
        wanted = self._out_features
        maps = {}
        # torch.jit.script unrolls this loop
        for name, part in self.named_children():
            if name == "stem" or name in self.stage_names:
                x = part(x)
                if name in wanted:
                    maps[name] = x
        if self.num_classes is not None and "linear" in wanted:
            maps["linear"] = self.linear(self.avgpool(x).flatten(1))
        return maps

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of the feature maps asked for (a classifier has neither)."""
        channels, strides = self._out_feature_channels, self._out_feature_strides
        return {k: ShapeSpec(channels.get(k), stride=strides.get(k)) for k in self._out_features}

    def freeze(self: Net, freeze_at: int = 0) -> Net:
        """Freeze the first `freeze_at` parts: the stem, then res2, res3, ..."""
        parts: list[Any] = [[self.stem], *self.stages]
        for part in parts[: max(freeze_at, 0)]:
            for block in part:
                block.freeze()
        return self

    @staticmethod
    def make_stage(
        block_class: Callable[..., CNNBlockBase],
        num_blocks: int,
        *,
        in_channels: int,
        out_channels: int,
        **kwargs: Any,
    ) -> list[CNNBlockBase]:
        """Build the blocks of one stage, all with `out_channels`.

        Args:
            block_class: called with the arguments below, once per block.
            num_blocks: number of blocks.
            in_channels: of the first block.
            out_channels: of every block.
            kwargs: further arguments of all blocks; `<name>_per_block` is a sequence with one
                value of `<name>` for each block.

        Raises:
            ValueError: such a sequence has another length, or `<name>` is given as well.
        """
        suffix = "_per_block"
        shared = {k: v for k, v in kwargs.items() if not k.endswith(suffix)}
        varying = {k.removesuffix(suffix): v for k, v in kwargs.items() if k.endswith(suffix)}
        for name, values in varying.items():
            if name in shared or len(values) != num_blocks:
                raise ValueError(
                    f"{name}{suffix} has {len(values)} values for {num_blocks} blocks, "
                    f"and {name} must not be given beside it."
                )
        blocks = []
        for index in range(num_blocks):
            own = {name: values[index] for name, values in varying.items()}
            channels = in_channels if index == 0 else out_channels
            blocks.append(
                block_class(in_channels=channels, out_channels=out_channels, **own, **shared)
            )
        return blocks

    @staticmethod
    def make_default_stages(
        depth: int, block_class: Callable[..., CNNBlockBase] | None = None, **kwargs: Any
    ) -> list[list[CNNBlockBase]]:
        """Build the four stages of the ResNet of that depth (18, 34, 50, 101 or 152).

        `kwargs` go to all blocks; stride and channels are those of the paper.
        """
        expansion = 1 if depth < 50 else 4
        stages = []
        for index, num_blocks in enumerate(_BLOCKS_PER_STAGE[depth]):
            width = 64 * 2**index
            if depth >= 50:
                kwargs["bottleneck_channels"] = width
            stages.append(
                ResNet.make_stage(
                    block_class or (BasicBlock if depth < 50 else BottleneckBlock),
                    num_blocks,
                    in_channels=64 if index == 0 else width * expansion // 2,
                    out_channels=width * expansion,
                    stride_per_block=_strides(index, num_blocks),
                    **kwargs,
                )
            )
        return stages


def _strides(stage_index: int, num_blocks: int, *, dilated: bool = False) -> list[int]:
    """Stride per block: the first block of every stage but the first halves the size."""
    return [1 if stage_index == 0 or dilated else 2] + [1] * (num_blocks - 1)


def make_stage(*args: Any, **kwargs: Any) -> list[CNNBlockBase]:
    """Same as `ResNet.make_stage`."""
    return ResNet.make_stage(*args, **kwargs)


def _check_resnet_config(options: CfgNode) -> None:
    if options.DEPTH not in _BLOCKS_PER_STAGE:
        raise ValueError(
            f"MODEL.RESNETS.DEPTH is one of {[*_BLOCKS_PER_STAGE]}, not {options.DEPTH}."
        )
    if options.RES5_DILATION not in (1, 2):
        raise ValueError(f"MODEL.RESNETS.RES5_DILATION is 1 or 2, not {options.RES5_DILATION}.")
    required = {"RES2_OUT_CHANNELS": 64, "RES5_DILATION": 1, "NUM_GROUPS": 1}
    wrong = [f"MODEL.RESNETS.{k} = {v}" for k, v in required.items() if options[k] != v]
    if any(options.DEFORM_ON_PER_STAGE):
        wrong.append(f"MODEL.RESNETS.DEFORM_ON_PER_STAGE = {options.DEFORM_ON_PER_STAGE}")
    if options.DEPTH < 50 and wrong:
        raise ValueError(f"A ResNet-{options.DEPTH} does not go with {', '.join(wrong)}.")


def _block_class(options: CfgNode, stage_index: int) -> dict[str, Any]:
    """Class of a stage's bottleneck blocks, and the arguments that only this class has."""
    if not options.DEFORM_ON_PER_STAGE[stage_index]:
        return {"block_class": BottleneckBlock}
    return {
        "block_class": DeformBottleneckBlock,
        "deform_modulated": options.DEFORM_MODULATED,
        "deform_num_groups": options.DEFORM_NUM_GROUPS,
    }


@BACKBONE_REGISTRY.register()
def build_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Build a ResNet from `cfg.MODEL.RESNETS` and `cfg.MODEL.BACKBONE.FREEZE_AT`.

    Raises:
        ValueError: depth, width, groups, dilation and deformable stages do not go together.
    """
    options = cfg.MODEL.RESNETS
    _check_resnet_config(options)
    norm = options.NORM
    stem = BasicStem(input_shape.channels or 3, options.STEM_OUT_CHANNELS, norm)
    stages = []
    channels = options.STEM_OUT_CHANNELS
    for index, num_blocks in enumerate(_BLOCKS_PER_STAGE[options.DEPTH]):
        dilation = options.RES5_DILATION if index == 3 else 1
        kwargs: dict[str, Any] = {"block_class": BasicBlock}
        if options.DEPTH >= 50:
            kwargs = {
                **_block_class(options, index),
                "bottleneck_channels": options.NUM_GROUPS * options.WIDTH_PER_GROUP * 2**index,
                "stride_in_1x1": options.STRIDE_IN_1X1,
                "dilation": dilation,
                "num_groups": options.NUM_GROUPS,
            }
        kwargs["stride_per_block"] = _strides(index, num_blocks, dilated=dilation > 1)
        shape = {"in_channels": channels, "out_channels": options.RES2_OUT_CHANNELS * 2**index}
        stages.append(ResNet.make_stage(num_blocks=num_blocks, norm=norm, **shape, **kwargs))
        channels = shape["out_channels"]
    outputs = options.OUT_FEATURES
    return ResNet(stem, stages, out_features=outputs, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)
