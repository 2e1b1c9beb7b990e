"""Which learning rate to begin with: the range test of Smith 2017 (arXiv 1506.01186)."""

from __future__ import annotations

import copy
import csv
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.drawing import PNG_METADATA
from cellseg.engine.freezing import build_freezing
from cellseg.engine.steps import CellStep, build_step
from cellseg.engine.trainer import CellTrainer
from cellseg.errors import CellsegError, TrainingError
from cellseg.files import write_whole
from cellseg.modeling.weights import start_from
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.utils.events import EventStorage
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

DIVERGED = 4.0
HIGHEST = 1e6
"""No training has a higher learning rate, and floats of 32 bits hold what comes of it."""
_MEMORY = 0.9  # of the running mean that says when to end
_SMOOTHING = 1 / 25  # of the range, standard deviation
_FEWEST = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LearningRateSweep:
    """Losses of a short training whose learning rate grows exponentially.

    Attributes:
        rates, losses: one per iteration, losses finite.
        diverges_at: the rate at which the loss had grown to four times its least, or was not
            finite any more; None if that did not happen.
    """

    rates: NDArray[np.float64]
    losses: NDArray[np.float64]
    diverges_at: float | None

    @cached_property
    def smoothed(self) -> NDArray[np.float64]:
        """The losses under a Gaussian window, which does not shift them."""
        return gaussian_filter1d(self.losses, max(len(self.losses) * _SMOOTHING, 1e-3))

    @cached_property
    def steepest(self) -> float | None:
        """Where the smoothed loss falls fastest over the logarithm of the rate.

        None if it never falls, or after fewer than five iterations.
        """
        if len(self.losses) < _FEWEST:
            return None
        slopes = np.gradient(self.smoothed, np.log(self.rates))
        until = int(np.argmin(self.smoothed)) + 1  # beyond, it may fall back from a peak
        where = int(np.argmin(slopes[:until]))
        return float(self.rates[where]) if slopes[where] < 0 else None

    @property
    def suggestion(self) -> float | None:
        """The lesser of `steepest` and a tenth of `diverges_at`, to two digits; None without."""
        tenth = None if self.diverges_at is None else self.diverges_at / 10
        found = [rate for rate in (self.steepest, tenth) if rate is not None]
        return float(f"{min(found):.1e}") if found else None

    def write_csv(self, path: Path) -> None:
        """Columns rate, loss, smoothed_loss."""
        with write_whole(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["rate", "loss", "smoothed_loss"])
            table.writerows(zip(self.rates, self.losses, self.smoothed))

    def write_plot(self, path: Path) -> None:
        """The curve over the rate, with what was found, as a PNG."""
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.subplots()
        axes.semilogx(self.rates, self.losses, ".", color="0.7", label="loss")
        axes.semilogx(self.rates, self.smoothed, color="tab:blue", label="smoothed")
        marks = (
            (self.steepest, "tab:green", "-", "steepest descent"),
            (self.diverges_at, "tab:red", ":", "divergence"),
            (self.suggestion, "black", "--", "suggestion"),
        )
        for rate, colour, dashes, name in marks:
            if rate is not None:
                axes.axvline(rate, color=colour, ls=dashes, label=f"{name}: {rate:.2g}")
        if len(self.losses):  # a divergence is not to flatten what comes before it
            low, start = self.smoothed.min(), self.smoothed[0]
            axes.set_ylim(max(low - 0.3 * (start - low) - 0.05 * start, 0), 1.5 * start)
        axes.set(xlabel="SOLVER.BASE_LR", ylabel="total loss")
        axes.grid(alpha=0.3)
        axes.legend()
        with write_whole(path) as partial:
            figure.savefig(partial, format="png", dpi=110, metadata=PNG_METADATA)


