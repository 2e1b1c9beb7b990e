"""Parameter groups, gradient clipping and learning rate curves, against numbers by hand."""

from __future__ import annotations

import math
import pickle

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.solver import (
    LRMultiplier,
    WarmupCosineLR,
    WarmupMultiStepLR,
    WarmupParamScheduler,
    build_lr_scheduler,
    build_optimizer,
    get_default_optimizer_params,
)
from detectron2.solver.build import maybe_add_gradient_clipping, reduce_param_groups
from detectron2.solver.lr_scheduler import _get_warmup_factor_at_iter
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
)
from torch import nn


class SmallNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.norm = nn.GroupNorm(1, 2)
        self.frozen = nn.Linear(2, 2)
        self.frozen.requires_grad_(False)
        self.shared = self.conv


def one_parameter(lr: float = 1.0) -> tuple[nn.Parameter, torch.optim.SGD]:
    parameter = nn.Parameter(torch.zeros(1))
    return parameter, torch.optim.SGD([parameter], lr=lr)


def curve(scheduler: torch.optim.lr_scheduler.LRScheduler, steps: int) -> list[float]:
    """Learning rate of the first group at iteration 0, 1, ..., steps."""
    rates = [scheduler.get_last_lr()[0]]
    for _ in range(steps):
        scheduler.optimizer.step()
        scheduler.step()
        rates.append(scheduler.get_last_lr()[0])
    return rates


def names_by_settings(model: nn.Module, groups: list[dict]) -> dict[tuple, list[str]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        (group.get("lr"), group.get("weight_decay")): [names[p] for p in group["params"]]
        for group in groups
    }


def test_groups_without_settings_are_one_without_frozen_and_repeated_parameters():
    model = SmallNet()
    groups = get_default_optimizer_params(model)
    assert names_by_settings(model, groups) == {
        (None, None): ["conv.weight", "conv.bias", "norm.weight", "norm.bias"]
    }


def test_norm_layers_and_biases_get_their_own_settings():
    model = SmallNet()
    groups = get_default_optimizer_params(
        model, base_lr=0.5, weight_decay=0.1, weight_decay_norm=0.0, bias_lr_factor=2.0
    )
    assert names_by_settings(model, groups) == {
        (0.5, 0.1): ["conv.weight"],
        (1.0, 0.1): ["conv.bias"],
        (0.5, 0.0): ["norm.weight"],
        (1.0, 0.0): ["norm.bias"],
    }


def test_weight_decay_of_biases_wins_over_that_of_norm_layers():
    model = SmallNet()
    groups = get_default_optimizer_params(
        model, weight_decay=0.1, weight_decay_norm=0.2, weight_decay_bias=0.3
    )
    assert names_by_settings(model, groups) == {
        (None, 0.1): ["conv.weight"],
        (None, 0.3): ["conv.bias", "norm.bias"],
        (None, 0.2): ["norm.weight"],
    }


def test_overrides_by_name_and_factor_by_full_name():
    model = SmallNet()
    groups = get_default_optimizer_params(
        model,
        base_lr=1.0,
        lr_factor_func=lambda name: 0.25 if name.startswith("conv.") else 1.0,
        overrides={"bias": {"lr": 7.0}},
    )
    assert names_by_settings(model, groups) == {
        (0.25, None): ["conv.weight"],
        (7.0, None): ["conv.bias", "norm.bias"],
        (1.0, None): ["norm.weight"],
    }


@pytest.mark.parametrize(
    "arguments",
    [
        {"bias_lr_factor": 2.0},
        {"lr_factor_func": lambda name: 1.0},
        {"weight_decay_bias": 0.1, "overrides": {"bias": {"lr": 1.0}}},
    ],
)
def test_contradictory_settings_are_refused(arguments):
    with pytest.raises(ValueError):  # noqa: PT011  # the texts differ between engines
        get_default_optimizer_params(SmallNet(), **arguments)


@pytest.mark.embedded_only
def test_overrides_given_are_left_as_they_were():
    overrides: dict[str, dict[str, float]] = {}
    get_default_optimizer_params(SmallNet(), weight_decay_bias=0.1, overrides=overrides)
    assert overrides == {}


