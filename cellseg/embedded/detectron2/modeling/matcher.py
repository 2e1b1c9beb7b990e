"""Which ground truth each prediction belongs to."""

from __future__ import annotations

import torch

__all__ = ["Matcher"]


class Matcher:
    """Match predictions to ground truth by quality, and label them.

    Args:
        thresholds: ascending qualities that separate the labels.
        labels: one more than thresholds: 0 (background), -1 (ignored) or 1 (foreground). A
            quality from a threshold on, and below the next, has the label between them.
        allow_low_quality_matches: also make foreground of whatever matches a ground truth best,
            ties included (Ren et al., Faster R-CNN, arXiv:1506.01497, 3.1.2).

    Raises:
        ValueError: thresholds descend or start at zero or below, or labels do not fit them.
    """

    def __init__(
        self,
        thresholds: list[float],
        labels: list[int],
        allow_low_quality_matches: bool = False,
    ) -> None:
        # lists and nothing newer than them: this class also compiles under torch.jit.script
        descends = [thresholds[i - 1] > thresholds[i] for i in range(1, len(thresholds))]
        if thresholds[0] <= 0 or any(descends):
            raise ValueError(f"Thresholds of a matcher are positive and ascend: {thresholds}.")
        known = [label in (-1, 0, 1) for label in labels]
        if len(labels) != len(thresholds) + 1 or not all(known):
            raise ValueError(f"Thresholds {thresholds} need one label more of -1, 0, 1: {labels}.")
        self.thresholds = [-float("inf")] + list(thresholds) + [float("inf")]  # noqa: RUF005
        self.labels = list(labels)
        self.allow_low_quality_matches = allow_low_quality_matches

    def __call__(self, match_quality_matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Match the N columns (predictions) to the M rows (ground truth) of a quality matrix.

        Returns:
            int64 [N], the best row of each column (0 without rows); int8 [N], its label.
        """
        if match_quality_matrix.numel() == 0:
            columns = [match_quality_matrix.shape[1]]
            nothing = match_quality_matrix.new_zeros(columns, dtype=torch.int64)
            return nothing, torch.full_like(nothing, self.labels[0], dtype=torch.int8)
        best, matches = match_quality_matrix.max(dim=0)
        match_labels = torch.full_like(matches, self.labels[0], dtype=torch.int8)
        for threshold, label in zip(self.thresholds[1:], self.labels[1:]):
            match_labels.masked_fill_(best >= threshold, label)
        if not self.allow_low_quality_matches:
            return matches, match_labels
        self.set_low_quality_matches_(match_labels, match_quality_matrix)
        return matches, match_labels

    def set_low_quality_matches_(
        self, match_labels: torch.Tensor, match_quality_matrix: torch.Tensor
    ) -> None:
        """Set the labels, in place, of columns that hold the maximum of some row."""
        row_maxima = match_quality_matrix.amax(dim=1, keepdim=True)
        match_labels.masked_fill_((match_quality_matrix == row_maxima).any(dim=0), 1)
