"""Constructors and functions that can be called with a config in place of their arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from detectron2.config._omegaconf import is_omegaconf_dict
from fvcore.common.config import CfgNode

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def configurable(
    init_func: Callable[..., Any] | None = None,
    *,
    from_config: Callable[..., Mapping[str, Any]] | None = None,
) -> Callable[..., Any]:
    """Let a constructor or a function be called with a config.

    On `__init__`, the class needs a classmethod `from_config(cls, cfg, ...)` that returns the
    constructor's arguments as a dict:

        class Head(nn.Module):
            @configurable
            def __init__(self, *, channels: int, classes: int = 1): ...

            @classmethod
            def from_config(cls, cfg): return {"channels": cfg.MODEL.FPN.OUT_CHANNELS}

        Head(channels=8)        # as written
        Head(cfg)               # through from_config
        Head(cfg, classes=3)    # through from_config, then overridden

    On any other function, name the translation: `@configurable(from_config=lambda cfg: {...})`.

    A call goes through `from_config` when its first positional argument, or the one called
    `cfg`, is a `CfgNode` or omegaconf's `DictConfig`. Keyword arguments that `from_config` can
    take go to it; the others are handed to the decorated callable and win over what
    `from_config` returned.

    Raises:
        AssertionError: applied to something else than an `__init__` or a function.
        AttributeError: at the call, where the class has no `from_config`.
        TypeError: at the call, where `from_config` is no classmethod or does not take `cfg` first.
    """
    if init_func is not None:
        assert from_config is None, "@configurable on __init__ takes no from_config argument"
        assert getattr(init_func, "__name__", "") == "__init__", (
            "@configurable without arguments is for an __init__ method only; "
            "for other functions use @configurable(from_config=...)"
        )
        return _configurable_init(init_func)
    if from_config is None:  # written with empty parentheses
        return configurable
    assert inspect.isfunction(from_config), "from_config must be a function that takes a cfg"
    return functools.partial(_configurable_function, from_config)


def _configurable_init(init_func: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init_func)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        translate = _from_config_of(type(self))
        if _has_cfg(args, kwargs):
            init_func(self, **_translate_arguments(translate, args, kwargs))
        else:
            init_func(self, *args, **kwargs)

    return init


def _configurable_function(
    from_config: Callable[..., Mapping[str, Any]], function: Callable[..., Any]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if _has_cfg(args, kwargs):
            return function(**_translate_arguments(from_config, args, kwargs))
        return function(*args, **kwargs)

    call.from_config = from_config  # type: ignore[attr-defined]
    return call


def _from_config_of(cls: type) -> Callable[..., Mapping[str, Any]]:
    complaint = f"{cls.__qualname__} uses @configurable and needs a 'from_config' classmethod"
    found = getattr(cls, "from_config", None)
    if found is None:
        raise AttributeError(complaint)
    if not inspect.ismethod(found):
        raise TypeError(complaint)
    return found


def _has_cfg(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    first = args[0] if args else kwargs.get("cfg")
    return isinstance(first, CfgNode) or is_omegaconf_dict(first)


def _translate_arguments(
    from_config: Callable[..., Mapping[str, Any]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Arguments of the decorated callable: what `from_config` says, then explicit overrides."""
    parameters = inspect.signature(from_config).parameters
    if next(iter(parameters), "") != "cfg":
        raise TypeError(f"the first argument of {from_config.__qualname__} must be called 'cfg'")
    takes_all = any(parameter.kind in _VARIADIC for parameter in parameters.values())
    overrides = {} if takes_all else {k: v for k, v in kwargs.items() if k not in parameters}
    own = {k: v for k, v in kwargs.items() if k not in overrides}
    return {**from_config(*args, **own), **overrides}
