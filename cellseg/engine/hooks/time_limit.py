"""A training that ends by the clock, with a learning rate that has come to its end by then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cellseg.engine.hooks.schedule import TrainingStopped
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.engine.hooks import LRScheduler, PeriodicCheckpointer
from detectron2.utils import comm

KEY = "CELLSEG.SOLVER.MAX_MINUTES"
WARMUP_SHARE = 0.1
"""Of the time; a warm-up that is not over by then is cut short."""
END = 1 - 1e-5
"""Of the learning rate's curve; fvcore's steps have no value for what is nearer to 1."""
_REPORTS = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RatePosition:
    """Where on its curve the learning rate is, of a training that iterations and time bound.

    Attributes:
        max_iter: iterations that the curve was made for, SOLVER.MAX_ITER.
        warmup_iters: how many of them warm up, SOLVER.WARMUP_ITERS.
    """

    max_iter: int
    warmup_iters: int

    def find(self, iteration: int, share: float) -> float:
        """Position in [0, 1), which grows with both arguments.

        The warm-up counts iterations, as an optimizer needs so many to know its gradients, however
        long they take; but a short training is not to consist of it. The curve behind it follows
        the time or the iterations, whichever runs out first.

        Args:
            iteration: iterations that are done.
            share: of the time that is used, 0 or more.

        Example:
            >>> position = RatePosition(max_iter=1000, warmup_iters=50)
            >>> position.find(25, share=0.01), position.find(50, 0.02), position.find(200, 0.6)
            (0.025, 0.05, 0.6)
        """
        warmup = min(self.warmup_iters / self.max_iter, END)
        if iteration < self.warmup_iters and share < WARMUP_SHARE:
            return warmup * max(iteration / self.warmup_iters, share / WARMUP_SHARE)
        return min(max(warmup, iteration / self.max_iter, share), END)


class TimeLimit(HookBase):
    """Ends a training after a number of minutes, as if it had been planned for its iterations.

    The iteration in which the time ends becomes the last one: all hooks then do what belongs to an
    end, so that `model_final.pth` is written and the model is evaluated. SOLVER.MAX_ITER stays an
    upper bound. The learning rate follows `RatePosition`.

    Time is that of the training loop, in all runs of a training that is resumed: steps, loading
    of data, checkpoints and evaluations in between, but neither the start of the program nor the
    last checkpoint and evaluation. What a run that was killed did after its last checkpoint is
    repeated and not counted. All processes follow the clock of the main one.

    To stand behind the hooks that set the learning rate and before all that ask for the end.

    Args:
        minutes: after which training ends, more than 0.
        position: of the learning rate.
        schedulers: the hooks that set the learning rate. Their schedules must compute it from
            `last_epoch` alone, as Detectron2's do.
        checkpointers: the hooks that keep a number of iterations of their own.
        clock: seconds, from any beginning; never goes back.
    """

    def __init__(
        self,
        minutes: float,
        position: RatePosition,
        *,
        schedulers: Sequence[LRScheduler] = (),
        checkpointers: Sequence[PeriodicCheckpointer] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._minutes = minutes
        self._position = position
        self._schedulers = tuple(schedulers)
        self._checkpointers = tuple(checkpointers)
        self._clock = clock
        self._used_s = 0.0
        self._started_s = 0.0  # the clock when nothing had been used

    @property
    def share(self) -> float:
        """Of the time that is used, after the last iteration; may exceed 1 a little."""
        return self._used_s / (60 * self._minutes)

    def expected_iterations(self) -> int:
        """How many iterations there will be in all, if they go on as fast as until now."""
        done, most = self.trainer.iter + 1, self.trainer.max_iter
        return min(most, max(done, round(done / self.share))) if self.share > 0 else int(most)

    def before_train(self) -> None:
        """Start the clock; nothing is left to do for a run that had used its time."""
        self._started_s = self._clock() - self._used_s
        trainer = self.trainer
        if self.share >= 1 and trainer.iter < trainer.max_iter:
            logger.warning("Nothing left to train: %s. Raise %s to go on", self._describe(), KEY)
            trainer.max_iter = trainer.iter

    def before_step(self) -> None:
        """Leave the loop; `trainer.iter` is then what it is behind a loop that has ended."""
        if self.trainer.iter >= self.trainer.max_iter:
            raise TrainingStopped(self._describe())

    def after_step(self) -> None:
        """Set the rate of the next iteration, or say that there is none."""
        trainer = self.trainer
        reported = int(self.share * _REPORTS)
        self._used_s = comm.all_gather(max(self._used_s, self._clock() - self._started_s))[0]
        for hook in self._schedulers:
            self._set_rate(hook.scheduler, trainer.iter + 1)
        if self.share >= 1 and trainer.iter + 1 < trainer.max_iter:
            logger.info(
                "Training ends after iteration %d of %d: %s",
                *(trainer.iter, trainer.max_iter, self._describe()),
            )
            trainer.max_iter = trainer.iter + 1
            for checkpointer in self._checkpointers:
                checkpointer.max_iter = trainer.max_iter
        elif int(self.share * _REPORTS) > reported:
            logger.info(
                "Iteration %d of about %d: %s",
                *(trainer.iter, self.expected_iterations(), self._describe()),
            )

    def state_dict(self) -> dict[str, Any]:
        """The seconds that are used."""
        return {"seconds": self._used_s}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._used_s = float(state_dict["seconds"])

    def _set_rate(self, scheduler: Any, iteration: int) -> None:
        """Step to where the curve is to be; what is counted and saved stays the iteration."""
        where = self._position.find(iteration, self.share)
        scheduler.last_epoch = where * self._position.max_iter - 1
        scheduler.step()
        scheduler.last_epoch = iteration

    def _describe(self) -> str:
        return f"{self._used_s / 60:.3g} of {self._minutes:g} minutes ({KEY}) are used"


def build_time_limit(cfg: CfgNode, hooks: Sequence[HookBase]) -> TimeLimit | None:
    """The hook of CELLSEG.SOLVER.MAX_MINUTES; None where it is 0.

    Args:
        hooks: the engine's.
    """
    minutes = cfg.CELLSEG.SOLVER.MAX_MINUTES
    if not minutes:
        return None
    return TimeLimit(
        minutes,
        RatePosition(cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS),
        schedulers=[hook for hook in hooks if isinstance(hook, LRScheduler)],
        checkpointers=[hook for hook in hooks if isinstance(hook, PeriodicCheckpointer)],
    )
