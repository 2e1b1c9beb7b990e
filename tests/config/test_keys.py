"""The table of keys: complete, consistent, enforced, and told in one page."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cellseg import add_cellseg_config, load_config
from cellseg.cells.selection import TEST_KEYS, DetectionThresholds
from cellseg.config import KEYS, check_keys, check_value, value_of
from cellseg.config.reference import keys_to_markdown
from cellseg.errors import ConfigError
from detectron2.config import CfgNode, get_cfg

REPOSITORY = Path(__file__).resolve().parents[2]
each_key = pytest.mark.parametrize("name", KEYS)
NOTHING = {"it": "is of no type that a key has"}


@each_key
def test_a_key_has_a_sentence_and_a_rule_that_accepts_its_default(name: str) -> None:
    key = KEYS[name]
    assert key.name == name
    assert key.says[0].isupper() or key.says[0] == "`"
    assert key.says.endswith(".")
    assert key.rule.expected
    check_value(name, key.default)


@each_key
def test_a_wrong_value_is_named_with_what_was_expected(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_value(name, NOTHING)
    said = f"CELLSEG.{name} is {NOTHING!r}; expected {KEYS[name].rule.expected}"
    assert str(caught.value) == said


@each_key
def test_a_wrong_value_on_the_command_line_is_one_error(name: str) -> None:
    """Whatever its default is, an impossible number or text is no silent setting."""
    wrong = next(value for value in ("-2.5", "'!'", "True") if not accepts_word(name, value))
    with pytest.raises(ConfigError, match=name.rpartition(".")[2]) as caught:
        load_config("quick_start.yaml", [f"CELLSEG.{name}", wrong])
    if name != "PLUGINS":  # which is read first of all
        assert "expected" in str(caught.value)


def accepts_word(name: str, word: str) -> bool:
    value = {"-2.5": -2.5, "'!'": "!", "True": True}[word]
    return KEYS[name].rule.accepts(value)


@each_key
def test_what_is_said_to_check_a_key_is_there(name: str) -> None:
    path = KEYS[name].checked_by
    if path:
        module, _, function = path.rpartition(".")
        assert callable(getattr(importlib.import_module(module), function))


def test_the_config_has_the_keys_of_the_table_and_no_others() -> None:
    cfg = get_cfg()
    add_cellseg_config(cfg)

    def leaves(node: CfgNode, prefix: str = "") -> list[str]:
        found = []
        for key, value in node.items():
            below = leaves(value, f"{prefix}{key}.") if isinstance(value, CfgNode) else []
            found += below or [prefix + key]
        return found

    assert sorted(leaves(cfg.CELLSEG)) == sorted(KEYS)
    assert all(value_of(cfg, name) == key.default for name, key in KEYS.items())
    cfg.CELLSEG.PLUGINS.append("mine.py")
    assert KEYS["PLUGINS"].default == []


def test_several_wrong_values_are_named_together() -> None:
    cfg = get_cfg()
    add_cellseg_config(cfg)
    check_keys(cfg)
    cfg.CELLSEG.TEST.PICTURES, cfg.CELLSEG.INPUT.PAGE = -1, "all"
    with pytest.raises(ConfigError, match=r"values that cannot be used \(2\)") as caught:
        check_keys(cfg)
    assert "CELLSEG.INPUT.PAGE is 'all'; expected a page number" in str(caught.value)
    check_keys(cfg, skip=["TEST.PICTURES", "INPUT.PAGE"])


def test_the_page_of_keys_is_current() -> None:
    """`python -m cellseg.config` writes it."""
    assert (REPOSITORY / "docs/reference/keys.md").read_text("utf-8") == keys_to_markdown()


def test_the_command_writes_the_page(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cellseg.config", str(tmp_path / "new/keys.md")]
    subprocess.run(command, check=True, cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)})
    assert (tmp_path / "new/keys.md").read_text("utf-8") == keys_to_markdown()


@pytest.mark.parametrize(
    "value",
    [
        *(-1, 0, 0.5, 1, 1.5, math.inf, True, "a", "drop", None, {"a": 1}),
        *([], [0.5], [2, 0], [True, False], [True, 1], ["keep"]),
    ],
)
def test_thresholds_of_cells_follow_the_same_rules(value: Any) -> None:
    """`DetectionThresholds`, a room below, checks its own numbers."""
    fields = (
        *("score", "mask", "largest_component", "fill_holes", "min_area_px", "max_area_px"),
        *("mask_nms", "max_covered", "border", "exclusive"),
    )
    for field, key in zip(fields, TEST_KEYS, strict=True):
        assert KEYS[f"TEST.{key}"].default == getattr(DetectionThresholds(), field)
        if KEYS[f"TEST.{key}"].rule.accepts(value):
            DetectionThresholds(**{field: value})
        else:
            with pytest.raises(ConfigError):
                DetectionThresholds(**{field: value})
