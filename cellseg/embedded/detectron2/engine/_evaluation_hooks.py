"""Hooks that judge the model, or prepare it to be judged."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from detectron2.engine._trainer_base import HookBase, is_due
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from fvcore.common.checkpoint import Checkpointer
from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats
from torch import nn

_logger = logging.getLogger(__name__)


def _has_succeeded(trainer: Any) -> bool:
    """Whether a training that is over came to its last iteration."""
    return trainer.iter + 1 >= trainer.max_iter


class EvalHook(HookBase):
    """Evaluates every `eval_period` iterations and after training, and stores the figures.

    All processes must have it, or none.

    Args:
        eval_period: 0 for only one evaluation at the end.
        eval_function: takes nothing; returns figures in a dict, nested as deep as it likes, or
            nothing.
        eval_after_train: also evaluate at the end of a training that did not fail.

    Raises:
        ValueError: `eval_function` returned something that is not a figure.
    """

    def __init__(
        self, eval_period: int, eval_function: Callable[[], Any], eval_after_train: bool = True
    ) -> None:
        self._period = eval_period
        self._func = eval_function
        self._eval_after_train = eval_after_train

    def after_step(self) -> None:
        """Evaluate if it is time; the last iteration is left to `after_train`."""
        is_last = self.trainer.iter + 1 == self.trainer.max_iter
        if not is_last and is_due(self.trainer.iter, self._period):
            self._do_eval()

    def after_train(self) -> None:
        """Evaluate, and let go of the function, which may keep the trainer alive."""
        if _has_succeeded(self.trainer) and self._eval_after_train:
            self._do_eval()
        del self._func

    def _do_eval(self) -> None:
        if results := self._func():
            self.trainer.storage.put_scalars(**_checked_figures(results), smoothing_hint=False)
        comm.synchronize()  # the processes may have needed different times


def _checked_figures(results: Any) -> dict[str, float]:
    """ "a/b" -> figure from nested dicts."""
    if not isinstance(results, dict):
        raise ValueError(f"An evaluation returns a dict of figures, got {results!r}")
    figures = flatten_results_dict(results)
    for name, value in figures.items():
        try:
            float(value)
        except (TypeError, ValueError):
            raise ValueError(f"An evaluation returns figures, got {name} = {value!r}") from None
    return figures


class PreciseBN(HookBase):
    """Replaces the moving averages of batch norm by averages over a number of batches.

    Runs every `period` iterations and after the last one; does nothing for a model without
    batch norm in training mode.

    Args:
        period: 0 for only once, after the last iteration.
        model: called with each batch.
        data_loader: yields batches.
        num_iter: how many of them to average over.
    """

    def __init__(
        self, period: int, model: nn.Module, data_loader: Iterable[Any], num_iter: int
    ) -> None:
        self._period = period
        self._model = model
        self._data_loader = data_loader
        self._batches: Iterator[Any] | None = None
        self._num_iter = num_iter
        self._enabled = bool(get_bn_modules(model))
        if not self._enabled:
            _logger.info("No batch norm in training mode: its averages are left alone")

    def after_step(self) -> None:
        """Update the statistics if it is time."""
        is_last = self.trainer.iter + 1 == self.trainer.max_iter
        if is_last or is_due(self.trainer.iter, self._period):
            self.update_stats()

    def update_stats(self) -> None:
        """Compute the averages now."""
        if not self._enabled:
            return
        if self._batches is None:  # later runs continue with later batches
            self._batches = iter(self._data_loader)
        _logger.info("Averaging batch norm statistics over %d batches", self._num_iter)
        with EventStorage():  # figures of these passes are nobody's business
            update_bn_stats(self._model, self._batches, self._num_iter)


class BestCheckpointer(HookBase):
    """Saves a checkpoint whenever a figure is better than ever before.

    Put it behind the `EvalHook` that stores the figure, with the same period.

    Args:
        eval_period: iterations between evaluations; 0 for only one at the end.
        checkpointer: saves the checkpoint.
        val_metric: name of the stored figure, for instance "segm/AP".
        mode: "max" or "min", whichever is better. Figures that are not finite never are.
        file_prefix: name of the checkpoint without ending.

    Raises:
        ValueError: another mode.
    """

    def __init__(
        self,
        eval_period: int,
        checkpointer: Checkpointer,
        val_metric: str,
        mode: str = "max",
        file_prefix: str = "model_best",
    ) -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be 'max' or 'min', got {mode!r}")
        self._sign = 1 if mode == "max" else -1
        self._period = eval_period
        self._checkpointer = checkpointer
        self._val_metric = val_metric
        self._file_prefix = file_prefix
        self.best_metric: float | None = None
        self.best_iter: int | None = None

    def after_step(self) -> None:
        """Compare, where an evaluation has just been."""
        is_last = self.trainer.iter + 1 == self.trainer.max_iter
        if not is_last and is_due(self.trainer.iter, self._period):
            self._compare()

    def after_train(self) -> None:
        """Compare with the final evaluation; not after a failed training."""
        if _has_succeeded(self.trainer):
            self._compare()

    def _compare(self) -> None:
        latest = self.trainer.storage.latest().get(self._val_metric)
        if latest is None:
            _logger.warning(
                "No figure %s is stored: no best checkpoint is kept for it", self._val_metric
            )
            return
        value, iteration = latest
        before = (
            "none before" if self.best_metric is None else f"best so far {self.best_metric:.5f}"
        )
        if not self._is_better(value):
            _logger.info("%s is %.5f, %s: not saved", self._val_metric, value, before)
            return
        self._checkpointer.save(self._file_prefix, iteration=iteration)
        self.best_metric, self.best_iter = value, iteration
        _logger.info("%s is %.5f, %s: saved", self._val_metric, value, before)

    def _is_better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        return self.best_metric is None or (value - self.best_metric) * self._sign > 0
