"""Random choice of the predictions that a loss is computed on."""

from __future__ import annotations

import torch
from detectron2.layers import nonzero_tuple

__all__ = ["subsample_labels"]


def subsample_labels(
    labels: torch.Tensor, num_samples: int, positive_fraction: float, bg_label: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose foreground and background at random.

    Args:
        labels: [N] integers; -1 is never chosen.
        num_samples: number to choose; fewer where there are fewer.
        positive_fraction: upper limit of the foreground's share; background fills the rest.
        bg_label: the background's label; all others are foreground.

    Returns:
        int64 indices of the foreground chosen, and of the background chosen.
    """
    background = labels == bg_label
    (positive,) = nonzero_tuple(~background & (labels != -1))
    (negative,) = nonzero_tuple(background)
    num_positive = min(int(num_samples * positive_fraction), len(positive))
    return _choose(positive, num_positive), _choose(negative, num_samples - num_positive)


def _choose(candidates: torch.Tensor, count: int) -> torch.Tensor:
    order = torch.randperm(len(candidates), device=candidates.device)
    return candidates[order[:count]]
