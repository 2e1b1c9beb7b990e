"""Deformable convolutions against values computed by hand."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import DeformConv, ModulatedDeformConv
from torch import nn

pytestmark = pytest.mark.embedded_only  # the real ones need their compiled part


def one_tap(x: torch.Tensor, dy: float, dx: float, factor: float | None = None) -> torch.Tensor:
    """A 1x1 kernel of weight 1 whose only tap is moved."""
    offset = torch.tensor([float(dy), dx]).view(1, 2, 1, 1).expand(1, 2, *x.shape[2:])
    if factor is None:
        layer: nn.Module = DeformConv(1, 1, 1)
        inputs = (x, offset)
    else:
        layer = ModulatedDeformConv(1, 1, 1)
        inputs = (x, offset, torch.full_like(x, factor))
    nn.init.ones_(layer.weight)
    with torch.no_grad():
        return layer(*inputs)


def test_offsets_are_y_then_x() -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4)
    assert one_tap(x, 1, 0)[0, 0].tolist() == [[4, 5, 6, 7], [8, 9, 10, 11], [0, 0, 0, 0]]
    assert one_tap(x, 0, 1)[0, 0].tolist() == [[1, 2, 3, 0], [5, 6, 7, 0], [9, 10, 11, 0]]


def test_between_pixels_is_bilinear_with_zeros_outside() -> None:
    x = torch.tensor([[[[8.0, 4.0]]]])
    assert one_tap(x, 0, 0.25)[0, 0].tolist() == [[7.0, 3.0]]


def test_factors_scale_the_taps() -> None:
    x = torch.tensor([[[[8.0, 4.0]]]])
    assert one_tap(x, 0, 0, factor=0.5)[0, 0].tolist() == [[4.0, 2.0]]


@pytest.mark.parametrize("groups", [1, 2])
def test_without_offsets_it_is_a_convolution(groups: int) -> None:
    x = torch.randn(2, 4, 9, 7)
    plain = nn.Conv2d(4, 6, 3, stride=2, padding=2, dilation=2, groups=groups, bias=False)
    layer = DeformConv(
        4, 6, 3, 2, 2, 2, groups=groups, deformable_groups=2, norm=nn.Identity(), activation=abs
    )
    layer.load_state_dict({"weight": plain.weight})
    expected = plain(x)
    offset = x.new_zeros(2, 2 * 2 * 9, *expected.shape[2:])
    torch.testing.assert_close(layer(x, offset), expected.abs(), rtol=1e-4, atol=1e-5)


def test_no_image() -> None:
    layer = DeformConv(4, 6, 3, padding=1)
    out = layer(torch.zeros(0, 4, 5, 5), torch.zeros(0, 18, 5, 5))
    assert out.shape == (0, 6, 5, 5)
    out.sum().backward()
    assert layer.weight.grad is not None


def test_wrong_numbers_are_named() -> None:
    with pytest.raises(ValueError, match="18"):
        DeformConv(4, 6, 3)(torch.zeros(1, 4, 5, 5), torch.zeros(1, 9, 5, 5))
    with pytest.raises(ValueError, match="3 deformable groups"):
        DeformConv(4, 6, 3, deformable_groups=3)
    with pytest.raises(ValueError, match="ModulatedDeformConv"):
        DeformConv(4, 6, 3, bias=True)
