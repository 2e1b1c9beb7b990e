"""Builds the optimizer, its parameter groups and its schedule from a config."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver.lr_scheduler import LRMultiplier, LRScheduler, WarmupParamScheduler
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
    StepWithFixedGammaParamScheduler,
)
from torch import nn

ParamGroup = dict[str, Any]

# The layers whose weight decay SOLVER.WEIGHT_DECAY_NORM sets. `_NormBase` covers batch norm in
# all its forms and instance norm.
_NORM_LAYERS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
_NOT_HYPERPARAMETERS = ("params", "param_names")


class GradientClipType(Enum):
    """Values of SOLVER.CLIP_GRADIENTS.CLIP_TYPE."""

    VALUE = "value"
    NORM = "norm"


def _gradient_clipper(settings: CfgNode) -> Callable[[torch.Tensor], object]:
    """What to do with the gradient of one parameter, from SOLVER.CLIP_GRADIENTS."""
    limit, norm_type = settings.CLIP_VALUE, settings.NORM_TYPE
    if GradientClipType(settings.CLIP_TYPE) is GradientClipType.VALUE:
        return lambda parameter: nn.utils.clip_grad_value_(parameter, limit)
    return lambda parameter: nn.utils.clip_grad_norm_(parameter, limit, norm_type)


def _clipping_subclass(base: type[torch.optim.Optimizer], settings: CfgNode) -> type:
    clip = _gradient_clipper(settings)

    def step(self: torch.optim.Optimizer, closure: Callable[[], float] | None = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                clip(parameter)
        return base.step(self, closure)

    def reduce(self: torch.optim.Optimizer) -> tuple[Any, ...]:
        return _new_clipping_instance, (base, settings), self.__getstate__()

    methods = {"step": step, "__reduce__": reduce}
    return type(f"{base.__name__}WithGradientClip", (base,), methods)


def _new_clipping_instance(
    base: type[torch.optim.Optimizer], settings: CfgNode
) -> torch.optim.Optimizer:
    """An empty optimizer, for pickle, which does not find a class that was made on the way."""
    made: Any = _clipping_subclass(base, settings)
    return made.__new__(made)


def maybe_add_gradient_clipping(
    cfg: CfgNode, optimizer: torch.optim.Optimizer | type[torch.optim.Optimizer]
) -> Any:
    """Make an optimizer clip gradients before each step if SOLVER.CLIP_GRADIENTS says so.

    Every parameter is clipped on its own: CLIP_TYPE "value" clamps each element to
    +-CLIP_VALUE, "norm" scales the tensor so that its NORM_TYPE norm is at most CLIP_VALUE.

    Args:
        cfg: config with SOLVER.CLIP_GRADIENTS.
        optimizer: a class or an instance.

    Returns:
        A subclass, or the same instance made one of it; unchanged where clipping is off.

    Raises:
        ValueError: CLIP_TYPE is neither "value" nor "norm".
    """
    settings = cfg.SOLVER.CLIP_GRADIENTS
    if not settings.ENABLED:
        return optimizer
    if isinstance(optimizer, type):
        return _clipping_subclass(optimizer, settings)
    optimizer.__class__ = _clipping_subclass(type(optimizer), settings)
    return optimizer


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum over the trainable parameters of `model`, as `cfg.SOLVER` describes."""
    solver = cfg.SOLVER
    groups = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    optimizer = torch.optim.SGD(
        groups,
        solver.BASE_LR,
        momentum=solver.MOMENTUM,
        weight_decay=solver.WEIGHT_DECAY,
        nesterov=solver.NESTEROV,
        fused=True,
    )
    return maybe_add_gradient_clipping(cfg, optimizer)


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float | None = 1.0,
    weight_decay_bias: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: dict[str, dict[str, float]] | None = None,
) -> list[ParamGroup]:
    """Parameter groups for any PyTorch optimizer.

    A parameter that several modules share appears once; frozen ones do not appear.

    Args:
        model: its parameters with `requires_grad` are grouped.
        base_lr: learning rate of every group; None leaves it to the optimizer.
        weight_decay: the same for weight decay.
        weight_decay_norm: weight decay of normalization layers; None for no difference.
        bias_lr_factor: learning rate of biases relative to `base_lr`.
        weight_decay_bias: weight decay of biases; None for no difference.
        lr_factor_func: factor on `base_lr` from a parameter's full name.
        overrides: hyperparameters by a parameter's own (last) name, the strongest of all:
            `{"bias": {"lr": 0.02}}`.

    Returns:
        As few groups as possible: parameters with equal hyperparameters share one.

    Raises:
        ValueError: a factor without `base_lr`, or biases set in two ways.
    """
    defaults = {"lr": base_lr, "weight_decay": weight_decay}
    defaults = {name: value for name, value in defaults.items() if value is not None}
    if base_lr is None and lr_factor_func is not None:
        raise ValueError("lr_factor_func multiplies base_lr, which is not given")
    by_name = dict(overrides or {})
    if for_biases := _bias_settings(base_lr, bias_lr_factor, weight_decay_bias):
        if "bias" in by_name:
            raise ValueError("biases are set by `overrides` and by the bias arguments at once")
        by_name["bias"] = for_biases

    groups: list[ParamGroup] = []
    for layer, layer_name, name, parameter in _trainable_parameters(model):
        group: ParamGroup = {"params": [parameter], **defaults}
        if weight_decay_norm is not None and isinstance(layer, _NORM_LAYERS):
            group["weight_decay"] = weight_decay_norm
        if lr_factor_func is not None:
            group["lr"] *= lr_factor_func(f"{layer_name}.{name}")
        groups.append(group | by_name.get(name, {}))
    return reduce_param_groups(groups)


