"""From one entry of a dataset to the tensors that a model takes."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import torch
from cellseg.data.images import (
    DEFAULT_PERCENTILES,
    normalize_image,
    read_image,
    to_model_input,
)
from detectron2.config import CfgNode, configurable
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import Instances

logger = logging.getLogger(__name__)


class CellDatasetMapper:
    """Reads an image without clipping it, augments it with its cells, makes tensors.

    For an 8-bit image the result equals that of Detectron2's `DatasetMapper` with the same
    augmentations; other images are normalised first (`cellseg.data.images.normalize_image`), where
    Detectron2 would clip them to 8 bits. An image without cells stays in training.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_format: str = "BGR",
        normalize: str = "auto",
        percentiles: Sequence[float] = DEFAULT_PERCENTILES,
        use_masks: bool = True,
        mask_format: str = "bitmask",
        recompute_boxes: bool = False,
    ) -> None:
        """
        Args:
            is_train: keep the annotations.
            augmentations: applied in order to the image and its cells.
            image_format: "BGR" or "RGB", order of the tensor's channels.
            normalize: mode of `normalize_image`.
            percentiles: limits of `normalize_image`.
            use_masks: give the instances `gt_masks`.
            mask_format: "bitmask" (RLE) or "polygon", of the annotations.
            recompute_boxes: make boxes tight around what cropping left of a mask.
        """
        self.is_train = is_train
        self.augmentations = T.AugmentationList(list(augmentations))
        self.image_format = image_format
        self.normalize = normalize
        self.percentiles = tuple(percentiles)
        self.use_masks = use_masks
        self.mask_format = mask_format
        self.recompute_boxes = recompute_boxes and use_masks
        phase = "training" if is_train else "inference"
        logger.info("Augmentations in %s: %s", phase, list(augmentations))

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Arguments of the constructor from Detectron2's INPUT keys and CELLSEG.INPUT."""
        augmentations = detection_utils.build_augmentation(cfg, is_train)
        crop = cfg.INPUT.CROP
        crops = is_train and crop.ENABLED
        if crops:  # before all else, so that its size is that of the file's pixels
            augmentations = [T.RandomCrop(crop.TYPE, crop.SIZE), *augmentations]
        return {
            "is_train": is_train,
            "augmentations": augmentations,
            "image_format": cfg.INPUT.FORMAT,
            "normalize": cfg.CELLSEG.INPUT.NORMALIZE,
            "percentiles": cfg.CELLSEG.INPUT.PERCENTILES,
            "use_masks": cfg.MODEL.MASK_ON,
            "mask_format": cfg.INPUT.MASK_FORMAT,
            "recompute_boxes": crops,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Read and augment one image.

        Args:
            dataset_dict: an entry of a Detectron2 dataset; left as it is.

        Returns:
            Its entries less `annotations`, with `image` (tensor [3, H, W], uint8 or float32, range
            0 to 255) and, in training, `instances` (`gt_boxes`, `gt_classes`, `gt_masks`; without
            `gt_masks` if the image has no cell).

        Raises:
            ImageReadError: the image cannot be read.
        """
        entry = copy.deepcopy(dataset_dict)
        annotations = entry.pop("annotations", None)
        pixels = normalize_image(read_image(entry["file_name"]), self.normalize, self.percentiles)
        image = to_model_input(pixels, self.image_format)
        detection_utils.check_image_size(entry, image)
        augmented = T.AugInput(image)
        transforms = self.augmentations(augmented)
        entry["image"] = torch.from_numpy(augmented.image.transpose(2, 0, 1).copy())
        if self.is_train and annotations is not None:
            entry["instances"] = self._make_instances(
                annotations, transforms, augmented.image.shape[:2]
            )
        return entry

    def _make_instances(
        self,
        annotations: list[dict[str, Any]],
        transforms: T.TransformList,
        image_hw: tuple[int, int],
    ) -> Instances:
        wanted = [cell for cell in annotations if not cell.get("iscrowd", 0)]
        if not self.use_masks:
            for cell in wanted:
                cell.pop("segmentation", None)
        moved = [
            detection_utils.transform_instance_annotations(cell, transforms, image_hw)
            for cell in wanted
        ]
        instances = detection_utils.annotations_to_instances(
            moved, image_hw, mask_format=self.mask_format
        )
        if self.recompute_boxes and instances.has("gt_masks"):
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return detection_utils.filter_empty_instances(instances)
