"""From the small soft masks that the network gives to pixels of the image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

if TYPE_CHECKING:
    from detectron2.structures import Instances

# Crops are sampled together when their sizes agree after rounding up to this, and at most so many
# pixels at a time: 4 M pixels are about 80 MB with the sampling grid.
CROP_STEP_PX = 16
MAX_PIXELS_AT_ONCE = 4 * 2**20


@dataclass(frozen=True)
class _CropBatch:
    """Crops of one padded size, cut out of the pasted masks.

    Attributes:
        index: int64[B], which mask each crop belongs to.
        soft: float32[B, h, w], 0 outside each crop's own region.
        corner_rc: int64[B, 2], row and column in the image of each crop's first pixel.
    """

    index: Tensor
    soft: Tensor
    corner_rc: Tensor

    def of_first(self, count: int) -> _CropBatch:
        """The crops that belong to the first masks."""
        chosen = self.index < count
        if bool(chosen.all()):
            return self
        return _CropBatch(self.index[chosen], self.soft[chosen], self.corner_rc[chosen])


def paste_mask_crops(
    soft_masks: Tensor,
    boxes_xyxy: Tensor,
    image_hw: tuple[int, int],
    threshold: float | Tensor = 0.5,
) -> tuple[list[NDArray[np.bool_]], NDArray[np.int64]]:
    """Resample soft masks into their boxes and threshold them, without full-size bitmaps.

    The pixels are those of Detectron2's `paste_masks_in_image` on the CPU, which writes inside
    the box and one pixel around it; on a GPU that function differs from itself on the CPU below
    a threshold of 0.5, this one does not.

    Args:
        soft_masks: float[N, M, M] (or [N, 1, M, M]) in 0 to 1, each covering its whole box.
        boxes_xyxy: float[N, 4], image frame, pixels; may reach beyond the image.
        image_hw: (height, width), pixels.
        threshold: in (0, 1]; a pixel belongs to the cell where the mask reaches it. A number, or
            one per mask, [N].

    Returns:
        Tight bool[h, w] crops, 0x0 where no pixel reaches the threshold, and int64[N, 2] with the
        row and column of each crop's first pixel ((0, 0) for an empty one).

    Raises:
        ValueError: `threshold` is not in (0, 1], or shapes do not fit.
    """
    thresholds = _check_thresholds(threshold, soft_masks)
    return _cut_crops(_sample_crops(soft_masks, boxes_xyxy, image_hw), thresholds)


class PastedMasks:
    """Soft masks resampled into the image once, to be cut at one threshold after another.

    It takes four bytes per pixel of all boxes together.

    Args:
        soft_masks, boxes_xyxy, image_hw: as `paste_mask_crops` takes them.

    Raises:
        ValueError: shapes do not fit.
    """

    def __init__(self, soft_masks: Tensor, boxes_xyxy: Tensor, image_hw: tuple[int, int]) -> None:
        self._soft_masks = soft_masks
        self._batches = tuple(_sample_crops(soft_masks, boxes_xyxy, image_hw))

    def cut(
        self, threshold: float | Tensor, first: int
    ) -> tuple[list[NDArray[np.bool_]], NDArray[np.int64]]:
        """The crops of the first masks, as `paste_mask_crops` gives them.

        Args:
            threshold: as there; a number, or one for each of these masks.
            first: how many masks, from the first one on.

        Raises:
            ValueError: `threshold` is not in (0, 1].
        """
        thresholds = _check_thresholds(threshold, self._soft_masks[:first])
        return _cut_crops((batch.of_first(first) for batch in self._batches), thresholds)


def _check_thresholds(threshold: float | Tensor, soft_masks: Tensor) -> Tensor:
    """One threshold per mask, float32 [N]."""
    thresholds = torch.as_tensor(threshold, dtype=torch.float32, device=soft_masks.device)
    if not ((thresholds > 0) & (thresholds <= 1)).all():
        raise ValueError(f"threshold is {threshold}; expected 0 < threshold <= 1")
    return thresholds.expand(len(soft_masks))


def _cut_crops(
    batches: Iterable[_CropBatch], thresholds: Tensor
) -> tuple[list[NDArray[np.bool_]], NDArray[np.int64]]:
    crops: list[NDArray[np.bool_]] = [np.zeros((0, 0), dtype=bool)] * len(thresholds)
    offsets_rc = np.zeros((len(thresholds), 2), dtype=np.int64)
    for batch in batches:
        bitmaps = (batch.soft >= thresholds[batch.index, None, None]).cpu().numpy()
        corners = batch.corner_rc.cpu().numpy()
        rows, columns = _occupied_extents(bitmaps, axis=1), _occupied_extents(bitmaps, axis=2)
        offsets_rc[batch.index.cpu().numpy()] = np.where(
            rows[:, 1:] > 0, corners + np.stack([rows[:, 0], columns[:, 0]], axis=1), 0
        )
        extents = zip(batch.index.tolist(), rows.tolist(), columns.tolist())
        for k, (index, (top, bottom), (left, right)) in enumerate(extents):
            if bottom > top:
                crops[index] = bitmaps[k, top:bottom, left:right].copy()
    return crops, offsets_rc


def paste_soft_masks(soft_masks: Tensor, boxes_xyxy: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """Resample soft masks into full images; `>= threshold` gives Detectron2's bitmaps.

    Args:
        soft_masks: float[N, M, M] (or [N, 1, M, M]) in 0 to 1, each covering its whole box.
        boxes_xyxy: float[N, 4], image frame, pixels; may reach beyond the image.
        image_hw: (height, width), pixels.

    Returns:
        float32[N, H, W] on the device of `soft_masks`; 0 away from the boxes. N * H * W floats
        are a lot for a dense image: `paste_mask_crops` needs a fraction of it.

    Raises:
        ValueError: shapes do not fit.
    """
    height, width = image_hw
    pasted = soft_masks.new_zeros((len(soft_masks), height, width), dtype=torch.float32)
    for batch in _sample_crops(soft_masks, boxes_xyxy, image_hw):
        crop_h, crop_w = batch.soft.shape[1:]
        for index, soft, (row, column) in zip(batch.index, batch.soft, batch.corner_rc.tolist()):
            bottom, right = min(row + crop_h, height), min(column + crop_w, width)
            pasted[index, row:bottom, column:right] = soft[: bottom - row, : right - column]
    return pasted


def sort_by_score(instances: Instances) -> Instances:
    """Detections by descending score, equal ones in their order.

    The engine's own are sorted; a head that changes scores leaves the order to its callers.
    """
    return instances[instances.scores.argsort(descending=True, stable=True)]


def scale_boxes(instances: Instances, output_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Predicted boxes in the frame of the output, clipped to it.

    Args:
        instances: raw detections of one image with `pred_boxes`; left unchanged.
        output_hw: (height, width), pixels.

    Returns:
        float[K, 4] boxes that have an area (x0, y0, x1, y1, pixels), and bool[N] that says which
        of the N detections they are.
    """
    boxes = instances.pred_boxes.clone()
    network_h, network_w = instances.image_size
    boxes.scale(output_hw[1] / network_w, output_hw[0] / network_h)
    boxes.clip(output_hw)
    kept = boxes.nonempty()
    return boxes.tensor[kept], kept


