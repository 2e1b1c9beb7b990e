"""From what a model finds in an image to CellInstances."""

from __future__ import annotations

import numpy as np
import torch
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import crop_bitmap
from cellseg.cells.selection import PerClass, values_of_classes
from cellseg.errors import LabelError
from cellseg.modeling.pasting import paste_mask_crops, scale_boxes
from detectron2.structures import Instances


def detections_to_cells(
    instances: Instances,
    score_threshold: float = 0.0,
    *,
    image_hw: tuple[int, int] | None = None,
    mask_threshold: PerClass = 0.5,
) -> CellInstances:
    """Take a model's output, on any device, as cells; masks are cut down to crops one by one.

    Args:
        instances: detections of one image with `scores`, `pred_classes`, `pred_boxes` and
            `pred_masks`: either soft ones as the network gives them, float [N, 1, M, M], each
            covering its box; or bitmaps as `detector_postprocess` leaves them, bool [N, H, W] in
            the image's own pixels.
        score_threshold: detections with a lower score are left out.
        image_hw: (height, width), pixels, of the image that the cells are wanted for, where it is
            not `instances.image_size`; soft masks and their boxes are scaled to it.
        mask_threshold: in (0, 1], one number or one per class; a pixel belongs to the cell where a
            soft mask reaches it. Bitmaps have been decided already.

    Returns:
        By descending score, equal ones in the order of the network; may be empty. With soft masks,
        boxes are clipped to the image, and those of which no area is left are dropped, as
        Detectron2 does.

    Raises:
        LabelError: there are detections but no masks.
    """
    hw = image_hw or instances.image_size
    if len(instances) == 0:
        return CellInstances.empty(hw)
    if not instances.has("pred_masks"):
        raise LabelError("the model gives boxes but no masks; cells are compared by their masks")
    order = instances.scores.argsort(descending=True, stable=True)
    chosen = order[instances.scores[order] >= score_threshold]
    if instances.pred_masks.dtype == torch.bool:
        boxes = instances.pred_boxes.tensor[chosen]
        cropped = [crop_bitmap(instances.pred_masks[k].cpu().numpy()) for k in chosen.tolist()]
        crops, offsets_rc = [crop for crop, _ in cropped], np.array([at for _, at in cropped])
    else:
        boxes, has_area = scale_boxes(instances[chosen], hw)
        chosen = chosen[has_area]
        classes = instances.pred_classes[chosen].cpu().numpy()
        thresholds = torch.from_numpy(values_of_classes(mask_threshold, classes))
        crops, offsets_rc = paste_mask_crops(instances.pred_masks[chosen], boxes, hw, thresholds)
    return CellInstances.from_crops(
        crops,
        offsets_rc,
        hw,
        scores=instances.scores[chosen].float().cpu().numpy(),
        classes=instances.pred_classes[chosen].cpu().numpy(),
        boxes_xyxy=boxes.float().cpu().numpy(),
    )
