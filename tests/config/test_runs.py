"""The config and the weights of a run's folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from cellseg.config.runs import find_run_config, find_run_weights
from cellseg.errors import CheckpointError, ConfigError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"")


def test_config_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no config\.yaml"):
        find_run_config(tmp_path)
    with pytest.raises(ConfigError, match="is no folder"):
        find_run_config(tmp_path / "none")
    touch(tmp_path, "config.yaml")
    assert find_run_config(tmp_path) == tmp_path / "config.yaml"


def test_the_best_checkpoint_then_the_final_then_the_last_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint in it"):
        find_run_weights(tmp_path)
    touch(tmp_path, "model_0000099.pth", "model_0000199.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000199.pth")
    assert find_run_weights(tmp_path).name == "model_0000199.pth"
    touch(tmp_path, "model_final.pth")
    assert find_run_weights(tmp_path).name == "model_final.pth"
    touch(tmp_path, "model_best.pth")
    assert find_run_weights(tmp_path).name == "model_best.pth"


def test_a_last_checkpoint_that_is_gone_is_none(tmp_path: Path) -> None:
    (tmp_path / "last_checkpoint").write_text("model_0000199.pth")
    with pytest.raises(CheckpointError, match="no checkpoint in it"):
        find_run_weights(tmp_path)
