"""How a training ends before its time, and how a resumed one makes up for what is missing."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from cellseg.engine.hooks.average import WeightAverage
from cellseg.engine.hooks.schedule import AfterEvaluation, TrainingStopped
from cellseg.engine.hooks.state import RunState
from cellseg.errors import CellsegError
from cellseg.interrupts import Interrupted, requested
from cellseg.system_errors import explain_system_error
from detectron2.engine import HookBase, TrainerBase
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer
from detectron2.utils import comm

Hook = TypeVar("Hook", bound=HookBase)

_EVALUATING = (EvalHook, AfterEvaluation)

logger = logging.getLogger(__name__)


class StopOnRequest(HookBase):
    """Ends the training behind the present iteration, with a checkpoint, when a signal has come.

    To stand behind all other hooks, in all processes: they end together.

    Args:
        state: brings together what all processes have to keep.
    """

    def __init__(self, state: RunState) -> None:
        self._state = state

    def after_step(self) -> None:
        asked = _agreed_request()
        if asked is not None:
            self._state.gather()
            raise _save_and_tell(self.trainer, asked)


def _agreed_request() -> Interrupted | None:
    """What any process was asked for; all of them call it."""
    asked = requested()
    found = comm.all_gather(asked.signum if asked else 0)
    return Interrupted(max(found)) if max(found) else None


def _save_and_tell(trainer: Any, asked: Interrupted) -> Interrupted:
    """Save a checkpoint of the present iteration; the error that says so."""
    iteration = trainer.iter
    name = "model_final" if iteration + 1 == trainer.max_iter else f"model_{iteration:07d}"
    if comm.is_main_process():
        trainer.checkpointer.save(name, iteration=iteration)
    path = Path(trainer.checkpointer.save_dir) / f"{name}.pth"
    return Interrupted(asked.signum, f"{path} has iteration {iteration}; go on with --resume")


@contextmanager
def stoppable_evaluation(trainer: Any, *, saves: bool = True) -> Iterator[None]:
    """Inside, an evaluation ends before its next image when a signal has come.

    One process alone can do so; several finish their evaluation.

    Args:
        trainer: a `CellTrainer`.
        saves: a checkpoint of the present iteration is still to be written then.

    Raises:
        Interrupted: a signal has come.
    """
    if comm.get_world_size() > 1:
        yield
        return
    state = find_hook(trainer, RunState) if saves else None

    def is_to_end() -> Interrupted | None:
        evaluates = state is None or not state.is_complete  # before that, batch norm may be refined
        return requested() if evaluates else None

    def stop_if_requested(*_: Any) -> None:
        if asked := is_to_end():
            raise _CutOff(asked.signum)

    watch = trainer.checkpointer.model.register_forward_pre_hook(stop_if_requested)
    try:
        yield
    except (Exception, _CutOff):  # or the signal has ended a process that loads images
        asked = is_to_end()
        if asked is None:
            raise
        if saves:
            raise _save_and_tell(trainer, asked) from None
        told = f"{trainer.checkpointer.save_dir} has all iterations but not this evaluation"
        raise Interrupted(asked.signum, f"{told}; --resume makes up for it") from None
    finally:
        watch.remove()


class _CutOff(Interrupted):
    """Ends an evaluation."""


def finish_iteration(trainer: Any, state: RunState) -> None:
    """What follows on the checkpoint of an iteration: evaluation, best checkpoint, metrics.

    Args:
        trainer: goes on from a checkpoint that was written before all that.
        state: its hook, behind which those stand that have not acted.
    """
    iteration = trainer.start_iter - 1
    logger.info("Iteration %d: what was cut off behind its checkpoint is made up", iteration)
    trainer.iter = trainer.storage.iter = iteration
    hooks = list(trainer._hooks)
    average = find_hook(trainer, WeightAverage)
    if average is not None:  # it stands before `state`, and has counted this iteration
        average.apply()
    with stoppable_evaluation(trainer, saves=False):
        for hook in hooks[hooks.index(state) + 1 :]:
            if not isinstance(hook, PeriodicCheckpointer):
                hook.after_step()
    trainer.iter = trainer.storage.iter = trainer.start_iter


def find_hook(trainer: Any, kind: type[Hook]) -> Hook | None:
    """The first hook of a class; None where there is none."""
    return next((hook for hook in trainer._hooks if isinstance(hook, kind)), None)


def end_training(trainer: Any, outer: BaseException | None) -> None:
    """`after_train` of all hooks, of which no one keeps the others from theirs.

    After an error, or when a signal has come, nothing is evaluated.

    Args:
        trainer: its loop has ended, perhaps by what is now on its way.
        outer: what was on its way already when the training began.
    """
    if trainer.iter > trainer.max_iter:  # Detectron2's loop without an iteration counts one
        trainer.iter = max(trainer.start_iter, trainer.max_iter)
    trainer.storage.iter = trainer.iter
    error = sys.exc_info()[1]
    is_normal = error is outer or isinstance(error, TrainingStopped)
    _end_hooks(list(trainer._hooks), None if is_normal else error)


def _end_hooks(hooks: Sequence[HookBase], error: BaseException | None) -> None:
    for number, hook in enumerate(hooks):
        if error is not None and isinstance(hook, _EVALUATING):
            continue
        try:
            hook.after_train()
        except (Exception, Interrupted) as another:
            if error is None:
                _end_hooks(hooks[number + 1 :], another)  # which may look at what is on its way
                raise
            reason = getattr(another, "strerror", None) or another
            logger.warning("%s: could not do its part then (%s)", type(hook).__name__, reason)


@contextmanager
def failures_in_words() -> Iterator[None]:
    """Inside, the loop of Detectron2 logs no traceback of what a user can mend.

    The error itself says it, where it is caught.
    """
    log = logging.getLogger(TrainerBase.__module__)

    def has_news(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        told = isinstance(error, CellsegError) or (error and explain_system_error(error))
        return not (told or (error and requested()))  # or another process has ended first

    log.addFilter(has_news)
    try:
        yield
    finally:
        log.removeFilter(has_news)
