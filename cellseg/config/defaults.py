"""From the table of keys to a config, and how files and the command line may change it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cellseg.config.engine_keys import ENGINE_RULES, find_value
from cellseg.config.keys import KEYS


def add_cellseg_config(cfg: Any) -> None:
    """Add every key of cellseg with its default, all below `cfg.CELLSEG`.

    Args:
        cfg: a CfgNode, as `detectron2.config.get_cfg` gives it; it is changed.
    """
    tree: dict[str, Any] = {}
    for key in KEYS.values():
        *nodes, leaf = key.name.split(".")
        place = tree
        for node in nodes:
            place = place.setdefault(node, {})
        place[leaf] = copy.deepcopy(key.default)
    cfg.CELLSEG = type(cfg)(tree)


def value_of(cfg: Any, name: str) -> Any:
    """The value of a key below CELLSEG, by its name such as "TEST.MASK_NMS".

    Raises:
        KeyError: a config made by hand does not have it.
    """
    return find_value(cfg, f"CELLSEG.{name}")


@contextmanager
def open_types(cfg: Any) -> Iterator[None]:
    """While it lasts, a merge may put a value of any type into the keys of the table.

    A CfgNode refuses a value of another type than its own, except in place of None: a threshold
    could not become a list of thresholds, nor 1.0 be written as 1. `check_keys` says afterwards
    which value is wrong, and what was expected. So it is with those of Detectron2's keys that are
    numbers and have a rule.

    Args:
        cfg: with the keys of `add_cellseg_config`; what is set to None keeps its value.
    """
    defaults = {key.path: key.default for key in KEYS.values()}
    for path in ENGINE_RULES:
        if type(value := find_value(cfg, path)) in (int, float):
            defaults[path] = value
    before = {path: find_value(cfg, path) for path in defaults}
    for path in defaults:
        _set(cfg, path, None)
    yield
    for path, value in before.items():  # the nodes may be other ones by now
        given = find_value(cfg, path)
        _set(cfg, path, value if given is None else _as_its_kind(given, defaults[path]))


def _set(cfg: Any, path: str, value: Any) -> None:
    node, _, leaf = path.rpartition(".")
    find_value(cfg, node)[leaf] = value


def _as_its_kind(value: Any, default: Any) -> Any:
    """A tuple as a list and a whole number as a float, where the default is one."""
    if isinstance(default, list) and isinstance(value, tuple):
        return list(value)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if isinstance(default, float) and is_whole else value
