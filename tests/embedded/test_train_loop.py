"""The training loop: order of events, losses, state."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.engine import AMPTrainer, HookBase, SimpleTrainer, TrainerBase, hooks
from torch import nn


class Line(nn.Module):
    """One weight w, at first 1; loss "fit" is w * x and "size" w / 2."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def forward(self, x: float) -> dict[str, torch.Tensor]:
        return {"fit": (self.w * x).sum(), "size": self.w.sum() / 2}


class Recorder(HookBase):
    def __init__(self, events: list[str]) -> None:
        self.events = events

    def note(self, what: str) -> None:
        self.events.append(f"{what}{self.trainer.iter}")

    def before_train(self) -> None:
        self.note("before_train")

    def before_step(self) -> None:
        self.note("before_step")

    def after_backward(self) -> None:
        self.note("after_backward")

    def after_step(self) -> None:
        self.note("after_step")

    def after_train(self) -> None:
        self.note("after_train")


def trainer_of(model: nn.Module, data=(1.0,) * 9, lr: float = 0.1, **options) -> SimpleTrainer:
    return SimpleTrainer(model, data, torch.optim.SGD(model.parameters(), lr), **options)


def stored(trainer: TrainerBase, name: str) -> list[tuple[float, int]]:
    return trainer.storage.history(name).values()


def test_hooks_are_called_in_order_around_each_step():
    events: list[str] = []
    trainer = trainer_of(Line())
    trainer.register_hooks([Recorder(events), None])
    trainer.train(3, 5)
    step = ["before_step", "after_backward", "after_step"]
    assert events == [
        "before_train3",
        *[name + "3" for name in step],
        *[name + "4" for name in step],
        "after_train5",
    ]
    assert (trainer.start_iter, trainer.max_iter, trainer.iter) == (3, 5, 5)


def test_after_train_runs_after_an_error_and_knows_of_it():
    class Broken(TrainerBase):
        def run_step(self) -> None:
            if self.iter == 1:
                raise KeyError("broken")

    events: list[str] = []
    trainer = Broken()
    trainer.register_hooks([Recorder(events)])
    with pytest.raises(KeyError, match="broken"):
        trainer.train(0, 3)
    assert events[-2:] == ["before_step1", "after_train1"]


@pytest.mark.embedded_only
def test_training_that_is_over_already_runs_no_step():
    events: list[str] = []
    trainer = trainer_of(Line(), data=())
    trainer.register_hooks([Recorder(events)])
    trainer.train(4, 4)
    assert events == ["before_train4", "after_train4"]


def test_hooks_do_not_keep_the_trainer_alive():
    trainer = trainer_of(Line())
    hook = HookBase()
    trainer.register_hooks([hook])
    trainer.register_hooks([hooks.EvalHook(0, lambda: {})])
    assert hook.trainer.iter == 0
    del trainer
    with pytest.raises(ReferenceError):
        _ = hook.trainer.iter


@pytest.mark.embedded_only
def test_only_hooks_are_registered():
    with pytest.raises(TypeError, match="HookBase"):
        trainer_of(Line()).register_hooks([HookBase(), "no hook"])


@pytest.mark.parametrize("zero_grad_before_forward", [False, True])
def test_steps_by_hand(zero_grad_before_forward):
    model = Line()
    trainer = trainer_of(model, [1.0, 3.0], zero_grad_before_forward=zero_grad_before_forward)
    trainer.train(0, 2)
    # gradient x + 1/2: 1 - 0.1 * 1.5 = 0.85, then 0.85 - 0.1 * 3.5 = 0.5
    assert model.w.item() == pytest.approx(0.5)
    assert [round(value, 5) for value, _ in stored(trainer, "fit")] == [1.0, 2.55]
    assert [round(value, 5) for value, _ in stored(trainer, "total_loss")] == [1.5, 2.975]
    assert [iteration for _, iteration in stored(trainer, "size")] == [0, 1]
    assert [iteration for _, iteration in stored(trainer, "data_time")] == [0, 1]
    assert all(seconds >= 0 for seconds, _ in stored(trainer, "rank_data_time"))


def test_model_may_return_a_single_loss():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 2.0)

    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x).sum()

    trainer = trainer_of(Single(), [torch.ones(1)])
    trainer.train(0, 1)
    assert stored(trainer, "total_loss") == [(2.0, 0)]
    assert model.weight.item() == pytest.approx(1.9)


def test_metrics_are_stored_every_period():
    trainer = trainer_of(Line(), gather_metric_period=2)
    trainer.train(0, 5)
    assert [iteration for _, iteration in stored(trainer, "total_loss")] == [1, 3]


