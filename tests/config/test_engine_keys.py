"""Detectron2's own keys: a value that cannot work is an error that names key and rule."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cellseg import load_config
from cellseg.config import add_cellseg_config, merge_given, read_config_tree
from cellseg.config.engine_combinations import find_engine_problems, find_value
from cellseg.config.engine_keys import ENGINE_RULES
from cellseg.config.merging import leaf_names
from cellseg.errors import ConfigError
from detectron2.config import get_cfg


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("SOLVER.MAX_ITER", 0, "a whole number, 1 or more"),
        ("SOLVER.MAX_ITER", 10.5, "a whole number, 1 or more"),
        ("SOLVER.IMS_PER_BATCH", 0, "a whole number, 1 to 65,536"),
        ("SOLVER.CHECKPOINT_PERIOD", 0, "more than MAX_ITER: the last one alone"),
        ("SOLVER.CHECKPOINT_PERIOD", -1, "more than MAX_ITER: the last one alone"),
        ("SOLVER.BASE_LR", "fast", "0 or more"),
        ("DATALOADER.NUM_WORKERS", -1, "a whole number, 0 to 256"),
        ("TEST.DETECTIONS_PER_IMAGE", 0, "1 or more, or -1 for no limit"),
        ("INPUT.MIN_SIZE_TEST", -5, "a whole number, 0 to 100,000"),
        ("MODEL.RPN.NMS_THRESH", 2.0, "0 to 1"),
        ("MODEL.DEVICE", "gpu", "such as cpu, cuda, cuda:1 or mps"),
        ("MODEL.PIXEL_STD", [0.0, 1.0, 1.0], "a number above 0 for each channel"),
        ("MODEL.PIXEL_MEAN", [1.0, 2.0], "expected 3 each"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[8]] * 7, "each of the 5 feature maps"),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[8], [8, 9], [8], [8], [8]], "as many on every"),
        (
            "MODEL.RPN.IN_FEATURES",
            ["p2", "p3", "p4", "p5", "p7"],
            "names p7; the pyramid has p2, p3, p4, p5, p6",
        ),
        ("MODEL.ROI_HEADS.IN_FEATURES", ["res4"], "names res4; the pyramid has p2"),
        ("MODEL.FPN.IN_FEATURES", ["res3", "res6"], "expected some of res2, res3, res4, res5"),
        ("MODEL.RESNETS.DEPTH", 51, "one of 18, 34, 50, 101, 152"),
    ],
)
def test_an_impossible_value(key: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("quick_start.yaml", [key, value])
    message = str(caught.value)
    assert message.startswith(key)
    assert expected in message
    assert "ACCUMULATE" not in message


def test_a_whole_number_is_a_number() -> None:
    cfg = load_config("quick_start.yaml", ["SOLVER.BASE_LR", 1])
    assert (cfg.SOLVER.BASE_LR, type(cfg.SOLVER.BASE_LR)) == (1.0, float)


def test_every_key_has_a_rule_that_allows_its_default() -> None:
    cfg = get_cfg()
    assert set(leaf_names(cfg)) - set(ENGINE_RULES) == {"VERSION", "GLOBAL.HACK"}
    for path, rule in ENGINE_RULES.items():
        assert rule.accepts(find_value(cfg, path)), path
        assert rule.expected, path


def test_the_configs_of_detectron2_itself_may_be() -> None:
    zoo = Path(str(find_spec("detectron2.model_zoo").submodule_search_locations[0]), "configs")
    files = sorted(zoo.rglob("*.yaml"))
    assert files
    for path in files:
        cfg = get_cfg()
        add_cellseg_config(cfg)
        merge_given(cfg, read_config_tree(path))
        assert list(find_engine_problems(cfg)) == [], path