def _bias_settings(
    base_lr: float | None, lr_factor: float | None, weight_decay: float | None
) -> dict[str, float]:
    settings = {}
    if lr_factor not in (None, 1.0):
        if base_lr is None:
            raise ValueError("bias_lr_factor multiplies base_lr, which is not given")
        settings["lr"] = base_lr * lr_factor
    if weight_decay is not None:
        settings["weight_decay"] = weight_decay
    return settings


def _trainable_parameters(
    model: nn.Module,
) -> Iterator[tuple[nn.Module, str, str, nn.Parameter]]:
    """(layer, name of the layer, own name, parameter), each parameter once."""
    seen: set[nn.Parameter] = set()
    for layer_name, layer in model.named_modules():
        for name, parameter in layer.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield layer, layer_name, name, parameter


def _expand_param_groups(params: list[ParamGroup]) -> list[ParamGroup]:
    """One group per parameter; where a parameter is in several groups, later settings win."""
    singles: dict[Any, ParamGroup] = {}
    for group in params:
        settings = {k: v for k, v in group.items() if k not in _NOT_HYPERPARAMETERS}
        for index, parameter in enumerate(group["params"]):
            single = singles.setdefault(parameter, {"params": [parameter]})
            if "param_names" in group:
                single["param_names"] = [group["param_names"][index]]
            single.update(settings)
    return list(singles.values())


def reduce_param_groups(params: list[ParamGroup]) -> list[ParamGroup]:
    """Merge groups with equal hyperparameters, in the order of their first appearance.

    Few large groups let PyTorch update many tensors in one call.
    """
    merged: dict[tuple[tuple[str, Any], ...], ParamGroup] = {}
    for single in _expand_param_groups(params):
        settings = tuple(item for item in single.items() if item[0] not in _NOT_HYPERPARAMETERS)
        group = merged.setdefault(settings, dict(settings))
        for key in _NOT_HYPERPARAMETERS:
            if key in single:
                group.setdefault(key, []).extend(single[key])
    return list(merged.values())


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """The schedule that SOLVER.LR_SCHEDULER_NAME names, with warm-up.

    Raises:
        ValueError: an unknown name, or BASE_LR_END outside 0 to BASE_LR.
    """
    solver = cfg.SOLVER
    scheduler = WarmupParamScheduler(
        _decay_schedule(solver),
        solver.WARMUP_FACTOR,
        min(1.0, solver.WARMUP_ITERS / solver.MAX_ITER),
        solver.WARMUP_METHOD,
        solver.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, scheduler, solver.MAX_ITER)


def _decay_schedule(solver: CfgNode) -> ParamScheduler:
    """Factor on the learning rate without its warm-up."""
    name, max_iter = solver.LR_SCHEDULER_NAME, solver.MAX_ITER
    if name == "WarmupMultiStepLR":
        milestones = [step for step in solver.STEPS if step <= max_iter]
        if len(milestones) < len(solver.STEPS):
            logging.getLogger(__name__).warning(
                "SOLVER.STEPS %s: those above SOLVER.MAX_ITER (%d) are ignored",
                tuple(solver.STEPS),
                max_iter,
            )
        factors = [solver.GAMMA**drops for drops in range(len(milestones) + 1)]
        return MultiStepParamScheduler(factors, num_updates=max_iter, milestones=milestones)
    if name == "WarmupCosineLR":
        if not 0 <= solver.BASE_LR_END <= solver.BASE_LR:
            raise ValueError(
                f"SOLVER.BASE_LR_END must lie in 0 to SOLVER.BASE_LR ({solver.BASE_LR}), "
                f"got {solver.BASE_LR_END}"
            )
        return CosineParamScheduler(1, solver.BASE_LR_END / solver.BASE_LR)
    if name == "WarmupStepWithFixedGammaLR":
        return StepWithFixedGammaParamScheduler(
            1.0, num_decays=solver.NUM_DECAYS, gamma=solver.GAMMA, num_updates=max_iter
        )
    raise ValueError(
        f"Unknown SOLVER.LR_SCHEDULER_NAME {name!r}: choose WarmupMultiStepLR, WarmupCosineLR "
        "or WarmupStepWithFixedGammaLR"
    )
