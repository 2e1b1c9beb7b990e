"""Layers: the extras of convolutions, norms by name, NMS, RoIAlign, box losses."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.layers import (
    ASPP,
    CNNBlockBase,
    Conv2d,
    DepthwiseSeparableConv2d,
    FrozenBatchNorm2d,
    NaiveSyncBatchNorm,
    ROIAlign,
    ShapeSpec,
    batch_norm,
    batched_nms,
    cat,
    ciou_loss,
    cross_entropy,
    diou_loss,
    get_norm,
    move_device_like,
    nms,
    nonzero_tuple,
    shapes_to_tensor,
)
from detectron2.layers.batch_norm import LayerNorm
from detectron2.layers.wrappers import _NewEmptyTensorOp
from torch import nn


def test_shape_spec_knows_nothing_by_default() -> None:
    assert ShapeSpec() == ShapeSpec(channels=None, height=None, width=None, stride=None)
    assert ShapeSpec(channels=3, stride=4) != ShapeSpec(channels=3)


def test_conv_applies_norm_before_activation() -> None:
    norm = FrozenBatchNorm2d(1, eps=0.0)
    norm.weight.fill_(-2.0)
    norm.bias.fill_(1.0)
    conv = Conv2d(1, 1, 1, bias=False, norm=norm, activation=nn.ReLU())
    nn.init.constant_(conv.weight, 3.0)
    x = torch.tensor([[[[-1.0, 0.0, 2.0]]]])
    assert conv(x).tolist() == [[[[7.0, 1.0, 0.0]]]]  # relu(-2 * 3 x + 1)


def test_conv_takes_a_batch_of_no_images() -> None:
    conv = Conv2d(3, 4, 3, stride=2, padding=1, norm=get_norm("BN", 4), activation=nn.ReLU())
    conv.eval()
    out = conv(torch.zeros(0, 3, 9, 12))
    assert out.shape == (0, 4, 5, 6)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_frozen_batch_norm_equals_batch_norm_in_testing(requires_grad: bool) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3).eval()
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        tensor.uniform_(0.5, 2.0)
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(norm)
    assert isinstance(frozen, FrozenBatchNorm2d)
    assert not list(frozen.parameters())
    x = torch.randn(2, 3, 4, 5, requires_grad=requires_grad)
    torch.testing.assert_close(frozen(x), norm(x))


def test_fresh_frozen_batch_norm_is_the_identity() -> None:
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(FrozenBatchNorm2d(3)(x), x)


def test_frozen_batch_norm_converts_inside_a_module_and_back() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.BatchNorm2d(2), nn.ReLU()))
    model[1][0].running_mean.fill_(3.0)
    assert FrozenBatchNorm2d.convert_frozen_batchnorm(model) is model
    assert isinstance(model[1][0], FrozenBatchNorm2d)
    assert model[1][0].running_mean.tolist() == [3.0, 3.0]
    assert FrozenBatchNorm2d.convert_frozenbatchnorm2d_to_batchnorm2d(model) is model
    assert isinstance(model[1][0], nn.BatchNorm2d)
    assert model[1][0].running_mean.tolist() == [3.0, 3.0]


def test_frozen_batch_norm_converts_a_norm_without_affine_map() -> None:
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(nn.BatchNorm2d(2, affine=False))
    assert frozen.weight.tolist() == [1.0, 1.0]
    assert frozen.bias.tolist() == [0.0, 0.0]


def test_frozen_batch_norm_loads_a_file_with_the_affine_map_alone() -> None:
    norm = FrozenBatchNorm2d(1)
    missing, unexpected = norm.load_state_dict(
        {"weight": torch.tensor([2.0]), "bias": torch.tensor([1.0])}, strict=False
    )
    assert (missing, unexpected) == ([], [])
    x = torch.tensor([[[[3.0]]]])
    assert norm(x).item() == pytest.approx(7.0, rel=1e-4)


def test_frozen_batch_norm_is_saved_by_four_names() -> None:
    norm = FrozenBatchNorm2d(2)
    names = ["bias", "running_mean", "running_var", "weight"]
    assert sorted(norm.state_dict()) == names
    incomplete = norm.state_dict()
    del incomplete["running_mean"]
    missing, _ = norm.load_state_dict(incomplete, strict=False)
    assert missing == ["running_mean"]  # not of the old kind: its absence is reported
    assert repr(norm) == "FrozenBatchNorm2d(num_features=2, eps=1e-05)"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("BN", nn.BatchNorm2d),
        ("SyncBN", nn.SyncBatchNorm),
        ("nnSyncBN", nn.SyncBatchNorm),
        ("naiveSyncBN", NaiveSyncBatchNorm),
        ("naiveSyncBN_N", NaiveSyncBatchNorm),
        ("FrozenBN", FrozenBatchNorm2d),
        ("GN", nn.GroupNorm),
        ("LN", LayerNorm),
    ],
)
def test_norms_by_name(name: str, kind: type[nn.Module]) -> None:
    assert type(get_norm(name, 64)) is kind


def test_norm_by_callable_by_nothing_and_by_a_wrong_name() -> None:
    norm = get_norm(lambda channels: nn.GroupNorm(2, channels), 8)
    assert isinstance(norm, nn.GroupNorm)
    assert (norm.num_groups, norm.num_channels) == (2, 8)
    assert get_norm("", 8) is None
    assert get_norm(None, 8) is None
    with pytest.raises(KeyError):
        get_norm("BatchNorm", 8)


def test_layer_norm_normalises_over_channels() -> None:
    norm = LayerNorm(4)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 1.0, 1.0]))
        norm.bias.copy_(torch.tensor([0.0, 0.0, 5.0, 0.0]))
    x = torch.tensor([1.0, 3.0, 1.0, 3.0]).view(1, 4, 1, 1)  # mean 2, deviation 1
    expected = torch.tensor([-1.0, 2.0, 4.0, 1.0])
    torch.testing.assert_close(norm(x).flatten(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["", "N"])
def test_naive_sync_norm_of_equal_workers_is_batch_norm(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers with the same batch: every sum over workers is twice that of one."""
    monkeypatch.setattr(batch_norm.comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(batch_norm, "differentiable_all_reduce", lambda x: 2 * x)
    torch.manual_seed(0)
    x = torch.randn(3, 2, 4, 5)
    naive, plain = NaiveSyncBatchNorm(2, stats_mode=mode), nn.BatchNorm2d(2)
    torch.testing.assert_close(naive(x), plain(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(naive.running_mean, plain.running_mean)
    count = 3 * 4 * 5  # the plain one stores the unbiased variance
    biased = 0.9 + (plain.running_var - 0.9) * (count - 1) / count
    torch.testing.assert_close(naive.running_var, biased)
    half = naive(x.half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), naive(x), atol=1e-2, rtol=1e-2)


def test_naive_sync_norm_weighs_workers_by_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other worker has one image, of which all values are 4; this one has three of 0."""
    other = torch.tensor([4.0, 16.0, 1.0])  # mean, mean square, images
    monkeypatch.setattr(batch_norm.comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(batch_norm, "differentiable_all_reduce", lambda x: x + other)
    norm = NaiveSyncBatchNorm(1, stats_mode="N", eps=0.0)
    out = norm(torch.zeros(3, 1, 2, 2))  # mean 1, variance 16 / 4 - 1
    torch.testing.assert_close(out, torch.full((3, 1, 2, 2), -1 / math.sqrt(3)))
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.1]))


def test_naive_sync_norm_of_no_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_norm.comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(batch_norm, "differentiable_all_reduce", lambda x: x)
    norm = NaiveSyncBatchNorm(2, stats_mode="N")
    x = torch.zeros(0, 2, 3, 3, requires_grad=True)
    out = norm(x)
    out.sum().backward()
    assert out.shape == x.shape
    assert x.grad is not None
    assert norm.running_mean.tolist() == [0.0, 0.0]
    assert norm.running_var.tolist() == [1.0, 1.0]
    with pytest.raises((AssertionError, ValueError)):
        NaiveSyncBatchNorm(2)(x)


def test_naive_sync_norm_of_one_worker_is_batch_norm() -> None:
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(NaiveSyncBatchNorm(3)(x), nn.BatchNorm2d(3)(x))


def test_naive_sync_norm_rejects_an_unknown_mode() -> None:
    with pytest.raises((AssertionError, ValueError)):
        NaiveSyncBatchNorm(2, stats_mode="M")


def test_an_empty_tensor_hangs_on_the_graph() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    empty = _NewEmptyTensorOp.apply(x, (0, 7))
    assert empty.shape == (0, 7)
    empty.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0.0] * 3] * 2


def test_cat_does_not_copy_a_single_tensor() -> None:
    x = torch.arange(3)
    assert cat([x]) is x
    assert cat([x, x], dim=0).tolist() == [0, 1, 2, 0, 1, 2]


def test_cross_entropy_of_nothing_is_zero_with_a_gradient() -> None:
    logits = torch.zeros(0, 3, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None
    two = cross_entropy(torch.zeros(2, 3), torch.tensor([0, 2]), reduction="sum")
    assert two.item() == pytest.approx(2 * math.log(3))


def test_small_tensor_helpers() -> None:
    rows, cols = nonzero_tuple(torch.tensor([[0, 1], [2, 0]]))
    assert (rows.tolist(), cols.tolist()) == ([0, 1], [1, 0])
    assert shapes_to_tensor([2, 5]).tolist() == [2, 5]
    assert move_device_like(torch.ones(1), torch.zeros(1)).device.type == "cpu"


def test_nms_drops_overlaps_within_a_group_only() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [20, 0, 30, 10], [0, 0, 10, 9]])
    scores = torch.tensor([0.5, 0.9, 0.1, 0.7])
    assert nms(boxes, scores, 0.5).tolist() == [1, 2]
    groups = torch.tensor([0, 1, 0, 1])
    assert batched_nms(boxes, scores, groups, 0.5).tolist() == [1, 0, 2]
    halves = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5]])  # an IoU of 0.5, which is not above
    assert nms(halves, scores[:2], 0.5).tolist() == [1, 0]


def test_nms_of_nothing() -> None:
    empty = torch.zeros(0)
    assert batched_nms(torch.zeros(0, 4), empty, empty.long(), 0.5).tolist() == []


def test_roi_align_of_a_ramp_gives_the_bins_centres() -> None:
    """On f(x, y) = x + 10 y bilinear samples are exact: a cell has the value at its centre."""
    rows, cols = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    features = (cols + 10 * rows)[None, None]
    rois = torch.tensor([[0, 4.0, 6.0, 12.0, 10.0]])  # pixels; the stride is 2
    aligned = ROIAlign((2, 2), 0.5, 2, aligned=True)(features, rois)
    # columns from 2 to 6, rows from 3 to 5, centres of pixels at .5
    expected = [[2.5 + 30.0, 4.5 + 30.0], [2.5 + 40.0, 4.5 + 40.0]]
    torch.testing.assert_close(aligned[0, 0], torch.tensor(expected))
    legacy = ROIAlign((2, 2), 0.5, 2, aligned=False)(features, rois)
    torch.testing.assert_close(legacy[0, 0], torch.tensor(expected) + 0.5 + 5.0)


def test_roi_align_of_nothing_and_its_description() -> None:
    layer = ROIAlign(7, 0.25, 0)
    assert layer(torch.zeros(2, 3, 8, 8), torch.zeros(0, 5)).shape == (0, 3, 7, 7)
    for part in ("ROIAlign(", "output_size=7", "sampling_ratio=0", "aligned=True"):
        assert part in repr(layer)


def test_distance_and_complete_iou_losses_by_hand() -> None:
    """Boxes 2x2 at (0, 0) and 2x4 at (2, 0): no overlap, centres 2 and 1 apart, hull 4x4."""
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    b = torch.tensor([[2.0, 0.0, 4.0, 4.0]])
    distance = 1 + (2**2 + 1**2) / (4**2 + 4**2)
    assert diou_loss(a, b, reduction="sum").item() == pytest.approx(distance, rel=1e-5)
    v = 4 / math.pi**2 * (math.atan(2 / 4) - math.atan(1)) ** 2
    complete = distance + v * v / (1 + v)
    assert ciou_loss(a, b, reduction="sum").item() == pytest.approx(complete, rel=1e-5)
    assert ciou_loss(a, a, reduction="mean").item() == pytest.approx(0.0, abs=1e-6)
    assert diou_loss(a[:0], b[:0], reduction="mean").item() == 0.0


def test_freezing_a_block() -> None:
    class Block(CNNBlockBase):
        def __init__(self) -> None:
            super().__init__(2, 4, 1)
            self.conv = Conv2d(2, 4, 1, norm=get_norm("BN", 4))

    block = Block()
    assert (block.in_channels, block.out_channels, block.stride) == (2, 4, 1)
    assert block.freeze() is block
    assert isinstance(block.conv.norm, FrozenBatchNorm2d)
    assert not any(parameter.requires_grad for parameter in block.parameters())


def test_a_separable_convolution_is_one_per_channel_and_one_over_channels() -> None:
    layer = DepthwiseSeparableConv2d(3, 5, dilation=2, padding=2, activation2=torch.relu)
    x = torch.randn(2, 3, 6, 7)
    depthwise, pointwise = layer.depthwise, layer.pointwise
    per_channel = [
        nn.functional.conv2d(
            x[:, i : i + 1], depthwise.weight[i : i + 1], depthwise.bias[i : i + 1], 1, 2, 2
        )
        for i in range(3)
    ]
    mixed = nn.functional.conv2d(torch.cat(per_channel, dim=1), pointwise.weight, pointwise.bias)
    torch.testing.assert_close(layer(x), mixed.relu())
    assert set(dict(layer.named_parameters())) == {
        f"{part}.{kind}" for part in ("depthwise", "pointwise") for kind in ("weight", "bias")
    }


def test_a_separable_convolution_with_norms_has_no_biases() -> None:
    layer = DepthwiseSeparableConv2d(3, 5, norm1="BN", norm2=nn.BatchNorm2d)
    assert layer.depthwise.bias is None
    assert layer.pointwise.bias is None
    assert layer.depthwise.norm.num_features == 3


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("pool", [None, (4, 3)])
def test_aspp_sees_several_scales(separable: bool, pool: tuple[int, int] | None) -> None:
    options = {"norm": "", "activation": nn.ReLU(), "use_depthwise_separable_conv": separable}
    aspp = ASPP(3, 5, [2, 3, 4], pool_kernel_size=pool, **options)
    x = torch.randn(2, 3, 8, 6)
    assert aspp(x).shape == (2, 5, 8, 6)
    assert len(aspp.convs) == 5
    assert aspp.project.weight.shape == (5, 25, 1, 1)
    context = x.mean(dim=(2, 3), keepdim=True) if pool is None else nn.AvgPool2d(pool, 1)(x)
    context = aspp.convs[-1][1](context)
    context = nn.functional.interpolate(context, (8, 6), mode="bilinear", align_corners=False)
    branches = [conv(x) for conv in list(aspp.convs)[:4]]
    torch.testing.assert_close(aspp(x), aspp.project(torch.cat([*branches, context], dim=1)))
    reach = branches[1] - aspp.convs[1](x.index_fill(3, torch.tensor([0]), 0.0))
    assert not reach[..., 3:].any()
    assert reach[..., 2].any()


def test_aspp_takes_three_dilations_and_fitting_maps() -> None:
    with pytest.raises(AssertionError):
        ASPP(3, 5, [2, 3], norm="", activation=nn.ReLU())
    aspp = ASPP(3, 5, [2, 3, 4], norm="", activation=nn.ReLU(), pool_kernel_size=(4, 4))
    with pytest.raises(ValueError, match="4"):
        aspp(torch.zeros(1, 3, 8, 6))


def test_aspp_drops_out_in_training_only() -> None:
    aspp = ASPP(3, 64, [1, 1, 1], norm="", activation=nn.Identity(), dropout=0.5)
    x = torch.randn(1, 3, 4, 4)
    assert 0.3 < (aspp.train()(x) == 0).float().mean() < 0.7
    assert not (aspp.eval()(x) == 0).any()
