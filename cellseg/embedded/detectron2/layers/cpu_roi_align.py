"""RoIAlign over a whole pyramid on the CPU, as a sparse matrix times a table.

A pooled cell is the mean of a few bilinear samples, each of which mixes four cells of a feature
map. It is therefore a sum of rows of the table [cells, channels], which holds all cells of all
maps, with weights that follow from the region's box alone: one row of a sparse matrix. The product
of matrix and table is what `torch.nn.functional.embedding_bag` computes, vectorised over the
channels and on all cores; the gradient is the product with the transposed matrix. The samples are
those of torchvision's `roi_align` (He et al., Mask R-CNN, arXiv:1703.06870); the sums are in
another order.

By hand, on a map of six cells and one channel: the region from (0.5, 0.5) to (2.5, 1.5) is to
become a row of two, one sample each. Aligned RoIAlign has the centre of the first cell at 0.5, so
that the samples are at x = 0.5 and 1.5, y = 0.5 in numbers of cells: each amid four of them.

    map:   0  1  2       samples:   (0 + 1 + 10 + 11) / 4 = 5.5
          10 11 12                  (1 + 2 + 11 + 12) / 4 = 6.5

>>> grid = torch.tensor([[[[0.0, 1, 2], [10, 11, 12]]]])
>>> region, level = torch.tensor([[0, 0.5, 0.5, 2.5, 1.5]]), torch.tensor([0])
>>> poolers = [ROIAlign((1, 2), spatial_scale=1.0, sampling_ratio=1)]
>>> _mix_of_regions([grid], region, level, poolers).toarray().tolist()
[[0.25, 0.25, 0.0, 0.25, 0.25, 0.0], [0.0, 0.25, 0.25, 0.0, 0.25, 0.25]]
>>> pool_pyramid([grid], region, level, poolers).tolist()
[[[[5.5, 6.5]]]]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional as F

from .roi_align import ROIAlign

_DTYPES = (torch.float32, torch.float64)


def supports(maps: Sequence[Tensor], poolers: Sequence[torch.nn.Module]) -> bool:
    """Whether `pool_pyramid` can take these maps: on the CPU, not in a compiled or traced model."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        return False
    on_cpu = all(x.device.type == "cpu" and x.dtype in _DTYPES for x in maps)
    return on_cpu and all(type(pooler) is ROIAlign for pooler in poolers)


def pool_pyramid(
    maps: Sequence[Tensor], rois: Tensor, levels: Tensor, poolers: Sequence[Any]
) -> Tensor:
    """Pool each region from its map.

    Args:
        maps: the pyramid's levels, float [N, C, H_l, W_l] each.
        rois: the regions, float [R, 5]: index of the image, then x0, y0, x1, y1 in pixels of it.
        levels: int64 [R], the number of the map that each region is pooled from.
        poolers: an `ROIAlign` per map, alike but for their scale, cells per pixel.

    Returns:
        [R, C, height, width], `channels_last`; differentiable in the maps. R may be 0.
    """
    height, width = poolers[0].output_hw
    channels = maps[0].shape[1]
    if len(rois) == 0:  # and yet every map has a gradient
        return sum(x.sum() for x in maps) * maps[0].new_zeros(0, channels, height, width)
    table = torch.cat([x.permute(0, 2, 3, 1).reshape(-1, channels) for x in maps])
    mix = _mix_of_regions(maps, rois.to(table.dtype), levels, poolers)
    pooled: Tensor = _Product.apply(table, mix)
    return pooled.view(len(rois), height, width, channels).permute(0, 3, 1, 2)


