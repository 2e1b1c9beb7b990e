"""A list of boxes, and what can be measured between two such lists.

Wrong use is an AssertionError here, as callers that were written for Detectron2 expect.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.structures.box_mode import BoxMode
from torch import Tensor
from torch import device as Device  # torch.jit.script takes no dotted type

__all__ = [
    "BoxMode",
    "Boxes",
    "matched_pairwise_iou",
    "pairwise_intersection",
    "pairwise_ioa",
    "pairwise_iou",
    "pairwise_point_box_distance",
]


class Boxes:
    """Upright boxes of one image; works under `torch.jit.script`.

    Attributes:
        tensor: float32 [N, 4]: left, top, right, bottom in pixels; N may be 0.
    """

    def __init__(self, tensor: Tensor) -> None:
        """Take a tensor (its device is kept), or anything that becomes one on the CPU.

        Raises:
            AssertionError: the shape is not [N, 4]; anything empty counts as N = 0.
        """
        tensor = torch.as_tensor(tensor, dtype=torch.float32)
        if tensor.numel() == 0:
            tensor = tensor.reshape(-1, 4)
        assert list(tensor.shape[1:]) == [4], f"boxes have shape [N, 4], not {tensor.shape}"
        self.tensor = tensor

    @property
    def device(self) -> Device:
        return self.tensor.device

    def __len__(self) -> int:
        return self.tensor.shape[0]

    @torch.jit.unused
    def __iter__(self) -> Any:
        """One tensor of 4 numbers per box."""
        return iter(self.tensor)

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"

    @torch.jit.unused
    def __getitem__(self, item: Any) -> Boxes:
        """The boxes selected by an int (one box), slice, index tensor or bool tensor.

        The result may share memory with this object, as indexing a tensor does.

        Raises:
            AssertionError: the index does not select whole boxes.
        """
        chosen = self.tensor[item][None] if isinstance(item, int) else self.tensor[item]
        assert chosen.dim() == 2, f"indexing boxes with {item!r} gave shape {list(chosen.shape)}"
        return Boxes(chosen)

    @classmethod
    def cat(cls, boxes_list: list[Boxes]) -> Boxes:
        """All boxes of several lists, copied; an empty sequence gives no boxes."""
        assert isinstance(boxes_list, (list, tuple)), f"expected a list, not {type(boxes_list)}"
        if len(boxes_list) == 0:
            return cls(torch.empty(0))
        for boxes in boxes_list:
            assert isinstance(boxes, Boxes), f"expected Boxes only, found {type(boxes)}"
        return cls(torch.cat([boxes.tensor for boxes in boxes_list]))

    def clone(self) -> Boxes:
        return Boxes(self.tensor.clone())

    def to(self, device: Device) -> Boxes:
        """The boxes on another device; the type stays float32."""
        return Boxes(self.tensor.to(device=device))

    def _sides(self) -> Tensor:
        """[N, 2]: width, height."""
        return self.tensor[:, 2:] - self.tensor[:, :2]

    def area(self) -> Tensor:
        """float32 [N], square pixels; not meaningful for boxes turned inside out."""
        return self._sides().prod(dim=1)

    def get_centers(self) -> Tensor:
        """float32 [N, 2]: x, y."""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """bool [N]: whether both sides are longer than `threshold` pixels."""
        return (self._sides() > threshold).all(dim=1)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> Tensor:
        """bool [N]: whether a box lies in the image, give or take a margin.

        Args:
            box_size: (height, width) of the image.
            boundary_threshold: margin in pixels. The left and top limits belong to the inside,
                the right and bottom ones do not.
        """
        height, width = box_size
        starts = (self.tensor[..., :2] >= -boundary_threshold).all(dim=-1)
        right = self.tensor[..., 2] < width + boundary_threshold
        return starts & right & (self.tensor[..., 3] < height + boundary_threshold)

    def clip(self, box_size: tuple[int, int]) -> None:
        """Cut the boxes, in this object, at the borders of an image.

        Args:
            box_size: (height, width) of the image.

        Raises:
            AssertionError: a coordinate is infinite or not a number.
        """
        assert self.tensor.isfinite().all(), "boxes with infinite or NaN coordinates"
        height, width = box_size
        clipped = self.tensor.clone()
        clipped[:, 0::2].clamp_(min=0, max=width)
        clipped[:, 1::2].clamp_(min=0, max=height)
        self.tensor = clipped

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply the coordinates, in this object and in the memory it shares."""
        self.tensor[:, ::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y


def pairwise_intersection(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """float32 [N, M]: area that each box of the first list shares with each of the second."""
    first, second = boxes1.tensor[:, None], boxes2.tensor[None]
    low = torch.maximum(first[..., :2], second[..., :2])
    high = torch.minimum(first[..., 2:], second[..., 2:])
    return (high - low).clamp(min=0).prod(dim=-1)


def _ratio(shared: Tensor, whole: Tensor) -> Tensor:
    """shared / whole, and 0 where nothing is shared, even of an empty whole."""
    return torch.where(shared > 0, shared / whole, torch.zeros_like(shared))


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """float32 [N, M]: intersection over union of each pair; 0 for empty boxes."""
    shared = pairwise_intersection(boxes1, boxes2)
    return _ratio(shared, boxes1.area()[:, None] + boxes2.area() - shared)


def pairwise_ioa(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """float32 [N, M]: intersection over the area of the second box; 0 for empty boxes."""
    shared = pairwise_intersection(boxes1, boxes2)
    return _ratio(shared, boxes2.area().expand_as(shared))


def matched_pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """float32 [N]: intersection over union of the k-th box of one list with that of the other.

    Two empty boxes give NaN.

    Raises:
        AssertionError: the lists differ in length.
    """
    assert len(boxes1) == len(boxes2), f"{len(boxes1)} boxes cannot match {len(boxes2)}"
    low = torch.maximum(boxes1.tensor[:, :2], boxes2.tensor[:, :2])
    high = torch.minimum(boxes1.tensor[:, 2:], boxes2.tensor[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=1)
    return shared / (boxes1.area() + boxes2.area() - shared)


def pairwise_point_box_distance(points: Tensor, boxes: Boxes) -> Tensor:
    """float32 [N, M, 4]: distance of N points from the left, top, right, bottom of M boxes.

    All four are positive inside the box.

    Args:
        points: [N, 2]: x, y.
        boxes: M boxes.
    """
    from_low = points[:, None] - boxes.tensor[None, :, :2]
    to_high = boxes.tensor[None, :, 2:] - points[:, None]
    return torch.cat([from_low, to_high], dim=-1)
