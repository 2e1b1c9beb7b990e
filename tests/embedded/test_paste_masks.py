"""Pasting soft masks into an image, against bilinear interpolation written out per pixel."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes


def sample_mask(mask: torch.Tensor, x: float, y: float) -> float:
    """Bilinear value at (x, y) in cells of the mask, its centres at half-integers, 0 outside."""
    side = len(mask)
    left, top = math.floor(x - 0.5), math.floor(y - 0.5)
    total = 0.0
    for row in (top, top + 1):
        for col in (left, left + 1):
            if 0 <= row < side and 0 <= col < side:
                weight = (1 - abs(x - 0.5 - col)) * (1 - abs(y - 0.5 - row))
                total += weight * float(mask[row, col])
    return total


def paste_by_hand(mask: torch.Tensor, box: list[float], hw: tuple[int, int]) -> torch.Tensor:
    x0, y0, x1, y1 = box
    out = torch.zeros(hw)
    for row in range(hw[0]):
        for col in range(hw[1]):
            x = (col + 0.5 - x0) / (x1 - x0) * len(mask)
            y = (row + 0.5 - y0) / (y1 - y0) * len(mask)
            out[row, col] = sample_mask(mask, x, y)
    return out


BOXES = [
    [2.0, 3.0, 9.0, 8.0],  # inside
    [1.3, 0.7, 4.1, 11.9],  # between pixels
    [-4.0, -2.5, 5.0, 6.0],  # over the upper left border
    [8.0, 6.0, 20.0, 14.0],  # over the lower right border
    [5.2, 5.1, 5.6, 5.7],  # less than a pixel
]


def test_pasted_masks_equal_the_sum_by_hand() -> None:
    torch.manual_seed(0)
    masks = torch.rand(len(BOXES), 4, 4)
    pasted = paste_masks_in_image(masks, Boxes(torch.tensor(BOXES)), (10, 12), threshold=0.5)
    assert pasted.dtype == torch.bool
    assert pasted.shape == (5, 10, 12)
    for mask, box, found in zip(masks, BOXES, pasted):
        soft = paste_by_hand(mask, box, (10, 12))
        decided = (soft - 0.5).abs() > 1e-5
        assert torch.equal(found[decided], soft[decided] >= 0.5)
        assert decided.float().mean() > 0.99


def test_soft_pasting_gives_bytes() -> None:
    torch.manual_seed(1)
    masks = torch.rand(len(BOXES), 4, 4)
    pasted = paste_masks_in_image(masks, torch.tensor(BOXES), (10, 12), threshold=-1)
    assert pasted.dtype == torch.uint8
    for mask, box, found in zip(masks, BOXES, pasted):
        soft = paste_by_hand(mask, box, (10, 12)) * 255
        assert (found.float() - soft.floor()).abs().max() <= 1


def test_a_full_mask_fills_its_box() -> None:
    pasted = paste_masks_in_image(torch.ones(1, 28, 28), torch.tensor([[2.0, 1, 6, 5]]), (8, 9))
    expected = torch.zeros(8, 9, dtype=torch.bool)
    expected[1:5, 2:6] = True
    assert torch.equal(pasted[0], expected)


def test_the_threshold_belongs_to_the_mask() -> None:
    masks = torch.full((1, 2, 2), 0.25)
    box = torch.tensor([[0.0, 0, 8, 8]])
    inner = slice(2, 6)  # where no sample reaches beyond the mask
    assert paste_masks_in_image(masks, box, (8, 8), threshold=0.25)[0, inner, inner].all()
    assert not paste_masks_in_image(masks, box, (8, 8), threshold=0.26).any()


def test_no_masks() -> None:
    pasted = paste_masks_in_image(torch.zeros(0, 28, 28), torch.zeros(0, 4), (5, 6))
    assert pasted.shape == (0, 5, 6)


def test_boolean_masks_are_pasted_too() -> None:
    masks = torch.ones(1, 4, 4, dtype=torch.bool)
    assert paste_masks_in_image(masks, torch.tensor([[1.0, 1, 3, 3]]), (4, 4)).sum() == 4


@pytest.mark.embedded_only
def test_a_box_outside_the_image_leaves_no_pixel() -> None:
    boxes = torch.tensor([[20.0, 20, 30, 30], [-9.0, -9, -5, -5]])
    assert not paste_masks_in_image(torch.ones(2, 4, 4), boxes, (8, 8)).any()


@pytest.mark.embedded_only
def test_whole_image_sampling_gives_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off the CPU several masks are sampled at once over the whole image, in chunks."""
    from detectron2.layers import mask_ops

    torch.manual_seed(2)
    masks, boxes = torch.rand(5, 4, 4), torch.tensor(BOXES)
    one_by_one = paste_masks_in_image(masks, boxes, (10, 12))
    chunks = mask_ops._chunks_of_whole_images(5, (10, 12), pixels_per_chunk=250)
    assert [(chunk.start, chunk.stop) for chunk, _, _ in chunks] == [(0, 2), (2, 4), (4, 6)]
    elsewhere = mask_ops._windows(boxes.to("meta"), (10, 12))
    assert elsewhere == [(slice(0, 2**28 // 120), slice(0, 10), slice(0, 12))]
    monkeypatch.setattr(mask_ops, "_windows", lambda *_: chunks)
    assert torch.equal(paste_masks_in_image(masks, boxes, (10, 12)), one_by_one)