def test_metrics_are_stored_by_another_thread():
    trainer = trainer_of(Line(), async_write_metrics=True)
    trainer.train(0, 5)
    assert [iteration for _, iteration in stored(trainer, "total_loss")] == [0, 1, 2, 3, 4]


@pytest.mark.embedded_only
def test_metrics_of_another_thread_are_there_for_the_last_hooks_and_its_error_ends_training():
    seen: list[int] = []
    trainer = trainer_of(Line(), async_write_metrics=True)
    trainer.register_hooks(
        [hooks.CallbackHook(after_train=lambda t: seen.append(len(stored(t, "total_loss"))))]
    )
    trainer.train(0, 5)
    assert seen == [5]
    with pytest.raises(FloatingPointError):
        trainer_of(Line(), [math.nan], async_write_metrics=True).train(0, 1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_loss_that_is_not_finite_ends_the_training_before_the_update(value):
    model = Line()
    trainer = trainer_of(model, [1.0, value])
    with pytest.raises(FloatingPointError, match="fit"):
        trainer.train(0, 2)
    assert model.w.item() == pytest.approx(0.85)


def test_data_loader_is_replaced():
    model = Line()
    trainer = trainer_of(model, [1.0])
    trainer.train(0, 1)
    trainer.reset_data_loader(lambda: [2.0])
    trainer.train(0, 1)
    assert model.w.item() == pytest.approx(1 - 0.15 - 0.25)


def test_model_is_put_into_training_mode_and_must_stay_there():
    model = Line().eval()
    trainer = trainer_of(model)
    assert model.training
    model.eval()
    with pytest.raises((RuntimeError, AssertionError), match="eval"):
        trainer.train(0, 1)


def test_step_has_to_be_defined():
    with pytest.raises(NotImplementedError):
        TrainerBase().run_step()


class Stateful(HookBase):
    def __init__(self, value: int) -> None:
        self.value = value

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.value = state["value"]


def test_state_holds_iteration_hooks_and_optimizer(caplog):
    trainer = trainer_of(Line(), lr=0.5)
    trainer.register_hooks([HookBase(), Stateful(3)])
    trainer.train(0, 2)
    state = trainer.state_dict()
    assert state["iteration"] == 2
    assert state["hooks"] == {"Stateful": {"value": 3}}
    assert state["optimizer"]["param_groups"][0]["lr"] == 0.5

    other, hook = trainer_of(Line(), lr=0.1), Stateful(0)
    other.register_hooks([hook])
    other.load_state_dict(state)
    assert (other.iter, hook.value) == (2, 3)
    assert other.optimizer.param_groups[0]["lr"] == 0.5

    lonely = trainer_of(Line())
    with caplog.at_level("WARNING"):
        lonely.load_state_dict(state)
    assert "Stateful" in caplog.text
    assert "hooks" not in lonely.state_dict()


@pytest.mark.embedded_only
def test_mixed_precision_on_the_cpu_by_hand():
    """The model's products are rounded to bfloat16: 1.005 * 1 becomes 1.0078125."""

    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(1, 1))

        def forward(self, x: float) -> dict[str, torch.Tensor]:
            return {"fit": torch.full((1, 1), x) @ self.w}

    model = Product()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1)
    trainer = AMPTrainer(
        model,
        [1.005, 1.005],
        torch.optim.SGD(model.parameters(), 0.5),
        grad_scaler=scaler,
        precision=torch.bfloat16,
        log_grad_scaler=True,
    )
    trainer.train(0, 2)
    rounded = 1.0078125
    assert stored(trainer, "total_loss")[0] == (rounded, 0)
    assert model.w.item() == pytest.approx(1 - rounded, abs=1e-2)
    assert [value for value, _ in stored(trainer, "[metric]grad_scaler")] == [4.0, 8.0]
    state = trainer.state_dict()
    assert state["grad_scaler"]["scale"] == 16.0

    other = AMPTrainer(model, [], torch.optim.SGD(model.parameters(), 0.5))
    other.load_state_dict(state)
    assert other.grad_scaler.get_scale() == 16.0
    assert other.iter == 2


@pytest.mark.embedded_only
def test_mixed_precision_wants_one_process_per_device():
    model = nn.DataParallel(Line())
    with pytest.raises(ValueError, match="one process per device"):
        AMPTrainer(model, [], torch.optim.SGD(model.parameters(), 0.1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_mixed_precision_on_the_gpu():
    model = Line().cuda()
    trainer = AMPTrainer(model, [1.0] * 3, torch.optim.SGD(model.parameters(), 0.1))
    trainer.train(0, 3)
    assert model.w.item() == pytest.approx(1 - 3 * 0.15, abs=1e-3)
