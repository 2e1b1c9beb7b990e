"""What files and the command line set: which key, from where, and in words."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from cellseg import load_config
from cellseg.config import pairs_to_tree, read_config_tree
from cellseg.errors import ConfigError
from cellseg.yaml_text import MAX_DEPTH, parse_with_lines, parse_yaml


def test_an_error_says_which_file_and_line_set_the_key(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text('_BASE_: "quick_start.yaml"\nSOLVER:\n  MAX_ITER: 0\n')
    (tmp_path / "top.yaml").write_text("_BASE_: base.yaml\nSEED: 4\n")
    with pytest.raises(ConfigError, match=r"SOLVER.MAX_ITER is set in .*base\.yaml, line 3"):
        load_config(tmp_path / "top.yaml")
    with pytest.raises(ConfigError, match=r"SOLVER\.MAX_ITER is set on the command line"):
        load_config(tmp_path / "top.yaml", ["SOLVER.MAX_ITER", -1])
    assert load_config(tmp_path / "top.yaml", ["SOLVER.MAX_ITER", "7"]).SOLVER.MAX_ITER == 7


def test_all_that_cannot_be_used_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text('_BASE_: "quick_start.yaml"\nSOLVER: 5\nMODEL: {MASK_ONE: 1}\nSEED: null\n')
    with pytest.raises(ConfigError, match=r"\(3\)") as caught:
        load_config(path)
    for part in ("SOLVER is 5", "did you mean MODEL.MASK_ON", "SEED is null", "line 4"):
        assert part in str(caught.value)


def test_an_alias_that_is_changed_in_one_place_stays_in_the_other(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("A: &a {K: 1}\nB: *a\n")
    (tmp_path / "top.yaml").write_text("_BASE_: base.yaml\nA: {K: 2}\n")
    assert read_config_tree(tmp_path / "top.yaml").tree == {"A": {"K": 2}, "B": {"K": 1}}


def test_a_plug_ins_key_keeps_its_type(tmp_path: Path) -> None:
    (tmp_path / "typed_keys_of_mine.py").write_text(
        "from detectron2.config import CfgNode\n"
        "def add_config(cfg):\n"
        "    cfg.MINE = CfgNode({'WIDTH': 8, 'RATE': 0.5, 'NAME': '', 'SIZES': (1,)})\n"
    )
    (tmp_path / "mine.yaml").write_text(
        '_BASE_: "quick_start.yaml"\nCELLSEG: {PLUGINS: [typed_keys_of_mine.py]}\n'
    )
    opts = ["MINE.RATE", 1, "MINE.NAME", "2026", "MINE.SIZES", [2, 3]]
    node = load_config(tmp_path / "mine.yaml", opts).MINE
    assert (repr(node.RATE), node.NAME, node.SIZES) == ("1.0", "2026", (2, 3))
    with pytest.raises(ConfigError, match=r"MINE\.WIDTH is 'wide'; expected a whole number, such"):
        load_config(tmp_path / "mine.yaml", ["MINE.WIDTH", "wide"])


def test_pairs_become_a_tree() -> None:
    assert pairs_to_tree(["A.B", 1, "A.C", Path("x"), "A.B", 2]).tree == {"A": {"B": 2, "C": "x"}}
    with pytest.raises(ConfigError, match="A is given a value, too"):
        pairs_to_tree(["A", 1, "A.B", 2])


def test_lines_of_keys() -> None:
    value, lines = parse_with_lines("A:\n  B: 1\n  C: {D: 2}\n")
    assert value == {"A": {"B": 1, "C": {"D": 2}}}
    assert lines == {"A": 1, "A.B": 2, "A.C": 3, "A.C.D": 3}
    assert parse_yaml(b"\xef\xbb\xbfA: 1") == {"A": 1}


def test_depth_is_bounded() -> None:
    deep = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    assert isinstance(parse_yaml(deep), list)
    with pytest.raises(yaml.YAMLError, match="more than 100 levels"):
        parse_yaml(f"[[{deep}]]")
