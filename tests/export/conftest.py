"""A small model, untrained, and its ONNX file."""

from __future__ import annotations

from pathlib import Path

import pytest
from cellseg import load_config
from cellseg.export.onnx_file import export_onnx
from commands import REPOSITORY
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
    """A config and the file of its model."""
    cfg = load_config(REPOSITORY / "configs/quick_start.yaml", checkpoint_options)
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    export_onnx(cfg, path)
    return cfg, path
