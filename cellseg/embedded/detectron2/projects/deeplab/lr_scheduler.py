"""The polynomial learning rate schedule of DeepLab (Chen et al., arXiv:1606.00915)."""

from __future__ import annotations

import torch
from detectron2.solver.lr_scheduler import WarmupLR

__all__ = ["WarmupPolyLR"]


class WarmupPolyLR(WarmupLR):
    """Falls as (1 - iteration / max_iters) ** power, after a warm-up.

    Args:
        optimizer: its present learning rates are the initial ones.
        max_iters: iterations of the whole training; the rate is 0 at its end.
        warmup_factor, warmup_iters, warmup_method: of the warm-up.
        last_epoch: iteration that was finished last; -1 at the beginning.
        power: 1 is a straight line.
        constant_ending: share of the initial rate below which the rate does not fall; 0 for none.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        max_iters: int,
        warmup_factor: float = 0.001,
        warmup_iters: int = 1000,
        warmup_method: str = "linear",
        last_epoch: int = -1,
        power: float = 0.9,
        constant_ending: float = 0.0,
    ) -> None:
        self.max_iters, self.power, self.constant_ending = max_iters, power, constant_ending
        super().__init__(optimizer, warmup_factor, warmup_iters, warmup_method, last_epoch)

    def _decay(self) -> float:
        decay = float((1.0 - self.last_epoch / self.max_iters) ** self.power)
        if self.last_epoch < self.warmup_iters:
            return decay
        return max(decay, self.constant_ending)
