"""From the table of keys to a config, and how files and the command line may change it."""

from __future__ import annotations

import copy
from typing import Any

from cellseg.arguments import check_argument
from cellseg.config.engine_combinations import find_value
from cellseg.config.keys import KEYS
from cellseg.rules import Rule

_CFG = Rule(
    "a CfgNode, as detectron2's get_cfg gives it",
    lambda value: isinstance(value, dict) and hasattr(value, "is_frozen"),
)


def add_cellseg_config(cfg: Any) -> None:
    """Add every key of cellseg with its default, all below `cfg.CELLSEG`.

    Args:
        cfg: a CfgNode, as `detectron2.config.get_cfg` gives it; it is changed.
    """
    check_argument("cfg", cfg, _CFG)
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
