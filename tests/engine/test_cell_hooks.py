"""Hooks of CELLSEG.TRAIN around a trainer of one layer, whose evaluations say what a test wants."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellseg.engine import AtomicWrites
from cellseg.engine.hooks import (
    BestCheckpoint,
    EarlyStopping,
    RestoreWeights,
    TrainingStopped,
    WeightAverage,
)
from cellseg.engine.random_state import untouched_random_state
from cellseg.errors import ConfigError
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import HookBase, SimpleTrainer
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer
from detectron2.utils import comm


class Squares(torch.nn.Module):
    """Loss (weight * x)^2, so that weight decays from 1; with one frozen weight and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))
        self.frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        self.steps += 1
        return {"loss": (self.weight * x).square().sum()}


def batches() -> Iterator[torch.Tensor]:
    while True:
        yield torch.tensor([1.0, 2.0])


class Run:
    """A training in `folder` that evaluates every second iteration."""

    def __init__(self, folder: Path, values: dict[int, Any], **options: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.model = Squares()
        self.trainer = SimpleTrainer(
            self.model, batches(), torch.optim.SGD([self.model.weight], lr=0.05)
        )
        self.checkpointer = DetectionCheckpointer(self.model, str(folder), trainer=self.trainer)
        self.checkpointer.path_manager = AtomicWrites(self.checkpointer.path_manager)
        self.trainer.checkpointer = self.checkpointer  # type: ignore[attr-defined]
        self.values = values
        self.evaluated: dict[int, list[float]] = {}
        self.trainer.register_hooks(self._hooks(**options))

    def _hooks(
        self, mode: str = "max", patience: int = 0, decay: float = 0.0, metric: str = "m/f1"
    ) -> list[HookBase]:
        best = BestCheckpoint(2, metric, mode)
        average = [WeightAverage(decay, (2, 2))] if decay else []
        return [
            *average,
            PeriodicCheckpointer(self.checkpointer, 2),
            EvalHook(2, self.evaluate),
            best,
            *([EarlyStopping(best, patience)] if patience else []),
            *map(RestoreWeights, average),
        ]

    def evaluate(self) -> dict[str, Any]:
        iteration = min(self.trainer.iter, self.trainer.max_iter - 1)
        self.evaluated[iteration] = self.model.weight.tolist()
        return {"m": {"f1": self.values[iteration], "recall": 0.5}}

    def train(self, max_iter: int, *, resume: bool = False) -> Run:
        self.checkpointer.resume_or_load("", resume=resume)
        start = self.trainer.iter + 1 if resume else 0
        self.trainer.train(start, max_iter)
        return self


def read_best(folder: Path) -> dict[str, Any]:
    return dict(torch.load(folder / "model_best.pth", weights_only=True))


def test_the_best_checkpoint_is_the_one_with_the_best_value(tmp_path: Path) -> None:
    values = {1: math.nan, 3: 0.2, 5: 0.7, 7: 0.7, 9: math.inf, 11: 0.4}
    run = Run(tmp_path, values).train(12)
    best = read_best(tmp_path)
    assert (best["iteration"], best["metric"], best["value"]) == (5, "m/f1", 0.7)
    assert best["model"]["weight"].tolist() == run.evaluated[5]
    assert "trainer" not in best
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    history = json.loads((tmp_path / "best.json").read_text())
    assert history["best"] == {"iteration": 5, "value": 0.7, "file": "model_best.pth"}
    assert [entry["iteration"] for entry in history["evaluations"]] == [1, 3, 5, 7, 9, 11]
    assert history["evaluations"][0]["value"] is None
    loaded = Squares()
    DetectionCheckpointer(loaded).load(str(tmp_path / "model_best.pth"))
    assert loaded.weight.tolist() == run.evaluated[5]


def test_of_a_loss_the_lowest_is_best(tmp_path: Path) -> None:
    Run(tmp_path, {1: 0.5, 3: 0.2, 5: 0.3}, mode="min").train(6)
    assert read_best(tmp_path)["iteration"] == 3


def test_nothing_is_saved_where_no_value_is_finite(tmp_path: Path) -> None:
    Run(tmp_path, {1: math.nan, 3: -math.inf}).train(4)
    assert not (tmp_path / "model_best.pth").exists()
    assert json.loads((tmp_path / "best.json").read_text())["best"] is None


def test_an_unknown_figure_is_an_error_that_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)'m/f2'.*m/f1.*m/recall.*[Dd]id you mean m/f1"):
        Run(tmp_path, {1: 0.5}, metric="m/f2").train(4)


