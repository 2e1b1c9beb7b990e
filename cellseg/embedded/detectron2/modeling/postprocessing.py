"""From the network's frame to the image's."""

from __future__ import annotations

import torch
from detectron2.structures import Instances, ROIMasks
from torch.nn import functional as F

__all__ = ["detector_postprocess", "sem_seg_postprocess"]


def detector_postprocess(
    results: Instances, output_height: int, output_width: int, mask_threshold: float = 0.5
) -> Instances:
    """Rescale detections to an output size and paste their masks.

    Args:
        results: with `pred_boxes` or `proposal_boxes`, in pixels of `results.image_size`; its
            boxes are changed in place. `pred_masks`, if there, are soft: [N, 1, M, M] or ROIMasks.
        output_height, output_width: pixels of the image to describe.
        mask_threshold: see `paste_masks_in_image`.

    Returns:
        Instances of that size, without those whose box has no area; `pred_masks` is then bool
        [N, output_height, output_width].

    Raises:
        ValueError: `results` has no boxes.
    """
    names = [name for name in ("pred_boxes", "proposal_boxes") if results.has(name)]
    if not names:
        raise ValueError(f"Predictions must contain boxes; there are {[*results.get_fields()]}.")
    height, width = results.image_size
    scaled = Instances((output_height, output_width), **results.get_fields())
    boxes = scaled.get(names[0])
    boxes.scale(output_width / width, output_height / height)
    boxes.clip(scaled.image_size)
    scaled = scaled[boxes.nonempty()]
    if scaled.has("pred_masks"):
        masks = scaled.pred_masks
        masks = masks if isinstance(masks, ROIMasks) else ROIMasks(masks[:, 0])
        size = (output_height, output_width)
        scaled.pred_masks = masks.to_bitmasks(scaled.pred_boxes, *size, mask_threshold).tensor
    return scaled


def sem_seg_postprocess(
    result: torch.Tensor, img_size: tuple[int, int], output_height: int, output_width: int
) -> torch.Tensor:
    """Rescale what a semantic head says of each pixel to an output size.

    Args:
        result: [C, H, W], a score per class and pixel of the padded input.
        img_size: (height, width) of the image within the padding, whose upper left it is.
        output_height, output_width: pixels of the image to describe.

    Returns:
        [C, output_height, output_width], interpolated linearly.
    """
    height, width = img_size
    size = (output_height, output_width)
    image = result[None, :, :height, :width]
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)[0]
