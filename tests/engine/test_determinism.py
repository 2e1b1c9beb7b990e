"""CELLSEG.DETERMINISTIC: the same SEED, the same weights, bit by bit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cellseg import load_config
from cellseg.engine import CellTrainer
from cellseg.engine.determinism import make_deterministic

QUICK_START = Path(__file__).resolve().parents[2] / "configs/quick_start.yaml"


@pytest.fixture(autouse=True)
def _settings_as_they_were(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setenv("PYTHONHASHSEED", os.environ.get("PYTHONHASHSEED", ""))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", torch.backends.cudnn.deterministic)
    yield
    torch.use_deterministic_algorithms(False)


def test_the_settings() -> None:
    torch.backends.cudnn.benchmark = True
    make_deterministic(3)
    first = torch.rand(2)
    make_deterministic(3)
    assert torch.equal(torch.rand(2), first)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cudnn.benchmark
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.parametrize("workers", [0, 2])
def test_two_runs_give_the_same_weights(
    tiny_training: list[str], tmp_path: Path, workers: int
) -> None:
    found = []
    for number in range(2):
        torch.rand(number)  # what happened before does not matter
        trainer = CellTrainer(
            load_config(
                QUICK_START,
                [
                    *tiny_training,
                    *("CELLSEG.DETERMINISTIC", "True", "SEED", "7", "SOLVER.MAX_ITER", "2"),
                    *("DATALOADER.NUM_WORKERS", str(workers), "DATASETS.TEST", "()"),
                    *("INPUT.MIN_SIZE_TRAIN", "(48,64)", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "40"),
                    *("OUTPUT_DIR", str(tmp_path / str(number))),
                ],
            )
        )
        trainer.train()
        found.append(torch.cat([p.detach().flatten() for p in trainer.model.parameters()]))
    assert torch.equal(*found)
