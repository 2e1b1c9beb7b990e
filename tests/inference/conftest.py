"""The small model of these tests, as a config."""

from __future__ import annotations

import pytest
from cellseg import load_config
from commands import REPOSITORY
from detectron2.config import CfgNode


@pytest.fixture
def cfg(checkpoint_options: list[str]) -> CfgNode:
    return load_config(REPOSITORY / "configs/quick_start.yaml", checkpoint_options)
