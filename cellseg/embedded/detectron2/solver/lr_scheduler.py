"""Learning rate schedules over iterations; the shapes of the curves come from fvcore.

PyTorch's schedulers speak of epochs. Here every "epoch" is one training iteration.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import torch
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)
from torch.optim.lr_scheduler import LRScheduler

__all__ = [
    "LRMultiplier",
    "LRScheduler",
    "WarmupCosineLR",
    "WarmupMultiStepLR",
    "WarmupParamScheduler",
]


class WarmupParamScheduler(CompositeParamScheduler):
    """A schedule that is preceded by a warm-up.

    Args:
        scheduler: what follows the warm-up; a function of training progress in [0, 1).
        warmup_factor: the warm-up starts at this times `scheduler(0)`.
        warmup_length: share of the whole training that warms up, in [0, 1].
        warmup_method: "linear" climbs to where `scheduler` takes over, "constant" waits below.
        rescale_interval: False cuts the beginning of `scheduler` off, True squeezes the whole
            of it into what is left after the warm-up.

    Raises:
        ValueError: another `warmup_method`.
    """

    def __init__(
        self,
        scheduler: ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ) -> None:
        first = scheduler(0.0) * warmup_factor
        warmup: ParamScheduler
        if warmup_method == "linear":
            junction = 0.0 if rescale_interval else warmup_length
            warmup = LinearParamScheduler(first, scheduler(junction))
        elif warmup_method == "constant":
            warmup = ConstantParamScheduler(first)
        else:
            raise ValueError(
                f"Unknown warm-up method {warmup_method!r}: choose 'linear' or 'constant'"
            )
        scaling = "rescaled" if rescale_interval else "fixed"
        super().__init__(
            [warmup, scheduler], [warmup_length, 1 - warmup_length], ["rescaled", scaling]
        )


class LRMultiplier(LRScheduler):
    """Sets every learning rate to its initial value times a common factor.

    Groups keep their ratio to each other for the whole training.

    Args:
        optimizer: its present learning rates become the initial values.
        multiplier: factor as a function of progress, `iteration / max_iter`.
        max_iter: iterations of the whole training.
        last_iter: iteration that was finished last; -1 at the beginning.

    Raises:
        ValueError: `multiplier` is not an fvcore schedule.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        multiplier: ParamScheduler,
        max_iter: int,
        last_iter: int = -1,
    ) -> None:
        if not isinstance(multiplier, ParamScheduler):
            raise ValueError(f"multiplier must be an fvcore ParamScheduler, got {multiplier!r}")
        self._multiplier, self._max_iter = multiplier, max_iter
        super().__init__(optimizer, last_iter)

    def get_lr(self) -> list[Any]:
        """Learning rate per parameter group at the current iteration."""
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [initial * factor for initial in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """The iteration and the initial rates; the curve itself belongs to the config."""
        return {key: self.__dict__[key] for key in ("base_lrs", "last_epoch")}


def _get_warmup_factor_at_iter(
    method: str, iter: int, warmup_iters: int, warmup_factor: float
) -> float:
    """Factor on the learning rate while training warms up, 1 afterwards.

    Args:
        method: "linear" climbs from `warmup_factor` to 1, "constant" stays at it.
        iter: the current iteration, from 0.
        warmup_iters: number of iterations that warm up.
        warmup_factor: the factor at iteration 0.

    Raises:
        ValueError: another method, while the warm-up lasts.
    """
    if iter >= warmup_iters:
        return 1.0
    if method not in ("linear", "constant"):
        raise ValueError(f"Unknown warm-up method {method!r}: choose 'linear' or 'constant'")
    climbed = iter / warmup_iters if method == "linear" else 0.0
    return warmup_factor + (1.0 - warmup_factor) * climbed


class WarmupLR(LRScheduler):
    """Warm-up factor times a decay that subclasses define, both counted in iterations.

    Its attributes are plain values: `state_dict` saves them all, and `torch.load` reads no others.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        warmup_factor: float,
        warmup_iters: int,
        warmup_method: str,
        last_epoch: int,
    ) -> None:
        self.warmup_factor, self.warmup_iters = warmup_factor, warmup_iters
        self.warmup_method = warmup_method
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        """Learning rate per parameter group at the current iteration."""
        warmup = self.warmup_method, self.last_epoch, self.warmup_iters, self.warmup_factor
        factor = _get_warmup_factor_at_iter(*warmup) * self._decay()
        return [initial * factor for initial in self.base_lrs]

    @abstractmethod
    def _decay(self) -> float:
        """Factor at the current iteration, without warm-up."""


class WarmupMultiStepLR(WarmupLR):
    """Times `gamma` at every milestone. Kept for old code: prefer `LRMultiplier`.

    Raises:
        ValueError: milestones do not ascend, or an unknown warm-up method.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        warmup_factor: float = 0.001,
        warmup_iters: int = 1000,
        warmup_method: str = "linear",
        last_epoch: int = -1,
    ) -> None:
        if sorted(milestones) != list(milestones):
            raise ValueError(f"milestones must ascend, got {list(milestones)}")
        self.milestones, self.gamma = [*milestones], gamma
        super().__init__(optimizer, warmup_factor, warmup_iters, warmup_method, last_epoch)

    def _decay(self) -> float:
        return float(self.gamma ** bisect_right(self.milestones, self.last_epoch))


class WarmupCosineLR(WarmupLR):
    """Half a cosine from one to zero at `max_iters`. Kept for old code: prefer `LRMultiplier`."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        max_iters: int,
        warmup_factor: float = 0.001,
        warmup_iters: int = 1000,
        warmup_method: str = "linear",
        last_epoch: int = -1,
    ) -> None:
        self.max_iters = max_iters
        super().__init__(optimizer, warmup_factor, warmup_iters, warmup_method, last_epoch)

    def _decay(self) -> float:
        progress = self.last_epoch / self.max_iters
        return math.cos(progress * math.pi / 2) ** 2  # the same as (1 + cos(pi * progress)) / 2
