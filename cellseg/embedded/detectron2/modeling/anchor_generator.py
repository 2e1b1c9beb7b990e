"""Anchors: the boxes that proposals are predicted from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from detectron2._missing import left_out_names
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes
from detectron2.utils.registry import Registry
from torch import nn

ANCHOR_GENERATOR_REGISTRY = Registry("ANCHOR_GENERATOR")
ANCHOR_GENERATOR_REGISTRY.__doc__ = (
    "Anchor generators, called `f(cfg, input_shapes: list[ShapeSpec])`: modules that turn feature "
    "maps into anchors."
)


class BufferList(nn.Module):
    """A list of tensors that move with the model and are not saved."""

    def __init__(self, buffers: Sequence[torch.Tensor]) -> None:
        super().__init__()
        for index, tensor in enumerate(buffers):
            self.register_buffer(f"{index}", tensor, persistent=False)

    def __len__(self) -> int:
        return len(self._buffers)

    @torch.jit.unused
    def __iter__(self) -> Iterator[torch.Tensor]:
        return self.buffers()


def _values_per_map(values: Any, num_maps: int, name: str) -> list[Sequence[float]]:
    """One list of values per feature map, from a list for all or a list of lists."""
    if not isinstance(values, Sequence) or not values:
        raise ValueError(
            f"{name} of the anchor generator must be a list with values, not {values!r}."
        )
    per_map = list(values) if isinstance(values[0], Sequence) else [values]
    if len(per_map) == 1:
        per_map *= num_maps
    if len(per_map) != num_maps:
        raise ValueError(
            f"{name} of the anchor generator has {len(per_map)} lists for {num_maps} feature maps."
        )
    return per_map


@ANCHOR_GENERATOR_REGISTRY.register()
class DefaultAnchorGenerator(nn.Module):
    """The same anchors around every cell of a feature map.

    Args:
        sizes: square roots of the anchors' areas, pixels; per feature map, or one list for all.
        aspect_ratios: height / width of the anchors; per feature map, or one list for all.
        strides: pixels per cell of each feature map.
        offset: of the first anchor's centre, in strides, in [0, 1).

    Raises:
        ValueError: the lists do not fit the number of strides, or `offset` is out of range.
    """

    box_dim = 4

    @configurable
    def __init__(
        self, *, sizes: Any, aspect_ratios: Any, strides: Sequence[int], offset: float = 0.5
    ) -> None:
        super().__init__()
        if not 0.0 <= offset < 1.0:
            raise ValueError(f"The offset of anchors is in [0, 1), not {offset}.")
        self.strides = strides
        self.num_features = len(strides)
        self.offset = offset
        sizes = _values_per_map(sizes, len(strides), "sizes")
        ratios = _values_per_map(aspect_ratios, len(strides), "aspect_ratios")
        self.cell_anchors = BufferList(
            [self.generate_cell_anchors(*both) for both in zip(sizes, ratios)]
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        options = cfg.MODEL.ANCHOR_GENERATOR
        return {
            "sizes": options.SIZES,
            "aspect_ratios": options.ASPECT_RATIOS,
            "strides": [shape.stride for shape in input_shape],
            "offset": options.OFFSET,
        }

    @property
    @torch.jit.unused
    def num_anchors(self) -> list[int]:
        """Anchors per cell, for each feature map."""
        return [len(anchors) for anchors in self.cell_anchors]

    @property
    @torch.jit.unused
    def num_cell_anchors(self) -> list[int]:
        """Same as `num_anchors`."""
        return self.num_anchors

    def generate_cell_anchors(
        self,
        sizes: Sequence[float] = (32, 64, 128, 256, 512),
        aspect_ratios: Sequence[float] = (0.5, 1, 2),
    ) -> torch.Tensor:
        """Anchors around the origin: float32 [sizes x ratios, 4], the ratio varying fastest."""
        widths_heights = [
            (math.sqrt(size**2.0 / ratio), ratio * math.sqrt(size**2.0 / ratio))
            for size in sizes
            for ratio in aspect_ratios
        ]
        half = torch.tensor(widths_heights, dtype=torch.float64) / 2
        return torch.cat((-half, half), dim=1).float()

    def forward(self, features: list[torch.Tensor]) -> list[Boxes]:
        """Anchors in pixels for each map [N, C, H, W]: H*W*A boxes, row by row, A fastest."""
        bases = [base for _, base in self.cell_anchors.named_buffers()]
        return [
            Boxes(self._grid_anchors(list(feature.shape[-2:]), stride, base))
            for feature, stride, base in zip(features, self.strides, bases)
        ]

    def _grid_anchors(self, grid_hw: list[int], stride: int, base: torch.Tensor) -> torch.Tensor:
        axes = [torch.arange(n, dtype=torch.float32, device=base.device) for n in grid_hw]
        y, x = torch.meshgrid([(axis + self.offset) * stride for axis in axes], indexing="ij")
        centres = torch.stack((x, y, x, y), dim=-1)
        return (centres[:, :, None] + base).reshape(-1, 4)


def build_anchor_generator(cfg: CfgNode, input_shape: list[ShapeSpec]) -> Any:
    """Build the generator that `cfg.MODEL.ANCHOR_GENERATOR.NAME` names."""
    return ANCHOR_GENERATOR_REGISTRY.get(cfg.MODEL.ANCHOR_GENERATOR.NAME)(cfg, input_shape)


__getattr__ = left_out_names(__name__, "RotatedAnchorGenerator")
