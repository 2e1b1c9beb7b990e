"""From small soft masks inside boxes to masks of the whole image."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F

__all__ = ["paste_masks_in_image"]

# float32 pixels sampled at once off the CPU (1 GiB)
_PIXELS_PER_CHUNK = 2**28


def paste_masks_in_image(
    masks: torch.Tensor, boxes: Any, image_shape: tuple[int, int], threshold: float = 0.5
) -> torch.Tensor:
    """Resample each mask to the pixels of its box and write it into an empty image.

    A pixel is sampled at its centre, bilinearly; beyond the outermost sample points the mask
    fades to zero within half a mask cell.

    Args:
        masks: [N, M, M], in 0 to 1.
        boxes: Boxes, or [N, 4] x0 y0 x1 y1 in pixels of the image; they may reach beyond it.
        image_shape: (height, width), pixels.
        threshold: a pixel belongs to the mask from this value on. Negative: no decision.

    Returns:
        bool [N, height, width]; uint8 with the soft mask times 255 for a negative threshold.
        Without masks an empty uint8 tensor [0, height, width].
    """
    if len(masks) == 0:
        return masks.new_empty((0, *image_shape), dtype=torch.uint8)
    xyxy: torch.Tensor = boxes if isinstance(boxes, torch.Tensor) else boxes.tensor
    masks = masks if masks.is_floating_point() else masks.float()
    dtype = torch.uint8 if threshold < 0 else torch.bool
    pasted = torch.zeros((len(masks), *image_shape), dtype=dtype, device=xyxy.device)
    for items, rows, cols in _windows(xyxy, image_shape):
        soft = _resample(masks[items], xyxy[items], rows, cols)
        decided = (soft * 255).to(dtype) if threshold < 0 else soft >= threshold
        pasted[items, rows, cols] = decided
    return pasted


Window = tuple[slice, slice, slice]


def _windows(boxes: torch.Tensor, image_hw: tuple[int, int]) -> list[Window]:
    """Which masks to paste together, and into which rows and columns.

    On the CPU each mask is sampled around its own box alone; elsewhere as many as fit in memory
    are sampled over the whole image, which costs more arithmetic and far fewer calls.
    """
    if boxes.device.type != "cpu":
        return _chunks_of_whole_images(len(boxes), image_hw, _PIXELS_PER_CHUNK)
    height, width = image_hw
    return [
        (slice(i, i + 1), _span(y0, y1, height), _span(x0, x1, width))
        for i, (x0, y0, x1, y1) in enumerate(boxes.tolist())
    ]


def _chunks_of_whole_images(
    num_masks: int, image_hw: tuple[int, int], pixels_per_chunk: int
) -> list[Window]:
    height, width = image_hw
    step = max(1, pixels_per_chunk // max(1, height * width))
    whole = slice(0, height), slice(0, width)
    return [(slice(i, i + step), *whole) for i in range(0, num_masks, step)]


def _span(low: float, high: float, size: int) -> slice:
    """Pixels that a box from `low` to `high` can touch along an axis of `size` pixels."""
    start = max(math.floor(low) - 1, 0)
    return slice(start, max(start, min(math.ceil(high) + 1, size)))


def _resample(masks: torch.Tensor, boxes: torch.Tensor, rows: slice, cols: slice) -> torch.Tensor:
    """Sample [K, M, M] masks at the pixel centres of a window: [K, rows, cols]."""
    grid_x = _mask_coordinates(cols, boxes[:, 0], boxes[:, 2])
    grid_y = _mask_coordinates(rows, boxes[:, 1], boxes[:, 3])
    shape = (len(masks), grid_y.shape[1], grid_x.shape[1])
    grid = torch.stack((grid_x[:, None].expand(shape), grid_y[:, :, None].expand(shape)), dim=-1)
    return F.grid_sample(masks[:, None], grid.to(masks.dtype), align_corners=False)[:, 0]


def _mask_coordinates(span: slice, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Pixel centres of `span` in the frame where each box runs from -1 to 1: [K, pixels]."""
    centres = torch.arange(span.start, span.stop, device=low.device, dtype=torch.float32) + 0.5
    return (centres - low[:, None]) / (high - low)[:, None] * 2 - 1
