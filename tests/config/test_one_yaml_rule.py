"""A key that stands twice is refused in every YAML that cellseg reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from cellseg import load_config
from cellseg.cli.convert import read_value
from cellseg.datasets.declarations import read_declarations
from cellseg.errors import CellsegError, ConfigError
from cellseg.models.card import parse_tree
from cellseg.yaml_text import parse_yaml

TWICE = "SOLVER: {MAX_ITER: 10}\nSOLVER: {BASE_LR: 0.1}\n"


def test_a_config_with_a_section_twice(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text('_BASE_: "quick_start.yaml"\n' + TWICE)
    with pytest.raises(ConfigError, match=r"(?s)twice\.yaml.*SOLVER stands there twice.*line 3"):
        load_config(path)
    path.write_text("SOLVER:\n  MAX_ITER: 10\n  MAX_ITER: 20\n")
    with pytest.raises(ConfigError, match="MAX_ITER stands there twice"):
        load_config(path)


def test_declarations_cards_and_options(tmp_path: Path) -> None:
    path = tmp_path / "sets.yaml"
    path.write_text(TWICE)
    with pytest.raises(CellsegError, match="SOLVER stands there twice"):
        read_declarations(path)
    with pytest.raises(CellsegError, match="SOLVER stands there twice"):
        parse_tree(TWICE, "card.yaml")
    with pytest.raises(CellsegError, match="a stands there twice"):
        read_value("{a: 1, a: 2}")
    assert parse_yaml("a: &x {k: 1}\nb: {<<: *x, k: 2}") == {"a": {"k": 1}, "b": {"k": 2}}
