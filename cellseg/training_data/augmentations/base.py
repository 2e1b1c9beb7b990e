# ruff: noqa: NPY002 (numpy's global generator, as Detectron2's augmentations: one seed for all)
"""What the augmentations for cells have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from detectron2.data import transforms as T
from numpy.typing import NDArray

Image = NDArray[Any]

_CV2_CHANNELS = 4  # that OpenCV takes at once, whatever the function


class CellAugmentation(T.Augmentation):
    """An augmentation that happens with probability `prob`, and else does nothing."""

    prob: float

    def get_transform(self, image: Image) -> T.Transform:
        """Decide by numpy's global generator; see `draw_transform`."""
        if np.random.random() >= self.prob:
            return T.NoOpTransform()
        return self.draw_transform(image)

    @abstractmethod
    def draw_transform(self, image: Image) -> T.Transform:
        """Draw the parameters for an image [H, W] or [H, W, C]."""


def draw_between(limits: tuple[float, float]) -> float:
    """Uniform in [low, high)."""
    return float(np.random.uniform(*limits))


def draw_factor(limits: tuple[float, float]) -> float:
    """Uniform on a logarithmic scale: from (1/2, 2), half the draws make smaller."""
    low, high = limits
    return math.exp(draw_between((math.log(low), math.log(high))))


def change_by_channels(image: Image, change: Callable[[Image], Image]) -> Image:
    """Apply a function of OpenCV to an image of any number of channels, [H, W] or [H, W, C]."""
    if image.ndim == 2:
        return change(image)
    parts = []
    for first in range(0, image.shape[2], _CV2_CHANNELS):
        part = np.ascontiguousarray(image[..., first : first + _CV2_CHANNELS])
        changed = change(part)
        parts.append(changed.reshape(*changed.shape[:2], part.shape[2]))
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
