"""docs/training.md: its config can be used."""

from __future__ import annotations

from pathlib import Path

import pytest
from cellseg import load_config
from pages import Page

PAGE = Page("docs/training.md")


def test_the_config_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PAGE.write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert load_config("my_training.yaml").CELLSEG.TRAIN.PATIENCE == 5
