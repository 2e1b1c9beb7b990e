"""Checks of values below CELLSEG as far as they go without a model, a data set or a plug-in."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from cellseg.config.defaults import value_of
from cellseg.config.engine_combinations import find_engine_problems
from cellseg.config.keys import KEYS
from cellseg.errors import ConfigError, collect_problems

REFERENCE = "docs/reference/keys.md describes every key."


def check_value(name: str, value: Any) -> None:
    """Check one value by the table.

    Args:
        name: of the key below CELLSEG, such as "TEST.MASK_NMS".
        value: what it is to be.

    Raises:
        ConfigError: naming the key, what was found and what was expected.
    """
    if not KEYS[name].rule.accepts(value):
        raise ConfigError(_describe(name, value))


def _describe(name: str, value: Any) -> str:
    found = list(value) if isinstance(value, tuple) else value
    return f"{KEYS[name].path} is {found!r}; expected {KEYS[name].rule.expected}"


def find_problems(cfg: Any, below: str = "", *, skip: Collection[str] = ()) -> Iterator[str]:
    """Say of each value that the table does not allow what was found and what was expected.

    Args:
        cfg: a config with the keys of `add_cellseg_config`; one made by hand may lack some.
        below: only keys whose name begins with it are looked at, such as "AUGMENTATION.".
        skip: names of keys that are not looked at.
    """
    for name, key in KEYS.items():
        if not name.startswith(below) or name in skip:
            continue
        try:
            value = value_of(cfg, name)
        except KeyError:
            continue
        if not key.rule.accepts(value):
            yield _describe(name, value)


def check_keys(cfg: Any, *, skip: Collection[str] = ()) -> None:
    """Check all values by the table, and Detectron2's own by theirs.

    Args:
        cfg: a whole config with the keys of `add_cellseg_config`.
        skip: names of keys that are checked elsewhere.

    Raises:
        ConfigError: naming every key with an impossible value, what it has and what it may have.
    """
    problems = [*find_engine_problems(cfg), *find_problems(cfg, skip=skip)]
    if len(problems) == 1:
        raise ConfigError(problems[0])
    if problems:
        raise ConfigError(collect_problems("values that cannot be used", problems, REFERENCE))


def check_combinations(cfg: Any) -> None:
    """Check values that are right by themselves and cannot go together.

    Args:
        cfg: the whole config, checked by `check_keys`.

    Raises:
        ConfigError: naming the keys, what was found and what was expected.
    """
    _check_solver(cfg)
    _check_training(cfg)
    check_diameters(cfg.CELLSEG.TEST.DIAMETER, cfg.CELLSEG.TEST.KNOWN_DIAMETERS)
    if cfg.CELLSEG.DETERMINISTIC and cfg.SEED < 0:
        raise ConfigError(f"CELLSEG.DETERMINISTIC needs a SEED of 0 or more; found {cfg.SEED}")
    has_bitmaps = cfg.INPUT.MASK_FORMAT == "bitmask" and cfg.MODEL.MASK_ON
    if cfg.CELLSEG.AUGMENTATION.COPY_PASTE.ENABLED and not has_bitmaps:
        raise ConfigError(
            "CELLSEG.AUGMENTATION.COPY_PASTE.ENABLED needs masks as bitmaps; expected "
            f"MODEL.MASK_ON True and INPUT.MASK_FORMAT 'bitmask', found {cfg.MODEL.MASK_ON} and "
            f"{cfg.INPUT.MASK_FORMAT!r}"
        )


def check_diameters(diameter: Any, known: Any) -> None:
    """Check a diameter of the cells in images against what is known of the model's own.

    Args:
        diameter: as CELLSEG.TEST.DIAMETER.
        known: as CELLSEG.TEST.KNOWN_DIAMETERS.

    Raises:
        ConfigError: one of them cannot be used, or there is a diameter to scale by and none to
            scale to.
    """
    check_value("TEST.DIAMETER", diameter)
    check_value("TEST.KNOWN_DIAMETERS", known)
    if diameter != "" and not len(known):
        raise ConfigError(
            f"CELLSEG.TEST.DIAMETER is {diameter!r}, and CELLSEG.TEST.KNOWN_DIAMETERS is empty; "
            "expected the lowest, median and highest diameter of the cells that the model was "
            "trained on, such as [10, 26, 48] (`cellseg inspect` measures them), or DIAMETER ''"
        )


def _check_solver(cfg: Any) -> None:
    node = cfg.CELLSEG.SOLVER
    if node.ACCUMULATE > cfg.SOLVER.IMS_PER_BATCH:
        raise ConfigError(
            f"CELLSEG.SOLVER.ACCUMULATE is {node.ACCUMULATE}; expected 1 (off) to "
            f"SOLVER.IMS_PER_BATCH ({cfg.SOLVER.IMS_PER_BATCH}), which is what it divides"
        )
    factors = numbers_by_name("SOLVER.LR_FACTORS", node.LR_FACTORS)
    if small := [factor for factor in factors.values() if factor <= 0]:
        raise ConfigError(
            f"CELLSEG.SOLVER.LR_FACTORS has the factor {small[0]}; expected more than 0. What is "
            "not to learn belongs into CELLSEG.SOLVER.FREEZE"
        )
    lengths = numbers_by_name("SOLVER.FREEZE", node.FREEZE)
    if strange := [length for length in lengths.values() if length != int(length) or length < -1]:
        raise ConfigError(
            f"CELLSEG.SOLVER.FREEZE has {strange[0]} iterations; expected a whole number, or -1 "
            "for ever"
        )


def _check_training(cfg: Any) -> None:
    node = cfg.CELLSEG.TRAIN
    if node.VALIDATION_LOSS and not cfg.DATASETS.TEST:
        raise ConfigError("CELLSEG.TRAIN.VALIDATION_LOSS is True; expected a set in DATASETS.TEST")
    if node.PATIENCE and not (node.BEST_METRIC and cfg.TEST.EVAL_PERIOD > 0):
        raise ConfigError(
            f"CELLSEG.TRAIN.PATIENCE is {node.PATIENCE}; expected CELLSEG.TRAIN.BEST_METRIC to "
            f"name a metric and TEST.EVAL_PERIOD to be more than 0, found {node.BEST_METRIC!r} and "
            f"{cfg.TEST.EVAL_PERIOD}"
        )


def numbers_by_name(name: str, pairs: Any) -> dict[str, float]:
    """The pairs of a key such as SOLVER.FREEZE as a dict.

    Args:
        name: of the key below CELLSEG.
        pairs: its value, [["backbone", 1], ...].

    Raises:
        ConfigError: it is no list of [name, number], or has a name twice.
    """
    check_value(name, pairs)
    found: dict[str, float] = {}
    for part, amount in pairs:
        if part in found:
            raise ConfigError(f"{KEYS[name].path} names {part!r} twice")
        found[part] = amount
    return found
