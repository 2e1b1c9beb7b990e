"""The ways in which four or five numbers describe a box."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import IntEnum, unique
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

RawBox = TypeVar("RawBox", list[float], tuple[float, ...], Tensor, np.ndarray)


@unique
class BoxMode(IntEnum):
    """Meaning of the numbers of a box; the values are those found in dataset files.

    Attributes:
        XYXY_ABS: left, top, right, bottom in pixels.
        XYWH_ABS: left, top, width, height in pixels, as COCO writes them.
        XYXY_REL: as XYXY_ABS, in parts of the image size; no conversions.
        XYWH_REL: as XYWH_ABS, in parts of the image size; no conversions.
        XYWHA_ABS: centre x, centre y, width, height in pixels, angle in degrees
            counter-clockwise.
    """

    XYXY_ABS = 0
    XYWH_ABS = 1
    XYXY_REL = 2
    XYWH_REL = 3
    XYWHA_ABS = 4

    @staticmethod
    def convert(box: RawBox, from_mode: BoxMode, to_mode: BoxMode) -> RawBox:
        """Express boxes in another mode.

        Args:
            box: a list or tuple of 4 (or 5) numbers, or an array or tensor [N, 4 (or 5)].
            from_mode: what the numbers mean now.
            to_mode: what they shall mean.

        Returns:
            The same type as `box`; `box` itself if the modes are equal, else a copy.
            Floats of lists and tuples are rounded to 32 bits.

        Raises:
            AssertionError: wrong number of coordinates, or a relative mode.
            NotImplementedError: there is no conversion between the two.
        """
        if from_mode == to_mode:
            return box
        relative = {BoxMode.XYXY_REL, BoxMode.XYWH_REL} & {from_mode, to_mode}
        assert not relative, f"relative boxes cannot be converted: {relative}"
        change = _CONVERSIONS.get((from_mode, to_mode))
        if change is None:
            raise NotImplementedError(
                f"no conversion of boxes from {BoxMode(from_mode).name} to {BoxMode(to_mode).name}"
            )
        if isinstance(box, (list, tuple)):
            assert len(box) in (4, 5), f"a box has 4 or 5 numbers, not {len(box)}"
            return type(box)(change(torch.tensor([box]))[0].tolist())
        if isinstance(box, np.ndarray):
            return change(torch.from_numpy(box)).numpy()
        return change(box)


def _corner_to_size(boxes: Tensor) -> Tensor:
    low, high = boxes.tensor_split(2, dim=-1)
    return torch.cat([low, high - low], dim=-1)


def _size_to_corner(boxes: Tensor) -> Tensor:
    low, size = boxes.tensor_split(2, dim=-1)
    return torch.cat([low, low + size], dim=-1)


def _size_to_rotated(boxes: Tensor) -> Tensor:
    low, size = boxes.double().tensor_split(2, dim=-1)
    upright = torch.zeros_like(low[..., :1])
    return torch.cat([low + size / 2, size, upright], dim=-1).to(boxes.dtype)


def _rotated_to_corner(boxes: Tensor) -> Tensor:
    """The smallest upright box around each rotated one."""
    assert boxes.shape[-1] == 5, f"rotated boxes have 5 numbers, not {boxes.shape[-1]}"
    centre, size, angle = boxes.double().tensor_split((2, 4), dim=-1)
    cosine, sine = [f(angle * math.pi / 180.0).abs() for f in (torch.cos, torch.sin)]
    extent = cosine * size + sine * size.flip(-1)
    low = centre - extent / 2
    return torch.cat([low, low + extent], dim=-1).to(boxes.dtype)


_CONVERSIONS: dict[tuple[BoxMode, BoxMode], Callable[[Tensor], Tensor]] = {
    (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS): _corner_to_size,
    (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS): _size_to_corner,
    (BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS): _size_to_rotated,
    (BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS): _rotated_to_corner,
}
