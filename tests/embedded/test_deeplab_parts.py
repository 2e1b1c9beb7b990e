"""What projects such as Mask2Former take from DeepLab's."""

from __future__ import annotations

import io

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.projects.deeplab import add_deeplab_config, build_lr_scheduler
from torch import nn


def rates(**options: float) -> list[float]:
    """Learning rates of iterations 0 to 9 of 10, from 2.0, warm-up from a half in 2 iterations."""
    cfg = get_cfg()
    add_deeplab_config(cfg)
    solver = cfg.SOLVER
    solver.LR_SCHEDULER_NAME, solver.MAX_ITER = "WarmupPolyLR", 10
    solver.WARMUP_FACTOR, solver.WARMUP_ITERS = 0.5, 2
    for name, value in options.items():
        solver[name] = value
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=2.0)
    scheduler = build_lr_scheduler(cfg, optimizer)
    found = []
    for _ in range(10):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    saved = io.BytesIO()
    torch.save(scheduler.state_dict(), saved)
    saved.seek(0)
    assert torch.load(saved, weights_only=True)["last_epoch"] == 10
    return found


def test_a_straight_line_behind_the_warm_up() -> None:
    expected = [1.0, 2 * 0.75 * 0.9, 1.6, 1.4, 1.2, 1.0, 0.8, 0.6, 0.4, 0.2]
    assert rates(POLY_LR_POWER=1.0) == pytest.approx(expected)


def test_the_power_of_the_paper() -> None:
    assert rates()[5] == pytest.approx(2 * 0.5**0.9)


def test_the_rate_stays_at_its_ending() -> None:
    found = rates(POLY_LR_POWER=1.0, POLY_LR_CONSTANT_ENDING=0.25)
    assert found[6:] == pytest.approx([0.8, 0.6, 0.5, 0.5])
    assert found[0] == pytest.approx(1.0)


def test_other_schedules_are_the_engine_s() -> None:
    assert rates(LR_SCHEDULER_NAME="WarmupCosineLR", WARMUP_ITERS=0)[5] == pytest.approx(1.0)


def test_keys_have_defaults_of_their_own() -> None:
    one, other = get_cfg(), get_cfg()
    add_deeplab_config(one)
    add_deeplab_config(other)
    one.MODEL.SEM_SEG_HEAD.ASPP_DILATIONS.append(24)
    assert other.MODEL.SEM_SEG_HEAD.ASPP_DILATIONS == [6, 12, 18]