def test_groups_with_equal_settings_are_merged_and_names_kept():
    groups = [
        {"params": ["a"], "param_names": ["A"], "lr": 1},
        {"params": ["b"], "param_names": ["B"], "lr": 2},
        {"params": ["c"], "param_names": ["C"], "lr": 1},
        {"params": ["d"], "param_names": ["D"], "lr": 2},
        {"params": ["a"], "param_names": ["A"], "weight_decay": 3},
    ]
    assert reduce_param_groups(groups) == [
        {"params": ["a"], "param_names": ["A"], "lr": 1, "weight_decay": 3},
        {"params": ["b", "d"], "param_names": ["B", "D"], "lr": 2},
        {"params": ["c"], "param_names": ["C"], "lr": 1},
    ]


def test_optimizer_follows_the_config():
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM, cfg.SOLVER.NESTEROV = 0.2, 0.8, True
    cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.WEIGHT_DECAY_NORM = 0.01, 0.0
    cfg.SOLVER.BIAS_LR_FACTOR, cfg.SOLVER.WEIGHT_DECAY_BIAS = 2.0, 0.5
    optimizer = build_optimizer(cfg, model := SmallNet())
    assert type(optimizer) is torch.optim.SGD
    assert {group["momentum"] for group in optimizer.param_groups} == {0.8}
    assert {group["nesterov"] for group in optimizer.param_groups} == {True}
    assert names_by_settings(model, optimizer.param_groups) == {
        (0.2, 0.01): ["conv.weight"],
        (0.4, 0.5): ["conv.bias", "norm.bias"],
        (0.2, 0.0): ["norm.weight"],
    }


def clipping_config(kind: str, value: float, norm_type: float = 2.0):
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = kind
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = value
    cfg.SOLVER.CLIP_GRADIENTS.NORM_TYPE = norm_type
    return cfg


def stepped(cfg, *, from_instance: bool) -> list[list[float]]:
    """Two parameters with gradients (3, -4) and (0.3, 0.4), after one step of rate 1."""
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
    if from_instance:
        optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD(parameters, lr=1.0))
    else:
        optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD)(parameters, lr=1.0)
    assert isinstance(optimizer, torch.optim.SGD)
    parameters[0].grad = torch.tensor([3.0, -4.0])
    parameters[1].grad = torch.tensor([0.3, 0.4])
    optimizer.step()
    return [[round(-value, 4) for value in parameter.tolist()] for parameter in parameters]


@pytest.mark.parametrize("from_instance", [True, False])
@pytest.mark.parametrize(
    ("kind", "limit", "norm_type", "expected"),
    [
        ("value", 2.0, 2.0, [[2.0, -2.0], [0.3, 0.4]]),
        ("norm", 1.0, 2.0, [[0.6, -0.8], [0.3, 0.4]]),  # each parameter on its own
        ("norm", 1.0, math.inf, [[0.75, -1.0], [0.3, 0.4]]),
    ],
)
def test_gradients_are_clipped_before_the_step(kind, limit, norm_type, expected, from_instance):
    cfg = clipping_config(kind, limit, norm_type)
    assert stepped(cfg, from_instance=from_instance) == expected


def test_clipping_switched_off_changes_nothing():
    cfg = get_cfg()
    assert maybe_add_gradient_clipping(cfg, torch.optim.AdamW) is torch.optim.AdamW
    assert stepped(cfg, from_instance=True) == [[3.0, -4.0], [0.3, 0.4]]


def test_unknown_kind_of_clipping_is_refused():
    with pytest.raises(ValueError, match="cube"):
        maybe_add_gradient_clipping(clipping_config("cube", 1.0), torch.optim.SGD)


