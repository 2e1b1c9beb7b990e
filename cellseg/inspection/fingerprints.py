"""What of an image is compared with other images: its exact content, and its rough look."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

THUMBNAIL_PX = 32
DETAIL_PX = 256
_BACKGROUND_SIGMA_PX = 5.0


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Of one image.

    Attributes:
        content: hash of the pixels; equal exactly if the pixels are. Neither the file's format nor
            its type nor a grey value written three times makes a difference.
        any_way_up: the same for an image and its flipped and rotated copies.
        thumbnail: float32 [32, 32], its rough look without uneven light, mean 0, norm 1; zeros for
            an image of one value.
        detail: float32 [h, w], the grey image; smaller if a side is longer than 256 pixels.
        scale: pixels of `detail` per pixel of the image.
    """

    content: str
    any_way_up: str
    thumbnail: NDArray[np.float32]
    detail: NDArray[np.float32]
    scale: float


def fingerprint(image: NDArray[Any]) -> Fingerprint:
    """Fingerprint of an image [H, W] or [H, W, C]."""
    plain = _plain(image)
    hashes = [_hash(turned) for turned in turn_all_ways(plain)]
    grey = plain.astype(np.float32) if plain.ndim == 2 else plain.mean(axis=2, dtype=np.float32)
    small = _resize(grey, THUMBNAIL_PX, THUMBNAIL_PX)
    scale = min(1.0, DETAIL_PX / max(grey.shape))
    height, width = (max(1, round(side * scale)) for side in grey.shape)
    detail = _resize(grey, height, width)
    return Fingerprint(hashes[0], min(hashes), normalize_thumbnail(small), detail, scale)


def _resize(grey: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def turn_all_ways(image: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The image, and the seven others that flips and quarter turns make of it."""
    for quarter_turns in range(4):
        turned = np.rot90(image, quarter_turns)
        yield turned
        yield turned[:, ::-1]


def _plain(image: NDArray[Any]) -> NDArray[Any]:
    """Grey where all channels are equal; integers in the smallest type that holds them."""
    if image.ndim == 3 and bool((image == image[..., :1]).all()):
        image = image[..., 0]
    if image.dtype.kind in "iu" and image.size and image.min() >= 0:
        return image.astype(np.min_scalar_type(int(image.max())), copy=False)
    return image


def _hash(image: NDArray[Any]) -> str:
    digest = hashlib.blake2b(f"{image.shape} {image.dtype.str}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def normalize_thumbnail(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """Square root against the rule of a few bright cells, less the uneven light, mean 0, norm 1."""
    values = np.sqrt(small - small.min())
    values = values - cv2.GaussianBlur(values, (0, 0), _BACKGROUND_SIGMA_PX)
    values = values - values.mean()
    norm = float(np.linalg.norm(values))
    # An image of one value is left with rounding errors only.
    noise = 1e-5 * values.size * max(1.0, float(np.abs(small).max())) ** 0.5
    return (values / norm if norm > noise else np.zeros_like(values)).astype(np.float32)
