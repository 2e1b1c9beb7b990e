"""Loading configurations: overrides, plug-ins with keys, clear errors."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
import yaml
from cellseg import add_cellseg_config, load_config
from cellseg.errors import ConfigError
from detectron2.config import get_cfg

REPOSITORY = Path(__file__).resolve().parent.parent
QUICK_START = REPOSITORY / "configs/quick_start.yaml"


def test_own_keys_sit_below_one_namespace() -> None:
    plain, extended = get_cfg(), get_cfg()
    add_cellseg_config(extended)
    assert set(extended) - set(plain) == {"CELLSEG"}
    del extended["CELLSEG"]
    assert extended == plain


def test_overrides_win_over_the_file_and_weights_over_both() -> None:
    cfg = load_config(QUICK_START, ["SOLVER.MAX_ITER", "7", "MODEL.WEIGHTS", "a"], weights="b")
    assert (cfg.SOLVER.MAX_ITER, cfg.MODEL.WEIGHTS) == (7, "b")
    assert cfg.SOLVER.IMS_PER_BATCH == 2  # from the file
    assert cfg.MODEL.RESNETS.NORM == "GN"  # from its _BASE_


def write_config(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(f'_BASE_: "{QUICK_START}"\n{text}')
    return path


def test_a_plug_in_may_bring_keys(tmp_path: Path) -> None:
    (tmp_path / "with_keys.py").write_text(
        "from detectron2.config import CfgNode\n"
        "def add_config(cfg):\n"
        "    cfg.MY_HEAD = CfgNode({'WIDTH': 8})\n"
    )
    path = write_config(tmp_path, "CELLSEG:\n  PLUGINS: ['with_keys.py']\nMY_HEAD:\n  WIDTH: 16\n")
    assert load_config(path).MY_HEAD.WIDTH == 16


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SOLVER:\n  MAX_ITR: 3\n", "SOLVER.MAX_ITER"),
        ("SOLVER:\n  MAX_ITER: 'many'\n", "MAX_ITER"),
        ("CELLSEG:\n  INPUT:\n    NORMALIZE: 'percentil'\n", "percentile"),
        ("CELLSEG:\n  INPUT:\n    PERCENTILES: [99, 1]\n", "low < high"),
        ("CELLSEG:\n  SOLVER:\n    OPTIMIZER: 'ADAM'\n", "ADAMW"),
        ("CELLSEG:\n  TEST:\n    SCORE_THRESHOLD: 1.5\n", "0 to 1"),
        ("MODEL:\n  ROI_MASK_HEAD:\n    NAME: 'NoSuchHead'\n", "NoSuchHead"),
        ("MODEL:\n  ROI_HEADS:\n    NUM_CLASSES: 80\n", "synthetic_train has 1"),
        ("INPUT:\n  MASK_FORMAT: 'polygon'\n", "bitmask"),
        ("DATASETS:\n  TEST: ('synthetic_vall',)\n", "synthetic_val"),
        ("SOLVER: [1\n", "mine.yaml"),
        ("CELLSEG:\n  PLUGINS: 'one'\n", "list of names"),
        ("CELLSEG:\n  TEST:\n    PICTURES: 'all'\n", "PICTURES is 'all'; expected a whole number"),
        ("CELLSEG:\n  TEST:\n    PICTURE: 3\n", "did you mean CELLSEG.TEST.PICTURES"),
        ("CELLSEG:\n  TESTS:\n    PICTURES: 3\n", "CELLSEG.TESTS is no key"),
    ],
)
def test_a_wrong_file_is_one_clear_error(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected.replace("(", r"\(")):
        load_config(write_config(tmp_path, text))


def test_a_missing_file_and_odd_overrides() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such config file"):
        load_config("nowhere.yaml")
    with pytest.raises(ConfigError, match="command line"):
        load_config(QUICK_START, ["SOLVER.MAX_ITER"])


def test_a_whole_number_may_stand_for_a_float_and_null_for_nothing(tmp_path: Path) -> None:
    text = "CELLSEG:\n  INPUT: {SCALE: 2, PERCENTILES: '(2, 98)'}\n"
    cfg = load_config(write_config(tmp_path, text))
    assert repr(cfg.CELLSEG.INPUT.SCALE) == "2.0"
    assert cfg.CELLSEG.INPUT.PERCENTILES == [2, 98]
    with pytest.raises(ConfigError, match=r"mine.yaml, line 3: CELLSEG.TEST.MAX_COVERED is null"):
        load_config(write_config(tmp_path, "CELLSEG:\n  TEST: {MAX_COVERED: null}\n"))


def test_a_dumped_config_is_itself_again(tmp_path: Path) -> None:
    cfg = load_config("sartorius/mask_rcnn_R_50_FPN_classifier.yaml")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again = load_config(tmp_path / "config.yaml")
    assert again.CELLSEG == cfg.CELLSEG
    # Read as YAML: Detectron2's node writes values that are the same object by reference.
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_without_cuda_the_cpu_is_the_default_and_a_device_that_is_named_stays() -> None:
    base = REPOSITORY / "configs" / "base_mask_rcnn_R_50_FPN.yaml"
    assert load_config(base).MODEL.DEVICE == "cpu"
    assert load_config(base, ["MODEL.DEVICE", "cuda"]).MODEL.DEVICE == "cuda"


def test_weights_that_do_not_go_with_the_config_are_warned_about(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        load_config(QUICK_START, ["MODEL.WEIGHTS", "torchvision://resnet50"])
    assert "INPUT.FORMAT is BGR; torchvision://resnet50 was trained with RGB" in caplog.text
