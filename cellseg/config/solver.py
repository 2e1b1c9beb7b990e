"""Keys of CELLSEG.SOLVER beside OPTIMIZER, and what they may hold (docs/optimizer.md)."""

from __future__ import annotations

from typing import Any

from cellseg.errors import ConfigError
from detectron2.config import CfgNode

AMP_DTYPES = ("auto", "bfloat16", "float16")


def add_solver_config(node: CfgNode) -> None:
    """Add every key with its default to `node`, which is CELLSEG and has a node SOLVER."""
    # Same SEED, same weights, bit by bit, on one machine with one set of versions; slower.
    node.DETERMINISTIC = False

    solver = node.SOLVER
    # Compute the SOLVER.IMS_PER_BATCH images of an iteration in so many parts, one after the
    # other, each with a part of the memory; still one update per iteration. 1: all at once.
    solver.ACCUMULATE = 1
    # What SOLVER.AMP.ENABLED computes in: "bfloat16", "float16" (with a gradient scaler), or
    # "auto": bfloat16 where the hardware has it.
    solver.AMP_DTYPE = "auto"
    # Learning rates fall by this factor per stage away from the heads: FPN, res5, ..., stem; 1: no.
    solver.LAYER_DECAY = 1.0
    # Further factors by name of parameters: [["backbone.bottom_up", 0.1], ...]; longest name wins.
    solver.LR_FACTORS = []
    # Parts that stay as they are for a number of iterations, -1 for ever:
    # [["backbone.bottom_up", 500], ["backbone.bottom_up.stem", -1]]; longest name wins.
    solver.FREEZE = []


def check_solver_config(cfg: CfgNode) -> None:
    """Check the keys of `add_solver_config` as far as that goes without a model.

    Raises:
        ConfigError: naming the key, what was found and what was expected.
    """
    node = cfg.CELLSEG.SOLVER
    if not 1 <= node.ACCUMULATE <= cfg.SOLVER.IMS_PER_BATCH:
        raise ConfigError(
            f"CELLSEG.SOLVER.ACCUMULATE is {node.ACCUMULATE}; expected 1 (off) to "
            f"SOLVER.IMS_PER_BATCH ({cfg.SOLVER.IMS_PER_BATCH}), which is what it divides"
        )
    if node.AMP_DTYPE not in AMP_DTYPES:
        raise ConfigError(
            f"CELLSEG.SOLVER.AMP_DTYPE is {node.AMP_DTYPE!r}; expected one of "
            f"{', '.join(AMP_DTYPES)}"
        )
    if not 0 < node.LAYER_DECAY <= 1:
        raise ConfigError(
            f"CELLSEG.SOLVER.LAYER_DECAY is {node.LAYER_DECAY}; expected more than 0, at most 1 "
            "(off)"
        )
    named_numbers("CELLSEG.SOLVER.LR_FACTORS", node.LR_FACTORS)
    if small := [f for _, f in node.LR_FACTORS if f <= 0]:
        raise ConfigError(
            f"CELLSEG.SOLVER.LR_FACTORS has the factor {small[0]}; expected more than 0. What is "
            "not to learn belongs into CELLSEG.SOLVER.FREEZE"
        )
    named_numbers("CELLSEG.SOLVER.FREEZE", node.FREEZE)
    if strange := [n for _, n in node.FREEZE if n != int(n) or n < -1]:
        raise ConfigError(
            f"CELLSEG.SOLVER.FREEZE has {strange[0]} iterations; expected a whole number, or -1 "
            "for ever"
        )
    if cfg.CELLSEG.DETERMINISTIC and cfg.SEED < 0:
        raise ConfigError(f"CELLSEG.DETERMINISTIC needs a SEED of 0 or more; found {cfg.SEED}")


def named_numbers(key: str, pairs: Any) -> dict[str, float]:
    """The pairs of a config key as a dict.

    Raises:
        ConfigError: it is no list of [name, number], or has a name twice.
    """
    found: dict[str, float] = {}
    for pair in pairs:
        if not _is_named_number(pair):
            raise ConfigError(f'{key} holds {pair!r}; expected pairs such as ["backbone", 1]')
        if pair[0] in found:
            raise ConfigError(f"{key} names {pair[0]!r} twice")
        found[pair[0]] = pair[1]
    return found


def _is_named_number(pair: Any) -> bool:
    return (
        isinstance(pair, (list, tuple))
        and len(pair) == 2
        and isinstance(pair[0], str)
        and isinstance(pair[1], (int, float))
        and not isinstance(pair[1], bool)
    )
