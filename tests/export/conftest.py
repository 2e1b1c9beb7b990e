"""A small model, untrained, and its ONNX file."""

from __future__ import annotations

from pathlib import Path

import pytest
from cellseg import load_config
from commands import REPOSITORY, Command
from detectron2.config import CfgNode

pytest.importorskip("onnx", reason="pip install 'cellseg[export]'")
pytest.importorskip("onnxruntime", reason="pip install 'cellseg[export]'")


@pytest.fixture
def cfg(checkpoint_options: list[str]) -> CfgNode:
    return load_config(REPOSITORY / "configs/quick_start.yaml", checkpoint_options)


@pytest.fixture(scope="session")
def exported(
    checkpoint_options: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[CfgNode, Path]:
    """A config and the file of its model, written by the command into a folder that it makes."""
    recipe = REPOSITORY / "configs/quick_start.yaml"
    path = tmp_path_factory.mktemp("exported") / "of/a/model.onnx"
    words = ["--config-file", recipe, "--output", path, *checkpoint_options]
    assert Command("export-model").main(words) == 0
    return load_config(recipe, checkpoint_options), path