class _Product(torch.autograd.Function):
    """A sparse matrix [rows, cells] times a table [cells, C]."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, matrix: sparse.csr_matrix) -> Tensor:
        ctx.matrix = matrix
        return _product(matrix, table)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        return _product(ctx.matrix.T.tocsr(), grad.contiguous()), None


def _product(matrix: sparse.csr_matrix, table: Tensor) -> Tensor:
    arrays = (matrix.indices, matrix.data, matrix.indptr[:-1])
    columns, weights, starts = map(torch.from_numpy, arrays)
    return F.embedding_bag(columns, table, starts, mode="sum", per_sample_weights=weights)


@torch.no_grad()
def _mix_of_regions(
    maps: Sequence[Tensor], rois: Tensor, levels: Tensor, poolers: Sequence[ROIAlign]
) -> sparse.csr_matrix:
    """How much of which cell of the maps is in each pooled cell: [R * height * width, cells].

    The samples' number differs from region to region where it is to follow from their size
    (`sampling_ratio` 0): regions of one number are worked out together, as a dense block of rows
    of one length, and the blocks are put into the order of the regions at the end.
    """
    height, width = poolers[0].output_hw
    shapes = torch.tensor([(x.shape[2], x.shape[3]) for x in maps])
    cells = shapes.prod(dim=1) * len(maps[0])
    map_hw = shapes[levels]
    first_cell = (cells.cumsum(0) - cells)[levels] + rois[:, 0].long() * map_hw.prod(dim=1)
    starts, sizes = _regions_in_cells(rois, levels, poolers)
    bins = sizes / torch.tensor([width, height])
    samples = torch.full((len(rois), 2), poolers[0].sampling_ratio)
    if poolers[0].sampling_ratio <= 0:
        samples = bins.ceil().long()

    blocks, members = [], []
    for (across, down), alike in _groups(samples):
        start, size, hw = starts[alike], bins[alike], map_hw[alike]
        y, y_weights = _axis_taps(start[:, 1], size[:, 1], down, height, hw[:, 0])
        x, x_weights = _axis_taps(start[:, 0], size[:, 0], across, width, hw[:, 1])
        y = (y * hw[:, 1, None, None] + first_cell[alike, None, None]).int()
        columns = y[:, :, None, :, None] + x.int()[:, None, :, None, :]
        weights = y_weights[:, :, None, :, None] * x_weights[:, None, :, None, :]
        blocks.append(_rows_of_equal_length(columns, weights, 4 * across * down, int(cells.sum())))
        members.append(alike)
    if len(blocks) == 1:
        return blocks[0]
    row_of_region = torch.cat(members).argsort()[:, None] * height * width
    rows = (row_of_region + torch.arange(height * width)).flatten()
    return sparse.vstack(blocks, format="csr")[rows.numpy()]


def _rows_of_equal_length(
    columns: Tensor, weights: Tensor, length: int, width: int
) -> sparse.csr_matrix:
    rows = math.prod(columns.shape[:3])
    starts = torch.arange(rows + 1, dtype=torch.int32) * length
    arrays = (weights.flatten().numpy(), columns.flatten().numpy(), starts.numpy())
    return sparse.csr_matrix(arrays, shape=(rows, width))


def _groups(samples: Tensor) -> list[tuple[list[int], Tensor]]:
    """The regions, by their numbers [R, 2] of samples; no samples where one of the two is none."""
    samples = samples * (samples > 0).all(dim=1, keepdim=True)
    kinds, kind_of = samples.unique(dim=0, return_inverse=True)
    return [(kind, (kind_of == index).nonzero()[:, 0]) for index, kind in enumerate(kinds.tolist())]


def _regions_in_cells(
    rois: Tensor, levels: Tensor, poolers: Sequence[ROIAlign]
) -> tuple[Tensor, Tensor]:
    """Upper left corner (x, y) and size (width, height), [R, 2] each, in cells of the map."""
    scales = rois.new_tensor([pooler.spatial_scale for pooler in poolers])[levels, None]
    corners = rois[:, 1:] * scales
    if poolers[0].aligned:
        corners = corners - 0.5
    low, high = corners.split(2, dim=1)
    size = high - low
    return low, size if poolers[0].aligned else size.clamp(min=1)


def _axis_taps(
    start: Tensor, bin_size: Tensor, samples: int, bins: int, limit: Tensor
) -> tuple[Tensor, Tensor]:
    """Cells along one axis that the samples of each bin mix, and their weights.

    In the order of operations of torchvision's kernel, so that no sample falls into another cell.

    Args:
        start: float [n], where each region begins along the axis, 0 at the centre of the map's
            first cell, in cells.
        bin_size: float [n], the length of a pooled cell, in cells of the map.
        samples: how many samples a pooled cell is the mean of along this axis.
        bins: how many pooled cells a region has along this axis.
        limit: int64 [n], how many cells the map has along this axis.

    Returns:
        The numbers of the cells, int64 [n, bins, 2 * samples], two neighbours per sample, and their
        weights, float of that shape: 0 for a sample more than a cell outside of the map.
    """
    offsets = torch.arange(bins)[:, None] * bin_size[:, None, None]
    steps = (torch.arange(samples) + 0.5) * bin_size[:, None, None] / samples
    at = start[:, None, None] + offsets + steps
    end = limit[:, None, None]
    outside = (at < -1) | (at > end)
    at = at.clamp(min=0).minimum(end - 1)
    low = at.floor()
    share = at - low
    cells = torch.stack([low, (low + 1).minimum(end - 1)], dim=3).long()
    weights = torch.stack([1 - share, share], dim=3) / samples
    weights = weights.masked_fill(outside[..., None], 0)
    return cells.flatten(2), weights.flatten(2)
