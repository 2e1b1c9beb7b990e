"""RoIAlign as a module (He et al., Mask R-CNN, arXiv:1703.06870)."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.ops import roi_align

__all__ = ["ROIAlign", "roi_align"]


class ROIAlign(nn.Module):
    """Sample a grid of features inside each region, bilinearly.

    Args:
        output_size: (height, width) of the grid, or one number for both.
        spatial_scale: cells of the feature map per pixel of the boxes.
        sampling_ratio: samples per grid cell and axis; 0 takes as many as the region asks for.
        aligned: True puts pixel centres at half-integers, which keeps features and boxes in
            register; False is the behaviour of older models.
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = True,
    ) -> None:
        super().__init__()
        self.output_size, self.spatial_scale = output_size, spatial_scale
        self.sampling_ratio, self.aligned = sampling_ratio, aligned

    def forward(self, input: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        """Pool [N, C, H, W] at `rois` [R, 5] (image index, x0, y0, x1, y1) to [R, C, h, w]."""
        return roi_align(
            input,
            rois.to(input.dtype),
            output_size=self.output_size,
            spatial_scale=self.spatial_scale,
            sampling_ratio=self.sampling_ratio,
            aligned=self.aligned,
        )

    @property
    @torch.jit.unused
    def output_hw(self) -> tuple[int, int]:
        """(height, width) of the grid."""
        size = self.output_size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    def extra_repr(self) -> str:
        names = ("output_size", "spatial_scale", "sampling_ratio", "aligned")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)