def test_clipped_optimizer_works_with_a_schedule_and_saves_its_state():
    parameter = nn.Parameter(torch.zeros(1))
    cfg = clipping_config("value", 1.0)
    optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD([parameter], 1.0, momentum=0.5))
    scheduler = LRMultiplier(optimizer, LinearParamScheduler(1.0, 0.0), max_iter=4)
    for _ in range(2):
        parameter.grad = torch.tensor([9.0])
        optimizer.step()
        scheduler.step()
    # steps: 1 * 1, then 0.75 * (0.5 * 1 + 1)
    assert parameter.item() == pytest.approx(-1 - 0.75 * 1.5)
    assert optimizer.state_dict()["state"][0]["momentum_buffer"].item() == pytest.approx(1.5)


@pytest.mark.embedded_only
def test_a_clipped_optimizer_can_be_pickled():
    parameter = nn.Parameter(torch.zeros(1))
    sgd = torch.optim.SGD([parameter], 1.0, momentum=0.5)
    optimizer = maybe_add_gradient_clipping(clipping_config("value", 2.0), sgd)
    parameter.grad = torch.tensor([9.0])
    optimizer.step()
    again = pickle.loads(pickle.dumps(optimizer))
    (theirs,) = again.param_groups[0]["params"]
    theirs.grad = torch.tensor([9.0])
    again.step()
    assert theirs.item() == pytest.approx(-2.0 - (0.5 * 2.0 + 2.0))  # clipped, with its momentum


def test_multi_step_with_linear_warmup_from_the_config():
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.GAMMA = 4.0, 0.5
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 10, (6, 8)
    cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.WARMUP_FACTOR = 4, 0.0
    _, optimizer = one_parameter(4.0)
    rates = curve(build_lr_scheduler(cfg, optimizer), 9)
    assert rates == pytest.approx([0, 1, 2, 3, 4, 4, 2, 2, 1, 1])


def test_steps_behind_the_end_are_ignored_with_a_warning(caplog):
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.GAMMA, cfg.SOLVER.WARMUP_ITERS = 1.0, 0.5, 0
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 4, (2, 100)
    _, optimizer = one_parameter()
    with caplog.at_level("WARNING"):
        rates = curve(build_lr_scheduler(cfg, optimizer), 3)
    assert rates == pytest.approx([1, 1, 0.5, 0.5])
    assert "SOLVER.STEPS" in caplog.text


def test_constant_warmup_then_cosine_to_the_end_value():
    cfg = get_cfg()
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupCosineLR"
    cfg.SOLVER.BASE_LR, cfg.SOLVER.BASE_LR_END = 2.0, 1.0
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS = 4, 1
    cfg.SOLVER.WARMUP_METHOD, cfg.SOLVER.WARMUP_FACTOR = "constant", 0.25
    _, optimizer = one_parameter(2.0)
    rates = curve(build_lr_scheduler(cfg, optimizer), 4)
    expected = [0.5] + [1 + 0.5 * (1 + math.cos(math.pi * t / 4)) for t in (1, 2, 3, 4)]
    assert rates == pytest.approx(expected)


def test_fixed_gamma_steps_with_rescaled_interval():
    cfg = get_cfg()
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupStepWithFixedGammaLR"
    cfg.SOLVER.BASE_LR, cfg.SOLVER.GAMMA, cfg.SOLVER.NUM_DECAYS = 1.0, 0.5, 1
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.WARMUP_FACTOR = 8, 4, 0.5
    cfg.SOLVER.RESCALE_INTERVAL = True
    _, optimizer = one_parameter()
    rates = curve(build_lr_scheduler(cfg, optimizer), 7)
    assert rates == pytest.approx([0.5, 0.625, 0.75, 0.875, 1, 1, 0.5, 0.5])


def test_warmup_longer_than_the_training_is_cut():
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.WARMUP_FACTOR = 1.0, 0.0
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.STEPS = 4, 1000, ()
    _, optimizer = one_parameter()
    assert curve(build_lr_scheduler(cfg, optimizer), 3) == pytest.approx([0, 0.25, 0.5, 0.75])


def test_unknown_schedule_and_warmup_are_refused():
    cfg = get_cfg()
    cfg.SOLVER.LR_SCHEDULER_NAME = "Sawtooth"
    with pytest.raises(ValueError, match="Sawtooth"):
        build_lr_scheduler(cfg, one_parameter()[1])
    with pytest.raises(ValueError, match="quadratic"):
        WarmupParamScheduler(CosineParamScheduler(1, 0), 0.1, 0.5, "quadratic")
    with pytest.raises(ValueError, match="ParamScheduler"):
        LRMultiplier(one_parameter()[1], lambda where: 1.0, 10)


