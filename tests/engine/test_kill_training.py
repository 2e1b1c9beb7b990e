"""A training that was killed and resumed ends as one that was not, to the last bit."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from kill_training import Killing, list_differences


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_killed_trainings_end_as_one_that_was_not_killed(tmp_path: Path, workers: int) -> None:
    killing = Killing(tmp_path, workers)
    killing.train_whole(tmp_path / "whole")
    chance = random.Random(workers)
    kills = 0
    while kills < 2:
        run = tmp_path / f"run_{kills}_{chance.random()}"
        kills += killing.train_with_kills(run, chance, 2 - kills)
        assert list_differences(run, tmp_path / "whole") == []


def test_what_differs_is_found(tmp_path: Path) -> None:
    import torch

    for name, weight in (("one", 1.0), ("other", 1.0 + 2**-23)):
        (tmp_path / name).mkdir()
        state = {"model": {"w": torch.tensor([weight])}, "iteration": 1}
        torch.save(state, tmp_path / name / "model_final.pth")
        (tmp_path / name / "best.json").write_text("{}")
        (tmp_path / name / "last_checkpoint").write_text("model_final.pth")
        (tmp_path / name / "metrics.json").write_text(f'{{"iteration": 1, "time": {weight}}}\n')
    assert list_differences(tmp_path / "one", tmp_path / "one") == []
    assert list_differences(tmp_path / "one", tmp_path / "other") == ["model_final.pth: /model/w"]
