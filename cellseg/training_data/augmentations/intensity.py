# ruff: noqa: NPY002 (numpy's global generator, as Detectron2's augmentations: one seed for all)
"""Augmentations of intensities, which leave every label where it is.

Images are [H, W] or [H, W, C] with values from 0 to 255; those of floats or wider integers may go
beyond, then the range is stretched to hold their own lowest and highest value. The result has the
image's dtype and stays within that range. Channels that are equal stay equal, so that a grey image
that was copied into three channels stays grey.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from cellseg.training_data.augmentations.base import (
    CellAugmentation,
    Image,
    draw_between,
    draw_factor,
)
from detectron2.data import transforms as T
from numpy.typing import NDArray

BLACK, WHITE = 0.0, 255.0

FloatImage = NDArray[np.floating[Any]]


def value_range(image: Image) -> tuple[float, float]:
    """(0, 255), or as much more as the image's own values need."""
    if image.dtype == np.uint8:
        return BLACK, WHITE
    return float(image.min(initial=BLACK)), float(image.max(initial=WHITE))


def _as_dtype(values: FloatImage, dtype: np.dtype[Any], limits: tuple[float, float]) -> Image:
    """Clip to the range and, for integers, round."""
    clipped = np.clip(values, *limits, out=values)
    if dtype.kind in "iu":
        clipped = np.rint(clipped, out=clipped)
    return clipped.astype(dtype, copy=False)


def _once_if_grey(image: Image, change: Callable[[Image], Image]) -> Image:
    """Apply `change` to the image, or only to one channel where all are equal."""
    if image.ndim == 2:
        return change(image)
    first = np.ascontiguousarray(image[..., 0])
    if any(not np.array_equal(first, image[..., k]) for k in range(1, image.shape[2])):
        return change(image)
    return cv2.merge([change(first)] * image.shape[2]).reshape(image.shape)


class IntensityTransform(T.Transform):
    """Changes the image only."""

    # int32 planes are moved as uint8 bitmaps are; see `cellseg.training_data.label_transforms`
    moves_labels = True

    def apply_coords(self, coords: NDArray[Any]) -> NDArray[Any]:
        return coords

    def apply_segmentation(self, segmentation: NDArray[Any]) -> NDArray[Any]:
        return segmentation

    def inverse(self) -> T.Transform:
        """Nothing: the inverse serves labels and coordinates, which have not moved."""
        return T.NoOpTransform()


class PointTransform(IntensityTransform):
    """Maps every value by itself."""

    def apply_image(self, img: Image) -> Image:
        limits = value_range(img)
        if img.dtype == np.uint8:
            levels = np.arange(256, dtype=np.float32)
            return _as_dtype(self.map_values(levels, *limits), img.dtype, limits)[img]
        values = img.astype(np.promote_types(img.dtype, np.float32))
        return _as_dtype(self.map_values(values, *limits), img.dtype, limits)

    @abstractmethod
    def map_values(self, values: FloatImage, low: float, high: float) -> FloatImage:
        """New values for `values` out of [low, high]; may change its argument."""


@dataclass(repr=False, eq=False)
class GammaTransform(PointTransform):
    """Raises the share of the full range to the power `gamma`; above 1 darkens."""

    gamma: float

    def map_values(self, values: FloatImage, low: float, high: float) -> FloatImage:
        shares = (values - low) / (high - low)
        return cv2.pow(shares, self.gamma).reshape(values.shape) * (high - low) + low


@dataclass(repr=False, eq=False)
class LinearTransform(PointTransform):
    """Multiplies the distance from `pivot`: brightness about 0, contrast about the mean."""

    factor: float
    pivot: float = BLACK

    def map_values(self, values: FloatImage, low: float, high: float) -> FloatImage:
        values -= self.pivot
        values *= self.factor
        values += self.pivot
        return values


class InvertTransform(PointTransform):
    """Dark becomes bright: fluorescence looks like transmitted light, and the other way round."""

    def map_values(self, values: FloatImage, low: float, high: float) -> FloatImage:
        return (low + high) - values


@dataclass(repr=False, eq=False)
class BlurTransform(IntensityTransform):
    """Convolves with a Gaussian of `sigma_px` pixels; the image is mirrored at its border."""

    sigma_px: float

    def apply_image(self, img: Image) -> Image:
        return _once_if_grey(img, self._blur_planes)

    def _blur_planes(self, planes: Image) -> Image:
        return cv2.GaussianBlur(planes, (0, 0), self.sigma_px)


@dataclass(repr=False, eq=False)
class NoiseTransform(IntensityTransform):
    """Adds Gaussian noise of deviation `sigma`, on a scale of 255; the same for the same `seed`."""

    sigma: float
    seed: int

    def apply_image(self, img: Image) -> Image:
        return _once_if_grey(img, self._add_noise)

    def _add_noise(self, planes: Image) -> Image:
        low, high = limits = value_range(planes)
        noise = np.random.default_rng(self.seed).standard_normal(planes.shape, np.float32)
        noise *= self.sigma * (high - low) / (WHITE - BLACK)
        return _as_dtype(planes + noise, planes.dtype, limits)


@dataclass(repr=False, eq=False)
class RandomGamma(CellAugmentation):
    """`GammaTransform` with a gamma from a range, uniform on a logarithmic scale."""

    gamma: tuple[float, float]
    prob: float = 1.0

    def draw_transform(self, image: Image) -> T.Transform:
        return GammaTransform(draw_factor(self.gamma))


@dataclass(repr=False, eq=False)
class RandomBrightness(CellAugmentation):
    """Multiplies all values by a factor from a range, uniform on a logarithmic scale."""

    factor: tuple[float, float]
    prob: float = 1.0

    def draw_transform(self, image: Image) -> T.Transform:
        return LinearTransform(draw_factor(self.factor))


@dataclass(repr=False, eq=False)
class RandomContrast(CellAugmentation):
    """Multiplies distances from the image's mean by a factor, uniform on a logarithmic scale."""

    factor: tuple[float, float]
    prob: float = 1.0

    def draw_transform(self, image: Image) -> T.Transform:
        return LinearTransform(draw_factor(self.factor), pivot=float(image.mean()))


@dataclass(repr=False, eq=False)
class RandomBlur(CellAugmentation):
    """`BlurTransform` with a sigma from a range, in pixels."""

    sigma_px: tuple[float, float]
    prob: float = 1.0

    def draw_transform(self, image: Image) -> T.Transform:
        return BlurTransform(draw_between(self.sigma_px))


@dataclass(repr=False, eq=False)
class RandomNoise(CellAugmentation):
    """`NoiseTransform` with a sigma from a range, on a scale of 255."""

    sigma: tuple[float, float]
    prob: float = 1.0

    def draw_transform(self, image: Image) -> T.Transform:
        return NoiseTransform(draw_between(self.sigma), seed=int(np.random.randint(2**31)))


@dataclass(repr=False, eq=False)
class RandomInvert(CellAugmentation):
    """`InvertTransform`."""

    prob: float = 1.0

    def draw_transform(self, image: Image) -> T.Transform:
        return InvertTransform()
