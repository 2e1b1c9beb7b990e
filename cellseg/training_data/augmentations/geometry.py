# ruff: noqa: NPY002 (numpy's global generator, as Detectron2's augmentations: one seed for all)
"""Turns by 90 degrees and changes of scale, on image and labels together.

Arrays are [H, W] or [H, W, C]. Labels of every dtype, int32 planes and uint8 bitmaps alike, are
moved by one rule: a pixel takes the label at which its centre came to lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from cellseg.errors import InputValueError
from cellseg.training_data.augmentations.base import (
    CellAugmentation,
    Image,
    change_by_channels,
    draw_factor,
)
from detectron2.data import transforms as T
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


def check_image_hw(array: NDArray[Any], image_hw: tuple[int, int], transform: T.Transform) -> None:
    """Raise InputValueError where a transform was made for arrays of another size."""
    if array.shape[:2] != tuple(image_hw):
        raise InputValueError(
            f"{type(transform).__name__} was made for (height, width) {tuple(image_hw)}; "
            f"found an array of shape {list(array.shape)}"
        )


@dataclass(repr=False, eq=False)
class Rotate90Transform(T.Transform):
    """Turns counter-clockwise by `turns` times 90 degrees; loses no pixel.

    Attributes:
        image_hw: (height, width) before the turn, pixels.
        turns: how often by 90 degrees, counter-clockwise; any integer.
    """

    image_hw: tuple[int, int]
    turns: int

    # int32 planes are moved as uint8 bitmaps are; see `cellseg.training_data.label_transforms`
    moves_labels = True

    def apply_image(self, img: Image) -> Image:
        check_image_hw(img, self.image_hw, self)
        return np.ascontiguousarray(np.rot90(img, self.turns))

    def apply_coords(self, coords: NDArray[Any]) -> NDArray[Any]:
        height, width = self.image_hw
        x, y = coords[:, 0], coords[:, 1]
        moved = ((x, y), (y, width - x), (width - x, height - y), (height - y, x))
        return np.stack(moved[self.turns % 4], axis=1)

    def inverse(self) -> T.Transform:
        turned = self.image_hw[::-1] if self.turns % 2 else self.image_hw
        return Rotate90Transform(turned, -self.turns % 4)


@dataclass(repr=False, eq=False)
class RandomRotate90(CellAugmentation):
    """Turns by 90, 180 or 270 degrees, each as often; with `prob` 0.75 all four turns are."""

    prob: float = 0.75

    def draw_transform(self, image: Image) -> T.Transform:
        height, width = image.shape[:2]
        return Rotate90Transform((height, width), int(np.random.randint(1, 4)))


@dataclass(repr=False, eq=False)
class ScaleCropTransform(T.Transform):
    """Scales an image and cuts a window out of it.

    The image is averaged over area where it shrinks, and interpolated linearly where it grows.

    Attributes:
        image_hw: (height, width) before, pixels.
        scaled_hw: (height, width) of the whole image after scaling.
        offset_rc: first (row, column) of the window in the scaled image.
        crop_hw: (height, width) of the window, which is the result's size.
    """

    image_hw: tuple[int, int]
    scaled_hw: tuple[int, int]
    offset_rc: tuple[int, int]
    crop_hw: tuple[int, int]

    # int32 planes are moved as uint8 bitmaps are; see `cellseg.training_data.label_transforms`
    moves_labels = True

    def apply_image(self, img: Image) -> Image:
        check_image_hw(img, self.image_hw, self)
        shrinks = self.scaled_hw[0] < self.image_hw[0]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        size = self.scaled_hw[::-1]
        scaled = change_by_channels(img, lambda part: cv2.resize(part, size, interpolation=method))
        (row, col), (height, width) = self.offset_rc, self.crop_hw
        return np.ascontiguousarray(scaled[row : row + height, col : col + width])

    def apply_segmentation(self, segmentation: NDArray[Any]) -> NDArray[Any]:
        check_image_hw(segmentation, self.image_hw, self)
        return segmentation[np.ix_(self._source_indices(0), self._source_indices(1))]

    def _source_indices(self, axis: int) -> IntArray:
        """The old pixel of every new one, along an axis."""
        centres = np.arange(self.crop_hw[axis]) + self.offset_rc[axis] + 0.5
        return np.floor(centres * self.image_hw[axis] / self.scaled_hw[axis]).astype(np.int64)

    def apply_coords(self, coords: NDArray[Any]) -> NDArray[Any]:
        scale_yx = np.divide(self.scaled_hw, self.image_hw)
        moved = coords * scale_yx[::-1] - self.offset_rc[::-1]
        return moved.astype(coords.dtype, copy=False)


@dataclass(repr=False, eq=False)
class RandomScaleCrop(CellAugmentation):
    """Scales by a factor from a range, uniform on a logarithmic scale.

    What grows is cut back to the size it had, at a random place. What shrinks stays smaller:
    nothing is padded.
    """

    scale: tuple[float, float]
    prob: float = 1.0

    def draw_transform(self, image: Image) -> T.Transform:
        factor = draw_factor(self.scale)
        height, width = image.shape[:2]
        scaled = (max(1, round(height * factor)), max(1, round(width * factor)))
        crop = (min(height, scaled[0]), min(width, scaled[1]))
        row, col = (int(np.random.randint(s - c + 1)) for s, c in zip(scaled, crop))
        return ScaleCropTransform((height, width), scaled, (row, col), crop)
