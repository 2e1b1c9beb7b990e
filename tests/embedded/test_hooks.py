"""Hooks: when they act and what they store."""

from __future__ import annotations

import json
import math
import os

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import SimpleTrainer, TrainerBase, hooks
from detectron2.utils.events import EventWriter, JSONWriter
from fvcore.common.param_scheduler import LinearParamScheduler
from torch import nn


class Counting(TrainerBase):
    """A trainer whose steps only store their number, and fail where asked to."""

    def __init__(self, *registered, fail_at: int | None = None) -> None:
        super().__init__()
        self.fail_at = fail_at
        self.register_hooks(registered)

    def run_step(self) -> None:
        if self.iter == self.fail_at:
            raise ValueError("asked to fail")
        self.storage.put_scalar("number", self.iter)


class ListWriter(EventWriter):
    def __init__(self) -> None:
        self.written: list[int] = []
        self.closed = False

    def write(self) -> None:
        from detectron2.utils.events import get_event_storage

        self.written.append(get_event_storage().iter)

    def close(self) -> None:
        self.closed = True


def iterations(trainer: TrainerBase, name: str) -> list[int]:
    return [iteration for _, iteration in trainer.storage.history(name).values()]


def test_callbacks_get_the_trainer_and_are_forgotten_afterwards():
    calls: list[str] = []
    moments = ("before_train", "after_train", "before_step", "after_step")
    hook = hooks.CallbackHook(
        **{
            name: lambda trainer, name=name: calls.append(f"{name}{trainer.iter}")
            for name in moments
        }
    )
    Counting(hook, hooks.CallbackHook()).train(0, 1)
    assert calls == ["before_train0", "before_step0", "after_step0", "after_train1"]


def test_timer_stores_seconds_after_the_warmup_and_logs_a_summary(caplog):
    trainer = Counting(hooks.IterationTimer(warmup_iter=2))
    with caplog.at_level("INFO"):
        trainer.train(5, 9)
    assert iterations(trainer, "time") == [6, 7, 8]
    assert all(0 <= seconds < 5 for seconds, _ in trainer.storage.history("time").values())
    assert "Overall training speed" in caplog.text
    assert "Total training time" in caplog.text


def test_timer_of_a_training_shorter_than_its_warmup(caplog):
    with caplog.at_level("INFO"):
        Counting(hooks.IterationTimer(warmup_iter=9)).train(0, 2)
    assert "Overall" not in caplog.text
    assert "Total training time" in caplog.text


def test_writers_write_every_period_at_the_last_iteration_and_at_the_end():
    writer = ListWriter()
    Counting(hooks.PeriodicWriter([writer], period=3)).train(0, 8)
    assert writer.written == [2, 5, 7, 8]
    assert writer.closed


def test_writers_write_and_close_after_an_error():
    writer = ListWriter()
    with pytest.raises(ValueError, match="asked to fail"):
        Counting(hooks.PeriodicWriter([writer], period=3), fail_at=1).train(0, 8)
    assert writer.written == [1]
    assert writer.closed


@pytest.mark.embedded_only
def test_only_writers_write():
    with pytest.raises(TypeError, match="EventWriter"):
        hooks.PeriodicWriter(["no writer"])


def test_checkpoints_are_written_every_period_and_at_the_end(tmp_path):
    checkpointer = DetectionCheckpointer(nn.Linear(1, 1), str(tmp_path))
    Counting(hooks.PeriodicCheckpointer(checkpointer, 2)).train(0, 5)
    assert sorted(os.listdir(tmp_path)) == [
        "last_checkpoint",
        "model_0000001.pth",
        "model_0000003.pth",
        "model_final.pth",
    ]


@pytest.mark.parametrize(
    ("period", "expected"), [(2, [1, 3, 6]), (3, [2, 6]), (6, [6]), (0, [6]), (9, [6])]
)
def test_evaluations_every_period_and_at_the_end(period, expected):
    trainer = Counting()
    trainer.register_hooks(
        [hooks.EvalHook(period, lambda: {"segm": {"AP": float(trainer.iter)}, "speed": 1})]
    )
    trainer.train(0, 6)
    assert iterations(trainer, "segm/AP") == expected
    assert iterations(trainer, "speed") == expected