class KilledError(Exception):
    pass


class Killer(HookBase):
    """Ends a run in the middle, behind the evaluation after `iteration`."""

    def __init__(self, iteration: int) -> None:
        self._iteration = iteration

    def after_step(self) -> None:
        if self.trainer.iter == self._iteration:
            raise KilledError


def kill_after(run: Run, iteration: int) -> None:
    run.trainer.register_hooks([Killer(iteration)])
    with pytest.raises(KilledError):
        run.train(20)


def test_a_resumed_run_knows_the_best_value(tmp_path: Path) -> None:
    # The checkpoint of iteration 3 is written before the evaluation that finds 0.9.
    kill_after(Run(tmp_path, {1: 0.5, 3: 0.9}), 3)
    run = Run(tmp_path, {5: 0.6, 7: 0.8}).train(8, resume=True)
    assert sorted(run.evaluated) == [5, 7]
    assert read_best(tmp_path)["iteration"] == 3
    history = json.loads((tmp_path / "best.json").read_text())
    assert [entry["value"] for entry in history["evaluations"]] == [0.5, 0.9, 0.6, 0.8]


def test_without_its_file_the_best_value_comes_from_the_checkpoint(tmp_path: Path) -> None:
    kill_after(Run(tmp_path, {1: 0.9, 3: 0.5}), 3)
    (tmp_path / "best.json").unlink()
    Run(tmp_path, {5: 0.6}).train(6, resume=True)
    assert read_best(tmp_path)["iteration"] == 1


@pytest.mark.parametrize("gone", [["model_best.pth"], ["model_best.pth", "best.json"]])
def test_a_best_checkpoint_that_is_gone_is_surpassed(tmp_path: Path, gone: list[str]) -> None:
    kill_after(Run(tmp_path, {1: 0.9, 3: 0.5}), 3)
    for name in gone:
        (tmp_path / name).unlink()
    Run(tmp_path, {5: 0.6}).train(6, resume=True)
    assert read_best(tmp_path)["iteration"] == 5


@pytest.mark.parametrize("text", ["{", "[]", '{"metric": "m/recall", "mode": "max"}'])
def test_a_damaged_or_foreign_history_is_not_used(tmp_path: Path, text: str) -> None:
    kill_after(Run(tmp_path, {1: 0.9, 3: 0.5}), 3)
    (tmp_path / "best.json").write_text(text)
    Run(tmp_path, {5: 0.6}).train(6, resume=True)
    assert read_best(tmp_path)["iteration"] == 1


def test_a_new_run_and_another_figure_begin_anew(tmp_path: Path) -> None:
    Run(tmp_path, {1: 0.9, 3: 0.5}).train(4)
    Run(tmp_path, {1: 0.4, 3: 0.3}).train(4)
    assert read_best(tmp_path)["value"] == 0.4
    Run(tmp_path, {5: 0.6}, metric="m/recall").train(6, resume=True)
    assert read_best(tmp_path)["metric"] == "m/recall"


class Counter(HookBase):
    ends = 0

    def after_train(self) -> None:
        self.ends += 1


def test_training_stops_when_patience_is_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path, {1: 0.5, 3: 0.4, 5: 0.6, 7: 0.6, 9: math.nan}, patience=2)
    counter = Counter()
    run.trainer.register_hooks([counter])
    with caplog.at_level(logging.INFO, "cellseg"), pytest.raises(TrainingStopped):
        run.train(100)
    assert sorted(run.evaluated) == [1, 3, 5, 7, 9]
    assert counter.ends == 1
    assert run.trainer.iter == 10
    assert "Exception during training" not in caplog.text
    assert (
        "Training ends after iteration 9 of 100: 2 evaluations without a better value than "
        "m/f1 0.6 at iteration 5"
    ) in caplog.text
    final = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert final["iteration"] == 9
    assert final["model"]["weight"].tolist() == run.evaluated[9]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"

    with caplog.at_level(logging.INFO, "cellseg"), pytest.raises(TrainingStopped):
        Run(tmp_path, {}, patience=2).train(100, resume=True)
    assert "Nothing left to train: 2 evaluations without" in caplog.text
    more = Run(tmp_path, {11: 0.1, 13: 0.7, 15: 0.8}, patience=4).train(16, resume=True)
    assert read_best(tmp_path)["iteration"] == 15
    assert more.trainer.iter == 16


