"""Detectron2's annotations to a `LabelledImage` and back, for copy-paste."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
from cellseg.cells.label_planes import LabelPlanes
from cellseg.cells.labels import label_image_to_rles
from cellseg.cells.run_lengths import Rle
from cellseg.training_data.augmentations.base import Image
from cellseg.training_data.augmentations.copy_paste import LabelledImage
from detectron2.structures import BoxMode


def annotations_to_labelled_image(
    image: Image, annotations: Sequence[Mapping[str, Any]]
) -> LabelledImage:
    """Draw the cells of annotations with RLEs or polygons; crowd regions are left out.

    Raises:
        LabelError: an RLE is none, or of another size than the image.
    """
    image_hw = (image.shape[0], image.shape[1])
    cells = [cell for cell in annotations if not cell.get("iscrowd", 0)]
    rles = [_as_rle(cell["segmentation"], image_hw) for cell in cells]
    classes = np.array([cell["category_id"] for cell in cells], np.int64)
    return LabelledImage(image, LabelPlanes.from_rles(rles, image_hw), classes)


def _as_rle(segmentation: Any, image_hw: tuple[int, int]) -> Rle:
    if not isinstance(segmentation, list):
        return segmentation
    return coco_mask.merge(coco_mask.frPyObjects(segmentation, *image_hw))


def labelled_image_to_annotations(labelled: LabelledImage) -> list[dict[str, Any]]:
    """One annotation with an RLE and a tight box per cell, in order; none for one of no pixel."""
    boxes = labelled.cells.boxes_xyxy
    found: dict[int, Rle] = {}
    for plane in labelled.cells.planes:
        labels, rles = label_image_to_rles(plane)
        found |= dict(zip((labels - 1).tolist(), rles))
    return [
        {
            "bbox": boxes[number].astype(float).tolist(),
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": int(labelled.classes[number]),
            "segmentation": found[number],
            "iscrowd": 0,
        }
        for number in sorted(found)
    ]
