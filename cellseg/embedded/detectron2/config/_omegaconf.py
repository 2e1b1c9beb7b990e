"""omegaconf, which is not installed with the engine: needed by configs of lazy calls only."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


def require_omegaconf() -> ModuleType:
    """The package.

    Raises:
        ImportError: it is not installed; the message says how to.
    """
    try:
        return importlib.import_module("omegaconf")
    except ImportError as error:
        raise ImportError("configs of lazy calls need omegaconf: pip install omegaconf") from error


def is_omegaconf_dict(value: Any) -> bool:
    """Whether `value` is a `DictConfig`. Nothing is before somebody has imported omegaconf."""
    package = sys.modules.get("omegaconf")
    return package is not None and package.OmegaConf.is_dict(value)


def is_omegaconf_list(value: Any) -> bool:
    """Whether `value` is a `ListConfig`."""
    package = sys.modules.get("omegaconf")
    return package is not None and package.OmegaConf.is_list(value)
