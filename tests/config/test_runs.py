"""The config and the weights of a run's folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from cellseg.config.runs import find_model_files, find_run_config, find_run_weights
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


def test_a_model_is_named_by_its_folder_or_its_checkpoint(tmp_path: Path) -> None:
    touch(tmp_path, "config.yaml", "model_final.pth", "other.pth")
    config = tmp_path / "config.yaml"
    assert find_model_files(tmp_path) == (config, tmp_path / "model_final.pth")
    assert find_model_files(tmp_path / "other.pth") == (config, tmp_path / "other.pth")


def test_no_such_model_says_what_is_near(tmp_path: Path) -> None:
    (tmp_path / "my_run").mkdir()
    with pytest.raises(ConfigError, match=r"no such model.*did you mean my_run"):
        find_model_files(tmp_path / "my_rum")
