"""Detectron2's annotations to a `LabelledImage` and back, for copy-paste."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
from cellseg.cells.label_planes import LabelPlanes
from cellseg.cells.labels import label_image_to_rles
from cellseg.cells.run_lengths import Rle
from cellseg.images import ImageInput
from cellseg.training_data.augmentations.base import Image
from cellseg.training_data.augmentations.copy_paste import LabelledImage
from detectron2.config import CfgNode
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
    given = [cell["segmentation"] for cell in cells]
    rles = [polygons_to_rle(one, image_hw) if isinstance(one, list) else one for one in given]
    classes = np.array([cell["category_id"] for cell in cells], np.int64)
    return LabelledImage(image, LabelPlanes.from_rles(rles, image_hw), classes)


def read_labelled_image(cfg: CfgNode, entry: Mapping[str, Any]) -> LabelledImage:
    """Read the image of a dataset entry as the model takes it, with its cells.

    Args:
        cfg: says by CELLSEG.INPUT and INPUT.FORMAT how files are read.
        entry: of a Detectron2 dataset, with `file_name` and `annotations`.

    Raises:
        ImageReadError: the image cannot be read.
        LabelError: as `annotations_to_labelled_image`.
    """
    image_input = ImageInput.from_config(cfg)
    image = image_input.read_model_input(entry["file_name"], entry.get("page"))
    return annotations_to_labelled_image(image, entry["annotations"])


def polygons_to_rle(polygons: Sequence[Any], image_hw: tuple[int, int]) -> Rle:
    """RLE of an outline, by the rule that Detectron2 and COCO have for which pixels are inside.

    Args:
        polygons: one per piece, each [x0, y0, x1, y1, ...] in pixels; without any the mask is
            empty.
        image_hw: (height, width) of the image, pixels.
    """
    if not polygons:
        return {"size": list(image_hw), "counts": [image_hw[0] * image_hw[1]]}
    return coco_mask.merge(coco_mask.frPyObjects(polygons, *image_hw))


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
