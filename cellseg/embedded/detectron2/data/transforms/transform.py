"""Transforms that fvcore does not have: resize by Pillow, rotate, extent, colour.

Images are [H, W] or [H, W, C] arrays, coordinates [N, 2] arrays of (x, y) in pixels, where the
first pixel reaches from 0 to 1. `apply_coords` may change its argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from fvcore.transforms.transform import (
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    Transform,
    TransformList,
)
from PIL import Image
from torch.nn import functional

from .._require import require

__all__ = [
    "ColorTransform",
    "ExtentTransform",
    "PILColorTransform",
    "ResizeTransform",
    "RotationTransform",
]

NEAREST, BILINEAR, BICUBIC = (
    int(method)
    for method in (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
)

_TORCH_MODES = {NEAREST: "nearest", BILINEAR: "bilinear", BICUBIC: "bicubic"}


def _through_pillow(image: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Apply `change`; Pillow has no images of shape [H, W, 1], so those travel as [H, W]."""
    has_single_channel = image.ndim == 3 and image.shape[2] == 1
    source = Image.fromarray(image[:, :, 0] if has_single_channel else image)
    changed = np.asarray(change(source))
    return changed[:, :, np.newaxis] if has_single_channel else changed


class ExtentTransform(Transform):
    """Cut a rectangle out of the image and scale it to `output_size`.

    Args:
        src_rect: (x0, y0, x1, y1) in pixels; may reach beyond the image.
        output_size: (height, width) of the result.
        interp: a `PIL.Image.Resampling`.
        fill: handed to Pillow, which leaves what is outside the image black all the same.
    """

    def __init__(
        self,
        src_rect: tuple[float, float, float, float],
        output_size: tuple[int, int],
        interp: int = BILINEAR,
        fill: int = 0,
    ) -> None:
        self.src_rect = src_rect
        self.output_size = output_size
        self.interp = interp
        self.fill = fill

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        return _through_pillow(
            img,
            lambda picture: picture.transform(
                self.output_size[::-1],
                Image.Transform.EXTENT,
                self.src_rect,
                Image.Resampling(interp or self.interp),
                fill=self.fill,
            ),
        )

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        # NEAREST is 0 and counts as "not given", here as in Detectron2: same pixels in both
        return self.apply_image(segmentation, NEAREST)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        moved = coords.astype(np.float32)
        x0, y0, x1, y1 = self.src_rect
        for axis, (low, high, size) in enumerate(zip((x0, y0), (x1, y1), self.output_size[::-1])):
            # about the centre of the rectangle, and in single precision after every step
            moved[:, axis] -= 0.5 * (low + high)
            moved[:, axis] *= size / (high - low)
            moved[:, axis] += 0.5 * size
        return moved


