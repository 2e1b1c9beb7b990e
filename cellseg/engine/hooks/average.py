"""Exponential moving average of the weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from cellseg.engine.hooks.schedule import is_due
from detectron2.engine import HookBase
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

logger = logging.getLogger(__name__)


class WeightAverage(HookBase):
    """Keeps an average of the trained weights, and puts it into the model when it is wanted.

    After each iteration: average = d * average + (1 - d) * weights, where d grows with the number
    n of averaged iterations: min(decay, (1 + n) / (10 + n)). Buffers are not averaged, frozen
    parameters are not kept.

    To stand before the hooks that save and evaluate, with a `RestoreWeights` behind them: in
    between the model holds the average, and after training too. Training itself goes on with the
    weights as they are, as if there were no average.

    A checkpoint so holds the average under "model"; the weights to resume from are in the state of
    this hook.

    Args:
        decay: share of the average that an iteration keeps, in (0, 1).
        periods: of the hooks that save and evaluate, iterations.
    """

    def __init__(self, decay: float, periods: Sequence[int]) -> None:
        self._decay = decay
        self._periods = tuple(periods)
        self._updates = 0
        self._holds_average = False
        # What the model does not hold, by parameter: the average, or the weights.
        self._outside: dict[str, Tensor] = {}

    def before_train(self) -> None:
        """Begin with the weights that training begins with, unless the average was loaded."""
        self.remove()
        self._add_missing()

    @torch.no_grad()
    def after_step(self) -> None:
        """Update the average; put it into the model where one of the next hooks wants it."""
        self._add_missing()
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        weights = dict(self._averaged_parameters())
        names = [name for name in self._outside if name in weights]
        if names:
            get_ema_multi_avg_fn(decay)(
                [self._outside[name] for name in names], [weights[name] for name in names], 0
            )
        self._updates += 1
        iteration = self.trainer.iter
        is_last = iteration + 1 == self.trainer.max_iter
        if is_last or any(is_due(iteration, period) for period in self._periods):
            self.apply()

    def after_train(self) -> None:
        """Leave the average in the model, for the last evaluation and whoever uses it then."""
        self.apply()

    def apply(self) -> None:
        """Put the average into the model."""
        if not self._holds_average:
            self._swap_weights()

    def remove(self) -> None:
        """Put the weights back."""
        if self._holds_average:
            self._swap_weights()

    def state_dict(self) -> dict[str, Any]:
        """The number of updates, and what the model does not hold."""
        return {
            "updates": self._updates,
            "model_holds_average": self._holds_average,
            "outside_of_model": dict(self._outside),
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore weights and average; the model has been loaded from the same checkpoint."""
        self._updates = state_dict["updates"]
        self._holds_average = state_dict["model_holds_average"]
        saved = state_dict["outside_of_model"]
        self._outside = {
            name: saved[name].to(parameter, copy=True)
            for name, parameter in self._averaged_parameters()
            if name in saved and saved[name].shape == parameter.shape
        }
        self.remove()
        logger.info("Average of the weights: over %d iterations so far", self._updates)

    def _averaged_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.trainer.checkpointer.model.named_parameters()

    @torch.no_grad()
    def _add_missing(self) -> None:
        """Begin with those parameters that were frozen until now."""
        for name, parameter in self._averaged_parameters():
            if parameter.requires_grad and name not in self._outside:
                self._outside[name] = parameter.detach().clone()

    @torch.no_grad()
    def _swap_weights(self) -> None:
        for name, parameter in self._averaged_parameters():
            if name in self._outside:
                inside = parameter.detach().clone()
                parameter.copy_(self._outside[name])
                self._outside[name] = inside
        self._holds_average = not self._holds_average


class RestoreWeights(HookBase):
    """Puts the weights back after the hooks that wanted their average.

    Args:
        average: the hook that stands before them.
    """

    def __init__(self, average: WeightAverage) -> None:
        self._average = average

    def after_step(self) -> None:
        self._average.remove()
