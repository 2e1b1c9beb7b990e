"""Objects from dicts that name a callable, `_target_`, and its keyword arguments."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any

from detectron2.config._omegaconf import is_omegaconf_dict, is_omegaconf_list, require_omegaconf
from detectron2.utils.registry import _convert_target_to_string, locate

__all__ = ["dump_dataclass", "instantiate"]

_logger = logging.getLogger(__name__)


def instantiate(cfg: Any) -> Any:
    """Make the objects that a config describes, the innermost first.

    Args:
        cfg: a mapping with `_target_` (a callable, its dotted name, or another such mapping) and
            the arguments; or a list of anything. omegaconf's containers are taken as well, its
            structured configs become their dataclass.

    Returns:
        What the target returns; for a list, a list of the same kind; anything else as it is.

    Raises:
        ImportError: no object has the target's name.
        TypeError: the target cannot be called, or not with these arguments.
    """
    if isinstance(cfg, list):
        return list(map(instantiate, cfg))
    if is_omegaconf_list(cfg):
        made = map(instantiate, cfg)
        return require_omegaconf().ListConfig(list(made), flags={"allow_objects": True})
    if is_omegaconf_dict(cfg):
        omegaconf = require_omegaconf().OmegaConf
        if dataclasses.is_dataclass(omegaconf.get_type(cfg)):
            return omegaconf.to_object(cfg)
    if not isinstance(cfg, Mapping) or "_target_" not in cfg:
        return cfg
    arguments = {name: instantiate(value) for name, value in cfg.items()}
    target = _find_callable(arguments.pop("_target_"))
    try:
        return target(**arguments)
    except TypeError:
        _logger.error("%r failed with the arguments %s", target, sorted(arguments))
        raise


def _find_callable(target: Any) -> Callable[..., Any]:
    found = locate(target) if isinstance(target, str) else target
    if not callable(found):
        raise TypeError(f"_target_ must be a callable or the name of one, not {target!r}")
    return found


def dump_dataclass(obj: Any) -> dict[str, Any]:
    """Describe a dataclass by plain containers, so that `instantiate` makes it again.

    Args:
        obj: the instance; dataclasses in its fields, and in lists there, are described as well.

    Raises:
        TypeError: not an instance of a dataclass.
    """
    if isinstance(obj, type) or not dataclasses.is_dataclass(obj):
        raise TypeError(f"expected an instance of a dataclass, got {obj!r}")
    fields = {field.name: _dump(getattr(obj, field.name)) for field in dataclasses.fields(obj)}
    return {"_target_": _convert_target_to_string(type(obj)), **fields}


def _dump(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_dump(item) for item in value]
    return dump_dataclass(value) if dataclasses.is_dataclass(value) else value
