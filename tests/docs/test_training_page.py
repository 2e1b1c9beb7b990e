"""docs/training.md: its config trains and its tables name what there is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from cellseg import add_cellseg_config, load_config
from detectron2.config import CfgNode
from pages import REPOSITORY, Page

PAGE = Page("docs/training.md")
TEXT = (REPOSITORY / "docs/training.md").read_text("utf-8")


def test_the_table_has_every_key_with_its_default() -> None:
    cfg = CfgNode()
    add_cellseg_config(cfg)
    rows = re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)`", TEXT, flags=re.MULTILINE)
    assert {key: ast.literal_eval(default) for key, default in rows} == dict(cfg.CELLSEG.TRAIN)


def test_the_config_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PAGE.write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert load_config("my_training.yaml").CELLSEG.TRAIN.PATIENCE == 5
