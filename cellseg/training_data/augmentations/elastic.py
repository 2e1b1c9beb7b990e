# ruff: noqa: NPY002 (numpy's global generator, as Detectron2's augmentations: one seed for all)
"""Elastic deformation (Simard, Steinkraus and Platt, 2003), on image and labels together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from cellseg.training_data.augmentations.base import (
    CellAugmentation,
    Image,
    change_by_channels,
    draw_between,
)
from cellseg.training_data.augmentations.geometry import check_image_hw
from detectron2.data import transforms as T
from numpy.typing import NDArray

# Highest STRENGTH_PX / SIGMA_PX: the shift's slopes then have a deviation of 0.14, and what reaches
# `MAX_SLOPE` is rare.
MAX_STRENGTH_PER_SIGMA = 0.2
# Of the shift, per pixel. Below 1 no two places come to lie on one, so nothing folds.
MAX_SLOPE = 0.9

_NODES_PER_SIGMA = 4.0
_MARGIN_SIGMAS = 3
_NUM_STEPS = 30  # of the inversion; the error shrinks by MAX_SLOPE each, usually by 0.4

FloatArray = NDArray[np.float32]


def draw_shift(image_hw: tuple[int, int], strength_px: float, sigma_px: float) -> FloatArray:
    """Draw a smooth field of shifts that does not fold.

    Uniform noise, smoothed by a Gaussian; both on a grid of `sigma_px / 4`, which is then
    interpolated linearly. A field steeper than `MAX_SLOPE` anywhere is weakened as a whole.

    Args:
        image_hw: (height, width), pixels.
        strength_px: standard deviation of the shifts along each axis, pixels.
        sigma_px: standard deviation of the Gaussian that smooths the shift, pixels.

    Returns:
        Shift (x, y) of every pixel, float32 [H, W, 2].
    """
    step = max(1.0, sigma_px / _NODES_PER_SIGMA)
    sigma = sigma_px / step
    margin = math.ceil(_MARGIN_SIGMAS * sigma)
    height, width = image_hw
    rows, cols = (math.ceil(side / step) + 1 for side in image_hw)
    noise = np.random.uniform(-1, 1, (rows + 2 * margin, cols + 2 * margin, 2))
    smooth = np.asarray(cv2.GaussianBlur(noise.astype(np.float32), (0, 0), sigma), np.float32)
    nodes: FloatArray = smooth[margin : margin + rows, margin : margin + cols]
    # deviation of uniform noise, and what a Gaussian in two dimensions leaves of it
    nodes *= strength_px * math.sqrt(3) * 2 * math.sqrt(math.pi) * sigma
    nodes *= min(1.0, MAX_SLOPE / max(_steepest_slope(nodes) / step, 1e-9))
    places = [np.arange(side, dtype=np.float32) / np.float32(step) for side in (width, height)]
    xs, ys = np.meshgrid(*places)
    shift = cv2.remap(np.ascontiguousarray(nodes), xs, ys, cv2.INTER_LINEAR)
    return np.asarray(shift, np.float32)


def _steepest_slope(nodes: FloatArray) -> float:
    """Bound of how far the shift changes between neighbouring nodes, in the maximum norm."""
    along_x, along_y = (np.abs(np.diff(nodes, axis=axis)) for axis in (1, 0))
    # in the square between four nodes it is interpolated between those of its sides
    steepest_x = np.maximum(along_x[:-1], along_x[1:])
    steepest_y = np.maximum(along_y[:, :-1], along_y[:, 1:])
    return float((steepest_x + steepest_y).max())


@dataclass(repr=False, eq=False)
class ElasticTransform(T.Transform):
    """Takes every pixel from another place; what would lie outside is taken from the border.

    The image is interpolated linearly. A label is that of the pixel which the place is in.

    Attributes:
        shift_xy: from a pixel to the place it is taken from, float32 [H, W, 2], pixels; of a
            slope below 1.
    """

    shift_xy: FloatArray

    # int32 planes are moved as uint8 bitmaps are; see `cellseg.training_data.label_transforms`
    moves_labels = True

    @property
    def image_hw(self) -> tuple[int, int]:
        return self.shift_xy.shape[0], self.shift_xy.shape[1]

    @cached_property
    def _places_xy(self) -> tuple[FloatArray, FloatArray]:
        """Pixel numbers, not rounded, that the pixels are taken from; float32 [H, W] each."""
        height, width = self.image_hw
        xs = self.shift_xy[..., 0] + np.arange(width, dtype=np.float32)
        ys = self.shift_xy[..., 1] + np.arange(height, dtype=np.float32)[:, None]
        return np.clip(xs, 0, width - 1), np.clip(ys, 0, height - 1)

    @cached_property
    def _sources_xy(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """`_places_xy` to whole pixels."""
        xs, ys = (np.rint(places).astype(np.int32) for places in self._places_xy)
        return xs, ys

    def apply_image(self, img: Image) -> Image:
        check_image_hw(img, self.image_hw, self)
        return change_by_channels(img, self._remap_planes)

    def _remap_planes(self, planes: Image) -> Image:
        xs, ys = self._places_xy
        return cv2.remap(planes, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def apply_segmentation(self, segmentation: NDArray[Any]) -> NDArray[Any]:
        check_image_hw(segmentation, self.image_hw, self)
        height, width = self.image_hw
        xs, ys = self._sources_xy
        flat = segmentation.reshape(height * width, *segmentation.shape[2:])
        return flat.take(ys * np.int32(width) + xs, axis=0)

    def apply_coords(self, coords: NDArray[Any]) -> NDArray[Any]:
        """Where points come to lie: solves `new + shift(new) = old` by iteration."""
        old = np.asarray(coords, np.float32)
        new = old
        for _ in range(_NUM_STEPS if len(old) else 0):
            new = old - self._shift_at(new)
        return new.astype(coords.dtype, copy=False)

    def _shift_at(self, points: FloatArray) -> FloatArray:
        """Interpolated shift at (x, y) [N, 2]; beyond the image that of its border."""
        height, width = self.image_hw
        at = np.clip(points - 0.5, 0, (width - 1, height - 1))
        base = np.minimum(np.floor(at), np.maximum((width - 2, height - 2), 0)).astype(np.int64)
        (share_x, share_y), (x, y) = (at - base).T[..., None], base.T
        right, below = np.minimum(x + 1, width - 1), np.minimum(y + 1, height - 1)
        upper = self.shift_xy[y, x] * (1 - share_x) + self.shift_xy[y, right] * share_x
        lower = self.shift_xy[below, x] * (1 - share_x) + self.shift_xy[below, right] * share_x
        return upper * (1 - share_y) + lower * share_y

    def apply_box(self, box: NDArray[Any]) -> NDArray[Any]:
        """Boxes around all pixels that are taken from the old boxes, so around the moved masks.

        A box that no pixel is taken from becomes the point that its centre moves to.
        """
        boxes = np.asarray(box).reshape(-1, 4)
        moved = [self._box_of_pixels(*one) for one in boxes.astype(float).tolist()]
        return np.array(moved, np.result_type(boxes, np.float32)).reshape(-1, 4)

    def _box_of_pixels(self, x0: float, y0: float, x1: float, y1: float) -> tuple[float, ...]:
        height, width = self.image_hw
        left, top, right, bottom = math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)
        reach_x, reach_y = self._reach_xy
        col, row = max(left - reach_x, 0), max(top - reach_y, 0)
        window = slice(row, bottom + reach_y), slice(col, right + reach_x)
        if bottom + reach_y > 0 and right + reach_x > 0 and row < height and col < width:
            xs, ys = (sources[window] for sources in self._sources_xy)
            hit = (xs >= left) & (xs < right) & (ys >= top) & (ys < bottom)
            rows, cols = np.flatnonzero(hit.any(axis=1)), np.flatnonzero(hit.any(axis=0))
            if rows.size:
                return (
                    float(col + cols[0]),
                    float(row + rows[0]),
                    float(col + cols[-1] + 1),
                    float(row + rows[-1] + 1),
                )
        x, y = self.apply_coords(np.array([[x0 + x1, y0 + y1]]) / 2)[0].tolist()
        return x, y, x, y

    @cached_property
    def _reach_xy(self) -> tuple[int, int]:
        """No pixel is taken from farther away than this."""
        farthest = np.abs(self.shift_xy).max(axis=(0, 1), initial=0)
        return math.ceil(farthest[0]) + 1, math.ceil(farthest[1]) + 1


@dataclass(repr=False, eq=False)
class RandomElastic(CellAugmentation):
    """`ElasticTransform` by a field of `draw_shift`.

    Attributes:
        strength_px: range of the shifts' standard deviation along each axis, pixels.
        sigma_px: of the Gaussian that smooths the field, pixels.
        prob: how often an image is changed, 0 to 1.
    """

    strength_px: tuple[float, float]
    sigma_px: float
    prob: float = 1.0

    def draw_transform(self, image: Image) -> T.Transform:
        strength_px = draw_between(self.strength_px)
        height, width = image.shape[:2]
        return ElasticTransform(draw_shift((height, width), strength_px, self.sigma_px))
