"""Runs a model over a dataset and lets evaluators look at what it predicts."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, MutableSequence, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.logger import log_every_n_seconds
from torch import nn

_logger = logging.getLogger(__name__)
_PHASES = ("Dataloading", "Inference", "Eval")


class DatasetEvaluator:
    """Collects predictions of one round over a dataset and turns them into figures."""

    def reset(self) -> None:
        """Forget everything; called before each round."""

    def process(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Take one batch: what went into the model, and what came out, one per image."""

    def evaluate(self) -> Any:
        """Figures of the round, `{task: {figure: value}}`; None in all but the main process."""


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators as one.

    Args:
        evaluators: their results are joined; no two may report the same task.
    """

    def __init__(self, evaluators: Sequence[DatasetEvaluator]) -> None:
        super().__init__()
        self._evaluators = evaluators

    def reset(self) -> None:
        """Reset each."""
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Give the batch to each."""
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> OrderedDict[str, Any]:
        """The tasks of all, in order; empty in all but the main process.

        Raises:
            ValueError: two report the same task.
        """
        joined: OrderedDict[str, Any] = OrderedDict()
        for evaluator in self._evaluators:
            results = evaluator.evaluate()  # in all processes: it may communicate
            if results is None or not comm.is_main_process():
                continue
            if twice := joined.keys() & results.keys():
                raise ValueError(f"Several evaluators report {sorted(twice)}")
            joined.update(results)
        return joined


class _Stopwatch:
    """Seconds per phase of an iteration; the first iterations, which are slower, do not count."""

    def __init__(self, warmup: int) -> None:
        self._warmup = warmup
        self._restart()
        self.finished = 0

    def _restart(self) -> None:
        self.start = self._lap = time.perf_counter()
        self.seconds = dict.fromkeys(_PHASES, 0.0)

    def lap(self, phase: str) -> None:
        """Count the time since the last call for `phase`."""
        now = time.perf_counter()
        self.seconds[phase] += now - self._lap
        self._lap = now

    def end_iteration(self) -> None:
        """An iteration is complete."""
        self.finished += 1
        if self.finished == self._warmup:
            self._restart()

    @property
    def timed(self) -> int:
        """Iterations that count; never 0."""
        return max(
            self.finished - self._warmup if self.finished > self._warmup else self.finished, 1
        )

    def per_iteration(self, phase: str) -> float:
        """Mean seconds of `phase`."""
        return self.seconds[phase] / self.timed

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning or the end of the warm-up."""
        return time.perf_counter() - self.start

    def log_progress(self, total: int) -> None:
        """Once there is something to say, say at most every five seconds how far we are."""
        if self.finished <= 2 * self._warmup and self.per_iteration("Inference") <= 5:
            return
        seconds = self.elapsed / self.timed
        parts = [f"{phase}: {self.per_iteration(phase):.4f} s/iter." for phase in _PHASES]
        left = timedelta(seconds=int(seconds * (total - self.finished)))
        log_every_n_seconds(
            logging.INFO,
            f"Inference done {self.finished}/{total}. {' '.join(parts)} "
            f"Total: {seconds:.4f} s/iter. ETA={left}",
            n=5,
            name=__name__,
        )

    def log_summary(self) -> None:
        """Total time, and that of the model alone."""
        for what, seconds in (
            ("time", self.elapsed),
            ("pure compute time", self.seconds["Inference"]),
        ):
            _logger.info(
                "Total inference %s: %s (%.6f s / iter per device, on %d devices)",
                what,
                timedelta(seconds=int(seconds)),
                seconds / self.timed,
                comm.get_world_size(),
            )


def inference_on_dataset(
    model: Callable[[Any], Any],
    data_loader: Any,
    evaluator: DatasetEvaluator | MutableSequence[DatasetEvaluator] | None,
    callbacks: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, Any]:
    """Run a model over a dataset, without gradients, and evaluate.

    Args:
        model: called with each batch; a module is in evaluation mode meanwhile.
        data_loader: batches; has a length.
        evaluator: one, several, or None to measure the time only.
        callbacks: functions to call "on_start", "before_inference", "after_inference" and
            "on_end".

    Returns:
        What the evaluator returns; an empty dict in place of None.
    """
    if not isinstance(evaluator, DatasetEvaluator):
        evaluator = DatasetEvaluators(evaluator or [])
    total = len(data_loader)
    _logger.info("Start inference on %d batches", total)
    evaluator.reset()

    def notify(moment: str) -> None:
        if callbacks and moment in callbacks:
            callbacks[moment]()

    watch = _Stopwatch(warmup=max(min(5, total - 1), 0))
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if isinstance(model, nn.Module):
            stack.enter_context(inference_context(model))
        notify("on_start")
        for inputs in data_loader:
            watch.lap("Dataloading")
            notify("before_inference")
            outputs = model(inputs)
            notify("after_inference")
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            watch.lap("Inference")
            evaluator.process(inputs, outputs)
            watch.lap("Eval")
            watch.end_iteration()
            watch.log_progress(total)
        notify("on_end")
    watch.log_summary()
    results = evaluator.evaluate()
    return {} if results is None else results


@contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """Keep a module in evaluation mode, then put it back into the mode it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
