"""Learning rates by layer and by name, and the table of groups."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from cellseg import load_config
from cellseg.engine.name_prefixes import match_prefixes
from cellseg.engine.optimizer import build_optimizer, describe_groups, distance_from_heads
from cellseg.errors import ConfigError
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer as build_engine_optimizer
from torch import nn

QUICK_START = Path(__file__).resolve().parents[2] / "configs/quick_start.yaml"


@pytest.fixture
def cfg(tiny_model: list[str]) -> CfgNode:
    cfg = load_config(QUICK_START, [*tiny_model, "MODEL.DEVICE", "cpu"])
    cfg.SOLVER.BASE_LR = 0.5
    return cfg


@pytest.fixture(scope="module")
def model(tiny_model: list[str]) -> nn.Module:
    return build_model(load_config(QUICK_START, [*tiny_model, "MODEL.DEVICE", "cpu"]))


def rates(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize(
    ("name", "distance"),
    [
        ("backbone.bottom_up.stem.conv1.weight", 6),
        ("backbone.bottom_up.res2.0.conv1.weight", 5),
        ("backbone.bottom_up.res3.1.conv2.norm.bias", 4),
        ("backbone.bottom_up.res4.0.conv1.weight", 3),
        ("backbone.bottom_up.res5.1.conv1.weight", 2),
        ("backbone.res5.1.conv1.weight", 2),
        ("backbone.fpn_lateral4.weight", 1),
        ("backbone.bottom_up.blocks.3.weight", 1),
        ("proposal_generator.rpn_head.conv.weight", 0),
        ("roi_heads.res5.0.conv1.weight", 0),
    ],
)
def test_distance_from_the_heads(name: str, distance: int) -> None:
    assert distance_from_heads(name) == distance


def test_off_is_the_optimizer_of_the_engine(cfg: CfgNode, model: nn.Module) -> None:
    cfg.CELLSEG.SOLVER.OPTIMIZER = "SGD"
    ours, theirs = build_optimizer(cfg, model), build_engine_optimizer(cfg, model)
    assert type(ours).__name__ == type(theirs).__name__
    assert ours.defaults == theirs.defaults
    for mine, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert [id(p) for p in mine.pop("params")] == [id(p) for p in other.pop("params")]
        assert mine == other


@pytest.mark.parametrize("name", ["SGD", "ADAMW"])
def test_rates_fall_by_stage_and_by_the_longest_name(
    cfg: CfgNode, model: nn.Module, name: str
) -> None:
    node = cfg.CELLSEG.SOLVER
    node.OPTIMIZER, node.LAYER_DECAY = name, 0.5
    node.LR_FACTORS = [["roi_heads", 10], ["roi_heads.box_head", 4.0], ["backbone.fpn_output2", 2]]
    cfg.SOLVER.BIAS_LR_FACTOR, cfg.SOLVER.WEIGHT_DECAY_BIAS = 3.0, 0.125
    optimizer = build_optimizer(cfg, model)
    found = rates(model, optimizer)
    assert found.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    expected = {
        "backbone.bottom_up.res5.0.conv1.weight": 0.5 * 0.5**2,
        "backbone.bottom_up.res2.0.conv1.weight": 0.5 * 0.5**5,
        "backbone.fpn_lateral2.weight": 0.5 * 0.5,
        "backbone.fpn_output2.weight": 0.5 * 0.5 * 2,
        "proposal_generator.rpn_head.conv.weight": 0.5,
        "proposal_generator.rpn_head.conv.bias": 0.5 * 3,
        "roi_heads.box_head.fc1.weight": 0.5 * 4,
        "roi_heads.box_head.fc1.bias": 0.5 * 4 * 3,
        "roi_heads.box_predictor.cls_score.weight": 0.5 * 10,
    }
    assert {n: found[n] for n in expected} == pytest.approx(expected)
    engines = build_engine_optimizer(cfg, model)
    if name == "SGD":
        assert optimizer.defaults == engines.defaults
        assert type(optimizer).__name__ == type(engines).__name__
    decays = {group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {group["weight_decay"] for group in engines.param_groups}


def test_a_name_that_is_of_nothing_is_an_error_with_near_ones() -> None:
    names = ["backbone.res2.weight", "backbone.res20.weight", "roi_heads.box.bias"]
    assert match_prefixes("K", ["backbone.res2"], names) == {names[0]: "backbone.res2"}
    assert match_prefixes("K", ["backbone", "backbone.res2"], names) == {
        names[0]: "backbone.res2",
        names[1]: "backbone",
    }
    with pytest.raises(ConfigError, match=r"'backbone.rse2'; did you mean backbone\.res2"):
        match_prefixes("K", ["roi_heads", "backbone.rse2"], names[:1] + names[2:])
    with pytest.raises(ConfigError, match="'zzz'; it has backbone, roi_heads"):
        match_prefixes("K", ["zzz"], names)


def test_layer_decay_needs_stages(cfg: CfgNode) -> None:
    cfg.CELLSEG.SOLVER.LAYER_DECAY = 0.5
    with pytest.raises(ConfigError, match="none of ResNet's stages"):
        build_optimizer(cfg, nn.Linear(2, 2))


def test_the_groups_are_logged(
    cfg: CfgNode, model: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    cfg.CELLSEG.SOLVER.LR_FACTORS = [["backbone", 0.1], ["roi_heads.mask_head", 2]]
    with caplog.at_level(logging.INFO, "cellseg"):
        optimizer = build_optimizer(cfg, model)
    table = describe_groups(model, optimizer)
    assert table in caplog.text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    by_rate = {row[2]: row for row in rows if row[3] == f"{cfg.SOLVER.WEIGHT_DECAY:g}"}
    assert by_rate["1"][-1] == "roi_heads.mask_head"
    mask_head = model.roi_heads.mask_head
    assert by_rate["1"][0] == f"{sum(p.numel() for p in mask_head.parameters()):,}"
    assert int(by_rate["1"][1]) == len(list(mask_head.parameters()))


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("CELLSEG.SOLVER.ACCUMULATE", "0", r"ACCUMULATE is 0; expected 1 \(off\) to"),
        ("CELLSEG.SOLVER.ACCUMULATE", "3", r"SOLVER\.IMS_PER_BATCH \(2\)"),
        ("CELLSEG.SOLVER.AMP_DTYPE", "half", "expected one of auto, bfloat16, float16"),
        ("CELLSEG.SOLVER.LAYER_DECAY", "1.5", "LAYER_DECAY is 1.5"),
        ("CELLSEG.SOLVER.LR_FACTORS", "['backbone']", "expected pairs such as"),
        ("CELLSEG.SOLVER.LR_FACTORS", "[['a', 0]]", "factor 0; expected more than 0"),
        ("CELLSEG.SOLVER.LR_FACTORS", "[['a', 1], ['a', 2]]", "names 'a' twice"),
        ("CELLSEG.SOLVER.FREEZE", "[['backbone', -2]]", "-2 iterations"),
        ("CELLSEG.SOLVER.FREEZE", "[['backbone', True]]", "expected pairs such as"),
    ],
)
def test_values_that_cannot_be_used(key: str, value: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        load_config(QUICK_START, [key, value])


def test_deterministic_needs_a_seed() -> None:
    with pytest.raises(ConfigError, match="needs a SEED of 0 or more; found -1"):
        load_config(QUICK_START, ["CELLSEG.DETERMINISTIC", "True", "SEED", "-1"])
