"""Detect in several versions of an image, and merge what is found."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from detectron2._missing import missing_part_message
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from detectron2.data.detection_utils import read_image
from detectron2.structures import Boxes, Instances
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, Transform, TransformList
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .meta_arch import GeneralizedRCNN
from .postprocessing import detector_postprocess
from .roi_heads.fast_rcnn import fast_rcnn_inference_single_image

__all__ = ["DatasetMapperTTA", "GeneralizedRCNNWithTTA"]

ImageDict = dict[str, Any]
# any score counts in the merge: the model has applied its threshold already
_LEAST_SCORE = 1e-8


def _to_chw(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


class DatasetMapperTTA:
    """Make versions of an image: each of several sizes, plain and mirrored.

    Args:
        min_sizes: lengths of the shorter side, pixels.
        max_size: upper limit of the longer side, pixels.
        flip: also mirror left and right.
    """

    @configurable
    def __init__(self, min_sizes: Sequence[int], max_size: int, flip: bool) -> None:
        self.min_sizes = min_sizes
        self.max_size = max_size
        self.flip = flip

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        options = cfg.TEST.AUG
        names = ("MIN_SIZES", "MAX_SIZE", "FLIP")
        return {name.lower(): options[name] for name in names}

    def __call__(self, dataset_dict: ImageDict) -> list[ImageDict]:
        """Return the versions of an input.

        Args:
            dataset_dict: with `image`, [C, H, W], and `height` and `width` of the file, pixels.

        Returns:
            Copies of it with another `image`; and `transforms`, which lead from the file to it.
        """
        image = dataset_dict["image"].permute(1, 2, 0).numpy()
        file_hw = (dataset_dict["height"], dataset_dict["width"])
        first: Transform = NoOpTransform()
        if image.shape[:2] != file_hw:
            first = T.ResizeTransform(*file_hw, *image.shape[:2])
        versions = []
        for size in self.min_sizes:
            for mirrored in (False, True)[: 1 + bool(self.flip)]:
                steps: list[Any] = [T.ResizeShortestEdge(size, self.max_size)]
                steps += [T.RandomFlip(prob=1.0)] * mirrored
                changed, transforms = T.apply_augmentations(steps, image.copy())
                version = copy.deepcopy(dataset_dict)
                version["image"] = _to_chw(changed)
                version["transforms"] = TransformList([first]) + transforms
                versions.append(version)
        return versions


class GeneralizedRCNNWithTTA(nn.Module):
    """A GeneralizedRCNN that looks at several versions of each image; called as one, in testing.

    Boxes of all versions are merged by non-maximum suppression; soft masks, predicted again for
    the merged boxes in each version, are averaged.

    Args:
        cfg: the model's config.
        model: to detect with; may be wrapped for distributed training.
        tta_mapper: makes the versions; by default `DatasetMapperTTA(cfg)`.
        batch_size: versions given to the model at once.

    Raises:
        TypeError: `model` is no GeneralizedRCNN.
        NotImplementedError: the config has keypoints or precomputed proposals.
    """

    def __init__(
        self, cfg: CfgNode, model: nn.Module, tta_mapper: Any = None, batch_size: int = 3
    ) -> None:
        super().__init__()
        inner = model.module if isinstance(model, DistributedDataParallel) else model
        if not isinstance(inner, GeneralizedRCNN):
            raise TypeError(f"Only a GeneralizedRCNN can be augmented, not a {type(inner)}.")
        for key in ("KEYPOINT_ON", "LOAD_PROPOSALS"):
            if cfg.MODEL[key]:
                raise NotImplementedError(missing_part_message(f"MODEL.{key} with augmentation"))
        self.cfg = cfg.clone()
        self.model = inner
        self.tta_mapper = DatasetMapperTTA(cfg) if tta_mapper is None else tta_mapper
        self.batch_size = batch_size

    def forward(self, batched_inputs: Sequence[ImageDict]) -> list[dict[str, Instances]]:
        """As `GeneralizedRCNN.forward` in testing; `file_name` may stand in for `image`."""
        return [{"instances": self._detect(self._with_image(x))} for x in batched_inputs]

    def _with_image(self, dataset_dict: ImageDict) -> ImageDict:
        complete = dict(dataset_dict)
        if "image" not in complete:
            path = complete.pop("file_name")
            complete["image"] = _to_chw(read_image(path, self.model.input_format))
        height, width = complete["image"].shape[1:]
        complete.setdefault("height", height)
        complete.setdefault("width", width)
        return complete

    def _detect(self, dataset_dict: ImageDict) -> Instances:
        file_hw = (dataset_dict["height"], dataset_dict["width"])
        versions = self.tta_mapper(dataset_dict)
        transforms = [version.pop("transforms") for version in versions]
        with self._without_masks():
            found = self._infer(versions)
        merged = self._merge(found, transforms, file_hw)
        if not self.cfg.MODEL.MASK_ON:
            return merged
        known = [
            _in_version(merged, transform, version["image"].shape[1:])
            for version, transform in zip(versions, transforms)
        ]
        merged.pred_masks = _mean_mask(self._infer(versions, known), transforms)
        return detector_postprocess(merged, *file_hw)

    @contextmanager
    def _without_masks(self) -> Iterator[None]:
        heads = self.model.roi_heads
        before = heads.mask_on
        heads.mask_on = False
        try:
            yield
        finally:
            heads.mask_on = before

    def _infer(
        self, versions: list[ImageDict], known: list[Instances] | None = None
    ) -> list[Instances]:
        """What the model finds in each version; `known` as for `GeneralizedRCNN.inference`."""
        found = []
        for start in range(0, len(versions), self.batch_size):
            part = slice(start, start + self.batch_size)
            given = None if known is None else known[part]
            found += self.model.inference(versions[part], given, do_postprocess=False)
        return found

    def _merge(
        self, found: list[Instances], transforms: list[Any], file_hw: tuple[int, int]
    ) -> Instances:
        """Detections of all versions in the frame of the file, without duplicates."""
        boxes = []
        for instances, transform in zip(found, transforms):
            tensor = instances.pred_boxes.tensor
            back = transform.inverse().apply_box(tensor.cpu().numpy())
            boxes.append(torch.from_numpy(back).to(tensor))
        scores = torch.cat([instances.scores for instances in found])
        classes = torch.cat([instances.pred_classes for instances in found])
        # one column per class, and the background's, which is not looked at
        columns = scores.new_zeros(len(scores), self.cfg.MODEL.ROI_HEADS.NUM_CLASSES + 1)
        columns.scatter_(1, classes[:, None], scores[:, None])
        merged, _ = fast_rcnn_inference_single_image(
            torch.cat(boxes),
            columns,
            file_hw,
            score_thresh=_LEAST_SCORE,
            nms_thresh=self.cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST,
            topk_per_image=self.cfg.TEST.DETECTIONS_PER_IMAGE,
        )
        return merged


def _in_version(merged: Instances, transform: Any, version_hw: Sequence[int]) -> Instances:
    """Merged detections in the frame of a version."""
    tensor = merged.pred_boxes.tensor
    moved = torch.from_numpy(transform.apply_box(tensor.cpu().numpy())).to(tensor)
    height, width = version_hw
    return Instances((height, width), **{**merged.get_fields(), "pred_boxes": Boxes(moved)})


def _mean_mask(found: list[Instances], transforms: list[Any]) -> torch.Tensor:
    """Mean of the soft masks [N, 1, M, M], those of mirrored versions mirrored back."""
    masks = []
    for instances, transform in zip(found, transforms):
        mirrored = any(isinstance(step, HFlipTransform) for step in transform.transforms)
        masks.append(instances.pred_masks.flip(3) if mirrored else instances.pred_masks)
    return torch.stack(masks).mean(dim=0)
