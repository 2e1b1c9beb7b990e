"""Features of regions, out of the fitting level of a pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from detectron2.layers import ROIAlign, cat
from detectron2.layers.cpu_roi_align import pool_pyramid, supports
from detectron2.structures import Boxes
from torch import nn
from torchvision.ops import RoIPool

__all__ = ["ROIPooler"]


def assign_boxes_to_levels(
    box_lists: list[Boxes],
    min_level: int,
    max_level: int,
    canonical_box_size: int,
    canonical_level: int,
) -> torch.Tensor:
    """The pyramid level of each box, equation 1 of the FPN paper (arXiv:1612.03144).

    Args:
        box_lists: boxes per image, pixels.
        min_level, max_level: levels there are; a level k has stride 2^k.
        canonical_box_size: square root of the area, pixels, of a box on `canonical_level`.
        canonical_level: one level more for every doubling of that size.

    Returns:
        int64 [boxes of all images], counted from `min_level`.
    """
    sizes = cat([boxes.area() for boxes in box_lists]).sqrt()
    levels = torch.log2(sizes / canonical_box_size + 1e-8).add(canonical_level).floor()
    return levels.clamp(min_level, max_level).long() - min_level


def convert_boxes_to_pooler_format(box_lists: list[Boxes]) -> torch.Tensor:
    """Boxes of all images as one [M, 5]: index of the image, x0, y0, x1, y1."""
    rois = [
        torch.cat((torch.full_like(boxes.tensor[:, :1], image), boxes.tensor), dim=1)
        for image, boxes in enumerate(box_lists)
    ]
    return torch.cat(rois)


class ROIPooler(nn.Module):
    """Pool each region from one of several feature maps, by its size.

    Args:
        output_size: (height, width) of a pooled region, in cells, or one number for both.
        scales: cells per pixel of each map: 1 / stride, halving from map to map.
        sampling_ratio: see `ROIAlign`.
        pooler_type: "ROIAlignV2", "ROIAlign" (off by half a pixel) or "ROIPool".
        canonical_box_size, canonical_level: see `assign_boxes_to_levels`.

    Raises:
        ValueError: the scales are no pyramid, or the type is unknown.
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: int = 224,
        canonical_level: int = 4,
    ) -> None:
        super().__init__()
        height, width = (output_size,) * 2 if isinstance(output_size, int) else output_size
        self.output_size = (height, width)
        self.level_poolers = nn.ModuleList(
            _build_pooler(pooler_type, self.output_size, scale, sampling_ratio) for scale in scales
        )
        self.min_level = round(-math.log2(scales[0]))
        self.max_level = self.min_level + len(scales) - 1
        pyramid = [2.0**-level for level in range(self.min_level, self.max_level + 1)]
        if self.min_level < 0 or not all(map(math.isclose, scales, pyramid)):
            raise ValueError(f"Scales of a pooler are 1/2^k and halve from map to map: {scales}.")
        self.canonical_box_size = canonical_box_size
        self.canonical_level = canonical_level

    def forward(self, x: list[torch.Tensor], box_lists: list[Boxes]) -> torch.Tensor:
        """Pool the boxes of every image.

        Args:
            x: one map [N, C, H, W] per scale.
            box_lists: boxes per image, pixels of the network input; some or all may be empty.

        Returns:
            [M, C, height, width], M boxes in the order of the images.
        """
        num_images = len(box_lists)
        if len(x) != len(self.level_poolers) or num_images not in (0, len(x[0])):
            raise ValueError(
                f"A pooler of {len(self.level_poolers)} maps has got {len(x)} maps of "
                f"{len(x[0])} images with boxes for {num_images} images."
            )
        if num_images == 0:
            return x[0].new_zeros([0, x[0].shape[1], self.output_size[0], self.output_size[1]])
        rois = convert_boxes_to_pooler_format(box_lists)
        if len(x) == 1:
            return self.level_poolers[0](x[0], rois)
        levels = assign_boxes_to_levels(
            box_lists,
            canonical_level=self.canonical_level,
            canonical_box_size=self.canonical_box_size,
            min_level=self.min_level,
            max_level=self.max_level,
        )
        if not torch.jit.is_scripting():  # noqa: SIM102  # torch.jit.script skips such a block
            if supports(x, list(self.level_poolers)):
                return pool_pyramid(x, rois, levels, list(self.level_poolers))
        return self._pool_by_level(x, rois, levels)

    def _pool_by_level(
        self, x: list[torch.Tensor], rois: torch.Tensor, levels: torch.Tensor
    ) -> torch.Tensor:
        if torch.jit.is_tracing():  # numbers of boxes would become constants
            members = [(levels == level).nonzero()[:, 0] for level in range(len(x))]
            order = torch.cat(members)
            parts = [rois[chosen] for chosen in members]
        else:  # waits for the device once, and not once per level
            order = torch.argsort(levels, stable=True)
            counts: list[int] = torch.bincount(levels, minlength=len(x)).tolist()
            parts = list(rois[order].split(counts))
        by_level = []
        for level, pooler in enumerate(self.level_poolers):
            by_level.append(pooler(x[level], parts[level]))
        pooled = torch.cat(by_level)
        return torch.empty_like(pooled).index_copy(0, order, pooled)


def _build_pooler(
    pooler_type: str, output_size: tuple[int, int], scale: float, sampling_ratio: int
) -> nn.Module:
    if pooler_type == "ROIPool":
        return RoIPool(output_size, spatial_scale=scale)
    aligned = {"ROIAlign": False, "ROIAlignV2": True}
    if pooler_type not in aligned:
        raise ValueError(
            f"A pooler's type is ROIAlignV2, ROIAlign or ROIPool, not {pooler_type!r}; rotated "
            "boxes need the full Detectron2 (https://github.com/facebookresearch/detectron2)."
        )
    return ROIAlign(output_size, scale, sampling_ratio, aligned=aligned[pooler_type])
