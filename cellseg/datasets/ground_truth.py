"""The true cells of a registered data set, image by image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import Rle, bitmap_to_rle
from cellseg.errors import DatasetError, LabelError, collect_problems
from detectron2.data import DatasetCatalog, MetadataCatalog
from pycocotools import mask as coco_mask

ImageKey = str | int


def image_key(image: Mapping[str, Any]) -> ImageKey:
    """What a dataset dict, or a model input made from it, is found by: image_id, else file name."""
    return image["image_id"] if "image_id" in image else image["file_name"]


@dataclass(frozen=True)
class GroundTruth:
    """The true cells of a registered dataset; masks are decoded image by image.

    Attributes:
        dataset_name: as registered in DatasetCatalog.
        classes: class names; the position is the class number.
        images: dataset dicts by `image_key`, in the dataset's order.
    """

    dataset_name: str
    classes: tuple[str, ...]
    images: dict[ImageKey, dict[str, Any]]

    @classmethod
    def load(cls, dataset_name: str) -> GroundTruth:
        """Read a dataset from DatasetCatalog.

        Raises:
            DatasetError: its metadata has no thing_classes, or two images have the same id.
        """
        classes = MetadataCatalog.get(dataset_name).get("thing_classes")
        if not classes:
            raise DatasetError(
                f"dataset {dataset_name!r} has no class names; set them with "
                f"MetadataCatalog.get({dataset_name!r}).thing_classes = [...]"
            )
        images: dict[ImageKey, dict[str, Any]] = {}
        repeated = []
        for image in DatasetCatalog.get(dataset_name):
            if image_key(image) in images:
                repeated.append(f"{image_key(image)!r}: {image.get('file_name')}")
            images[image_key(image)] = image
        if repeated:
            raise DatasetError(
                collect_problems(f"image ids occur twice in dataset {dataset_name!r}", repeated)
            )
        return cls(dataset_name, tuple(classes), images)

    def cells(self, key: ImageKey) -> CellInstances:
        """True cells of one image; crowd regions (`iscrowd`) are among them, with their flag.

        Segmentations may be polygons, RLE (compressed or not) or bitmaps [H, W].

        Raises:
            DatasetError: no such image, or an annotation without a usable mask.
        """
        if key not in self.images:
            raise DatasetError(f"dataset {self.dataset_name!r} has no image with id {key!r}")
        image = self.images[key]
        annotations = image.get("annotations", [])
        image_hw = (int(image["height"]), int(image["width"]))
        try:
            rles = [_annotation_to_rle(annotation, image_hw) for annotation in annotations]
            return CellInstances.from_rles(
                rles,
                image_hw,
                classes=[annotation["category_id"] for annotation in annotations],
                is_crowd=[bool(annotation.get("iscrowd", 0)) for annotation in annotations],
            )
        except LabelError as error:
            raise DatasetError(
                f"annotations of image {key!r} in dataset {self.dataset_name!r}: {error}"
            ) from error


def _annotation_to_rle(annotation: Mapping[str, Any], image_hw: tuple[int, int]) -> Rle:
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        return segmentation
    if isinstance(segmentation, list) and segmentation:
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, *image_hw))
    if isinstance(segmentation, np.ndarray):
        return bitmap_to_rle(segmentation)
    raise LabelError(
        "a cell needs a segmentation (polygons, RLE or a bitmap) to be compared by its mask; "
        f"found {segmentation!r}"
    )
