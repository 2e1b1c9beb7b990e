"""Masks as polygons, and drawing them.

Wrong use is an AssertionError here, as callers that were written for Detectron2 expect.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence, Sized
from typing import Any, TypeVar

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.structures.boxes import Boxes
from torch import Tensor

MIN_BOX_SIDE_PX = 0.1
"""Thinner boxes count as this wide where a polygon is scaled to a box."""

MasksT = TypeVar("MasksT")


def polygons_to_bitmask(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Draw one instance with the rule of COCO.

    Args:
        polygons: closed outlines [x0, y0, x1, y1, ...] in pixels; none gives an empty bitmap.
        height: of the bitmap.
        width: of the bitmap.

    Returns:
        bool [height, width]: the union of the polygons.
    """
    if len(polygons) == 0:
        return np.zeros((height, width), dtype=bool)
    union = mask_util.merge(mask_util.frPyObjects(list(polygons), height, width))
    return mask_util.decode(union).astype(bool)


def rasterize_polygons_within_box(
    polygons: Sequence[np.ndarray], box: np.ndarray, mask_size: int
) -> Tensor:
    """Draw one instance as a mask head sees it: cut out by a box and scaled to a square.

    Args:
        polygons: outlines [x0, y0, x1, y1, ...] in pixels of the image.
        box: left, top, right, bottom.
        mask_size: side of the square.

    Returns:
        bool [mask_size, mask_size].
    """
    zoom_xy = np.array([mask_size / max(side, MIN_BOX_SIDE_PX) for side in box[2:] - box[:2]])
    local = [((polygon.reshape(-1, 2) - box[:2]) * zoom_xy).ravel() for polygon in polygons]
    return torch.from_numpy(polygons_to_bitmask(local, mask_size, mask_size))


def check_one_box_per_mask(boxes: Tensor, masks: Sized) -> None:
    """AssertionError unless there are as many boxes as masks."""
    assert len(boxes) == len(masks), f"{len(boxes)} boxes for {len(masks)} masks"


def check_all_of_type(masks: Sequence[MasksT], kind: type[MasksT]) -> Sequence[MasksT]:
    """`masks` itself; AssertionError if it is empty or holds another type."""
    assert masks, f"expected at least one {kind.__name__}"
    assert all(isinstance(one, kind) for one in masks), f"expected {kind.__name__} only"
    return masks


class PolygonMasks:
    """Masks as polygons; they always are on the CPU.

    Attributes:
        polygons: for each instance its polygons, float64 [x0, y0, x1, y1, ...] in pixels.
    """

    def __init__(self, polygons: list[list[Any]]) -> None:
        """Take, for each instance, a list of polygons as arrays, tensors or lists.

        Raises:
            ValueError: not a list of lists, or a polygon of fewer than three points.
        """
        if not isinstance(polygons, list):
            raise ValueError(f"expected a list of instances, not {type(polygons).__name__}")
        self.polygons = [_check_polygons(instance) for instance in polygons]

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def to(self, *args: Any, **kwargs: Any) -> PolygonMasks:
        """This object: polygons stay on the CPU."""
        return self

    def __len__(self) -> int:
        return len(self.polygons)

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        """The polygons of one instance after the other."""
        return iter(self.polygons)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_instances={len(self)})"

    def __getitem__(self, item: Any) -> PolygonMasks:
        """The masks selected by an int (one mask), slice, list of ints, index or bool tensor.

        Raises:
            ValueError: a tensor of floats, or another type.
        """
        if isinstance(item, int):
            return PolygonMasks([self.polygons[item]])
        if isinstance(item, slice):
            return PolygonMasks(self.polygons[item])
        return PolygonMasks([self.polygons[index] for index in _indices(item)])

    @staticmethod
    def cat(polymasks_list: Sequence[PolygonMasks]) -> PolygonMasks:
        """All masks of several objects."""
        lists = check_all_of_type(polymasks_list, PolygonMasks)
        return PolygonMasks(list(itertools.chain.from_iterable(one.polygons for one in lists)))

    def nonempty(self) -> Tensor:
        """bool [N]: whether an instance has any polygon."""
        return torch.tensor([len(instance) > 0 for instance in self.polygons], dtype=torch.bool)

    def area(self) -> Tensor:
        """float64 [N]: sum of the areas of the polygons (shoelace formula), square pixels."""
        areas = [sum(map(_polygon_area, instance)) for instance in self.polygons]
        return torch.tensor(areas, dtype=torch.float64)

    def get_bounding_boxes(self) -> Boxes:
        """The tight box of each instance; what lies left of or above the image counts as 0 in
        the right and bottom sides. Without polygons: (inf, inf, 0, 0).
        """
        boxes = np.tile(np.array([np.inf, np.inf, 0, 0], dtype=np.float32), (len(self), 1))
        for box, instance in zip(boxes, self.polygons):
            for polygon in instance:
                points = polygon.reshape(-1, 2)
                box[:2] = np.minimum(box[:2], points.min(axis=0))
                box[2:] = np.maximum(box[2:], points.max(axis=0))
        return Boxes(torch.from_numpy(boxes))

    def crop_and_resize(self, boxes: Tensor, mask_size: int) -> Tensor:
        """Cut each mask out by its own box and scale it to a square: targets of the mask head.

        Args:
            boxes: [N, 4]: left, top, right, bottom; one per mask.
            mask_size: side of the square.

        Returns:
            bool [N, mask_size, mask_size], on the device of `boxes`.
        """
        check_one_box_per_mask(boxes, self)
        squares = torch.zeros(len(self), mask_size, mask_size, dtype=torch.bool)
        for square, polygons, box in zip(squares, self.polygons, boxes.cpu().numpy()):
            square.copy_(rasterize_polygons_within_box(polygons, box, mask_size))
        return squares.to(boxes.device)


def _check_polygons(instance: list[Any]) -> list[np.ndarray]:
    if not isinstance(instance, list):
        raise ValueError(f"expected a list of polygons, not {type(instance).__name__}")
    numbers = [one.cpu().numpy() if isinstance(one, Tensor) else one for one in instance]
    polygons = [np.array(one, dtype=np.float64) for one in numbers]
    for polygon in polygons:
        if polygon.size < 6 or polygon.size % 2:
            raise ValueError(f"{polygon.size} numbers are no polygon: x, y of 3 or more points")
    return polygons


def _indices(item: Any) -> list[int]:
    if isinstance(item, list):
        return item
    if not isinstance(item, Tensor) or item.dtype.is_floating_point:
        raise ValueError(f"masks cannot be indexed with {item!r}")
    if item.dtype == torch.bool:
        assert item.dim() == 1, f"a bool index has one dimension, not {item.dim()}"
        item = item.nonzero()[:, 0]
    return item.tolist()


def _polygon_area(polygon: np.ndarray) -> float:
    x, y = polygon[::2], polygon[1::2]
    return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2
