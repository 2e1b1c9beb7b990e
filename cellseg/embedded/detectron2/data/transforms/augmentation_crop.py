# ruff: noqa: NPY002 (one seed of numpy's global generator has to cover a whole pipeline)
"""Augmentations that take a part of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, pairwise_iou
from fvcore.transforms.transform import (
    CropTransform,
    NoOpTransform,
    PadTransform,
    Transform,
    TransformList,
)

from .._require import require
from .augmentation import Augmentation
from .transform import ExtentTransform

_CROP_TYPES = ("relative_range", "relative", "absolute", "absolute_range")
_CATEGORY_TRIALS = 10


@dataclass(repr=False, eq=False)
class FixedSizeCrop(Augmentation):
    """Crop what is larger than `crop_size` at a random place, pad what is smaller.

    Attributes:
        crop_size: (height, width) of the result, pixels.
        pad: False leaves an edge that is too short as it is.
        pad_value: of the image, right and below.
        seg_pad_value: of the segmentation.
    """

    crop_size: tuple[int, int]
    pad: bool = True
    pad_value: float = 128.0
    seg_pad_value: int = 255

    def get_transform(self, image: np.ndarray) -> TransformList:
        crop = self._get_crop(image)
        return TransformList([crop, self._get_pad(image)] if self.pad else [crop])

    def _get_crop(self, image: np.ndarray) -> Transform:
        (height, width), (new_height, new_width) = image.shape[:2], self.crop_size
        spare = np.array((max(height - new_height, 0), max(width - new_width, 0)))
        # one number for both axes: the place lies on the diagonal
        y0, x0 = np.round(spare * np.random.uniform()).astype(int)
        return CropTransform(x0, y0, new_width, new_height, width, height)

    def _get_pad(self, image: np.ndarray) -> Transform:
        cropped = np.minimum(image.shape[:2], self.crop_size)
        below, right = self.crop_size - cropped
        height, width = cropped
        values = {"pad_value": self.pad_value, "seg_pad_value": self.seg_pad_value}
        return PadTransform(0, 0, right, below, width, height, **values)


@dataclass(repr=False, eq=False)
class RandomCrop(Augmentation):
    """Crop a rectangle at a random place.

    Attributes:
        crop_type: how to read `crop_size`:
            "relative": (share of the height, share of the width), in (0, 1];
            "relative_range": the least shares, drawn between them and 1;
            "absolute": (height, width) in pixels, at most those of the image;
            "absolute_range": (lowest, highest) edge in pixels, drawn for each axis.
        crop_size: two numbers.
    """

    crop_type: str
    crop_size: Sequence[Any]

    def __post_init__(self) -> None:
        require(
            self.crop_type in _CROP_TYPES,
            f"crop_type must be one of {_CROP_TYPES}, got {self.crop_type!r}.",
        )

    def get_transform(self, image: np.ndarray) -> Transform:
        return _crop_somewhere(image.shape[:2], self.get_crop_size(image.shape[:2]))

    def get_crop_size(self, image_size: tuple[int, ...]) -> tuple[int, int]:
        """(height, width) of the crop in pixels, for an image of (height, width)."""
        if self.crop_type.startswith("relative"):
            rows, columns = np.multiply(image_size, self._shares()) + 0.5
            return int(rows), int(columns)
        first, second = self.crop_size
        if self.crop_type == "absolute":
            return min(first, image_size[0]), min(second, image_size[1])
        require(first <= second, f"crop_size must be (lowest, highest), got {self.crop_size}.")
        rows, columns = (
            np.random.randint(min(edge, first), min(edge, second) + 1) for edge in image_size
        )
        return rows, columns

    def _shares(self) -> np.ndarray:
        if self.crop_type == "relative":
            return np.asarray(self.crop_size)
        least = np.asarray(self.crop_size, dtype=np.float32)
        return least + np.random.rand(2) * (1 - least)


def _crop_somewhere(image_hw: tuple[int, ...], crop_hw: tuple[int, int]) -> CropTransform:
    (height, width), (rows, columns) = image_hw, crop_hw
    require(
        rows <= height and columns <= width,
        f"Cannot crop {rows}x{columns} pixels out of an image of {height}x{width}.",
    )
    y0 = np.random.randint(height - rows + 1)
    x0 = np.random.randint(width - columns + 1)
    return CropTransform(x0, y0, columns, rows)


class RandomCrop_CategoryAreaConstraint(Augmentation):
    """A `RandomCrop` in which no class of `sem_seg` covers too much; ten places are tried.

    Args:
        crop_type, crop_size: as in `RandomCrop`.
        single_category_max_area: largest share of the crop for one class; 1 switches it off.
        ignored_category: a class that does not count.
    """

    def __init__(
        self,
        crop_type: str,
        crop_size: Sequence[float],
        single_category_max_area: float = 1.0,
        ignored_category: int | None = None,
    ) -> None:
        self.crop_type = crop_type
        self.crop_size = crop_size
        self.crop_aug = RandomCrop(crop_type, crop_size)
        self.single_category_max_area = single_category_max_area
        self.ignored_category = ignored_category

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> Transform:
        if self.single_category_max_area >= 1.0:
            return self.crop_aug.get_transform(image)
        for _ in range(_CATEGORY_TRIALS):
            crop = self.crop_aug.get_transform(sem_seg)
            if self._is_mixed(crop.apply_segmentation(sem_seg)):
                break
        return crop

    def _is_mixed(self, sem_seg: np.ndarray) -> bool:
        categories, areas = np.unique(sem_seg, return_counts=True)
        counted = areas[categories != self.ignored_category] if self._ignores_one else areas
        return len(counted) > 1 and counted.max() < counted.sum() * self.single_category_max_area

    @property
    def _ignores_one(self) -> bool:
        return self.ignored_category is not None


@dataclass(repr=False, eq=False)
class RandomExtent(Augmentation):
    """Cut a rectangle of random size and place, which may reach beyond the image (black there).

    Attributes:
        scale_range: (lowest, highest) size of the rectangle in parts of the image.
        shift_range: (x, y); its centre is moved by up to half these parts of width and height.
    """

    scale_range: Sequence[float]
    shift_range: Sequence[float]

    def get_transform(self, image: np.ndarray) -> Transform:
        size_xy = np.array(image.shape[1::-1])
        smallest, largest = self.scale_range
        half = 0.5 * size_xy * np.random.uniform(smallest, largest)
        shift = [
            part * edge * (np.random.rand() - 0.5) for part, edge in zip(self.shift_range, size_xy)
        ]
        (x0, y0), (x1, y1) = -half + shift + 0.5 * size_xy, half + shift + 0.5 * size_xy
        return ExtentTransform((x0, y0, x1, y1), output_size=(int(y1 - y0), int(x1 - x0)))


class MinIoURandomCrop(Augmentation):
    """Crop so that every box overlaps with the crop by at least a random IoU (SSD, section 2.2).

    Args:
        min_ious: least IoUs to draw from; "keep the whole image" and "anything" are drawn too.
        min_crop_size: least edge of the crop in parts of the image.
        mode_trials: how many IoUs are drawn at most.
        crop_trials: how many crops are tried for each.
    """

    def __init__(
        self,
        min_ious: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
        min_crop_size: float = 0.3,
        mode_trials: int = 1000,
        crop_trials: int = 50,
    ) -> None:
        self.min_ious, self.min_crop_size = min_ious, min_crop_size
        self.mode_trials, self.crop_trials = mode_trials, crop_trials
        self.sample_mode = (1, *min_ious, 0)

    def get_transform(self, image: np.ndarray, boxes: np.ndarray | None) -> Transform:
        """Boxes are [N, 4], x0 y0 x1 y1 in pixels; with None the image stays whole."""
        if boxes is None:
            return NoOpTransform()
        for _ in range(self.mode_trials):
            min_iou = np.random.choice(self.sample_mode)
            if min_iou == 1:
                break
            for _ in range(self.crop_trials):
                crop = self._propose(*image.shape[:2])
                if crop is not None and _keeps_boxes(crop, boxes, min_iou):
                    x0, y0, width, height = crop
                    return CropTransform(int(x0), int(y0), int(width), int(height))
        return NoOpTransform()

    def _propose(self, image_h: int, image_w: int) -> tuple[float, float, float, float] | None:
        """A random (x0, y0, width, height), or None if it is too slim."""
        width = np.random.uniform(self.min_crop_size * image_w, image_w)
        height = np.random.uniform(self.min_crop_size * image_h, image_h)
        if not 0.5 <= height / width <= 2:
            return None
        # down from the spare room to 1, not up from 0: a quirk of Detectron2's draws
        x0, y0 = np.random.uniform(image_w - width), np.random.uniform(image_h - height)
        return x0, y0, width, height


def _keeps_boxes(
    crop: tuple[float, float, float, float], boxes: np.ndarray, min_iou: float
) -> bool:
    """Whether a crop of full pixels overlaps enough with all boxes and has a centre inside."""
    x0, y0, width, height = crop
    window = np.array([[x0, y0, x0 + width, y0 + height]]).astype(int)
    low, high = window[0, :2], window[0, 2:]
    if (low == high).any():
        return False
    if len(boxes) == 0:
        return True
    centers = boxes.reshape(-1, 2, 2).mean(axis=1)
    has_center = ((centers > low) & (centers < high)).all(axis=1).any()
    return bool(has_center) and bool(_iou(window, boxes).min() >= min_iou)


def _iou(one: np.ndarray, other: np.ndarray) -> torch.Tensor:
    return pairwise_iou(Boxes(torch.as_tensor(one)), Boxes(torch.as_tensor(other)))
