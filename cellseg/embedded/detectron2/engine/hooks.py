"""Hooks that most trainings use."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
from detectron2._missing import left_out_names
from detectron2.engine._evaluation_hooks import BestCheckpointer, EvalHook, PreciseBN
from detectron2.engine._profiling_hooks import TorchMemoryStats, TorchProfiler
from detectron2.engine._trainer_base import HookBase, is_due
from detectron2.solver import LRMultiplier
from detectron2.solver import LRScheduler as _TorchScheduler
from detectron2.utils.events import EventWriter
from fvcore.common.checkpoint import PeriodicCheckpointer as _PeriodicCheckpointer
from fvcore.common.param_scheduler import ParamScheduler
from fvcore.common.timer import Timer

__all__ = [
    "BestCheckpointer",
    "CallbackHook",
    "EvalHook",
    "IterationTimer",
    "LRScheduler",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "PreciseBN",
    "TorchMemoryStats",
    "TorchProfiler",
]

_logger = logging.getLogger(__name__)
_Callback = Callable[[Any], object]


__getattr__ = left_out_names(__name__, "AutogradProfiler")


def _hours(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))


class CallbackHook(HookBase):
    """Calls functions, each with the trainer as its only argument."""

    def __init__(
        self,
        *,
        before_train: _Callback | None = None,
        after_train: _Callback | None = None,
        before_step: _Callback | None = None,
        after_step: _Callback | None = None,
    ) -> None:
        self._callbacks = {
            "before_train": before_train,
            "after_train": after_train,
            "before_step": before_step,
            "after_step": after_step,
        }

    def _call(self, moment: str) -> None:
        callback = self._callbacks[moment]
        if callback is not None:
            callback(self.trainer)

    def before_train(self) -> None:
        """Call the function given for it."""
        self._call("before_train")

    def after_train(self) -> None:
        """Call the function given for it, then forget all: they may keep the trainer alive."""
        self._call("after_train")
        self._callbacks = dict.fromkeys(self._callbacks)

    def before_step(self) -> None:
        """Call the function given for it."""
        self._call("before_step")

    def after_step(self) -> None:
        """Call the function given for it."""
        self._call("after_step")


class IterationTimer(HookBase):
    """Stores the seconds of each iteration as "time" and logs a summary at the end.

    What lies between its `before_step` and its `after_step` counts: put it first.

    Args:
        warmup_iter: that many iterations at the beginning do not count; they are slower.
    """

    def __init__(self, warmup_iter: int = 3) -> None:
        self._warmup_iter = warmup_iter
        self._step = Timer()
        self._steps = Timer()
        self._start = time.perf_counter()

    def _restart(self) -> None:
        self._start = time.perf_counter()
        self._steps.reset()

    def _timed_iterations(self) -> int:
        """Iterations of this run after the warm-up, the present one included."""
        trainer = self.trainer
        return trainer.storage.iter - trainer.start_iter + 1 - self._warmup_iter

    def before_train(self) -> None:
        """Start the clocks."""
        self._restart()
        self._steps.pause()

    def before_step(self) -> None:
        """The iteration begins."""
        self._step.reset()
        self._steps.resume()

    def after_step(self) -> None:
        """The iteration is over."""
        if self._timed_iterations() >= 0:
            self.trainer.storage.put_scalars(time=self._step.seconds())
        else:
            self._restart()
        self._steps.pause()

    def after_train(self) -> None:
        """Log seconds per iteration, the whole time and the hooks' part in it."""
        total, in_steps = time.perf_counter() - self._start, self._steps.seconds()
        timed = self._timed_iterations()
        if timed > 0 < in_steps:
            _logger.info(
                "Overall training speed: %d iterations in %s (%.4f s / it)",
                timed,
                _hours(in_steps),
                in_steps / timed,
            )
        _logger.info(
            "Total training time: %s (%s on hooks)", _hours(total), _hours(total - in_steps)
        )


class PeriodicWriter(HookBase):
    """Lets writers write every `period` iterations, after the last one, and at the very end.

    Raises:
        TypeError: one is not an `EventWriter`.
    """

    def __init__(self, writers: Sequence[EventWriter], period: int = 20) -> None:
        if strange := [writer for writer in writers if not isinstance(writer, EventWriter)]:
            raise TypeError(f"writers must be EventWriter objects, got {strange}")
        self._writers = writers
        self._period = period

    def after_step(self) -> None:
        """Write if it is time."""
        is_last = self.trainer.iter + 1 == self.trainer.max_iter
        if is_last or is_due(self.trainer.iter, self._period):
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        """Write what other hooks stored at the end, and close the writers."""
        for writer in self._writers:
            writer.write()
            writer.close()


class PeriodicCheckpointer(_PeriodicCheckpointer, HookBase):
    """fvcore's class of the same name as a hook: saves every `period` iterations and at the end."""

    def before_train(self) -> None:
        """Learn when training ends."""
        self.max_iter = self.trainer.max_iter

    def after_step(self) -> None:
        """Save if it is time."""
        self.step(self.trainer.iter)


class LRScheduler(HookBase):
    """Stores the learning rate as "lr", then steps the scheduler, after every iteration.

    Args:
        optimizer: the trainer's by default.
        scheduler: PyTorch's, or an fvcore schedule that multiplies the optimizer's learning
            rates; the trainer's by default.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: _TorchScheduler | ParamScheduler | None = None,
    ) -> None:
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._group = 0

    @property
    def scheduler(self) -> Any:
        """The scheduler given, or the trainer's."""
        return self._scheduler or self.trainer.scheduler

    def before_train(self) -> None:
        """Find optimizer and scheduler."""
        trainer = self.trainer
        optimizer = self._optimizer = self._optimizer or trainer.optimizer
        curve = self.scheduler
        if isinstance(curve, ParamScheduler):
            self._scheduler = LRMultiplier(
                optimizer, curve, max_iter=trainer.max_iter, last_iter=trainer.iter - 1
            )
        self._group = self.get_best_param_group_id(optimizer)

    @staticmethod
    def get_best_param_group_id(optimizer: torch.optim.Optimizer) -> int:
        """Index of the parameter group whose learning rate stands for all.

        It is the largest; where all hold one parameter, one with the most frequent rate.
        """
        groups = optimizer.param_groups
        sizes = [len(group["params"]) for group in groups]
        if max(sizes) > 1:
            return sizes.index(max(sizes))
        rates = [group["lr"] for group in groups]
        return rates.index(Counter(rates).most_common(1)[0][0])

    def after_step(self) -> None:
        """Store the learning rate that was used and set the next one."""
        rate = self._optimizer.param_groups[self._group]["lr"]  # type: ignore[union-attr]
        self.trainer.storage.put_scalar("lr", rate, smoothing_hint=False)
        self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of PyTorch's scheduler; fvcore's have none."""
        scheduler = self.scheduler
        return scheduler.state_dict() if isinstance(scheduler, _TorchScheduler) else {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        if isinstance(self.scheduler, _TorchScheduler):
            self.scheduler.load_state_dict(dict(state_dict))
