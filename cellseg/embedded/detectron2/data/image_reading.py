"""Image files as arrays, in the colour format that a model wants."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.utils.file_io import PathManager
from PIL import Image

__all__ = ["convert_PIL_to_numpy", "convert_image_to_rgb", "read_image"]

_RGB_TO_YUV = np.array(
    ((0.299, 0.587, 0.114), (-0.14713, -0.28886, 0.436), (0.615, -0.51499, -0.10001))
)
_YUV_TO_RGB = np.array(((1, 0, 1.13983), (1, -0.39465, -0.58060), (1, 2.03211, 0)))

_EXIF_ORIENTATION_TAG = 0x0112
_UPRIGHT_BY = dict(
    enumerate(
        (
            Image.Transpose.FLIP_LEFT_RIGHT,
            Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.ROTATE_270,
            Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90,
        ),
        start=2,
    )
)


def convert_PIL_to_numpy(image: Image.Image, format: str | None) -> np.ndarray:
    """Pixels of a Pillow image; see `read_image` for `format` and the result."""
    if format is None:
        return np.asarray(image)
    pixels = np.asarray(image.convert("RGB" if format in ("BGR", "YUV-BT.601") else format))
    if format == "BGR":
        return pixels[..., ::-1]
    if format == "YUV-BT.601":
        return np.dot(pixels / 255.0, _RGB_TO_YUV.T)
    return pixels[..., np.newaxis] if format == "L" else pixels


def convert_image_to_rgb(image: np.ndarray | torch.Tensor, format: str) -> np.ndarray:
    """The reverse of `read_image`, for looking at what a model is given.

    Args:
        image: [H, W, C].
        format: what `image` is in: a Pillow mode, "BGR" or "YUV-BT.601".

    Returns:
        [H, W, 3] RGB in [0, 255]; float where the input was float BGR, or YUV, else uint8.
    """
    pixels = image.cpu().numpy() if isinstance(image, torch.Tensor) else image
    if format == "BGR":
        return pixels[..., (2, 1, 0)]
    if format == "YUV-BT.601":
        return 255.0 * np.dot(pixels, _YUV_TO_RGB.T)
    pixels = (pixels[..., 0] if format == "L" else pixels).astype(np.uint8)
    return np.asarray(Image.fromarray(pixels).convert("RGB"))


def _upright(image: Image.Image) -> Image.Image:
    """Turn as the camera's EXIF note says; an unreadable note counts as none."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION_TAG, 1)
    except Exception:  # Pillow raises whatever its parser stumbles over
        return image
    how = _UPRIGHT_BY.get(orientation)
    return image if how is None else image.transpose(how)


def read_image(file_name: str, format: str | None = None) -> np.ndarray:
    """Read an image and turn it upright if its EXIF data says so.

    Args:
        file_name: a path, or an address that `PathManager` knows.
        format: a Pillow mode such as "RGB" or "L", or "BGR", or "YUV-BT.601"; None leaves the
            pixels as they are stored.

    Returns:
        [H, W, C] uint8, float64 for "YUV-BT.601"; [H, W] of any dtype where None finds one channel.
    """
    with PathManager.open(file_name, "rb") as file:
        return convert_PIL_to_numpy(_upright(Image.open(file)), format)
