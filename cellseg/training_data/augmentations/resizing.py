"""`CELLSEG.INPUT.SCALE`: the network sees images larger, or smaller, than `INPUT` says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import transforms as T
from numpy.typing import NDArray


@dataclass(repr=False, eq=False)
class ResizeByFactor(T.Augmentation):
    """Another resize with both sides multiplied, to 1 pixel at least; interpolated once.

    Attributes:
        resize: gives the size, in (height, width) of its own; 0 as its length keeps the image's.
        factor: what that size is multiplied by.
    """

    resize: T.ResizeShortestEdge
    factor: float

    def get_transform(self, image: NDArray[Any]) -> T.Transform:
        height, width = image.shape[:2]
        drawn = self.resize.get_transform(image)
        if self.factor == 1 and min(getattr(drawn, "new_h", 1), getattr(drawn, "new_w", 1)) > 0:
            return drawn
        before = (height, width)
        if isinstance(drawn, T.ResizeTransform):
            before = (drawn.new_h, drawn.new_w)
        return T.ResizeTransform(
            height, width, *scale_hw(before, self.factor), interp=getattr(drawn, "interp", None)
        )


def input_scale(cfg: CfgNode) -> float:
    """CELLSEG.INPUT.SCALE; 1.0 for a configuration of Detectron2 without cellseg's keys."""
    return float(cfg.CELLSEG.INPUT.SCALE) if "CELLSEG" in cfg else 1.0


def scale_hw(image_hw: tuple[int, int], factor: float) -> tuple[int, int]:
    """(height, width) times `factor`, rounded, at least 1."""
    height, width = (max(1, round(side * factor)) for side in image_hw)
    return height, width


def scale_resizing(cfg: CfgNode, augmentations: Sequence[Any]) -> list[Any]:
    """The augmentations, with CELLSEG.INPUT.SCALE applied to each `ResizeShortestEdge`.

    At 1.0 they give the same transforms, but that an image of a few rows, whose longer side is
    made small, keeps one.
    """
    factor = input_scale(cfg)
    return [
        ResizeByFactor(each, factor) if isinstance(each, T.ResizeShortestEdge) else each
        for each in augmentations
    ]
