"""A small bundle, made once, and copies of it to damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cellseg import load_config
from cellseg.engine.bundling import bundle_model
from cellseg.models import ModelCard
from detectron2.config import CfgNode


@pytest.fixture(scope="session")
def small_cfg(checkpoint_options: list[str]) -> CfgNode:
    """The config of a small model with a checkpoint."""
    return load_config("quick_start.yaml", checkpoint_options)


@pytest.fixture(scope="session")
def made_bundle(small_cfg: CfgNode, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder; not to be changed."""
    path = tmp_path_factory.mktemp("bundles") / "tiny-cells"
    bundle_model(small_cfg, path, ModelCard("tiny-cells", ("nucleus",), precision="int8"))
    return path


@pytest.fixture
def bundle_copy(made_bundle: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(made_bundle, tmp_path / "tiny-cells"))


@pytest.fixture
def change_card(bundle_copy: Path) -> Callable[..., Path]:
    """Set keys of the copy's card; None removes one."""

    def change(**values: Any) -> Path:
        path = bundle_copy / "model.yaml"
        tree = {**yaml.safe_load(path.read_text("utf-8")), **values}
        kept = {key: value for key, value in tree.items() if value is not None}
        path.write_text(yaml.safe_dump(kept), "utf-8")
        return bundle_copy

    return change
