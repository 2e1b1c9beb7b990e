"""What a checkpoint keeps beside weights and optimizer, so that a training goes on to the bit."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from cellseg.engine.hooks.schedule import AfterEvaluation, is_due
from cellseg.engine.metrics_file import MetricsFile, fill_storage, read_storage
from cellseg.engine.random_state import read_random_state, write_random_state
from cellseg.engine.stream import TrainingStream
from detectron2.engine import HookBase
from detectron2.utils import comm

logger = logging.getLogger(__name__)


class RunState(HookBase):
    """Random numbers, the place in the stream of images, and what metrics.json is still to have.

    To stand in all processes before the hooks that save and evaluate, with an `EndOfIteration`
    behind all others. A checkpoint is written before the evaluation of its iteration: where a kill
    cut that off, `is_complete` is False in the checkpoint, and the training that goes on makes up
    for it.

    Args:
        seed: SEED of the config; random numbers begin anew where it has changed.
        periods: of the hooks that save, iterations.
        metrics_file: of this training; None in all processes but the main one.

    Attributes:
        is_complete: all hooks have done what belongs to the iteration.
        has_state: a checkpoint with such a state was loaded.
    """

    def __init__(
        self, seed: int, periods: Sequence[int], metrics_file: MetricsFile | None = None
    ) -> None:
        self._seed = seed
        self._periods = tuple(periods)
        self._metrics_file = metrics_file
        self._gathered: tuple[int, list[Any]] = (-1, [])
        self._loaded: Mapping[str, Any] = {}
        self.is_complete = True
        self.has_state = False

    def before_train(self) -> None:
        """Put random numbers and metrics where they were; a training from 0 begins its metrics."""
        start = self.trainer.start_iter
        loaded = self._loaded if start > 0 else {}
        if self._metrics_file is not None:
            self._metrics_file.go_on_after(loaded.get("last_line", start - 1))
        fill_storage(self.trainer.storage, loaded.get("metrics", {}))
        mine = self._find_mine(loaded)
        if mine and loaded["seed"] == self._seed:
            write_random_state(mine["random"], self._device())
        elif mine:
            logger.info("SEED has changed: random numbers begin anew")

    def after_step(self) -> None:
        """Let the main process know what the others have to keep, where one of the next hooks
        saves."""
        self.is_complete = False
        iteration = self.trainer.iter
        is_last = iteration + 1 == self.trainer.max_iter
        if is_last or any(is_due(iteration, period) for period in self._periods):
            self.gather()

    def gather(self) -> None:
        """Bring the states of all processes together; all of them call it."""
        if comm.get_world_size() > 1:
            self._gathered = self.trainer.iter, comm.all_gather(self._read_mine())

    def state_dict(self) -> dict[str, Any]:
        """All that was said, of all processes."""
        iteration, others = self._gathered
        others = others[1:] if iteration == self.trainer.iter else []
        return {
            "seed": self._seed,
            "is_complete": self.is_complete,
            "processes": [self._read_mine(), *others],
            "metrics": read_storage(self.trainer.storage),
            "last_line": self._metrics_file.last_iteration if self._metrics_file else -1,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; data go on from where they were at once."""
        self._loaded = state_dict
        self.has_state = True
        self.is_complete = state_dict["is_complete"]
        mine = self._find_mine(state_dict)
        for name, stream in self._streams().items():
            kept = (mine or state_dict["processes"][0])["streams"].get(name)
            if kept is None:
                continue
            if mine is None:  # another number of processes: about where it was, and nothing waits
                used = kept["next"] * len(state_dict["processes"]) // comm.get_world_size()
                kept = {**kept, "next": used, "waiting": []}
            seed = kept["seed"] if state_dict["seed"] == self._seed else stream.seed
            stream.load_state_dict({**kept, "seed": seed})

    def _find_mine(self, state: Mapping[str, Any]) -> Any:
        """The part of this process; None of a run of another number of processes."""
        parts = state.get("processes", ())
        return parts[comm.get_rank()] if len(parts) == comm.get_world_size() else None

    def _read_mine(self) -> dict[str, Any]:
        streams = {name: stream.state_dict() for name, stream in self._streams().items()}
        return {"random": read_random_state(self._device()), "streams": streams}

    def _streams(self) -> dict[str, TrainingStream]:
        return {
            name: loader
            for name, loader in self.trainer.image_loaders().items()
            if isinstance(loader, TrainingStream)
        }

    def _device(self) -> Any:
        return next(self.trainer.model.parameters()).device


class EvaluationLines(AfterEvaluation):
    """Writes what an evaluation found at once; Detectron2's period of 20 iterations may skip it.

    Args:
        period: iterations between evaluations, TEST.EVAL_PERIOD.
        metrics_file: of the training.
    """

    def __init__(self, period: int, metrics_file: MetricsFile) -> None:
        super().__init__(period)
        self._metrics_file = metrics_file

    def act(self) -> None:
        self._metrics_file.write()


class EndOfIteration(HookBase):
    """Notes that all hooks before it have done what belongs to the iteration.

    Args:
        state: is told.
    """

    def __init__(self, state: RunState) -> None:
        self._state = state

    def after_step(self) -> None:
        self._state.is_complete = True