class ResizeTransform(Transform):
    """Resize to a fixed size: 8-bit images by Pillow, all others by torch.

    The two differ: Pillow averages over the pixels that shrink into one, torch does not.

    Args:
        h, w: size before.
        new_h, new_w: size after.
        interp: a `PIL.Image.Resampling`; for other than 8-bit images nearest, bilinear or
            bicubic. None means bilinear.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int | None = None) -> None:
        self.h, self.w = h, w
        self.new_h, self.new_w = new_h, new_w
        self.interp = BILINEAR if interp is None else interp

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        require(
            img.shape[:2] == (self.h, self.w) and img.ndim <= 4,
            f"ResizeTransform is for {self.h}x{self.w} images, got shape {img.shape}.",
        )
        method = Image.Resampling(self.interp if interp is None else interp)
        if img.dtype == np.uint8:
            return _through_pillow(img, lambda it: it.resize((self.new_w, self.new_h), method))
        return self._through_torch(img, _TORCH_MODES[method])

    def _through_torch(self, img: np.ndarray, mode: str) -> np.ndarray:
        planes = torch.from_numpy(np.ascontiguousarray(img)).reshape(self.h, self.w, -1)
        resized = functional.interpolate(
            planes.permute(2, 0, 1)[np.newaxis],
            size=(self.new_h, self.new_w),
            mode=mode,
            align_corners=None if mode == "nearest" else False,
        )
        return resized[0].permute(1, 2, 0).reshape(self.new_h, self.new_w, *img.shape[2:]).numpy()

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        for axis, scale in enumerate(self._scales_xy()):
            coords[:, axis] = coords[:, axis] * scale
        return coords

    def _scales_xy(self) -> tuple[float, float]:
        return self.new_w / self.w, self.new_h / self.h

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return self.apply_image(segmentation, NEAREST)

    def inverse(self) -> ResizeTransform:
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)


class RotationTransform(Transform):
    """Rotate counter-clockwise; what comes from outside the image is 0.

    Args:
        h, w: size of the image.
        angle: degrees.
        expand: the result is as large as the whole rotated image needs; False keeps the size.
        center: (x, y) to rotate about in pixels, None for the centre of the image. With
            `expand` it makes no difference.
        interp: an OpenCV interpolation flag, None for linear.
    """

    def __init__(
        self,
        h: int,
        w: int,
        angle: float,
        expand: bool = True,
        center: tuple[float, float] | np.ndarray | None = None,
        interp: int | None = None,
    ) -> None:
        import cv2

        self.h, self.w = h, w
        self.angle = angle
        self.expand = expand
        self.image_center = np.array((w / 2, h / 2))
        self.center = self.image_center if center is None else center
        self.interp = cv2.INTER_LINEAR if interp is None else interp
        self.bound_w, self.bound_h = self._rotated_size() if expand else (w, h)
        self.rm_coords = self.create_rotation_matrix()
        # OpenCV puts (0, 0) on the middle of the first pixel, the coordinates on its corner
        self.rm_image = self.create_rotation_matrix(offset=-0.5)

    def _rotated_size(self) -> tuple[int, int]:
        """(width, height) of the box around the rotated image, rounded to pixels."""
        radians = np.deg2rad(self.angle)
        cos, sin = abs(np.cos(radians)), abs(np.sin(radians))
        width = np.rint(self.h * sin + self.w * cos)
        height = np.rint(self.h * cos + self.w * sin)
        return width.astype(int), height.astype(int)

    @property
    def _does_nothing(self) -> bool:
        return self.angle % 360 == 0

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        import cv2

        if self._does_nothing or img.size == 0:
            return img
        require(
            (self.h, self.w) == img.shape[:2],
            f"RotationTransform is for {self.h}x{self.w} images, got shape {img.shape}.",
        )
        new_size_xy = (self.bound_w, self.bound_h)
        flags = self.interp if interp is None else interp
        return cv2.warpAffine(img, self.rm_image, new_size_xy, flags=flags)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        import cv2

        points = np.asarray(coords, dtype=np.float64)
        if len(points) == 0 or self._does_nothing:
            return points
        return cv2.transform(points.reshape(-1, 1, 2), self.rm_coords).reshape(-1, 2)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        import cv2

        return self.apply_image(segmentation, cv2.INTER_NEAREST)

    def create_rotation_matrix(self, offset: float = 0) -> np.ndarray:
        """[2, 3] matrix from old to new (x, y), both shifted by `offset`."""
        import cv2

        x, y = self.center
        matrix = cv2.getRotationMatrix2D((x + offset, y + offset), self.angle, 1)
        if self.expand:
            # the centre of the image is the one point whose new place is known beforehand
            lands_at = cv2.transform((self.image_center + offset).reshape(1, 1, 2), matrix)[0, 0]
            matrix[:, 2] += np.array((self.bound_w / 2, self.bound_h / 2)) + offset - lands_at
        return matrix

    def inverse(self) -> TransformList:
        """Rotate back and crop to the old size; only with `expand`, else a part is gone."""
        if not self.expand:
            raise NotImplementedError("A rotation with expand=False loses pixels for good.")
        back = RotationTransform(self.bound_h, self.bound_w, -self.angle, interp=self.interp)
        x0, y0 = (back.bound_w - self.w) // 2, (back.bound_h - self.h) // 2
        return TransformList([back, CropTransform(x0, y0, self.w, self.h)])


class ColorTransform(Transform):
    """Change values, not places: `op` is given the image and returns the new one."""

    def __init__(self, op: Callable[[Any], Any]) -> None:
        if not callable(op):
            raise ValueError(f"op must be callable, got {op!r}.")
        self.op = op

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return self.op(img)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def inverse(self) -> NoOpTransform:
        return NoOpTransform()


class PILColorTransform(ColorTransform):
    """A `ColorTransform` whose `op` takes and returns a `PIL.Image.Image`."""

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return np.asarray(self.op(Image.fromarray(img)))


@HFlipTransform.register_type("rotated_box")
def _flip_rotated_boxes(transform: HFlipTransform, boxes: np.ndarray) -> np.ndarray:
    """Boxes are [N, 5]: x and y of the centre, width, height, degrees counter-clockwise."""
    boxes[:, 0] = transform.width - boxes[:, 0]
    boxes[:, 4] *= -1
    return boxes


@ResizeTransform.register_type("rotated_box")
def _resize_rotated_boxes(transform: ResizeTransform, boxes: np.ndarray) -> np.ndarray:
    """Each side becomes as long as its stretched vector; the angle is that of the height's."""
    scale_x, scale_y = transform._scales_xy()
    radians = np.deg2rad(boxes[:, 4])
    cos, sin = np.cos(radians), np.sin(radians)
    boxes[:, :2] *= (scale_x, scale_y)
    boxes[:, 2] *= np.hypot(scale_x * cos, scale_y * sin)
    boxes[:, 3] *= np.hypot(scale_x * sin, scale_y * cos)
    boxes[:, 4] = np.rad2deg(np.arctan2(scale_x * sin, scale_y * cos))
    return boxes
