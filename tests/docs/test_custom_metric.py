"""docs/custom_metric.md: its metric is known to scoring and to a training."""

from __future__ import annotations

import ast
import shlex
from pathlib import Path

import pytest
from cellseg import load_config
from cellseg.cli import parse_command
from cellseg.evaluation import METRICS
from pages import Page

PAGE = Page("docs/custom_metric.md")


def test_scoring(tmp_path: Path) -> None:
    PAGE.write_files(tmp_path)
    said = ast.literal_eval(PAGE.run(PAGE.commands[1], tmp_path).splitlines()[-1])
    assert said == {"error_rate@0.50": 0.5, "accuracy@0.50": 0.5}


def test_a_training_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PAGE.write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    _, name, *words = shlex.split(PAGE.commands[0])
    args = parse_command(name, words)
    try:
        cfg = load_config(args.config_file, args.opts)
        assert cfg.CELLSEG.TEST.METRICS == ["error_rate@0.50"]
        assert METRICS["error_rate"].lower_is_better
    finally:
        METRICS.pop("error_rate", None)
