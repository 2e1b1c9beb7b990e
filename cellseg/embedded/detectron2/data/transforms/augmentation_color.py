# ruff: noqa: NPY002 (one seed of numpy's global generator has to cover a whole pipeline)
"""Augmentations of values: brightness, contrast, saturation, lighting.

Each blends the image with another one (Haeberli and Voorhies, 1994): intensity 1 keeps the image,
below 1 moves it towards the other, above 1 away from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from fvcore.transforms.transform import BlendTransform, Transform

from .._require import require
from .augmentation import Augmentation

_LUMA_BT601 = (0.299, 0.587, 0.114)

# principal components of the RGB values of ImageNet, with their variances (AlexNet, section 4.1)
_IMAGENET_VARIANCES = (0.2175, 0.0188, 0.0045)
_IMAGENET_COMPONENTS = (
    (-0.5675, -0.5808, -0.5836),
    (0.7192, -0.0045, -0.6948),
    (0.4009, -0.8140, 0.4203),
)


@dataclass(repr=False, eq=False)
class _RandomBlend(Augmentation, ABC):
    """Blend with what `_other` returns; intensity uniform in [intensity_min, intensity_max)."""

    intensity_min: float
    intensity_max: float

    def get_transform(self, image: np.ndarray) -> Transform:
        other = self._other(image)
        kept = np.random.uniform(self.intensity_min, self.intensity_max)
        return BlendTransform(other, src_weight=1 - kept, dst_weight=kept)

    @abstractmethod
    def _other(self, image: np.ndarray) -> np.ndarray | float:
        """What to blend with; of a shape that fits the image."""


class RandomBrightness(_RandomBlend):
    """Blend with black."""

    def _other(self, image: np.ndarray) -> float:
        return 0


class RandomContrast(_RandomBlend):
    """Blend with the mean of the image."""

    def _other(self, image: np.ndarray) -> np.ndarray | float:
        return image.mean()


class RandomSaturation(_RandomBlend):
    """Blend an RGB image with its luma (ITU-R BT.601)."""

    def _other(self, image: np.ndarray) -> np.ndarray:
        _require_rgb(self, image)
        return image.dot(_LUMA_BT601)[:, :, np.newaxis]


class RandomLighting(Augmentation):
    """Add a random multiple of the principal components of ImageNet's colours to an RGB image.

    Args:
        scale: standard deviation of the multiples.
    """

    def __init__(self, scale: float) -> None:
        self.scale = scale
        self.eigen_vecs = np.array(_IMAGENET_COMPONENTS).T.copy()
        self.eigen_vals = np.array(_IMAGENET_VARIANCES)

    def get_transform(self, image: np.ndarray) -> Transform:
        _require_rgb(self, image)
        multiples = np.random.normal(scale=self.scale, size=3)
        shift = self.eigen_vecs.dot(multiples * self.eigen_vals)
        return BlendTransform(src_image=shift, src_weight=1.0, dst_weight=1.0)


def _require_rgb(augmentation: Augmentation, image: np.ndarray) -> None:
    require(
        image.shape[-1] == 3,
        f"{type(augmentation).__name__} is for RGB images, got shape {image.shape}.",
    )
