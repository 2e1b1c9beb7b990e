"""The optimizer, with learning rates that differ between the parts of the model."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import torch
from cellseg.config import numbers_by_name
from cellseg.engine.name_prefixes import beginnings, match_prefixes
from cellseg.errors import ConfigError
from detectron2.config import CfgNode
from detectron2.solver import build_optimizer as build_engine_optimizer
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from tabulate import tabulate

_STAGE = re.compile(r"^backbone\.(?:.*\.)?(?:(stem)|res([2-9]))\.")
_LAST_STAGE = 5
_MOST_NAMES = 6

logger = logging.getLogger(__name__)


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Detectron2's SGD, or AdamW over the same parameter groups and gradient clipping.

    CELLSEG.SOLVER.LAYER_DECAY and LR_FACTORS multiply the learning rates; the groups are logged.

    Args:
        model: not wrapped for several processes yet.

    Raises:
        ConfigError: LR_FACTORS names no parameter; LAYER_DECAY meets no stage that it knows.
    """
    optimizer = _build_optimizer(cfg, model, learning_rate_factors(cfg, model))
    logger.info("Parameter groups:\n%s", describe_groups(model, optimizer))
    return optimizer


def _build_optimizer(
    cfg: CfgNode, model: torch.nn.Module, factors: Mapping[str, float]
) -> torch.optim.Optimizer:
    solver = cfg.SOLVER
    is_sgd = cfg.CELLSEG.SOLVER.OPTIMIZER == "SGD"
    if is_sgd and not factors:
        return build_engine_optimizer(cfg, model)

    def factor(name: str) -> float:
        # An own factor for biases would replace the factor by name, hence the two in one.
        of_bias = solver.BIAS_LR_FACTOR if name.rpartition(".")[2] == "bias" else 1.0
        return of_bias * factors.get(name.lstrip("."), 1.0)

    groups = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        lr_factor_func=factor,
    )
    if is_sgd:  # the engine's own, with all its settings, over other groups
        engines = build_engine_optimizer(cfg, model)
        return type(engines)(groups, **engines.defaults)
    optimizer_class = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
    return optimizer_class(groups, lr=solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY)


def learning_rate_factors(cfg: CfgNode, model: torch.nn.Module) -> dict[str, float]:
    """Factor on SOLVER.BASE_LR by name of parameter, those other than 1.

    With LAYER_DECAY d: heads and proposals have 1, the FPN d, res5 d^2, res4 d^3, ..., the stem
    d^6; other backbones' layers that have none of these names count as the FPN. The decay of
    learning rates with depth is that of Howard & Ruder 2018 (arXiv 1801.06146).

    Raises:
        ConfigError: LR_FACTORS names no parameter; LAYER_DECAY meets no stage that it knows.
    """
    node = cfg.CELLSEG.SOLVER
    names = [name for name, _ in model.named_parameters()]
    by_prefix = numbers_by_name("SOLVER.LR_FACTORS", node.LR_FACTORS)
    prefixes = match_prefixes("CELLSEG.SOLVER.LR_FACTORS", by_prefix, names)
    if node.LAYER_DECAY != 1 and not any(map(_STAGE.match, names)):
        raise ConfigError(
            f"CELLSEG.SOLVER.LAYER_DECAY is {node.LAYER_DECAY}, but the backbone has none of "
            "ResNet's stages (stem, res2 to res5); use CELLSEG.SOLVER.LR_FACTORS"
        )
    factors = {
        name: node.LAYER_DECAY ** distance_from_heads(name)
        * (by_prefix[prefixes[name]] if name in prefixes else 1.0)
        for name in names
    }
    return {name: factor for name, factor in factors.items() if factor != 1}


def distance_from_heads(name: str) -> int:
    """Stages between a parameter and the heads: 0 in the heads, 1 in the FPN, 6 in the stem."""
    if not name.startswith("backbone."):
        return 0
    found = _STAGE.match(name)
    if found is None:
        return 1
    stage = 1 if found[1] else int(found[2])
    return 2 + max(_LAST_STAGE - stage, 0)


def describe_groups(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """A table: parameters, tensors, learning rate, weight decay and names of each group."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    group_of = {
        names[parameter]: number
        for number, group in enumerate(optimizer.param_groups)
        for parameter in group["params"]
    }
    rows = [
        (
            f"{sum(parameter.numel() for parameter in group['params']):,}",
            len(group["params"]),
            f"{group['lr']:g}",
            f"{group['weight_decay']:g}",
            _shorten_names(_common_names(group_of, number)),
        )
        for number, group in enumerate(optimizer.param_groups)
    ]
    header = ("parameters", "tensors", "lr", "weight decay", "of")
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)


def _common_names(group_of: Mapping[str, int], number: int) -> list[str]:
    """The shortest beginnings of names below which everything is of this group."""
    groups_below: dict[str, set[int]] = {}
    for name, group in group_of.items():
        for beginning in beginnings(name):
            groups_below.setdefault(beginning, set()).add(group)
    shortest = (
        next(begin for begin in beginnings(name) if groups_below[begin] == {number})
        for name, group in group_of.items()
        if group == number
    )
    return list(dict.fromkeys(shortest))


def _shorten_names(names: list[str]) -> str:
    if len(names) <= _MOST_NAMES:
        return ", ".join(names)
    return "parts of " + ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
