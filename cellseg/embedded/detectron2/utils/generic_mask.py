"""A mask of one object, from whatever describes it: bitmap, polygons or run lengths."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_util


class GenericMask:
    """Bitmap and polygons of one object, each computed from the other when it is needed.

    Args:
        mask_or_polygons: bitmap (H, W); list of polygons x, y, x, y, ...; or COCO's RLE, which
            may be uncompressed.
        height: of the image, pixels.
        width: of the image, pixels.

    Raises:
        ValueError: something else, or a mask of another size.
    """

    def __init__(self, mask_or_polygons: Any, height: int, width: int) -> None:
        self.height, self.width = height, width
        self._mask: np.ndarray | None = None
        self._traced: tuple[list[np.ndarray], bool] | None = None
        if isinstance(mask_or_polygons, list):
            self._traced = [np.asarray(polygon).reshape(-1) for polygon in mask_or_polygons], False
            return
        if isinstance(mask_or_polygons, dict):
            mask_or_polygons = _decode(mask_or_polygons)
        if not isinstance(mask_or_polygons, np.ndarray):
            raise ValueError(f"A mask is no {type(mask_or_polygons).__name__}")
        if mask_or_polygons.shape != (height, width):
            raise ValueError(
                f"A mask of {mask_or_polygons.shape} pixels for an image of {(height, width)}"
            )
        self._mask = mask_or_polygons.astype(np.uint8)

    @property
    def mask(self) -> np.ndarray:
        """uint8 (H, W), 0 or 1."""
        if self._mask is None:
            self._mask = self.polygons_to_mask(self.polygons)
        return self._mask

    @property
    def polygons(self) -> list[np.ndarray]:
        """Outlines through the centres of the border pixels, x, y, x, y, ...

        Outer ones and those of holes turn in opposite directions. Parts of fewer than three
        border pixels have none.
        """
        return self._outlines()[0]

    @property
    def has_holes(self) -> bool:
        """Whether the bitmap has holes; for polygons, which cannot tell, no."""
        return self._outlines()[1]

    def _outlines(self) -> tuple[list[np.ndarray], bool]:
        if self._traced is None:
            self._traced = self.mask_to_polygons(self.mask)
        return self._traced

    def mask_to_polygons(self, mask: np.ndarray) -> tuple[list[np.ndarray], bool]:
        """Outlines of a bitmap, and whether it has holes."""
        x0, y0, width, height = cv2.boundingRect(mask)
        crop = np.ascontiguousarray(mask[y0 : y0 + height, x0 : x0 + width])
        if not crop.size:
            return [], False
        contours, hierarchy = cv2.findContours(
            crop, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(x0, y0)
        )[-2:]
        # The centre of pixel 0 is at 0.5 where x runs from 0 to the image's width.
        polygons = [contour.reshape(-1) + 0.5 for contour in contours if len(contour) >= 3]
        parents = hierarchy.reshape(-1, 4)[:, 3]
        return polygons, bool((parents >= 0).any())

    def polygons_to_mask(self, polygons: list[np.ndarray]) -> np.ndarray:
        """Bitmap of the area that polygons cover together."""
        if not polygons:
            return np.zeros((self.height, self.width), np.uint8)
        parts = mask_util.frPyObjects([list(p) for p in polygons], self.height, self.width)
        return mask_util.decode(mask_util.merge(parts))

    def area(self) -> int:
        """Pixels."""
        return int(self.mask.sum())

    def bbox(self) -> np.ndarray:
        """x0, y0, x1, y1 of the pixels; zeros if there are none."""
        x0, y0, width, height = cv2.boundingRect(self.mask)
        return np.array([x0, y0, x0 + width, y0 + height])


def _decode(rle: dict[str, Any]) -> np.ndarray:
    if isinstance(rle["counts"], list):
        rle = mask_util.frPyObjects(rle, *rle["size"])
    return mask_util.decode(rle)
