"""Pooling of regions from the level that fits their size."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import roi_align
from detectron2.modeling.poolers import (
    ROIPooler,
    assign_boxes_to_levels,
    convert_boxes_to_pooler_format,
)
from detectron2.structures import Boxes


def square(side: float) -> list[float]:
    return [3.0, 5.0, 3.0 + side, 5.0 + side]


def test_levels_double_with_the_size() -> None:
    sides = [1.0, 111.0, 113.0, 223.0, 225.0, 447.0, 449.0, 5000.0]
    boxes = [Boxes(torch.tensor([square(side) for side in sides[:3]]))]
    boxes.append(Boxes(torch.tensor([square(side) for side in sides[3:]])))
    found = assign_boxes_to_levels(boxes, 2, 5, 224, 4)
    assert found.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert found.dtype == torch.int64


def test_a_box_of_exactly_the_canonical_size() -> None:
    assert assign_boxes_to_levels([Boxes(torch.tensor([square(224)]))], 2, 5, 224, 4).item() == 2


def test_boxes_get_the_index_of_their_image() -> None:
    boxes = [Boxes(torch.tensor([square(1)])), Boxes(torch.zeros(0, 4)), Boxes(torch.ones(2, 4))]
    rois = convert_boxes_to_pooler_format(boxes)
    assert rois.tolist() == [[0.0, *square(1)], [2.0, 1, 1, 1, 1], [2.0, 1, 1, 1, 1]]


@pytest.mark.parametrize("kind", ["ROIAlignV2", "ROIAlign"])
def test_each_box_is_pooled_from_its_level(kind: str) -> None:
    torch.manual_seed(0)
    scales = (1 / 4, 1 / 8, 1 / 16)
    pooler = ROIPooler(3, scales, 2, kind, canonical_box_size=32, canonical_level=3)
    maps = [torch.randn(2, 5, int(128 * s), int(96 * s)) for s in scales]
    sides = [[10.0, 90.0, 40.0], [30.0, 15.0]]
    boxes = [Boxes(torch.tensor([square(side) for side in image])) for image in sides]
    found = pooler(maps, boxes)
    assert found.shape == (5, 5, 3, 3)
    flat = [(image, side) for image, both in enumerate(sides) for side in both]
    levels = [0, 2, 1, 0, 0]  # below 32, from 64, from 32
    for row, ((image, side), level) in enumerate(zip(flat, levels)):
        roi = torch.tensor([[float(image), *square(side)]])
        aligned = kind == "ROIAlignV2"
        single = roi_align(maps[level], roi, (3, 3), scales[level], 2, aligned)
        torch.testing.assert_close(found[row], single[0])


@pytest.mark.parametrize(
    "scales", [(1 / 4,), pytest.param((1 / 4, 1 / 8), marks=pytest.mark.embedded_only)]
)
def test_output_need_not_be_square(scales: tuple[float, ...]) -> None:
    pooler = ROIPooler((3, 2), scales, 2, "ROIAlignV2")
    maps = [torch.rand(1, 1, int(64 * s), int(64 * s)) for s in scales]
    roi = torch.tensor([[0.0, *square(20)]])
    expected = roi_align(maps[0], roi, (3, 2), 1 / 4, 2, True)
    torch.testing.assert_close(pooler(maps, [Boxes(roi[:, 1:])]), expected)


def test_gradient_reaches_the_maps_that_were_used() -> None:
    pooler = ROIPooler(2, (1 / 4, 1 / 8), 0, "ROIAlignV2", canonical_box_size=16, canonical_level=2)
    maps = [torch.zeros(1, 1, 16, 16, requires_grad=True), torch.zeros(1, 1, 8, 8)]
    pooler(maps, [Boxes(torch.tensor([square(20)]))]).sum().backward()
    # every one of the 4 cells has a gradient of 1, spread over the samples
    assert maps[0].grad is not None
    assert maps[0].grad.sum().item() == pytest.approx(4.0)


def test_max_pooling() -> None:
    pooler = ROIPooler(1, (1 / 2,), 0, "ROIPool")
    features = torch.arange(16.0).view(1, 1, 4, 4)
    assert pooler([features], [Boxes(torch.tensor([[0.0, 0, 2, 2]]))]).item() == 5.0


@pytest.mark.parametrize("scales", [(1 / 4,), (1 / 4, 1 / 8)])
def test_no_boxes(scales: tuple[float, ...]) -> None:
    pooler = ROIPooler(7, scales, 0, "ROIAlignV2")
    maps = [torch.zeros(2, 3, 8, 8) for _ in scales]
    assert pooler(maps, [Boxes(torch.zeros(0, 4))] * 2).shape == (0, 3, 7, 7)


def test_no_images() -> None:
    pooler = ROIPooler(7, (1 / 4, 1 / 8), 0, "ROIAlignV2")
    assert pooler([torch.zeros(0, 3, 8, 8), torch.zeros(0, 3, 4, 4)], []).shape == (0, 3, 7, 7)


def test_pooled_type_is_that_of_the_features() -> None:
    pooler = ROIPooler(2, (1 / 4, 1 / 8), 0, "ROIAlignV2")
    maps = [torch.zeros(1, 1, 16, 16).double(), torch.zeros(1, 1, 8, 8).double()]
    assert pooler(maps, [Boxes(torch.tensor([square(20)]))]).dtype == torch.float64


@pytest.mark.parametrize("scales", [(1 / 4, 1 / 16), (1 / 3,), (2.0,), (1 / 8, 1 / 4)])
def test_scales_that_are_no_pyramid(scales: tuple[float, ...]) -> None:
    with pytest.raises((AssertionError, ValueError)):
        ROIPooler(7, scales, 0, "ROIAlignV2")


def test_wrong_type_and_wrong_number_of_maps() -> None:
    with pytest.raises(ValueError, match="NoPool"):
        ROIPooler(7, (1 / 4,), 0, "NoPool")
    pooler = ROIPooler(7, (1 / 4,), 0, "ROIAlignV2")
    maps = [torch.zeros(1, 1, 4, 4)]
    with pytest.raises((AssertionError, ValueError)):
        pooler(maps * 2, [Boxes(torch.zeros(0, 4))])
    with pytest.raises((AssertionError, ValueError)):
        pooler(maps, [Boxes(torch.zeros(0, 4))] * 2)


def by_level(pooler: ROIPooler, maps: list[torch.Tensor], boxes: list[Boxes]) -> torch.Tensor:
    """Region after region with torchvision's operator."""
    levels = assign_boxes_to_levels(boxes, 2, 4, 224, 4)
    pooled = []
    for roi, level in zip(convert_boxes_to_pooler_format(boxes), levels):
        settings = pooler.level_poolers[level]
        options = (settings.spatial_scale, settings.sampling_ratio, settings.aligned)
        pooled.append(roi_align(maps[level], roi[None], pooler.output_size, *options))
    return torch.cat(pooled)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("kind", "sampling"), [("ROIAlignV2", 0), ("ROIAlign", 0), ("ROIAlign", 3)]
)
@pytest.mark.parametrize("seed", range(3))
def test_values_and_gradients_are_those_of_torchvision_for_any_boxes(
    kind: str, sampling: int, memory_format: torch.memory_format, seed: int
) -> None:
    """Small and large, without area, over the border, outside, and at whole numbers."""
    generator = torch.Generator().manual_seed(seed)
    pooler = ROIPooler(6, (1 / 4, 1 / 8, 1 / 16), sampling, kind)
    maps = [
        torch.randn(2, 6, 240 >> k, 320 >> k, generator=generator)
        .contiguous(memory_format=memory_format)
        .requires_grad_()
        for k in (2, 3, 4)
    ]
    boxes = []
    for count in (40, 9):
        corner = torch.rand(count, 2, generator=generator) * 400 - 60
        size = torch.rand(count, 2, generator=generator) ** 3 * 600
        size[::5] = 0
        corner[::4], size[::4] = corner[::4].round(), size[::4].round()
        boxes.append(Boxes(torch.cat([corner, corner + size], dim=1)))

    found, expected = pooler(maps, boxes), by_level(pooler, maps, boxes)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn(found.shape, generator=generator)
    gradients = [torch.autograd.grad((p * weights).sum(), maps) for p in (found, expected)]
    for ours, theirs in zip(*gradients):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_gradient_is_that_of_differences() -> None:
    pooler = ROIPooler(2, (1 / 4, 1 / 8, 1 / 16), 0, "ROIAlignV2")
    maps = [torch.randn(1, 2, 8 >> k, 8 >> k).double().requires_grad_() for k in (0, 1, 2)]
    boxes = [Boxes(torch.tensor([[1.0, 2.0, 20.0, 17.0], [0.0, 0.0, 250.0, 230.0]]))]
    assert torch.autograd.gradcheck(lambda *x: pooler(list(x), boxes), maps)


def test_no_box_at_all_leaves_a_gradient_for_every_map() -> None:
    pooler = ROIPooler(7, (1 / 4, 1 / 8), 0, "ROIAlignV2")
    maps = [torch.randn(2, 3, 16 >> k, 16 >> k, requires_grad=True) for k in (0, 1)]
    found = pooler(maps, [Boxes(torch.zeros(0, 4)), Boxes(torch.zeros(0, 4))])
    assert found.shape == (0, 3, 7, 7)
    found.sum().backward()
    for one in maps:
        assert one.grad is not None
        assert not one.grad.any()
