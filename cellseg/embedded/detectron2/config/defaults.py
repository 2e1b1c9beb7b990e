"""The default value of every config key, read from `defaults.yaml` beside this module."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import yaml
from detectron2.config.config import CfgNode

DEFAULTS_FILE = Path(__file__).with_name("defaults.yaml")


def _with_tuples(value: Any) -> Any:
    """YAML knows no tuples; a string in parentheses stands for one, as in any config file."""
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    if isinstance(value, str) and value.startswith("("):
        return ast.literal_eval(value)
    return value


_C = CfgNode(_with_tuples(yaml.safe_load(DEFAULTS_FILE.read_text(encoding="utf-8"))))


def get_cfg() -> CfgNode:
    """A fresh copy of the defaults, free to change."""
    return _C.clone()
