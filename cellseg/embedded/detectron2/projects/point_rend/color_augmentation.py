"""Colours that vary as in the training of SSD (Liu et al., arXiv:1512.02325)."""

from __future__ import annotations

import random

import cv2
import numpy as np
from fvcore.transforms.transform import Transform

__all__ = ["ColorAugSSDTransform"]


class ColorAugSSDTransform(Transform):
    """Brightness, contrast, saturation and hue, each changed in half of all cases.

    Each call changes by chance anew; contrast comes before or after the other two.

    Args:
        img_format: order of the channels, "BGR" or "RGB".
        brightness_delta: at most so much is added or taken off, of 255.
        contrast_low, contrast_high: range of the factor on the values.
        saturation_low, saturation_high: range of the factor on the saturation.
        hue_delta: at most so much is added or taken off, of 180.

    Raises:
        ValueError: another format.
    """

    def __init__(
        self,
        img_format: str,
        brightness_delta: int = 32,
        contrast_low: float = 0.5,
        contrast_high: float = 1.5,
        saturation_low: float = 0.5,
        saturation_high: float = 1.5,
        hue_delta: int = 18,
    ) -> None:
        super().__init__()
        if img_format not in ("BGR", "RGB"):
            raise ValueError(f"img_format must be 'BGR' or 'RGB', got {img_format!r}")
        self.is_rgb = img_format == "RGB"
        self.brightness_delta, self.hue_delta = brightness_delta, hue_delta
        self.contrast_low, self.contrast_high = contrast_low, contrast_high
        self.saturation_low, self.saturation_high = saturation_low, saturation_high

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """The same."""
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """The same."""
        return segmentation

    def apply_image(self, img: np.ndarray, interp: str | None = None) -> np.ndarray:
        """Change the colours of a uint8 image [H, W, 3]."""
        img = self.brightness(img[:, :, ::-1] if self.is_rgb else img)
        contrast_first = random.randrange(2)
        if contrast_first:
            img = self.contrast(img)
        img = self.hue(self.saturation(img))
        if not contrast_first:
            img = self.contrast(img)
        return img[:, :, ::-1] if self.is_rgb else img

    def convert(self, img: np.ndarray, alpha: float = 1, beta: float = 0) -> np.ndarray:
        """`img * alpha + beta`, clipped to uint8."""
        return np.clip(img.astype(np.float32) * alpha + beta, 0, 255).astype(np.uint8)

    def brightness(self, img: np.ndarray) -> np.ndarray:
        if not random.randrange(2):
            return img
        return self.convert(img, beta=random.uniform(-self.brightness_delta, self.brightness_delta))

    def contrast(self, img: np.ndarray) -> np.ndarray:
        if not random.randrange(2):
            return img
        return self.convert(img, alpha=random.uniform(self.contrast_low, self.contrast_high))

    def saturation(self, img: np.ndarray) -> np.ndarray:
        if not random.randrange(2):
            return img
        hsv = cv2.cvtColor(np.ascontiguousarray(img), cv2.COLOR_BGR2HSV)
        factor = random.uniform(self.saturation_low, self.saturation_high)
        hsv[:, :, 1] = self.convert(hsv[:, :, 1], alpha=factor)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)

    def hue(self, img: np.ndarray) -> np.ndarray:
        if not random.randrange(2):
            return img
        hsv = cv2.cvtColor(np.ascontiguousarray(img), cv2.COLOR_BGR2HSV)
        turned = hsv[:, :, 0].astype(int) + random.randint(-self.hue_delta, self.hue_delta)
        hsv[:, :, 0] = turned % 180
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
