"""The true cells of a registered data set, image by image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellseg.cells.instances import CellInstances
from cellseg.datasets.dataset_dicts import dict_to_true_cells
from cellseg.datasets.registration import category_ids_of
from cellseg.errors import DatasetError, collect_problems
from cellseg.io.category_ids import CategoryIds
from cellseg.io.coco_results import read_coco_results
from detectron2.data import DatasetCatalog, MetadataCatalog

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
        """The true cells of one image and its crowd regions (`iscrowd`), which have their flag.

        Segmentations may be polygons, RLE (compressed or not) or bitmaps [H, W].

        Raises:
            DatasetError: no such image, or annotations without a usable mask.
        """
        if key not in self.images:
            raise DatasetError(f"dataset {self.dataset_name!r} has no image with id {key!r}")
        where = f"annotations of image {key!r} in dataset {self.dataset_name!r}"
        return dict_to_true_cells(self.images[key], where)

    def read_predictions(
        self, path: str | Path, category_ids: CategoryIds = None
    ) -> dict[ImageKey, CellInstances]:
        """The predicted cells of every image, from a file of COCO results.

        Args:
            path: of the results; an image that does not occur in it has no predicted cells.
            category_ids: how the file counts, where that is known (`cellseg.io.category_ids`).

        Raises:
            DatasetError: the file cannot be read, is of other images, or leaves open what its
                category ids mean.
        """
        sizes = {key: (int(one["height"]), int(one["width"])) for key, one in self.images.items()}
        found = read_coco_results(
            path,
            self.classes,
            sizes_hw={str(key): size for key, size in sizes.items()},
            own_ids=category_ids_of(self.dataset_name),
            category_ids=category_ids,
        )
        return {
            key: found[str(key)] if str(key) in found else CellInstances.empty(size)
            for key, size in sizes.items()
        }