def _sample_crops(
    soft_masks: Tensor, boxes_xyxy: Tensor, image_hw: tuple[int, int]
) -> Iterator[_CropBatch]:
    """Crops of the pasted masks; masks without a pixel in the image are left out."""
    masks = soft_masks[:, 0] if soft_masks.dim() == 4 else soft_masks
    if masks.dim() != 3 or boxes_xyxy.shape != (len(masks), 4):
        raise ValueError(
            f"soft_masks {tuple(soft_masks.shape)} and boxes_xyxy {tuple(boxes_xyxy.shape)}; "
            "expected [N, M, M] and [N, 4]"
        )
    masks, boxes = masks.float(), boxes_xyxy.float()
    start_xy, stop_xy = _writable_regions(boxes, image_hw)
    size_xy = (stop_xy - start_xy).clamp(min=0)
    padded_xy = -(-size_xy // CROP_STEP_PX) * CROP_STEP_PX
    for padded_w, padded_h in padded_xy.unique(dim=0).tolist():
        if padded_w == 0 or padded_h == 0:
            continue
        same_size = (padded_xy == padded_xy.new_tensor([padded_w, padded_h])).all(dim=1)
        for index in same_size.nonzero()[:, 0].split(
            max(1, MAX_PIXELS_AT_ONCE // (padded_w * padded_h))
        ):
            grid_x = _mask_coordinates(
                start_xy[index, 0], padded_w, boxes[index, 0], boxes[index, 2]
            )
            grid_y = _mask_coordinates(
                start_xy[index, 1], padded_h, boxes[index, 1], boxes[index, 3]
            )
            shape = (len(index), padded_h, padded_w)
            grid = torch.stack(
                [grid_x[:, None, :].expand(shape), grid_y[:, :, None].expand(shape)], dim=3
            )
            soft = grid_sample(masks[index, None], grid, align_corners=False)[:, 0]
            inside = (
                _is_inside(size_xy[index, 1], padded_h)[:, :, None]
                & (_is_inside(size_xy[index, 0], padded_w)[:, None, :])
            )
            yield _CropBatch(index, soft * inside, start_xy[index].flip(1))


def _writable_regions(boxes_xyxy: Tensor, image_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """First and past-the-last pixel (int64[N, 2], x then y) that each mask may write to.

    One pixel around the box, inside the image; nothing for a box without area.
    """
    limit = boxes_xyxy.new_tensor([image_hw[1], image_hw[0]])
    start = (boxes_xyxy[:, :2].floor() - 1).clamp(min=0)
    stop = torch.minimum(boxes_xyxy[:, 2:].ceil() + 1, limit)
    has_area = (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(dim=1, keepdim=True)
    return start.long(), torch.where(has_area, stop, start).long()


def _mask_coordinates(start: Tensor, count: int, low: Tensor, high: Tensor) -> Tensor:
    """Centres of `count` pixels from `start` on, in mask coordinates: -1 at `low`, 1 at `high`."""
    centre = start[:, None] + torch.arange(count, device=start.device) + 0.5
    return (centre - low[:, None]) / (high - low)[:, None] * 2 - 1


def _is_inside(size: Tensor, count: int) -> Tensor:
    return torch.arange(count, device=size.device) < size[:, None]


def _occupied_extents(bitmaps: NDArray[np.bool_], axis: int) -> NDArray[np.int64]:
    """First and past-the-last occupied index of each bitmap [B, h, w] along an axis (1 or 2).

    int64[B, 2]; (0, 0) for a bitmap without a pixel.
    """
    occupied = np.asarray(bitmaps.any(axis=3 - axis))
    first = occupied.argmax(axis=1)
    last = occupied.shape[1] - occupied[:, ::-1].argmax(axis=1)
    extents = np.stack([first, last], axis=1)
    return np.where(np.asarray(occupied.any(axis=1))[:, None], extents, 0)