@pytest.mark.embedded_only
def test_end_value_above_the_beginning_is_refused():
    cfg = get_cfg()
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupCosineLR"
    cfg.SOLVER.BASE_LR, cfg.SOLVER.BASE_LR_END = 1.0, 2.0
    with pytest.raises(ValueError, match="BASE_LR_END"):
        build_lr_scheduler(cfg, one_parameter()[1])


def test_groups_keep_their_ratio_and_the_state_resumes():
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [weights[0]], "lr": 1.0}, {"params": [weights[1]], "lr": 10.0}]
    multiplier = MultiStepParamScheduler([1, 0.1], milestones=[2], num_updates=4)
    first = LRMultiplier(torch.optim.SGD(groups, 1.0), multiplier, 4)
    curve(first, 1)
    state = first.state_dict()
    assert state == {"base_lrs": [1.0, 10.0], "last_epoch": 1}

    optimizer = torch.optim.SGD([{"params": [w]} for w in weights], lr=1.0)
    second = LRMultiplier(optimizer, multiplier, 4)
    second.load_state_dict(state)
    optimizer.step()
    second.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 1.0])


def test_old_schedulers_by_hand():
    _, optimizer = one_parameter()
    scheduler = WarmupMultiStepLR(optimizer, [3, 4], 0.1, warmup_factor=0.5, warmup_iters=2)
    assert curve(scheduler, 4) == pytest.approx([0.5, 0.75, 1, 0.1, 0.01])
    _, optimizer = one_parameter()
    scheduler = WarmupMultiStepLR(optimizer, [9], 0.1, 0.5, 2, warmup_method="constant")
    assert curve(scheduler, 2) == pytest.approx([0.5, 0.5, 1])
    _, optimizer = one_parameter()
    cosine = WarmupCosineLR(optimizer, 4, warmup_factor=0.5, warmup_iters=1)
    half = math.sqrt(0.5)
    assert curve(cosine, 4) == pytest.approx([0.5, (1 + half) / 2, 0.5, (1 - half) / 2, 0])
    with pytest.raises(ValueError):  # noqa: PT011
        WarmupMultiStepLR(one_parameter()[1], [4, 3])
    with pytest.raises(ValueError, match="quadratic"):
        WarmupCosineLR(one_parameter()[1], 4, warmup_method="quadratic")


@pytest.mark.parametrize(
    ("method", "iteration", "expected"),
    [("linear", 0, 0.2), ("linear", 3, 0.8), ("constant", 3, 0.2), ("none", 4, 1.0)],
)
def test_warmup_factor(method, iteration, expected):
    assert _get_warmup_factor_at_iter(method, iteration, 4, 0.2) == pytest.approx(expected)
    assert _get_warmup_factor_at_iter(method, 4, 4, 0.2) == 1.0


@pytest.mark.parametrize(
    ("kind", "arguments"), [(WarmupMultiStepLR, ((2, 3),)), (WarmupCosineLR, (6,))]
)
def test_the_state_of_an_old_scheduler_is_plain_values_and_resumes(kind, arguments, tmp_path):
    first = kind(one_parameter()[1], *arguments, warmup_factor=0.5, warmup_iters=2)
    rates = curve(first, 5)
    resumed = kind(one_parameter()[1], *arguments, warmup_factor=0.1, warmup_iters=9)
    again = kind(one_parameter()[1], *arguments, warmup_factor=0.5, warmup_iters=2)
    curve(again, 1)
    torch.save(again.state_dict(), tmp_path / "state.pth")
    state = torch.load(tmp_path / "state.pth", weights_only=True)  # refuses classes of any package
    assert {"warmup_factor", "warmup_iters", "warmup_method"} <= state.keys()
    resumed.load_state_dict(state)
    assert curve(resumed, 4) == pytest.approx(rates[1:])
