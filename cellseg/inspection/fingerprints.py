"""What of an image is compared with other images: its exact content, and its rough look."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Grey = NDArray[np.float32]

DETAIL_PX = 256
_HASH_SIZE = 16
_HASHED_PX = 4 * _HASH_SIZE  # pHash looks at the lowest quarter of the frequencies


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What is kept of one image.

    Attributes:
        content: hash of the pixels; equal exactly if the pixels are. Neither the file's format nor
            its type nor a grey value written three times makes a difference.
        any_way_up: the same for an image and its flipped and rotated copies.
        looks: bool [8, 256], the perceptual hash (pHash) of the image and of the seven others that
            flips and quarter turns make of it.
        detail: float32 [h, w], the grey image; smaller if a side is longer than 256 pixels.
        longest_px: the longer side of the image.
    """

    content: str
    any_way_up: str
    looks: NDArray[np.bool_]
    detail: Grey
    longest_px: int


def fingerprint(image: NDArray[Any]) -> Fingerprint:
    """Fingerprint of an image [H, W] or [H, W, C]."""
    plain = _to_plain(image)
    hashes = [_hash_pixels(turned) for turned in _turn_all_ways(plain)]
    grey = plain.astype(np.float32) if plain.ndim == 2 else plain.mean(axis=2, dtype=np.float32)
    scale = min(1.0, DETAIL_PX / max(grey.shape))
    height, width = (max(1, round(side * scale)) for side in grey.shape)
    looks = np.array([_hash_look(turned) for turned in _turn_all_ways(_to_bytes(grey))])
    detail = resize(grey, height, width)
    return Fingerprint(hashes[0], min(hashes), looks, detail, max(grey.shape))


def resize(grey: Grey, height: int, width: int) -> Grey:
    """A grey image in another size; each pixel is the mean of those that it stands for."""
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _to_plain(image: NDArray[Any]) -> NDArray[Any]:
    """Grey where all channels are equal; integers in the smallest type that holds them."""
    if image.ndim == 3 and bool((image == image[..., :1]).all()):
        image = image[..., 0]
    if image.dtype.kind in "iu" and image.size and image.min() >= 0:
        return image.astype(np.min_scalar_type(int(image.max())), copy=False)
    return image


def _turn_all_ways(image: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The image, and the seven others that flips and quarter turns make of it."""
    for quarter_turns in range(4):
        turned = np.rot90(image, quarter_turns)
        yield turned
        yield turned[:, ::-1]


def _hash_pixels(image: NDArray[Any]) -> str:
    digest = hashlib.blake2b(f"{image.shape} {image.dtype.str}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _to_bytes(grey: Grey) -> NDArray[np.uint8]:
    """The small square picture that is hashed, from black to white."""
    small = resize(grey, _HASHED_PX, _HASHED_PX)
    low, high = float(small.min()), float(small.max())
    return ((small - low) * (255 / max(high - low, 1e-9))).round().astype(np.uint8)


def _hash_look(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return imagehash.phash(Image.fromarray(picture), _HASH_SIZE).hash.ravel()
