"""Points in boxes: where they are, what feature maps and masks hold there, which are uncertain.

Points are (x, y). Without another word they are shares of a box or an image, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from detectron2.layers import cat
from detectron2.structures import BitMasks, Boxes, Instances
from torch.nn import functional as F

__all__ = [
    "generate_regular_grid_point_coords",
    "get_point_coords_wrt_image",
    "get_uncertain_point_coords_on_grid",
    "get_uncertain_point_coords_with_randomness",
    "point_sample",
    "point_sample_fine_grained_features",
    "sample_point_labels",
]


def point_sample(input: torch.Tensor, point_coords: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    """What maps hold at points, interpolated linearly.

    Args:
        input: maps, [N, C, H, W].
        point_coords: [N, P, 2], or a grid of them, [N, P, Q, 2]; shares of the map.
        kwargs: of `torch.nn.functional.grid_sample`: `align_corners`, `mode`.

    Returns:
        [N, C, P], or [N, C, P, Q]; beyond the map it is zero.
    """
    is_list = point_coords.dim() == 3
    grid = point_coords[:, :, None] if is_list else point_coords
    sampled = F.grid_sample(input, 2.0 * grid - 1.0, **kwargs)
    return sampled[..., 0] if is_list else sampled


def generate_regular_grid_point_coords(
    R: int, side_size: int, device: torch.device | str
) -> torch.Tensor:
    """The middles of `side_size` x `side_size` equal cells, row by row, R times: [R, S * S, 2].

    >>> generate_regular_grid_point_coords(1, 2, "cpu").tolist()
    [[[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]]
    """
    middles = (torch.arange(side_size, device=device) + 0.5) / side_size
    rows, cols = torch.meshgrid(middles, middles, indexing="ij")
    return torch.stack([cols.flatten(), rows.flatten()], dim=1).expand(R, -1, -1)


def get_uncertain_point_coords_with_randomness(
    coarse_logits: torch.Tensor,
    uncertainty_func: Callable[[torch.Tensor], torch.Tensor],
    num_points: int,
    oversample_ratio: float,
    importance_sample_ratio: float,
) -> torch.Tensor:
    """Points to learn from: most of them uncertain, the rest by chance.

    Args:
        coarse_logits: predictions, [N, C, H, W].
        uncertainty_func: from predictions at points, [N, C, P], to [N, 1, P], higher for less
            certain ones. Predictions are interpolated first: half-way between a sure yes and a
            sure no nothing is sure.
        num_points: how many to choose.
        oversample_ratio: at least 1; so many times more are drawn to choose among.
        importance_sample_ratio: share of the most uncertain ones among the chosen.

    Returns:
        [N, num_points, 2], the uncertain ones first.

    Raises:
        ValueError: a ratio outside its range.
    """
    if oversample_ratio < 1 or not 0 <= importance_sample_ratio <= 1:
        raise ValueError(
            "OVERSAMPLE_RATIO must be at least 1 and IMPORTANCE_SAMPLE_RATIO in 0 to 1, got "
            f"{oversample_ratio} and {importance_sample_ratio}."
        )
    maps, device = coarse_logits.shape[0], coarse_logits.device
    drawn = torch.rand(maps, int(num_points * oversample_ratio), 2, device=device)
    at_points = point_sample(coarse_logits, drawn, align_corners=False)
    num_uncertain = int(importance_sample_ratio * num_points)
    best = uncertainty_func(at_points)[:, 0].topk(num_uncertain, dim=1).indices
    chosen = drawn.gather(1, best[:, :, None].expand(-1, -1, 2))
    if num_uncertain == num_points:
        return chosen
    by_chance = torch.rand(maps, num_points - num_uncertain, 2, device=device)
    return cat([chosen, by_chance], dim=1)


def get_uncertain_point_coords_on_grid(
    uncertainty_map: torch.Tensor, num_points: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The most uncertain pixels.

    Args:
        uncertainty_map: [R, 1, H, W].
        num_points: how many per map; all where there are fewer.

    Returns:
        Their indices, row by row, int64 [R, P], and their middles, [R, P, 2].
    """
    height, width = uncertainty_map.shape[-2:]
    flat = uncertainty_map.flatten(1)
    indices = flat.topk(min(height * width, num_points), dim=1).indices
    cols, rows = indices % width, indices.div(width, rounding_mode="floor")
    return indices, torch.stack([(cols + 0.5) / width, (rows + 0.5) / height], dim=2)


def point_sample_fine_grained_features(
    features_list: Sequence[torch.Tensor],
    feature_scales: Sequence[float],
    boxes: Sequence[Boxes],
    point_coords: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What all feature maps hold at points of boxes.

    Args:
        features_list: maps of the batch, [N, C_k, H_k, W_k].
        feature_scales: pixels of the map per pixel of the image, for each map.
        boxes: per image, R in all; pixels of the image.
        point_coords: [R, P, 2], shares of the boxes.

    Returns:
        [R, sum of C_k, P], and the points in pixels of the image, [R, P, 2].
    """
    in_image = get_point_coords_wrt_image(Boxes.cat([*boxes]).tensor, point_coords)
    of_images = []
    for image, points in enumerate(in_image.split([len(each) for each in boxes])):
        sampled = []
        for feature_map, scale in zip(features_list, feature_scales):
            height, width = feature_map.shape[-2:]
            extent = points.new_tensor([width, height]) / scale
            grid = (points / extent)[None]
            found = point_sample(feature_map[image][None], grid, align_corners=False)
            sampled.append(found[0].transpose(0, 1))
        of_images.append(cat(sampled, dim=1))
    return cat(of_images), in_image


def get_point_coords_wrt_image(
    boxes_coords: torch.Tensor, point_coords: torch.Tensor
) -> torch.Tensor:
    """From shares of boxes to pixels of the image, without gradient.

    Args:
        boxes_coords: [R, 4], x0, y0, x1, y1.
        point_coords: [R, P, 2].

    >>> get_point_coords_wrt_image(torch.tensor([[10., 20, 30, 60]]), torch.tensor([[[0.5, 0.25]]]))
    tensor([[[20., 30.]]])
    """
    with torch.no_grad():
        corners = boxes_coords[:, None, :2]
        return point_coords * (boxes_coords[:, None, 2:] - corners) + corners


def sample_point_labels(instances: Sequence[Instances], point_coords: torch.Tensor) -> torch.Tensor:
    """Whether points lie in the true masks: [R, P], 0 to 1, between them on the edge.

    Args:
        instances: per image, with `gt_masks` as `BitMasks`; R in all.
        point_coords: [R, P, 2], pixels of the image.

    Raises:
        TypeError: masks of another kind.
    """
    labels = []
    with torch.no_grad():
        for found, points in zip(instances, point_coords.split([len(each) for each in instances])):
            if not len(found):
                continue
            if not isinstance(found.gt_masks, BitMasks):
                raise TypeError(
                    "PointRend learns from bitmaps: set INPUT.MASK_FORMAT to 'bitmask', or give "
                    f"masks that `BitMasks` is the type of; got {type(found.gt_masks).__name__}."
                )
            masks = found.gt_masks.tensor[:, None].float()
            height, width = masks.shape[-2:]
            shares = points / points.new_tensor([width, height])
            labels.append(point_sample(masks, shares, align_corners=False)[:, 0])
        return cat(labels) if labels else point_coords[..., 0]