def test_no_evaluation_after_an_error_or_where_it_is_not_wanted():
    trainer = Counting(hooks.EvalHook(0, lambda: {"a": 1.0}), fail_at=1)
    with pytest.raises(ValueError, match="asked to fail"):
        trainer.train(0, 4)
    assert "a" not in trainer.storage.latest()
    trainer = Counting(hooks.EvalHook(2, lambda: {"a": 1.0}, eval_after_train=False))
    trainer.train(0, 4)
    assert iterations(trainer, "a") == [1]


def test_evaluation_may_return_nothing():
    trainer = Counting(hooks.EvalHook(1, lambda: None))
    trainer.train(0, 2)
    assert "a" not in trainer.storage.latest()


@pytest.mark.parametrize("result", [{"a": {"b": "text"}}, [1.0]])
def test_evaluation_that_returns_no_figures_is_an_error(result):
    with pytest.raises((ValueError, AssertionError), match=r"text|1\.0"):
        Counting(hooks.EvalHook(0, lambda: result)).train(0, 1)


class SavedNames:
    def __init__(self) -> None:
        self.saved: list[tuple[str, int]] = []

    def save(self, name: str, *, iteration: int) -> None:
        self.saved.append((name, iteration))


@pytest.mark.parametrize(
    ("mode", "figures", "saved"),
    [
        ("max", [0.3, 0.2, 0.4, 0.5], [1, 5, 8]),
        ("min", [3.0, 2.0, 2.0, 1.0], [1, 3, 8]),
        ("max", [math.nan, 0.1, math.nan, 0.2], [3, 8]),
        ("min", [math.nan] * 4, []),
    ],
)
def test_best_checkpoint(mode, figures, saved):
    checkpointer, remaining = SavedNames(), iter(figures)
    best = hooks.BestCheckpointer(2, checkpointer, "ap", mode, file_prefix="top")
    Counting(hooks.EvalHook(2, lambda: {"ap": next(remaining)}), best).train(0, 8)
    assert checkpointer.saved == [("top", iteration) for iteration in saved]
    assert best.best_iter == (saved[-1] if saved else None)


@pytest.mark.embedded_only
def test_infinite_figures_are_never_the_best():
    checkpointer, remaining = SavedNames(), iter([1.0, math.inf])
    best = hooks.BestCheckpointer(1, checkpointer, "ap")
    Counting(hooks.EvalHook(1, lambda: {"ap": next(remaining)}), best).train(0, 2)
    assert checkpointer.saved == [("model_best", 0)]


def test_best_checkpoint_of_a_figure_that_is_not_stored(caplog):
    checkpointer = SavedNames()
    with caplog.at_level("WARNING"):
        Counting(hooks.BestCheckpointer(0, checkpointer, "segm/AP")).train(0, 1)
    assert checkpointer.saved == []
    assert "segm/AP" in caplog.text
    with pytest.raises((ValueError, AssertionError), match="median"):
        hooks.BestCheckpointer(0, checkpointer, "segm/AP", mode="median")


def line_trainer(*registered, lr: float = 1.0) -> SimpleTrainer:
    weight = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(weight.parameters(), lr=lr)

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = weight

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": self.inner(x).abs().sum()}

    trainer = SimpleTrainer(Loss(), [torch.zeros(1, 1)] * 20, optimizer)
    trainer.register_hooks(registered)
    return trainer


def test_learning_rate_is_stored_and_stepped():
    trainer = line_trainer(hooks.LRScheduler(scheduler=LinearParamScheduler(1.0, 0.0)), lr=8.0)
    trainer.train(0, 4)
    assert [value for value, _ in trainer.storage.history("lr").values()] == [8, 6, 4, 2]


def test_learning_rate_of_a_resumed_training_continues():
    """An fvcore schedule has no state: it continues from the iteration alone."""
    trainer = line_trainer(lr=8.0)
    trainer.optimizer.param_groups[0]["initial_lr"] = 8.0
    trainer.register_hooks([hooks.LRScheduler(scheduler=LinearParamScheduler(1.0, 0.0))])
    trainer.train(2, 4)
    assert [value for value, _ in trainer.storage.history("lr").values()] == [4, 2]


