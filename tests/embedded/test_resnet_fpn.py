"""Residual networks and feature pyramids: names, shapes, strides, freezing, arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    FPN,
    Backbone,
    ResNet,
    build_backbone,
    build_resnet_backbone,
    make_stage,
)
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock
from torch import nn
from torch.nn import functional as F

RGB = ShapeSpec(channels=3)


def resnet_cfg(depth: int = 18, **options: Any) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.RESNETS.DEPTH = depth
    if depth < 50:
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    for name, value in options.items():
        cfg.MODEL.RESNETS[name] = value
    return cfg


class Doubling(Backbone):
    """Feature maps a, b, c of strides 2, 4, 8 by subsampling; as many channels as the image."""

    def __init__(self, strides: tuple[int, ...] = (2, 4, 8)) -> None:
        super().__init__()
        self._out_features = list("abc")
        self._out_feature_strides = dict(zip("abc", strides))
        self._out_feature_channels = dict.fromkeys("abc", 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {k: x[:, :, ::s, ::s] for k, s in self._out_feature_strides.items()}


# numbers of parameters of the published networks, without their classifiers
@pytest.mark.parametrize(
    ("depth", "parameters"), [(18, 11_176_512), (34, 21_284_672), (50, 23_508_032)]
)
def test_resnets_have_the_published_number_of_parameters(depth: int, parameters: int) -> None:
    cfg = resnet_cfg(depth, NORM="BN")
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    model = build_resnet_backbone(cfg, RGB)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(("depth", "blocks"), [(101, (3, 4, 23, 3)), (152, (3, 8, 36, 3))])
def test_deep_resnets_have_the_published_blocks(depth: int, blocks: tuple[int, ...]) -> None:
    with torch.device("meta"):
        stages = ResNet.make_default_stages(depth)
    assert tuple(map(len, stages)) == blocks
    assert [stage[-1].out_channels for stage in stages] == [256, 512, 1024, 2048]
    assert [stage[0].stride for stage in stages] == [1, 2, 2, 2]


def test_default_stages_of_a_shallow_resnet() -> None:
    stages = ResNet.make_default_stages(18, norm="GN")
    assert [len(stage) for stage in stages] == [2, 2, 2, 2]
    assert [stage[0].in_channels for stage in stages] == [64, 64, 128, 256]
    assert all(isinstance(block, BasicBlock) for stage in stages for block in stage)


def test_resnet_shapes_and_strides() -> None:
    model = build_resnet_backbone(resnet_cfg(18), RGB)
    assert model.size_divisibility == 0
    assert model.padding_constraints == {}
    out = model(torch.zeros(2, 3, 64, 96))
    assert list(out) == ["res2", "res3", "res4", "res5"]
    for (name, shape), channels, stride in zip(
        model.output_shape().items(), (64, 128, 256, 512), (4, 8, 16, 32)
    ):
        assert (shape.channels, shape.stride) == (channels, stride)
        assert out[name].shape == (2, channels, 64 // stride, 96 // stride)


def test_names_in_checkpoints() -> None:
    names = set(build_resnet_backbone(resnet_cfg(50), RGB).state_dict())
    for name in (
        "stem.conv1.weight",
        "stem.conv1.norm.running_var",
        "res2.0.shortcut.weight",
        "res2.0.shortcut.norm.bias",
        "res4.5.conv3.norm.weight",
        "res5.2.conv2.weight",
    ):
        assert name in names
    assert "res2.1.shortcut.weight" not in names


def test_stages_behind_the_last_output_are_dropped() -> None:
    model = build_resnet_backbone(resnet_cfg(18, OUT_FEATURES=["stem", "res3"]), RGB)
    assert model.stage_names == ("res2", "res3")
    assert not any(name.startswith("res4") for name in model.state_dict())
    assert list(model(torch.zeros(1, 3, 32, 32))) == ["stem", "res3"]


@pytest.mark.parametrize(
    ("freeze_at", "trained"),
    [(0, {"stem", "res2", "res3"}), (1, {"res2", "res3"}), (2, {"res3"}), (5, set())],
)
def test_freezing(freeze_at: int, trained: set[str]) -> None:
    cfg = resnet_cfg(18, NORM="BN", OUT_FEATURES=["res3"])
    cfg.MODEL.BACKBONE.FREEZE_AT = freeze_at
    model = build_resnet_backbone(cfg, RGB)
    found = {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert found == trained
    frozen = {n.split(".")[0] for n, m in model.named_modules() if type(m) is FrozenBatchNorm2d}
    assert frozen == {"stem", "res2", "res3"} - trained


@pytest.mark.parametrize("in_1x1", [True, False])
def test_place_of_the_stride(in_1x1: bool) -> None:
    block = BottleneckBlock(8, 16, bottleneck_channels=4, stride=2, stride_in_1x1=in_1x1, norm="")
    assert (block.conv1.stride, block.conv2.stride) == (
        ((2, 2), (1, 1)) if in_1x1 else ((1, 1), (2, 2))
    )
    assert block(torch.zeros(1, 8, 6, 6)).shape == (1, 16, 3, 3)


def test_resnext_groups_and_dilation() -> None:
    cfg = resnet_cfg(50, NUM_GROUPS=32, WIDTH_PER_GROUP=4, RES5_DILATION=2, STRIDE_IN_1X1=False)
    model = build_resnet_backbone(cfg, RGB)
    conv = model.res5[1].conv2
    assert (conv.groups, conv.in_channels) == (32, 1024)
    assert (conv.dilation, conv.padding) == ((2, 2), (2, 2))
    assert model.res2[0].conv2.in_channels == 128
    assert model.output_shape()["res5"].stride == 16


def test_a_basic_block_by_hand() -> None:
    torch.manual_seed(0)
    block = BasicBlock(2, 3, stride=2, norm="")
    x = torch.randn(1, 2, 6, 6)
    inner = F.relu(F.conv2d(x, block.conv1.weight, stride=2, padding=1))
    inner = F.conv2d(inner, block.conv2.weight, padding=1)
    expected = F.relu(inner + F.conv2d(x, block.shortcut.weight, stride=2))
    torch.testing.assert_close(block(x), expected)
    assert BasicBlock(3, 3).shortcut is None


def test_make_stage_with_arguments_per_block() -> None:
    blocks = make_stage(BasicBlock, 3, in_channels=2, out_channels=4, stride_per_block=[2, 1, 1])
    assert [block.in_channels for block in blocks] == [2, 4, 4]
    assert [block.stride for block in blocks] == [2, 1, 1]
    with pytest.raises((AssertionError, ValueError)):
        make_stage(BasicBlock, 3, in_channels=2, out_channels=4, stride_per_block=[2, 1])
    with pytest.raises((AssertionError, ValueError)):
        make_stage(BasicBlock, 1, in_channels=2, out_channels=4, stride_per_block=[2], stride=1)


def test_classifier() -> None:
    stem, stages = BasicStem(norm=""), [[BasicBlock(64, 32, norm="")]]
    model = ResNet(stem, stages, num_classes=7)
    assert model(torch.zeros(2, 3, 32, 32))["linear"].shape == (2, 7)
    assert list(ResNet(stem, stages)(torch.zeros(1, 3, 32, 32))) == ["res2"]


def test_resnet_rejects_what_it_has_not() -> None:
    with pytest.raises((AssertionError, ValueError)):
        ResNet(BasicStem(), [[BasicBlock(64, 64)]], out_features=["res2", "res7"])
    with pytest.raises((AssertionError, ValueError)):
        build_resnet_backbone(resnet_cfg(18), RGB)(torch.zeros(3, 32, 32))


@pytest.mark.parametrize(
    ("depth", "options"),
    [
        (18, {"RES2_OUT_CHANNELS": 256}),
        (18, {"NUM_GROUPS": 2}),
        (34, {"RES5_DILATION": 2}),
        (50, {"RES5_DILATION": 3}),
        (51, {}),
    ],
)
def test_contradictory_resnet_configs(depth: int, options: dict[str, int]) -> None:
    with pytest.raises((AssertionError, ValueError, KeyError)):
        build_resnet_backbone(resnet_cfg(depth, **options), RGB)


@pytest.mark.embedded_only  # the real one needs its compiled part
@pytest.mark.parametrize("modulated", [False, True])
def test_deformable_stages_begin_as_ordinary_ones(modulated: bool) -> None:
    """Without a moved tap a deformable network is the ordinary one (a factor of 1/2 each tap)."""
    options = {"DEFORM_ON_PER_STAGE": [False, False, True, True], "DEFORM_MODULATED": modulated}
    deformable = build_resnet_backbone(resnet_cfg(50, **options), RGB).eval()
    ordinary = build_resnet_backbone(resnet_cfg(50), RGB).eval()
    weights = deformable.state_dict()
    assert {k for k in weights if "conv2_offset" in k} == {
        f"res{stage}.{block}.conv2_offset.{part}"
        for stage, blocks in ((4, 6), (5, 3))
        for block in range(blocks)
        for part in ("weight", "bias")
    }
    if modulated:
        assert weights["res5.0.conv2_offset.weight"].shape == (27, 512, 3, 3)
        for name, module in deformable.named_modules():
            if name.endswith("conv2_offset"):
                torch.nn.init.constant_(module.bias[18:], 40.0)  # sigmoid: 1
    ordinary.load_state_dict({k: v for k, v in weights.items() if "conv2_offset" not in k})
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(deformable(x), ordinary(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("fuse_type", ["sum", "avg"])
def test_pyramid_by_hand(fuse_type: str) -> None:
    torch.manual_seed(0)
    fpn = FPN(Doubling(), ["a", "b", "c"], 5, top_block=None, fuse_type=fuse_type)
    x = torch.randn(2, 3, 16, 24)
    merged = None
    expected = {}
    for level, name in ((3, "c"), (2, "b"), (1, "a")):
        lateral = getattr(fpn, f"fpn_lateral{level}")(fpn.bottom_up(x)[name])
        if merged is not None:
            up = merged.repeat_interleave(2, 2).repeat_interleave(2, 3)
            lateral = (lateral + up) / (2 if fuse_type == "avg" else 1)
        merged = lateral
        expected[f"p{level}"] = getattr(fpn, f"fpn_output{level}")(merged)
    found = fpn(x)
    assert list(found) == ["p1", "p2", "p3"]
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_pyramid_describes_itself() -> None:
    fpn = FPN(Doubling((4, 8, 16)), ["a", "b", "c"], 8, square_pad=64)
    assert fpn.size_divisibility == 16
    assert fpn.padding_constraints == {"square_size": 64}
    shapes = fpn.output_shape()
    assert {name: shape.stride for name, shape in shapes.items()} == {"p2": 4, "p3": 8, "p4": 16}
    assert {shape.channels for shape in shapes.values()} == {8}


def test_norm_takes_the_place_of_the_bias() -> None:
    plain = FPN(Doubling(), ["a"], 32)
    normed = FPN(Doubling(), ["a"], 32, norm="GN")
    assert plain.fpn_output1.bias is not None
    assert normed.fpn_output1.bias is None
    assert isinstance(normed.fpn_lateral1.norm, nn.GroupNorm)


def test_pyramid_rejects_strides_that_do_not_double() -> None:
    with pytest.raises((AssertionError, ValueError)):
        FPN(Doubling((2, 8, 16)), ["a", "b", "c"], 4)
    with pytest.raises((AssertionError, ValueError)):
        FPN(Doubling(), ["a"], 4, fuse_type="max")


def test_top_blocks() -> None:
    x = torch.randn(1, 4, 5, 6)
    (p6,) = LastLevelMaxPool()(x)
    assert torch.equal(p6, x[:, :, ::2, ::2])
    block = LastLevelP6P7(4, 2, "c")
    p6, p7 = block(x)
    assert (p6.shape, p7.shape) == ((1, 2, 3, 3), (1, 2, 2, 2))
    torch.testing.assert_close(p7, block.p7(F.relu(p6)))
    fpn = FPN(Doubling(), ["a", "b", "c"], 2, top_block=LastLevelP6P7(3, 2, "c"))
    strides = {name: shape.stride for name, shape in fpn.output_shape().items()}
    assert strides == {"p1": 2, "p2": 4, "p3": 8, "p4": 16, "p5": 32}
    found = fpn(torch.zeros(1, 3, 64, 64))
    assert [found[name].shape[-1] for name in strides] == [32, 16, 8, 4, 2]


@pytest.mark.parametrize(
    ("name", "last"),
    [("build_resnet_fpn_backbone", "p6"), ("build_retinanet_resnet_fpn_backbone", "p7")],
)
def test_pyramids_from_config(name: str, last: str) -> None:
    cfg = resnet_cfg(18)
    cfg.MODEL.BACKBONE.NAME = name
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    model = build_backbone(cfg)
    features = model(torch.zeros(1, 3, 64, 64))
    assert next(iter(features)) == "p2"
    assert next(reversed(features)) == last
    assert {value.shape[1] for value in features.values()} == {16}
    assert model.size_divisibility == 32
    assert "bottom_up.res5.1.conv2.weight" in model.state_dict()
    assert "fpn_lateral5.bias" in model.state_dict()


def test_a_backbone_of_ones_own() -> None:
    @BACKBONE_REGISTRY.register()
    def build_doubling_for_test(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
        assert input_shape.channels == 3
        return Doubling()

    @BACKBONE_REGISTRY.register()
    def build_no_backbone_for_test(cfg: CfgNode, input_shape: ShapeSpec) -> nn.Module:
        return nn.Identity()

    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_doubling_for_test"
    model = build_backbone(cfg)
    assert model.output_shape()["b"] == ShapeSpec(channels=3, stride=4)
    assert model.size_divisibility == 0
    cfg.MODEL.BACKBONE.NAME = "build_no_backbone_for_test"
    with pytest.raises((AssertionError, TypeError)):
        build_backbone(cfg)
    with pytest.raises(TypeError):
        Backbone()
