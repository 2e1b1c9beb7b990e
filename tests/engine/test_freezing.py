"""Freezing schedules: what stands still, when it thaws, and that a resumed run goes on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from cellseg import load_config
from cellseg.engine import CellTrainer
from cellseg.engine.freezing import FreezeSchedule, build_freezing
from cellseg.engine.steps import CellStep
from cellseg.errors import ConfigError
from detectron2.config import CfgNode
from detectron2.engine import TrainerBase
from detectron2.utils.events import EventStorage
from torch import nn

QUICK_START = Path(__file__).resolve().parents[2] / "configs/quick_start.yaml"


class Chain(nn.Module):
    """early (with running statistics), then late."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.early = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
        self.late = nn.Linear(3, 1)
        self.ready = nn.Linear(1, 1)
        self.ready.requires_grad_(False)  # as MODEL.BACKBONE.FREEZE_AT does

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.ready(self.late(self.early(batch))).square().mean()}


class Loop(TrainerBase):
    """As little of a trainer as hooks need."""

    def __init__(self, schedule: dict[str, int]) -> None:
        super().__init__()
        self.model = Chain()
        self.optimizer = torch.optim.SGD(
            (p for p in self.model.parameters() if p.requires_grad),
            0.1,
            momentum=0.9,
            weight_decay=0.1,
        )
        generator = torch.Generator().manual_seed(1)
        self.batches = [torch.rand(4, 2, generator=generator) for _ in range(8)]
        self.register_hooks([FreezeSchedule(self.model, schedule)])

    def run(self, start: int, stop: int) -> list[dict[str, torch.Tensor]]:
        """The model's state after each iteration."""
        step = CellStep(self.model, iter(self.batches[start:stop]), self.optimizer)
        states = []
        with EventStorage(start) as self.storage:
            for self.iter in range(start, stop):
                self.model.train()  # as whatever evaluates in between does
                self.before_step()
                step.iter = self.iter
                step.run_step()
                states.append({n: v.clone() for n, v in self.model.state_dict().items()})
        return states


def changed(old: dict[str, torch.Tensor], new: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in old.items() if not torch.equal(value, new[name])}


def test_a_part_stands_still_until_its_time_has_come(caplog: pytest.LogCaptureFixture) -> None:
    loop = Loop({"early": 2, "early.2": -1})
    start = {name: value.clone() for name, value in loop.model.state_dict().items()}
    with caplog.at_level(logging.INFO, "cellseg"):
        states = [start, *loop.run(0, 4)]
    late = {"late.weight", "late.bias"}
    assert changed(states[0], states[1]) == late  # neither statistics nor weight decay
    assert changed(states[1], states[2]) == late
    early = {name for name in start if name.startswith(("early.0", "early.1"))}
    assert changed(states[2], states[3]) == late | early
    assert changed(states[0], states[4]) == late | early
    assert not loop.model.ready.weight.requires_grad
    texts = [record.getMessage() for record in caplog.records]
    assert texts == [
        "Frozen before iteration 2: early (15 parameters)",
        "Frozen for ever: early.2 (12 parameters)",
        "Iteration 2: early thaws (15 parameters)",
    ]


def test_frozen_parameters_have_no_gradient() -> None:
    loop = Loop({"early": 1})
    loop.run(0, 1)
    assert all(parameter.grad is None for parameter in loop.model.early.parameters())
    loop.run(1, 2)
    assert all(parameter.grad is not None for parameter in loop.model.early.parameters())


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_run_that_is_cut_goes_on_as_if_it_had_not_been(cut: int) -> None:
    whole = Loop({"early": 3}).run(0, 6)[-1]
    first, second = Loop({"early": 3}), Loop({"early": 3})
    first.run(0, cut)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert not changed(whole, second.run(cut, 6)[-1])


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        ({"erly": 3}, "'erly'; did you mean early"),
        ({"early": 3, "late": -1}, "freezes all parameters"),
    ],
)
def test_schedules_that_cannot_be_used(schedule: dict[str, int], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        FreezeSchedule(Chain(), schedule)


@pytest.fixture
def cfg(tiny_training: list[str]) -> CfgNode:
    tiny = ("INPUT.MIN_SIZE_TRAIN", "(64,)", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "40")
    return load_config(QUICK_START, [*tiny_training, *tiny, "DATASETS.TEST", "()"])


def test_a_mask_rcnn_thaws_and_is_resumed_before_it(
    cfg: CfgNode, caplog: pytest.LogCaptureFixture
) -> None:
    cfg.CELLSEG.SOLVER.FREEZE = [["backbone.bottom_up", 2]]
    cfg.SOLVER.CHECKPOINT_PERIOD, cfg.SOLVER.MAX_ITER = 1, 1
    trainer = CellTrainer(cfg)
    before = states(trainer.model)
    trainer.train()
    part = {name for name in before if name.startswith("backbone.bottom_up")}
    moved = changed(before, states(trainer.model))
    assert moved
    assert not moved & part

    cfg.SOLVER.MAX_ITER = 3
    resumed = CellTrainer(cfg)
    resumed.resume_or_load(resume=True)
    with caplog.at_level(logging.INFO, "cellseg"):
        resumed.train()
    assert "Frozen before iteration 2" in caplog.text
    assert "Iteration 2: backbone.bottom_up thaws" in caplog.text
    assert changed(before, states(resumed.model)) & part
    assert resumed.optimizer.state_dict()["state"]


def test_nothing_to_freeze_is_no_hook(cfg: CfgNode) -> None:
    assert build_freezing(cfg, Chain()) is None


def states(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}
