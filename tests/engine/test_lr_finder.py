"""The learning rate finder, on curves whose answer is known and on a model that diverges."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellseg.engine.lr_finder import LearningRateSweep, describe_sweep, find_learning_rate
from cellseg.engine.steps import CellStep
from cellseg.errors import CellsegError, TrainingError
from PIL import Image
from torch import nn


class Bowl(nn.Module):
    """Squared distance to 1, times `steepness`: SGD diverges above a rate of 1 / steepness."""

    def __init__(self, steepness: float = 10.0) -> None:
        super().__init__()
        self.steepness = steepness
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        return {"loss": self.steepness * (self.weight - 1).square().sum()}


def make_step(model: nn.Module, lr: float = 0.5, tmp_path: Path | None = None) -> CellStep:
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.5)
    return CellStep(model, iter([[{}]] * 1000), optimizer, output_dir=tmp_path)


def test_a_bowl_diverges_where_it_must_and_is_put_back() -> None:
    model = Bowl()
    step = make_step(model)
    sweep = find_learning_rate(step, base_lr=0.5, lowest=1e-4, highest=10, iterations=100)
    # with momentum 0.5 a bowl of curvature 20 diverges above 2 (1 + 0.5) / 20
    assert sweep.diverges_at is not None
    assert 0.15 < sweep.diverges_at < 1.5
    assert sweep.steepest is not None
    assert 1e-3 < sweep.steepest < 0.15
    assert sweep.suggestion == pytest.approx(min(sweep.steepest, sweep.diverges_at / 10), rel=0.05)
    assert len(sweep.rates) == len(sweep.losses) < 100
    np.testing.assert_allclose(np.diff(np.log(sweep.rates)), np.log(1e5) / 99)
    assert torch.equal(model.weight, torch.zeros(2))
    assert step.optimizer.param_groups[0]["lr"] == 0.5
    assert not step.optimizer.state_dict()["state"]


def test_groups_keep_the_ratio_of_their_rates() -> None:
    seen = []

    class Spy(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            seen.append([group["lr"] for group in self.param_groups])
            return super().step(closure)

    model = nn.ModuleList([Bowl(), Bowl()])
    groups = [{"params": model[0].parameters()}, {"params": model[1].parameters(), "lr": 0.02}]
    model.forward = lambda batch: model[0](batch) | {"other": model[1](batch)["loss"]}  # type: ignore[method-assign]
    step = CellStep(model, iter([[{}]] * 9), Spy(groups, 0.2))
    find_learning_rate(step, base_lr=0.2, lowest=1e-5, highest=1e-4, iterations=3)
    expected = [[1e-5, 1e-6], [10**-4.5, 10**-5.5], [1e-4, 1e-5]]
    np.testing.assert_allclose(seen, expected, rtol=1e-6)


def test_what_is_not_finite_ends_the_sweep_and_not_the_program(tmp_path: Path) -> None:
    class Cliff(Bowl):
        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            loss = super().forward(batch)["loss"]
            return {"loss": loss / 0 if self.weight[0] > 0.5 else loss}

    step = make_step(Cliff())
    sweep = find_learning_rate(step, base_lr=0.5, lowest=1e-4, highest=10, iterations=50)
    assert sweep.diverges_at is not None
    assert len(sweep.losses) < 50
    assert np.isfinite(sweep.losses).all()
    assert list(tmp_path.iterdir()) == []
    with torch.no_grad():
        step.model.weight.fill_(1.0)
    with pytest.raises(TrainingError, match="loss"):
        find_learning_rate(step, base_lr=0.5)


def made_up(fall_at: float, diverges_at: float | None) -> LearningRateSweep:
    """A loss that falls from 3 to 1 around a rate."""
    rates = np.geomspace(1e-6, 1e-1, 101)
    noise = np.random.default_rng(0).normal(0, 0.02, 101)
    losses = 2 - np.tanh(np.log10(rates / fall_at) * 2) + noise
    return LearningRateSweep(rates, losses, diverges_at)


def test_the_steepest_descent_is_found_in_noise() -> None:
    sweep = made_up(1e-3, None)
    assert sweep.steepest == pytest.approx(1e-3, rel=0.3)
    assert made_up(1e-3, 2e-3).suggestion == pytest.approx(2e-4)
    assert made_up(1e-3, 0.1).suggestion == pytest.approx(1e-3, rel=0.3)
    assert f"BASE_LR: {sweep.suggestion:g}" in describe_sweep(sweep)
    assert "diverges nowhere" in describe_sweep(sweep)


def test_no_fall_and_no_divergence_are_said() -> None:
    rates = np.geomspace(1e-6, 1e-3, 20)
    rising = LearningRateSweep(rates, np.linspace(1, 2, 20), None)
    assert rising.steepest is None
    with pytest.raises(
        CellsegError, match=r"neither fell nor diverged: try --highest above 0\.001"
    ):
        describe_sweep(rising)
    assert LearningRateSweep(rates[:2], np.ones(2), 1e-2).suggestion == pytest.approx(1e-3)


def test_curve_and_table_are_written(tmp_path: Path) -> None:
    sweep = made_up(1e-3, 5e-2)
    sweep.write_csv(tmp_path / "rates.csv")
    sweep.write_plot(tmp_path / "rates.png")
    with open(tmp_path / "rates.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_allclose([float(row["loss"]) for row in rows], sweep.losses)
    assert Image.open(tmp_path / "rates.png").size[0] > 500
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rates.csv", "rates.png"]


@pytest.mark.parametrize(("lowest", "highest", "count"), [(1, 0.1, 9), (0, 1, 9), (0.1, 1, 1)])
def test_no_range_is_refused(lowest: float, highest: float, count: int) -> None:
    with pytest.raises(ValueError, match="expected 0 < lowest < highest"):
        find_learning_rate(
            make_step(Bowl()), base_lr=1, lowest=lowest, highest=highest, iterations=count
        )
