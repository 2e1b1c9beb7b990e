"""Running over a dataset, joining evaluators, and tools around their results."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.evaluation import (
    DatasetEvaluator,
    DatasetEvaluators,
    inference_context,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from detectron2.evaluation.testing import flatten_results_dict
from torch import nn


class Sum(DatasetEvaluator):
    """Adds up what the model returns."""

    def __init__(self, task: str = "sum", result: object = None) -> None:
        self.task = task
        self.result = result
        self.total = -1.0

    def reset(self) -> None:
        self.total = 0.0

    def process(self, inputs, outputs) -> None:
        assert len(inputs) == len(outputs)
        self.total += sum(outputs)

    def evaluate(self):
        return self.result or {self.task: {"total": self.total}}


def double(batch: list[float]) -> list[float]:
    return [2 * value for value in batch]


BATCHES = [[1.0, 2.0], [3.0]]


def test_every_batch_reaches_the_evaluator_once():
    evaluator = Sum()
    assert inference_on_dataset(double, BATCHES, evaluator) == {"sum": {"total": 12.0}}
    assert inference_on_dataset(double, BATCHES, evaluator) == {"sum": {"total": 12.0}}  # reset


def test_several_evaluators_or_none():
    results = inference_on_dataset(double, BATCHES, [Sum("a"), Sum("b")])
    assert results == {"a": {"total": 12.0}, "b": {"total": 12.0}}
    assert inference_on_dataset(double, BATCHES, None) == {}


def test_evaluator_that_returns_nothing_gives_an_empty_dict():
    assert inference_on_dataset(double, BATCHES, DatasetEvaluator()) == {}


def test_dataset_without_images():
    assert inference_on_dataset(double, [], Sum()) == {"sum": {"total": 0.0}}


class Module(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def forward(self, batch):
        assert not self.training
        assert not (self.w * 2).requires_grad
        return [self.w.item() * value for value in batch]


@pytest.mark.parametrize("training", [True, False])
def test_module_evaluates_without_gradients_and_goes_back_to_its_mode(training):
    model = Module().train(training)
    assert inference_on_dataset(model, BATCHES, Sum())["sum"]["total"] == 6.0
    assert model.training == training


@pytest.mark.embedded_only
def test_mode_is_restored_after_an_error():
    model = Module().train()

    def fail() -> None:
        with inference_context(model):
            raise KeyError(f"training: {model.training}")

    with pytest.raises(KeyError, match="training: False"):
        fail()
    assert model.training


def test_callbacks_are_called_in_order():
    calls: list[str] = []
    moments = ("on_start", "before_inference", "after_inference", "on_end")
    callbacks = {name: lambda name=name: calls.append(name) for name in moments}
    inference_on_dataset(double, BATCHES, None, callbacks)
    assert calls == ["on_start", *moments[1:3] * 2, "on_end"]
    inference_on_dataset(double, BATCHES, None, {"on_end": lambda: calls.append("only")})
    assert calls[-1] == "only"


def test_progress_and_summary_are_logged(caplog, monkeypatch):
    """A clock that advances 10 s with each look makes the model slow enough to be mentioned."""
    now = [0.0]

    def clock() -> float:
        now[0] += 10.0
        return now[0]

    for name in ("perf_counter", "time", "monotonic"):  # an earlier message may be recent
        monkeypatch.setattr(f"time.{name}", clock)
    now[0] = 1e10
    with caplog.at_level("INFO"):
        inference_on_dataset(double, [[1.0]] * 8, Sum())
    assert "Start inference on 8 batches" in caplog.text
    assert "Inference done" in caplog.text
    assert "ETA=" in caplog.text
    assert "Total inference time: " in caplog.text
    assert "Total inference pure compute time: " in caplog.text


@pytest.mark.embedded_only
def test_seconds_per_iteration_by_hand(caplog, monkeypatch):
    """Phases end 1, 2 and 4 s after each other; of 7 batches the last 2 count."""
    looks = iter([0.0, *[1.0, 2.0, 4.0] * 5, 0.0, *[1.0, 2.0, 4.0] * 2])
    now = [0.0]

    def clock() -> float:
        now[0] += next(looks, 0.0)
        return now[0]

    monkeypatch.setattr("time.perf_counter", clock)
    monkeypatch.setattr(
        "detectron2.evaluation.evaluator._Stopwatch.log_progress", lambda self, total: None
    )
    with caplog.at_level("INFO"):
        inference_on_dataset(double, [[1.0]] * 7, None)
    assert "Total inference time: 0:00:14 (7.000000 s / iter" in caplog.text
    assert "Total inference pure compute time: 0:00:04 (2.000000 s / iter" in caplog.text


def test_two_evaluators_must_not_report_the_same_task():
    with pytest.raises((ValueError, AssertionError), match="sum"):
        DatasetEvaluators([Sum(), Sum()]).evaluate()


def test_joined_evaluators_skip_one_that_returns_nothing():
    joined = DatasetEvaluators([DatasetEvaluator(), Sum()])
    joined.reset()
    joined.process([1.0], [5.0])
    assert dict(joined.evaluate()) == {"sum": {"total": 5.0}}


def test_nested_results_become_flat():
    nested = {"a": {"b": {"c": 1}, "d": 2}, "e": 3, "empty": {}}
    assert flatten_results_dict(nested) == {"a/b/c": 1, "a/d": 2, "e": 3}
    assert flatten_results_dict({}) == {}


def test_main_figures_are_logged_for_a_spreadsheet(caplog):
    with caplog.at_level("INFO"):
        print_csv_format({"segm": {"AP": 12.34567, "AP50": math.nan, "AP-cell": 9.0}, "speed": 3})
    assert [record.getMessage() for record in caplog.records] == [
        "copypaste: Task: segm",
        "copypaste: AP,AP50",
        "copypaste: 12.3457,nan",
        "copypaste: speed=3",
    ]
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def config_expecting(*expected):
    cfg = get_cfg()
    cfg.TEST.EXPECTED_RESULTS = list(expected)
    return cfg


def test_expected_results_within_tolerance_pass():
    results = {"segm": {"AP": 50.0, "AP50": 70.0}}
    expected = [["segm", "AP", 50.5, 0.5], ["segm", "AP50", 70.0, 0.0]]
    assert verify_results(config_expecting(*expected), results)
    assert verify_results(config_expecting(), {})


@pytest.mark.parametrize(
    "expected",
    [["segm", "AP", 50.6, 0.5], ["segm", "missing", 1.0, 9.0], ["segm", "nan", 1.0, 9.0]],
)
def test_results_that_are_off_end_the_program(expected, caplog):
    results = {"segm": {"AP": 50.0, "nan": math.nan}}
    with pytest.raises(SystemExit) as caught, caplog.at_level("ERROR"):
        verify_results(config_expecting(expected), results)
    assert caught.value.code == 1
    assert "Result verification failed" in caplog.text