def test_scheduler_of_pytorch_is_taken_from_the_trainer_and_keeps_state():
    trainer = line_trainer(hooks.LRScheduler())
    trainer.scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 2, gamma=0.5)
    trainer.train(0, 5)
    assert [value for value, _ in trainer.storage.history("lr").values()] == [1, 1, 0.5, 0.5, 0.25]
    state = trainer.state_dict()
    assert state["hooks"]["LRScheduler"]["last_epoch"] == 5

    other = line_trainer(hooks.LRScheduler())
    other.scheduler = torch.optim.lr_scheduler.StepLR(other.optimizer, 2, gamma=0.5)
    other.load_state_dict(state)
    assert other.scheduler.last_epoch == 5
    assert other.optimizer.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize(
    ("groups", "expected"),
    [([(1, 0.1), (3, 0.2), (2, 0.3)], 1), ([(1, 0.1), (1, 0.2), (1, 0.2)], 1), ([(1, 0.5)], 0)],
)
def test_group_that_stands_for_all(groups, expected):
    optimizer = torch.optim.SGD(
        [{"params": [nn.Parameter(torch.zeros(1)) for _ in range(n)], "lr": lr} for n, lr in groups]
    )
    assert hooks.LRScheduler.get_best_param_group_id(optimizer) == expected


def test_batch_norm_statistics_are_averaged_exactly():
    norm = nn.BatchNorm1d(1, momentum=0.5)
    batches = [torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [6.0]])]
    hook = hooks.PreciseBN(0, norm, batches, num_iter=2)
    Counting(hook).train(0, 3)
    assert norm.running_mean.item() == pytest.approx((1 + 5) / 2)
    assert norm.momentum == 0.5


def test_batch_norm_statistics_every_period():
    norm = nn.BatchNorm1d(1)
    hook = hooks.PreciseBN(2, norm, (torch.full((2, 1), float(i)) for i in range(9)), num_iter=1)
    means: list[float] = []
    note = hooks.CallbackHook(after_step=lambda trainer: means.append(norm.running_mean.item()))
    Counting(hook, note).train(0, 5)
    assert means == pytest.approx([0, 0, 0, 1, 2])


@pytest.mark.embedded_only
def test_model_without_batch_norm_is_left_alone():
    hook = hooks.PreciseBN(1, nn.Linear(1, 1), None, num_iter=5)
    Counting(hook).train(0, 2)


def test_profile_of_one_iteration_is_written(tmp_path):
    hook = hooks.TorchProfiler(lambda t: t.iter == 1, str(tmp_path), save_tensorboard=False)
    Counting(hook).train(0, 3)
    assert os.listdir(tmp_path) == ["profiler-trace-iter1.json"]
    assert "traceEvents" in json.loads((tmp_path / "profiler-trace-iter1.json").read_text())


def test_profile_for_tensorboard_goes_to_a_folder(tmp_path):
    Counting(hooks.TorchProfiler(lambda t: t.iter == 0, str(tmp_path))).train(0, 1)
    (folder,) = (tmp_path / "log").iterdir()
    assert folder.name == "profiler-tensorboard-iter0"
    assert list(folder.iterdir())


@pytest.mark.embedded_only
def test_memory_in_use_is_logged_where_there_is_a_gpu(caplog, monkeypatch):
    def run(has_gpu: bool) -> str:
        caplog.clear()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
        Counting(hooks.TorchMemoryStats(period=2, max_runs=2)).train(0, 7)
        return caplog.text

    for number, name in enumerate(
        ("memory_reserved", "max_memory_reserved", "memory_allocated", "max_memory_allocated")
    ):
        monkeypatch.setattr(torch.cuda, name, lambda number=number: number * 2**20)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    with caplog.at_level("INFO"):
        assert "memory" not in run(has_gpu=False)
        text = run(has_gpu=True)
    assert "iteration 1: max_reserved 1 MB, reserved 0 MB, max_allocated 3 MB" in text
    assert "iteration 3" in text
    assert "iteration 5" not in text  # max_runs


def test_evaluation_lands_in_the_last_line_of_the_metrics_file(tmp_path):
    path = tmp_path / "metrics.json"
    writer = hooks.PeriodicWriter([JSONWriter(str(path))], period=2)
    Counting(hooks.EvalHook(0, lambda: {"segm": {"AP": 50.0}}), writer).train(0, 4)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 3, 4]
    assert lines[-1]["segm/AP"] == 50.0


@pytest.mark.embedded_only
def test_hook_that_is_left_out_says_so():
    with pytest.raises(NotImplementedError, match="AutogradProfiler is not part of the embedded"):
        hooks.AutogradProfiler(lambda trainer: True, "output")
    assert not hasattr(hooks, "NoSuchHook")