def test_the_last_iterations_are_not_cut_off(tmp_path: Path) -> None:
    run = Run(tmp_path, {1: 0.5, 3: 0.4, 4: 0.3}, patience=1).train(5)
    assert sorted(run.evaluated) == [1, 3, 4]


def test_other_processes_follow_the_main_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process without figures, which hears what the main one says."""
    said = iter([(None, True), ("", 0.5), ("", 0.4), ("", 0.3)])
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    monkeypatch.setattr(comm, "all_gather", lambda own: [next(said), own])
    run = Run(tmp_path, {}, patience=2, metric="m/f1")
    run.evaluate = lambda: {}  # type: ignore[method-assign]
    run.trainer._hooks[1] = EvalHook(2, lambda: {})
    run.trainer._hooks[1].trainer = run.trainer  # type: ignore[attr-defined]
    with pytest.raises(TrainingStopped):
        run.train(100)
    assert run.trainer.iter == 6
    assert not (tmp_path / "best.json").exists()
    assert not (tmp_path / "model_best.pth").exists()


def weights_by_hand(iterations: int) -> list[torch.Tensor]:
    """Weights after each iteration: gradient 2 w x^2, rate 0.05."""
    weight, found = torch.ones(2), []
    for _ in range(iterations):
        weight = weight - 0.05 * 2 * weight * torch.tensor([1.0, 4.0])
        found.append(weight)
    return found


def average_by_hand(decay: float, iterations: int) -> torch.Tensor:
    average = torch.ones(2)
    for n, weight in enumerate(weights_by_hand(iterations)):
        d = min(decay, (1 + n) / (10 + n))
        average = d * average + (1 - d) * weight
    return average


def test_the_average_is_evaluated_and_saved_and_training_goes_on_without_it(
    tmp_path: Path,
) -> None:
    run = Run(tmp_path, {1: 0.1, 3: 0.9, 4: 0.5}, decay=0.25).train(5)
    for iteration, value in run.evaluated.items():
        expected = average_by_hand(0.25, iteration + 1).tolist()
        assert value == pytest.approx(expected, abs=1e-6)
    assert read_best(tmp_path)["model"]["weight"].tolist() == run.evaluated[3]
    final = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert final["model"]["weight"].tolist() == run.evaluated[4]
    assert final["model"]["steps"] == 5
    outside = final["trainer"]["hooks"]["WeightAverage"]["outside_of_model"]
    assert list(outside) == ["weight"]  # the frozen one costs nothing
    assert torch.allclose(outside["weight"], weights_by_hand(5)[-1])
    assert run.model.weight.tolist() == run.evaluated[4]


def test_a_resumed_run_goes_on_with_weights_and_average(tmp_path: Path) -> None:
    values = {1: 0.1, 3: 0.2, 4: 0.5, 5: 0.6}
    whole = Run(tmp_path / "whole", values, decay=0.25).train(6)
    kill_after(Run(tmp_path / "killed", values, decay=0.25), 4)
    resumed = Run(tmp_path / "killed", values, decay=0.25).train(6, resume=True)
    assert resumed.trainer.start_iter == 4
    assert resumed.evaluated[5] == whole.evaluated[5]

    Run(tmp_path / "short", values, decay=0.25).train(5)
    longer = Run(tmp_path / "short", values, decay=0.25).train(6, resume=True)
    assert longer.evaluated[5] == pytest.approx(whole.evaluated[5], abs=1e-6)


def test_a_parameter_that_thaws_is_averaged_from_then_on(tmp_path: Path) -> None:
    run = Run(tmp_path, {1: 0.1, 3: 0.2}, decay=0.25)
    average = run.trainer._hooks[0]
    assert isinstance(average, WeightAverage)
    run.train(2)
    run.model.frozen.requires_grad = True
    average.before_train()
    assert set(average.state_dict()["outside_of_model"]) == {"weight", "frozen"}


def test_random_numbers_are_as_if_none_had_been_drawn() -> None:
    def draw() -> list[float]:
        numpy = float(np.random.rand())  # noqa: NPY002
        return [random.random(), numpy, float(torch.rand(()))]

    def seed() -> None:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)

    seed()
    expected = draw()
    seed()
    with contextlib.suppress(KilledError), untouched_random_state():
        draw()
        raise KilledError
    assert draw() == expected
