"""From one dict of a dataset to what a model is given."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import configurable

from . import detection_utils as utils
from . import transforms as T
from ._require import left_out, require

__all__ = ["DatasetMapper"]

logger = logging.getLogger(__name__)


class DatasetMapper:
    """Read the image, augment it, and make tensors of it and of its annotations.

    Args:
        is_train: False drops the annotations.
        augmentations: augmentations and transforms, in order.
        image_format: as in `detection_utils.read_image`.
        use_instance_mask: keep segmentations.
        use_keypoint: keep keypoints; not part of this engine.
        instance_mask_format: "polygon" or "bitmask".
        keypoint_hflip_indices: belongs to keypoints.
        precomputed_proposal_topk: belongs to precomputed proposals, not part of this engine.
        recompute_boxes: take the boxes from the transformed masks, so that they stay tight where
            a crop has cut an instance.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_format: str,
        use_instance_mask: bool = False,
        use_keypoint: bool = False,
        instance_mask_format: str = "polygon",
        keypoint_hflip_indices: np.ndarray | None = None,
        precomputed_proposal_topk: int | None = None,
        recompute_boxes: bool = False,
    ) -> None:
        require(
            use_instance_mask or not recompute_boxes,
            "recompute_boxes takes boxes from masks, so it needs use_instance_mask.",
        )
        if use_keypoint:
            raise left_out("MODEL.KEYPOINT_ON")
        if precomputed_proposal_topk is not None:
            raise left_out("MODEL.LOAD_PROPOSALS")
        self.augmentations = T.AugmentationList(augmentations)
        self.is_train, self.image_format = is_train, image_format
        self.use_instance_mask, self.instance_mask_format = use_instance_mask, instance_mask_format
        self.recompute_boxes = recompute_boxes
        self.use_keypoint, self.keypoint_hflip_indices = use_keypoint, keypoint_hflip_indices
        self.proposal_topk = precomputed_proposal_topk
        logger.info(f"Augmentations (is_train={is_train}): {augmentations}")

    @classmethod
    def from_config(cls, cfg: Any, is_train: bool = True) -> dict[str, Any]:
        augmentations: list[Any] = utils.build_augmentation(cfg, is_train)
        crop = cfg.INPUT.CROP
        crops = is_train and crop.ENABLED
        if crops:
            augmentations = [T.RandomCrop(crop.TYPE, crop.SIZE), *augmentations]
        topk = "PRECOMPUTED_PROPOSAL_TOPK_" + ("TRAIN" if is_train else "TEST")
        return {
            "augmentations": augmentations,
            "is_train": is_train,
            "use_instance_mask": cfg.MODEL.MASK_ON,
            "recompute_boxes": crops and cfg.MODEL.MASK_ON,
            "image_format": cfg.INPUT.FORMAT,
            "instance_mask_format": cfg.INPUT.MASK_FORMAT,
            "use_keypoint": cfg.MODEL.KEYPOINT_ON,
            "precomputed_proposal_topk": cfg.DATASETS[topk] if cfg.MODEL.LOAD_PROPOSALS else None,
        }

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Map one image.

        Args:
            dataset_dict: in Detectron2's dataset format; not changed.

        Returns:
            The dict with "image", a [C, H, W] tensor of the image's dtype; "sem_seg", int64
            [H, W], where "sem_seg_file_name" was given; and in training, in place of
            "annotations", "instances" (see `annotations_to_instances`) without crowds and those
            of which nothing is left.
        """
        sample = copy.deepcopy(dataset_dict)
        image = utils.read_image(sample["file_name"], format=self.image_format)
        utils.check_image_size(sample, image)
        aug_input = T.AugInput(image, sem_seg=_read_sem_seg(sample.pop("sem_seg_file_name", None)))
        transforms = self.augmentations(aug_input)

        channels_first = aug_input.image.transpose(2, 0, 1)
        sample["image"] = torch.from_numpy(np.array(channels_first, order="C"))
        if aug_input.sem_seg is not None:
            sample["sem_seg"] = torch.as_tensor(aug_input.sem_seg.astype(np.int64))
        if not self.is_train:
            sample.pop("annotations", None)
        if "annotations" in sample:
            self._transform_annotations(sample, transforms, aug_input.image.shape[:2])
        return sample

    def _transform_annotations(
        self,
        dataset_dict: dict[str, Any],
        transforms: T.TransformList,
        image_shape: tuple[int, int],
    ) -> None:
        """Replace "annotations" by "instances"; the step to overwrite for other annotations."""
        unused = {"keypoints"} if self.use_instance_mask else {"keypoints", "segmentation"}
        used = [
            {key: value for key, value in annotation.items() if key not in unused}
            for annotation in dataset_dict.pop("annotations")
            if not annotation.get("iscrowd", 0)
        ]
        transformed = [
            utils.transform_instance_annotations(annotation, transforms, image_shape)
            for annotation in used
        ]
        mask_format = self.instance_mask_format
        targets = utils.annotations_to_instances(transformed, image_shape, mask_format)
        if targets.has("gt_masks") and self.recompute_boxes:
            targets.gt_boxes = targets.gt_masks.get_bounding_boxes()
        dataset_dict["instances"] = utils.filter_empty_instances(targets)


def _read_sem_seg(file_name: str | None) -> np.ndarray | None:
    return None if file_name is None else utils.read_image(file_name, "L").squeeze(2)
