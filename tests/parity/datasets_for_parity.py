"""A small dataset on disk, registered for as long as it is needed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from fixed_numbers import box_of, cell_masks, octagon_of, picture_of
from PIL import Image

NAME = "parity_cells"
CLASSES = ("round", "rare")
IMAGES_HW = ((72, 96), (96, 72), (80, 100), (64, 64), (100, 80), (90, 120))


@contextmanager
def registered_cells(*, polygons: bool = False) -> Iterator[str]:
    """Name of a dataset of six images of different shape, in a folder that goes away again.

    Args:
        polygons: annotate with octagons instead of run lengths.
    """
    with tempfile.TemporaryDirectory() as folder:
        records = [_record(Path(folder), i, hw, polygons) for i, hw in enumerate(IMAGES_HW)]
        DatasetCatalog.register(NAME, lambda: records)
        MetadataCatalog.get(NAME).set(thing_classes=list(CLASSES))
        try:
            yield NAME
        finally:
            DatasetCatalog.remove(NAME)
            MetadataCatalog.remove(NAME)


def _record(folder: Path, number: int, image_hw: tuple[int, int], polygons: bool) -> dict[str, Any]:
    masks = cell_masks(image_hw, f"dataset cells {number}", 4 + number)
    path = folder / f"{number}.png"
    Image.fromarray(picture_of(masks, f"dataset image {number}")).save(path)
    return {
        "file_name": str(path),
        "image_id": number,
        "height": image_hw[0],
        "width": image_hw[1],
        "annotations": [
            {
                "bbox": box_of(mask),
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": int(number == 2 and index < 2),
                "segmentation": [octagon_of(box_of(mask))]
                if polygons
                else mask_util.encode(np.asfortranarray(mask, np.uint8)),
                "iscrowd": 0,
            }
            for index, mask in enumerate(masks)
        ],
    }
