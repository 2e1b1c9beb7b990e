"""Soft masks into pixels: against Detectron2's paste, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cellseg.modeling import pasting
from cellseg.modeling.pasting import (
    paste_mask_crops,
    paste_soft_masks,
)
from detectron2.layers import paste_masks_in_image
from torch import Tensor

IMAGE_HW = (70, 93)


def random_boxes(count: int) -> Tensor:
    """Tiny to larger than the image, inside and across its border, some on whole pixels."""
    generator = torch.Generator().manual_seed(5)
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([93, 70])
    size = 0.05 + torch.rand(count, 2, generator=generator) ** 3 * 150
    boxes = torch.cat([centre - size / 2, centre + size / 2], dim=1)
    boxes[::5] = torch.cat([boxes[::5, :2].floor(), boxes[::5, 2:].ceil()], dim=1)
    return boxes


def random_masks(count: int, side: int = 28) -> Tensor:
    return torch.rand(count, side, side, generator=torch.Generator().manual_seed(6))


def crops_to_bitmaps(
    crops: list[np.ndarray], offsets_rc: np.ndarray, image_hw: tuple[int, int]
) -> np.ndarray:
    bitmaps = np.zeros((len(crops), *image_hw), dtype=bool)
    for bitmap, crop, (row, column) in zip(bitmaps, crops, offsets_rc):
        bitmap[row : row + crop.shape[0], column : column + crop.shape[1]] = crop
    return bitmaps


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("side", [28, 7])
def test_same_pixels_as_detectron2(threshold: float, side: int) -> None:
    boxes, masks = random_boxes(300), random_masks(300, side)
    expected = paste_masks_in_image(masks, boxes, IMAGE_HW, threshold)
    soft = paste_soft_masks(masks, boxes, IMAGE_HW)
    assert torch.equal(soft >= threshold, expected)
    crops, offsets_rc = paste_mask_crops(masks, boxes, IMAGE_HW, threshold)
    assert (crops_to_bitmaps(crops, offsets_rc, IMAGE_HW) == expected.numpy()).all()
    assert expected.any(dim=(1, 2)).sum() > 50


def test_small_batches_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, masks = random_boxes(60), random_masks(60)
    together = paste_soft_masks(masks, boxes, IMAGE_HW)
    monkeypatch.setattr(pasting, "MAX_PIXELS_AT_ONCE", 1)
    assert torch.equal(paste_soft_masks(masks, boxes, IMAGE_HW), together)


def test_by_hand_a_full_mask_fills_its_box() -> None:
    """Pixel centres inside the box belong to it; the edge of the mask itself is worth a half."""
    boxes = torch.tensor([[2.0, 1.0, 6.0, 4.0]])
    crops, offsets_rc = paste_mask_crops(torch.ones(1, 28, 28), boxes, (8, 9))
    assert crops[0].shape == (3, 4)
    assert crops[0].all()
    assert offsets_rc.tolist() == [[1, 2]]
    soft = paste_soft_masks(torch.ones(1, 1, 28, 28), boxes, (8, 9))
    assert soft.sum() == 12


def test_by_hand_halves() -> None:
    """A 2x2 mask over 4x4 px: pixel centres at 1/4, 3/4, 5/4, 7/4 between mask centres 1/2, 3/2;
    beyond these the mask fades to 0.
    """
    mask = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    soft = paste_soft_masks(mask, torch.tensor([[0.0, 0.0, 4.0, 4.0]]), (4, 4))
    assert soft[0, 1].tolist() == [0.75, 0.75, 0.25, 0.0]
    assert soft[0, 0].tolist() == [0.5625, 0.5625, 0.1875, 0.0]


def test_crops_are_tight_and_may_be_empty() -> None:
    masks = torch.zeros(3, 28, 28)
    masks[0, 14:, :14] = 1  # lower left quarter
    masks[2] = 0.4
    boxes = torch.tensor([[10.0, 20, 30, 40], [5, 5, 15, 15], [5, 5, 15, 15]])
    crops, offsets_rc = paste_mask_crops(masks, boxes, IMAGE_HW)
    assert [crop.shape for crop in crops] == [(10, 10), (0, 0), (0, 0)]
    assert offsets_rc.tolist() == [[30, 10], [0, 0], [0, 0]]
    assert all(crop.dtype == bool and crop.base is None for crop in crops)


@pytest.mark.parametrize(
    "box",
    [
        (-50, 10, -20, 30),
        (10, -50, 30, -20),
        (100, 10, 130, 30),
        (10, 80, 30, 100),
        (10, 10, 10, 30),
        (10.5, 10.5, 10.5, 10.5),
        (30, 10, 20, 40),
    ],
)
def test_boxes_beside_the_image_or_without_area_have_no_pixels(box: tuple[float, ...]) -> None:
    boxes = torch.tensor([box, (1.0, 1, 5, 5)], dtype=torch.float32)
    crops, offsets_rc = paste_mask_crops(torch.ones(2, 28, 28), boxes, IMAGE_HW)
    assert [crop.shape for crop in crops] == [(0, 0), (4, 4)]
    assert offsets_rc.tolist() == [[0, 0], [1, 1]]
    assert paste_soft_masks(torch.ones(2, 28, 28), boxes, IMAGE_HW)[0].sum() == 0


def test_no_masks() -> None:
    crops, offsets_rc = paste_mask_crops(torch.zeros(0, 28, 28), torch.zeros(0, 4), IMAGE_HW)
    assert crops == []
    assert offsets_rc.shape == (0, 2)
    assert paste_soft_masks(torch.zeros(0, 1, 28, 28), torch.zeros(0, 4), IMAGE_HW).shape == (
        (0, *IMAGE_HW)
    )


def test_many_cells_need_no_full_bitmaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 cells on a large image: what is sampled at a time stays below the budget."""
    generator = torch.Generator().manual_seed(7)
    corner = torch.rand(2000, 2, generator=generator) * 1000
    boxes = torch.cat([corner, corner + 20 + 10 * torch.rand(2000, 2, generator=generator)], 1)
    sizes = []
    original = pasting.grid_sample

    def spy(masks: Tensor, grid: Tensor, **options: bool) -> Tensor:
        sizes.append(grid.shape[0] * grid.shape[1] * grid.shape[2])
        return original(masks, grid, **options)

    monkeypatch.setattr(pasting, "grid_sample", spy)
    monkeypatch.setattr(pasting, "MAX_PIXELS_AT_ONCE", 2**20)
    crops, _ = paste_mask_crops(torch.ones(2000, 28, 28), boxes, (1024, 1024))
    assert max(sizes) <= 2**20
    assert len(sizes) < 20
    assert all(18 <= side <= 32 for crop in crops for side in crop.shape)


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5, float("nan")])
def test_refuses_a_threshold(threshold: float) -> None:
    with pytest.raises(ValueError, match="0 < threshold <= 1"):
        paste_mask_crops(torch.ones(1, 28, 28), torch.zeros(1, 4), IMAGE_HW, threshold)


@pytest.mark.parametrize(
    "shapes", [((2, 28, 28), (1, 4)), ((2, 28, 28), (2, 5)), ((28, 28), (28, 4))]
)
def test_refuses_shapes(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="expected"):
        paste_soft_masks(torch.ones(shapes[0]), torch.ones(shapes[1]), IMAGE_HW)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_gives_the_same_crops() -> None:
    boxes, masks = random_boxes(100), random_masks(100)
    crops, offsets_rc = paste_mask_crops(masks, boxes, IMAGE_HW)
    others, other_offsets = paste_mask_crops(masks.cuda(), boxes.cuda(), IMAGE_HW)
    first = crops_to_bitmaps(crops, offsets_rc, IMAGE_HW)
    assert (first != crops_to_bitmaps(others, other_offsets, IMAGE_HW)).sum() < 10
