"""Calls written down as configs, to be changed, saved and made later by `instantiate`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import yaml
from detectron2._missing import FULL_ENGINE_HINT
from detectron2.config._omegaconf import require_omegaconf
from detectron2.utils.file_io import PathManager
from detectron2.utils.registry import _convert_target_to_string

__all__ = ["LazyCall", "LazyConfig"]


class LazyCall:
    """A callable whose call gives the config of that call.

        layer_cfg = LazyCall(nn.Conv2d)(in_channels=3, out_channels=8, kernel_size=1)
        layer_cfg.out_channels = 16
        layer = instantiate(layer_cfg)

    Args:
        target: what `instantiate` shall call: a callable, its dotted name, or a config that
            makes one.

    Raises:
        TypeError: `target` is none of these.
    """

    def __init__(self, target: Any) -> None:
        if not isinstance(target, str | Mapping) and not callable(target):
            raise TypeError(f"LazyCall needs a callable, or what describes one, not {target!r}")
        self._target = target

    def __call__(self, **kwargs: Any) -> Any:
        """The call as a `DictConfig`.

        Raises:
            ImportError: omegaconf is not installed.
        """
        # omegaconf would take the dataclass itself for the schema of a config
        named = dataclasses.is_dataclass(self._target)
        target = _convert_target_to_string(self._target) if named else self._target
        call = {**kwargs, "_target_": target}
        return require_omegaconf().DictConfig(call, flags={"allow_objects": True})


class LazyConfig:
    """Files of such configs. The embedded engine has YAML only, no configs in Python."""

    @staticmethod
    def load(filename: str, keys: str | tuple[str, ...] | None = None) -> Any:
        """Read a config that `save` wrote.

        Args:
            filename: path or URL. YAML that names Python objects runs their code: read such a
                file before loading it.
            keys: return only the value of this key, or a tuple with those of these keys.

        Raises:
            ImportError: omegaconf is not installed.
            NotImplementedError: a config in Python.
            ValueError: no YAML file by its name.
        """
        kind = PurePath(filename).suffix
        if kind == ".py":
            raise NotImplementedError(
                f"{filename}: the embedded engine loads no configs in Python; {FULL_ENGINE_HINT}"
            )
        if kind not in (".yaml", ".yml"):
            raise ValueError(f"{filename}: the name of a config must end in .yaml or .yml")
        omegaconf = require_omegaconf()
        with PathManager.open(filename, "r") as file:
            content = yaml.unsafe_load(file)
        cfg = omegaconf.OmegaConf.create(content, flags={"allow_objects": True})
        if keys is None:
            return cfg
        return cfg[keys] if isinstance(keys, str) else tuple(cfg[key] for key in keys)

    @staticmethod
    def save(cfg: Any, filename: str) -> None:
        """Write a config as YAML: targets by name, interpolations as they are.

        Raises:
            ImportError: omegaconf is not installed.
            ValueError: it holds an object, for instance a lambda, that cannot be read again.
        """
        omegaconf = require_omegaconf()
        plain = omegaconf.OmegaConf.to_container(
            cfg, resolve=False, structured_config_mode=omegaconf.SCMode.INSTANTIATE
        )
        try:
            text = yaml.dump(_name_targets(plain), allow_unicode=True, sort_keys=False)
            yaml.unsafe_load(text)
        except (yaml.YAMLError, TypeError) as error:
            raise ValueError(f"{filename}: the config has no form in YAML: {error}") from error
        with PathManager.open(filename, "w") as file:
            file.write(text)


def _name_targets(plain: Any) -> Any:
    """The same tree of dicts and lists with the names of callables under `_target_`."""
    if isinstance(plain, list):
        return [_name_targets(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    named = {key: _name_targets(value) for key, value in plain.items()}
    target = named.get("_target_")
    if hasattr(target, "__qualname__") and target.__module__:  # dict.fromkeys is of no module
        named["_target_"] = _convert_target_to_string(target)
    return named
