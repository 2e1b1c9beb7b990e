"""From the full-size bitmaps that Detectron2's models give to CellInstances."""

from __future__ import annotations

import numpy as np
import torch
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import Crop
from cellseg.errors import LabelError
from detectron2.structures import Instances


def detections_to_cells(instances: Instances, score_threshold: float = 0.0) -> CellInstances:
    """Cut the full-size bitmaps of a model's output, on any device, down to crops.

    Args:
        instances: with `scores`, `pred_classes`, `pred_boxes` and `pred_masks` bool [N, H, W] in
            the image's own pixels, as Detectron2's models return them in evaluation.
        score_threshold: detections below are left out.

    Raises:
        LabelError: there are detections but no masks.
    """
    if len(instances) == 0:
        return CellInstances.empty(instances.image_size)
    if not instances.has("pred_masks"):
        raise LabelError("the model gives boxes but no masks; cells are compared by their masks")
    kept = torch.nonzero(instances.scores >= score_threshold).flatten().tolist()
    cropped = [_crop_bitmap(instances.pred_masks[k]) for k in kept]
    return CellInstances.from_crops(
        [crop for crop, _ in cropped],
        [offset for _, offset in cropped],
        instances.image_size,
        scores=instances.scores[kept].cpu().numpy(),
        classes=instances.pred_classes[kept].cpu().numpy(),
        boxes_xyxy=instances.pred_boxes.tensor[kept].cpu().numpy(),
    )


def _crop_bitmap(mask: torch.Tensor) -> tuple[Crop, tuple[int, int]]:
    rows = torch.nonzero(mask.any(dim=1)).flatten().tolist()
    columns = torch.nonzero(mask.any(dim=0)).flatten().tolist()
    if not rows:
        return np.zeros((0, 0), dtype=bool), (0, 0)
    window = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return np.array(window.cpu().numpy(), dtype=bool), (rows[0], columns[0])
