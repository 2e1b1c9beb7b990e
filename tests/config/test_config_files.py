"""Where config files are looked for, their bases, and several of them together."""

from __future__ import annotations

from pathlib import Path

import pytest
from cellseg import load_config
from cellseg.config import find_config_file, read_config_tree
from cellseg.errors import ConfigError
from cellseg.shipped import shipped_folder


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; 0.1 found no recipe in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, "utf-8")
    return name


def test_a_recipe_is_found_by_its_name_from_any_folder() -> None:
    recipe = shipped_folder("configs") / "quick_start.yaml"
    for name in ("quick_start.yaml", "configs/quick_start.yaml", recipe, str(recipe)):
        assert find_config_file(name) == recipe
    assert load_config("quick_start.yaml").OUTPUT_DIR == "output/quick_start"


def test_a_file_of_the_user_is_found_before_a_recipe_of_the_same_name() -> None:
    write("quick_start.yaml", "SEED: 7\n")
    assert load_config("quick_start.yaml").SEED == 7
    assert load_config("configs/quick_start.yaml").SEED == 1


def test_a_missing_file_is_one_error_with_the_nearest_recipe() -> None:
    with pytest.raises(ConfigError, match=r"quickstart\.yaml: no such config file") as caught:
        load_config("quickstart.yaml")
    assert "did you mean quick_start.yaml?" in str(caught.value)
    with pytest.raises(ConfigError, match="no config file is named"):
        load_config([])


def test_of_several_files_later_ones_win_and_the_command_line_over_all() -> None:
    write("a.yaml", '_BASE_: "quick_start.yaml"\nSEED: 3\nSOLVER: {MAX_ITER: 5}\n')
    write("b.yaml", "SEED: 4\nCELLSEG: {TEST: {MIN_AREA: 9}}\n")
    cfg = load_config(["a.yaml", "b.yaml"], ["CELLSEG.TEST.MIN_AREA", 7])
    assert (cfg.SEED, cfg.SOLVER.MAX_ITER, cfg.CELLSEG.TEST.MIN_AREA) == (4, 5, 7)
    assert load_config(["b.yaml", "a.yaml", "b.yaml"]).SEED == 4
    assert load_config(["b.yaml", "a.yaml"]).SEED == 3


def test_three_axes_are_the_recipe_that_they_make() -> None:
    axes = ["machine/gpu.yaml", "data/dsb2018.yaml", "start/coco.yaml"]
    composed = load_config(axes, ["OUTPUT_DIR", "output/dsb2018_coco"])
    assert composed == load_config("dsb2018/mask_rcnn_R_50_FPN_coco.yaml")


def test_a_base_is_looked_for_beside_its_file_and_then_among_the_recipes() -> None:
    write("sub/top.yaml", '_BASE_: ["near.yaml", "data/dsb2018.yaml"]\nA: {B: 1}\n')
    write("sub/near.yaml", "A: {B: 2, C: 3}\nDATASETS: 0\n")
    tree = read_config_tree("sub/top.yaml").tree
    assert tree["A"] == {"B": 1, "C": 3}
    assert tree["DATASETS"]["TRAIN"] == '("dsb2018_fluo_train",)'
    assert "_BASE_" not in tree


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('_BASE_: "far.yaml"', "far.yaml: no such config file"),
        ('_BASE_: "top.yaml"', "is its own _BASE_"),
        ("_BASE_: 7", "expected a file or a list of files"),
        ("- 1\n- 2", "holds a list; expected keys and values"),
        ("A: [1", r"top\.yaml: cannot be read as a YAML config"),
        ("A: !!python/name:os.system", "cannot be read as a YAML config"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_error(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_config_tree(write("top.yaml", text))


def test_an_empty_file_changes_nothing() -> None:
    write("empty.yaml", "# nothing yet\n")
    assert load_config(["quick_start.yaml", "empty.yaml"]) == load_config("quick_start.yaml")


def test_plug_ins_are_looked_for_beside_the_file_that_names_them() -> None:
    write("far/own_keys_of_far.py", "def add_config(cfg):\n    cfg.CELLSEG.FAR = 1\n")
    write("far/far.yaml", "CELLSEG: {PLUGINS: [own_keys_of_far.py], FAR: 2}\n")
    write("top.yaml", "SEED: 1\n")
    assert load_config(["quick_start.yaml", "far/far.yaml", "top.yaml"]).CELLSEG.FAR == 2


def test_keys_of_detectron2s_first_config_version_are_translated() -> None:
    write("old.yaml", "VERSION: 1\nMODEL: {WEIGHT: old.pkl}\n")
    assert load_config(["quick_start.yaml", "old.yaml"]).MODEL.WEIGHTS == "old.pkl"
