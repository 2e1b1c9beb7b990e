# ruff: noqa: NPY002 (one seed of numpy's global generator has to cover a whole pipeline)
"""Augmentations: flips, resizes and rotations; with those of the sibling modules, all there are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, Transform, VFlipTransform

from .._require import require
from .augmentation import Augmentation, _transform_to_aug
from .augmentation_color import RandomBrightness, RandomContrast, RandomLighting, RandomSaturation
from .augmentation_crop import (
    FixedSizeCrop,
    MinIoURandomCrop,
    RandomCrop,
    RandomCrop_CategoryAreaConstraint,
    RandomExtent,
)
from .transform import BILINEAR, ResizeTransform, RotationTransform

__all__ = [
    "FixedSizeCrop",
    "MinIoURandomCrop",
    "RandomApply",
    "RandomBrightness",
    "RandomContrast",
    "RandomCrop",
    "RandomCrop_CategoryAreaConstraint",
    "RandomExtent",
    "RandomFlip",
    "RandomLighting",
    "RandomResize",
    "RandomRotation",
    "RandomSaturation",
    "Resize",
    "ResizeScale",
    "ResizeShortestEdge",
]


class RandomApply(Augmentation):
    """An augmentation or a transform, applied with probability `prob`."""

    def __init__(self, tfm_or_aug: Transform | Augmentation, prob: float = 0.5) -> None:
        require(0.0 <= prob <= 1.0, f"prob must be in [0, 1], got {prob}.")
        self.aug = _transform_to_aug(tfm_or_aug)
        self.prob = prob

    def _is_applied(self) -> bool:
        return self._rand_range() < self.prob

    def get_transform(self, *args: Any) -> Transform:
        return self.aug.get_transform(*args) if self._is_applied() else NoOpTransform()

    def __call__(self, aug_input: Any) -> Transform:
        return self.aug(aug_input) if self._is_applied() else NoOpTransform()


@dataclass(repr=False, eq=False)
class RandomFlip(Augmentation):
    """Flip left-right or upside down with probability `prob`; one of the two, not both."""

    prob: float = 0.5
    _: KW_ONLY
    horizontal: bool = True
    vertical: bool = False

    def __post_init__(self) -> None:
        if self.horizontal == self.vertical:
            raise ValueError(
                "RandomFlip is either horizontal or vertical; for both use two of them. Got "
                f"horizontal={self.horizontal}, vertical={self.vertical}."
            )

    def get_transform(self, image: np.ndarray) -> Transform:
        if self._rand_range() >= self.prob:
            return NoOpTransform()
        height, width = image.shape[:2]
        return HFlipTransform(width) if self.horizontal else VFlipTransform(height)


def _resize(image: np.ndarray, new_hw: Sequence[int], interp: int) -> ResizeTransform:
    height, width = image.shape[:2]
    return ResizeTransform(height, width, new_hw[0], new_hw[1], interp)


@dataclass(repr=False, eq=False)
class Resize(Augmentation):
    """Resize to `shape`, (height, width) or one number for both."""

    shape: Any
    interp: int = BILINEAR

    def __post_init__(self) -> None:
        self.shape = (self.shape,) * 2 if isinstance(self.shape, int) else tuple(self.shape)

    def get_transform(self, image: np.ndarray) -> Transform:
        return _resize(image, self.shape, self.interp)


@dataclass(repr=False, eq=False)
class RandomResize(Augmentation):
    """Resize to one of the (height, width) in `shape_list`."""

    shape_list: Sequence[tuple[int, int]]
    interp: int = BILINEAR

    def get_transform(self, image: np.ndarray) -> Transform:
        return _resize(image, self.shape_list[np.random.randint(len(self.shape_list))], self.interp)


class ResizeShortestEdge(Augmentation):
    """Scale the shorter edge to a length, or less if the longer one would exceed `max_size`.

    Args:
        short_edge_length: pixels; one number, or for `sample_style` "range" the lowest and the
            highest one, or for "choice" those to choose from. 0 leaves the image as it is.
        max_size: of the longer edge, pixels.
        sample_style: "range" or "choice".
        interp: a `PIL.Image.Resampling`.

    `get_output_shape` works under `torch.jit.script`.
    """

    @torch.jit.unused
    def __init__(
        self,
        short_edge_length: Any,
        max_size: int = sys.maxsize,
        sample_style: str = "range",
        interp: int = BILINEAR,
    ) -> None:
        lengths = (
            (short_edge_length,) * 2 if isinstance(short_edge_length, int) else short_edge_length
        )
        require(
            sample_style in ("range", "choice"),
            f"sample_style must be 'range' or 'choice', got {sample_style!r}.",
        )
        self.is_range = sample_style == "range"
        require(
            not self.is_range or len(lengths) == 2,
            f"With sample_style 'range', short_edge_length is (lowest, highest), got {lengths}.",
        )
        self.short_edge_length = lengths
        self.max_size = max_size
        self.sample_style = sample_style
        self.interp = interp

    @torch.jit.unused
    def get_transform(self, image: Any) -> Any:
        lengths = self.short_edge_length
        if self.is_range:
            length = np.random.randint(lengths[0], lengths[1] + 1)
        else:
            length = np.random.choice(lengths)
        if length == 0:
            return NoOpTransform()
        height, width = image.shape[:2]
        new_hw = self.get_output_shape(height, width, int(length), self.max_size)
        return _resize(image, new_hw, self.interp)

    @staticmethod
    def get_output_shape(
        oldh: int, oldw: int, short_edge_length: int, max_size: int
    ) -> tuple[int, int]:
        """(height, width) after the resize, pixels, rounded half up."""
        short = float(short_edge_length)
        scale = short / min(oldh, oldw)
        height, width = (short, scale * oldw) if oldh < oldw else (scale * oldh, short)
        longest = max(height, width)
        if longest > max_size:
            shrink = max_size / longest
            height, width = height * shrink, width * shrink
        return int(height + 0.5), int(width + 0.5)


@dataclass(repr=False, eq=False)
class ResizeScale(Augmentation):
    """Fit the image into a target size times a random scale, with its proportions kept.

    The resize half of "large scale jitter" (Ghiasi et al., 2021); `FixedSizeCrop` is the other.
    """

    min_scale: float
    max_scale: float
    target_height: int
    target_width: int
    interp: int = BILINEAR

    def get_transform(self, image: np.ndarray) -> Transform:
        times = np.random.uniform(self.min_scale, self.max_scale)
        room = np.multiply((self.target_height, self.target_width), times)
        ratio = np.divide(room, image.shape[:2]).min()
        new_hw = np.multiply(image.shape[:2], ratio).round().astype(int).tolist()
        return _resize(image, new_hw, self.interp)


class RandomRotation(Augmentation):
    """Rotate counter-clockwise by a random angle.

    Args:
        angle: degrees; one number, or for `sample_style` "range" the lowest and the highest one,
            or for "choice" those to choose from.
        expand: enlarge the image so that nothing is cut off.
        center: where to rotate about, as (x, y) in parts of width and height: one point, or for
            "range" the two corners between which it lies, or for "choice" points to choose from.
            None is the centre of the image. Without effect if `expand`.
        sample_style: "range" or "choice".
        interp: an OpenCV interpolation flag, None for linear.
    """

    def __init__(
        self,
        angle: float | Sequence[float],
        expand: bool = True,
        center: Sequence[Any] | None = None,
        sample_style: str = "range",
        interp: int | None = None,
    ) -> None:
        require(
            sample_style in ("range", "choice"),
            f"sample_style must be 'range' or 'choice', got {sample_style!r}.",
        )
        self.is_range = sample_style == "range"
        self.angle: Sequence[Any] = (angle,) * 2 if isinstance(angle, (int, float)) else angle
        if center is not None and isinstance(center[0], (int, float)):
            center = (center, center)
        self.center = center
        self.expand = expand
        self.sample_style = sample_style
        self.interp = interp

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        angle = self._pick_angle()
        point = None if self.center is None else self._pick_center(self.center)
        if angle % 360 == 0:
            return NoOpTransform()
        about = None if point is None else (width * point[0], height * point[1])
        return RotationTransform(
            height, width, angle, expand=self.expand, center=about, interp=self.interp
        )

    def _pick_angle(self) -> float:
        if not self.is_range:
            return np.random.choice(self.angle)
        low, high = self.angle
        return np.random.uniform(low, high)

    def _pick_center(self, choices: Sequence[Any]) -> Sequence[float]:
        if not self.is_range:
            return choices[np.random.randint(len(choices))]
        low, high = choices
        return np.random.uniform(low[0], high[0]), np.random.uniform(low[1], high[1])