def find_learning_rate(
    step: SimpleTrainer,
    *,
    base_lr: float,
    lowest: float = 1e-6,
    highest: float = 1.0,
    iterations: int = 100,
) -> LearningRateSweep:
    """Train with a growing rate until the loss diverges; model and optimizer are put back.

    Groups of parameters keep the ratio of their rates. There is no warm-up.

    Args:
        step: what runs an iteration; give a `CellStep` without `output_dir`, so that a divergence
            writes nothing.
        base_lr: the rate that the ratios of the groups refer to; SOLVER.BASE_LR.
        lowest, highest: the learning rates that the sweep begins and ends with.
        iterations: of the sweep, 2 or more.

    Raises:
        TrainingError: the loss is not finite in the first iteration already.
        ValueError: no range, or fewer than two iterations.
    """
    if not 0 < lowest < highest <= HIGHEST or iterations < 2:
        raise ValueError(
            f"expected 0 < lowest < highest <= {HIGHEST:g} and two iterations or more; found "
            f"{lowest}, {highest} and {iterations}"
        )
    groups = step.optimizer.param_groups
    ratios = [group["lr"] / base_lr for group in groups]
    rates = np.geomspace(lowest, highest, iterations)
    losses: list[float] = []
    diverges_at = None
    running, least = 0.0, math.inf
    with _put_back(step), EventStorage() as storage:
        for number, rate in enumerate(rates):
            for group, ratio in zip(groups, ratios):
                group["lr"] = rate * ratio
            step.iter = storage.iter = number
            try:
                step.run_step()
            except (TrainingError, FloatingPointError) as error:
                if number == 0:
                    raise
                logger.info(
                    "The loss is not finite any more at %.2g: %s", rate, _first_line_of(error)
                )
                diverges_at = float(rate)
                break
            losses.append(storage.latest()["total_loss"][0])
            running = _MEMORY * running + (1 - _MEMORY) * losses[-1]
            mean = running / (1 - _MEMORY ** (number + 1))
            least = min(least, mean)
            if mean > DIVERGED * least:
                diverges_at = float(rate)
                break
    return LearningRateSweep(rates[: len(losses)], np.array(losses), diverges_at)


def _first_line_of(error: Exception) -> str:
    return " ".join(str(error).splitlines()[:2])


@contextmanager
def _put_back(step: SimpleTrainer) -> Iterator[None]:
    """Model and optimizer as they were."""
    parts: tuple[Any, ...] = (step.model, step.optimizer)
    states = [copy.deepcopy(part.state_dict()) for part in parts]
    try:
        yield
    finally:
        for part, state in zip(parts, states):
            part.load_state_dict(state)
        step.optimizer.zero_grad()


def build_sweep_step(cfg: CfgNode) -> CellStep:
    """The step of the first iteration of a training from MODEL.WEIGHTS; it saves nothing.

    Raises:
        CheckpointError: MODEL.WEIGHTS names no file.
    """
    model = CellTrainer.build_model(cfg)
    optimizer = CellTrainer.build_optimizer(cfg, model)
    start_from(model, cfg)
    if freezing := build_freezing(cfg, model):
        freezing.apply(0)
    step = build_step(cfg, SimpleTrainer(model, CellTrainer.build_train_loader(cfg), optimizer))
    step.output_dir = None
    return step


def describe_sweep(sweep: LearningRateSweep) -> str:
    """What was found, and the lines for the config.

    Raises:
        CellsegError: nothing was found.
    """
    if sweep.suggestion is None:
        raise CellsegError(
            "The loss neither fell nor diverged: try --highest above "
            f"{sweep.rates[-1]:.2g}, or more --iterations"
        )
    if sweep.steepest is None and len(sweep.losses) < _FEWEST:
        raise CellsegError(
            f"The loss diverges after {len(sweep.losses)} iterations, before it could be seen to "
            f"fall: try --lowest below {sweep.rates[0]:.2g}, or more --iterations"
        )
    steepest = "nowhere" if sweep.steepest is None else f"at {sweep.steepest:.2g}"
    diverges = "nowhere" if sweep.diverges_at is None else f"at {sweep.diverges_at:.2g}"
    return (
        f"The loss falls fastest {steepest} and diverges {diverges}. Put into the config:\n"
        f"SOLVER:\n  BASE_LR: {sweep.suggestion:g}"
    )
