"""Detections to a label image with tensors alone, in operators that ONNX has.

`CellPredictor` pastes masks, selects cells and paints them with NumPy. A graph that has left Python
has to do the same by itself. A loop over the detections, the best one first, looks at no more than
the pixels of one box at a time, and keeps two images: the labels, and how many cells of each
class cover a pixel, from which follows what share of the next one is covered already.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.jit.script_if_tracing
def paint_cells(
    soft_masks: Tensor,
    boxes_xyxy: Tensor,
    classes: Tensor,
    limits: Tensor,
    canvas: Tensor,
    num_classes: int,
) -> tuple[Tensor, Tensor]:
    """Cut masks at their threshold, drop what is no cell, and paint the rest side by side.

    A detection is dropped where its mask is empty or its area is out of range, and where more than
    the allowed share of it lies in better ones of its class; a pixel in two of them counts twice.
    Then those are dropped that touch the border or have too few pixels that no better one has.
    The order is that of `cellseg.cells.selection`.

    Masks are resampled as `cellseg.modeling.pasting.paste_mask_crops` does, written as a product of
    matrices: bilinear sampling on a grid along the axes weighs rows and columns independently.

    Args:
        soft_masks: float32 [N, M, M] in 0 to 1, each covering its whole box; the best first.
        boxes_xyxy: float32 [N, 4], pixels of the canvas, inside of it, each with an area.
        classes: int64 [N], 0-based.
        limits: float64 [N, 6]: mask threshold, highest covered share (2 or more: no limit), least
            and greatest area in pixels, 1 where cells at the border are dropped, how many pixels a
            cell has to have for itself.
        canvas: of the image's size, [H, W]; its values are not looked at.
        num_classes: how many classes there are.

    Returns:
        int32 [H, W]: 0 for background and k + 1 for the k-th cell kept, the better one where two
        overlap; and bool [N], which ones were kept.
    """
    height, width = canvas.shape[0], canvas.shape[1]
    labels = torch.zeros([height * width], dtype=torch.int32)
    covered = torch.zeros([num_classes * height * width], dtype=torch.int32)
    kept = torch.zeros([soft_masks.shape[0]], dtype=torch.int32)
    number = torch.zeros([1], dtype=torch.int32)
    for k in range(soft_masks.shape[0]):
        box, mask = boxes_xyxy[k], soft_masks[k]
        low = (box[:2].floor() - 1).clamp(min=0).long()
        high = box[2:].ceil().long() + 1
        columns = torch.arange(int(low[0]), min(int(high[0]), width))
        rows = torch.arange(int(low[1]), min(int(high[1]), height))
        # A sample at x mixes mask pixels i by 1 - |x - i|, where that is positive.
        x = (columns + 0.5 - box[0]) / (box[2] - box[0]) * mask.shape[1] - 0.5
        y = (rows + 0.5 - box[1]) / (box[3] - box[1]) * mask.shape[0] - 0.5
        across = (1 - (x[:, None] - torch.arange(mask.shape[1])).abs()).clamp(min=0)
        down = (1 - (y[:, None] - torch.arange(mask.shape[0])).abs()).clamp(min=0)
        soft = torch.matmul(torch.matmul(down, mask), across.t())

        inside = (soft >= limits[k, 0].float()).reshape(-1).int()
        pixels = (rows[:, None] * width + columns).reshape(-1)
        pixels_of_class = pixels + classes[k] * (height * width)
        before, under = labels[pixels], covered[pixels_of_class]
        free = (before == 0).int()
        area = inside.sum().double()
        left = limits[k, 1] * area - (under * inside).sum().double()
        good = (area > 0) & (area >= limits[k, 2]) & (area <= limits[k, 3]) & (left >= -1e-6)
        edge = ((rows == 0) | (rows == height - 1))[:, None] | (columns == 0)
        edge = (edge | (columns == width - 1)).reshape(-1).int()
        cut = (edge * inside).sum().double() * limits[k, 4] > 0
        is_cell = good & ~cut & ((free * inside).sum().double() >= limits[k, 5])
        suppresses, keep = good.int().reshape(1), is_cell.int().reshape(1)
        number = number + keep
        labels = labels.scatter(0, pixels, before + inside * free * keep * number)
        covered = covered.scatter(0, pixels_of_class, under + inside * suppresses)
        kept = kept.scatter(0, torch.full([1], k, dtype=torch.int64), keep)
    return labels.reshape(height, width), kept > 0
