"""The best checkpoint, and an end of training when it is not surpassed any more."""

from __future__ import annotations

import json
import logging
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from cellseg.config.runs import BEST_FILE
from cellseg.config.trained import ENTRY
from cellseg.engine.hooks.schedule import AfterEvaluation, TrainingStopped
from cellseg.errors import ConfigError, collect_problems
from cellseg.files import write_whole
from cellseg.json_text import read_json
from cellseg.names import find_near_names
from detectron2.engine import HookBase
from detectron2.utils import comm

HISTORY_FILE = "best.json"
_NO_METRICS = ("lr", "eta_seconds")

logger = logging.getLogger(__name__)


class BestCheckpoint(AfterEvaluation):
    """Writes `model_best.pth` whenever a metric is better than ever before in this run.

    The file holds weights and the config that they were trained with, "model" and "cellseg", with
    "iteration" (the last one that was trained), "metric" and "value". It does not become the
    checkpoint to resume from. `best.json` beside it lists all values. Both outlive an interruption:
    what was evaluated before the iteration that a resumed run starts with counts, also if the
    checkpoint is older than the evaluation. A value that is not finite is never the best.

    Needed in all processes; the main one has the metrics and writes.

    Args:
        period: iterations between evaluations, TEST.EVAL_PERIOD.
        metric: name of the metric in the trainer's storage.
        mode: "max" or "min", which of two values is better.
    """

    def __init__(self, period: int, metric: str, mode: str = "max") -> None:
        super().__init__(period)
        self.metric = metric
        self.mode = mode
        self.best: tuple[int, float] | None = None
        self._values: dict[int, float] = {}

    @property
    def waiting(self) -> int:
        """Evaluations since the best one; all of them where none has a finite value."""
        after = -1 if self.best is None else self.best[0]
        return sum(iteration > after for iteration in self._values)

    def before_train(self) -> None:
        """Take over what an interrupted run has found, the same in all processes."""
        history, best = comm.all_gather((self._read_history(), self._read_best()))[0]
        if history is not None and self.trainer.start_iter > 0:
            self._take_over(history)
        # what the file holds, and not what is said of it: a kill may have come in between
        self.best = best if self.trainer.start_iter > 0 else None
        if self.best:
            logger.info("Best so far: %s", self.describe())

    def describe(self) -> str:
        """The best value in words."""
        if self.best is None:
            return f"no finite {self.metric}"
        return f"{self.metric} {self.best[1]:.5g} at iteration {self.best[0]}"

    def act(self) -> None:
        """Compare the value that has just been stored, and save."""
        problem, value = comm.all_gather(self._latest_value())[0]
        if problem:
            raise ConfigError(problem)
        iteration = self._last_trained()
        self._values[iteration] = value
        is_better = self._is_better(value)
        before = self.describe()
        if is_better:
            self.best = (iteration, value)
        if not comm.is_main_process():
            return
        if is_better:
            self._save_weights()
            logger.info("%s is the best (before: %s): %s", self.describe(), before, BEST_FILE)
        else:
            logger.info(
                "%s %.5g at iteration %d: not better than %s",
                *(self.metric, value, iteration, before),
            )
        self._write_history()

    def state_dict(self) -> dict[str, Any]:
        """All values so far."""
        return {"metric": self.metric, "mode": self.mode, "best": self.best, "values": self._values}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned, unless it is of another metric."""
        if (state_dict["metric"], state_dict["mode"]) == (self.metric, self.mode):
            self.best = tuple(state_dict["best"]) if state_dict["best"] else None
            self._values = dict(state_dict["values"])

    def _last_trained(self) -> int:
        return min(self.trainer.iter, self.trainer.max_iter - 1)

    def _output_folder(self) -> Path:
        return Path(self.trainer.checkpointer.save_dir)

    def _latest_value(self) -> tuple[str, float]:
        """What is wrong, or "", and the value; only the main process has metrics."""
        if not comm.is_main_process():
            return "", math.nan
        storage = self.trainer.storage
        latest = storage.latest()
        if self.metric in latest and latest[self.metric][1] == storage.iter:
            return "", float(latest[self.metric][0])
        metrics = sorted(
            name
            for name, is_noisy in storage.smoothing_hints().items()
            if not is_noisy and latest[name][1] == storage.iter and name not in _NO_METRICS
        )
        near = find_near_names(self.metric, metrics)
        return collect_problems(
            f"CELLSEG.TRAIN.BEST_METRIC is {self.metric!r}, which the evaluation does not compute; "
            "it computes",
            metrics or ["no metric at all"],
            hint=f"Did you mean {' or '.join(near)}?" if near else "",
        ), math.nan

    def _is_better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        return value > self.best[1] if self.mode == "max" else value < self.best[1]

    def _describe_best(self) -> dict[str, Any]:
        return dict(zip(("iteration", "value"), self.best or ()))

    def _save_weights(self) -> None:
        checkpointer = self.trainer.checkpointer
        data = {
            "model": checkpointer.model.state_dict(),
            "metric": self.metric,
            "mode": self.mode,
        }
        if carried := checkpointer.checkpointables.get(ENTRY):
            data[ENTRY] = carried.state_dict()
        data |= self._describe_best()
        with checkpointer.path_manager.open(str(self._output_folder() / BEST_FILE), "wb") as file:
            torch.save(data, file)

    def _write_history(self) -> None:
        evaluations = [
            {"iteration": iteration, "value": value if math.isfinite(value) else None}
            for iteration, value in sorted(self._values.items())
        ]
        history = {
            "metric": self.metric,
            "mode": self.mode,
            "best": {**self._describe_best(), "file": BEST_FILE} if self.best else None,
            "evaluations": evaluations,
        }
        with write_whole(self._output_folder() / HISTORY_FILE) as partial:
            partial.write_text(json.dumps(history, indent=1) + "\n", "utf-8")

    def _read_history(self) -> dict[str, Any] | None:
        """What `best.json` holds of this metric; None where there is none."""
        path = self._output_folder() / HISTORY_FILE
        if not comm.is_main_process() or not path.is_file():
            return None
        try:
            history = read_json(path)
            if (history["metric"], history["mode"]) != (self.metric, self.mode):
                return None
            return dict(history)
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s cannot be read and is not used: %s", path, error)
            return None

    def _read_best(self) -> tuple[int, float] | None:
        """Of which iteration, and how good, the weights of the best checkpoint are."""
        path = self._output_folder() / BEST_FILE
        if not comm.is_main_process() or not path.is_file():
            return None
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    raise ValueError("it is damaged")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            best = int(content["iteration"]), float(content["value"])
            chosen_by = content["metric"], content.get("mode", self.mode)
            return best if chosen_by == (self.metric, self.mode) else None
        except Exception as error:  # whatever unpickling raises
            logger.warning("%s cannot be read and will be written anew: %s", path, error)
            return None

    def _take_over(self, history: Mapping[str, Any]) -> None:
        for entry in history["evaluations"]:
            if entry["iteration"] < self.trainer.start_iter:
                value = entry["value"]
                self._values[entry["iteration"]] = math.nan if value is None else value


class EarlyStopping(HookBase):
    """Ends training when a metric has not become better for some evaluations.

    The checkpoint `model_final.pth` is written, as at a normal end; the metrics are those of the
    last evaluation, which is not repeated. All processes stop at the same iteration, as all know
    the same values.

    Args:
        best: knows the values; stands before this hook.
        patience: how many evaluations in a row may be no better before training stops.
    """

    def __init__(self, best: BestCheckpoint, patience: int) -> None:
        self._best = best
        self._patience = patience
        self.reason = ""

    def before_train(self) -> None:
        """A run that had stopped stops again when it is resumed."""
        self._decide_to_stop(self.trainer.iter - 1)
        if self.reason:
            logger.warning(
                "Nothing left to train: %s. Raise CELLSEG.TRAIN.PATIENCE to go on", self.reason
            )

    def before_step(self) -> None:
        """End the training, if that was decided; all other hooks have finished the last step."""
        if self.reason:
            raise TrainingStopped(self.reason)

    def after_step(self) -> None:
        """Decide, and write the final checkpoint."""
        trainer = self.trainer
        self._decide_to_stop(trainer.iter)
        if not self.reason:
            return
        logger.info(
            "Training ends after iteration %d of %d: %s",
            *(trainer.iter, trainer.max_iter, self.reason),
        )
        if comm.is_main_process():
            trainer.checkpointer.save("model_final", iteration=trainer.iter)

    def _decide_to_stop(self, iteration: int) -> None:
        """Whether to stop after `iteration`; not if at most one is left: it has its own end."""
        waiting = self._best.waiting
        self.reason = ""
        if waiting >= self._patience and iteration + 2 < self.trainer.max_iter:
            self.reason = (
                f"{waiting} evaluations without a better value than {self._best.describe()}"
            )
