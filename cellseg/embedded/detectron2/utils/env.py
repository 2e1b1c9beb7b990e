"""The process: random seeds, versions, and setup by the user's own code."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import random
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy as np
import torch

__all__ = [
    "DOC_BUILDING",
    "TORCH_VERSION",
    "fixup_module_metadata",
    "seed_all_rng",
    "setup_environment",
]

TORCH_VERSION: tuple[int, ...] = tuple(map(int, torch.__version__.split(".")[:2]))
"""(major, minor) of PyTorch."""

DOC_BUILDING = bool(os.environ.get("_DOC_BUILDING"))
"""Whether pages of documentation are being made from the code."""

_setup_done = False


def seed_all_rng(seed: int | None = None) -> None:
    """Seed Python, NumPy and PyTorch (CPU and all GPUs), and the hashes of child processes.

    Args:
        seed: in [0, 2**32); None takes one from the operating system and logs it.
    """
    if seed is None:
        seed = int.from_bytes(os.urandom(4), "big")
        logging.getLogger(__name__).info("Random seed of this process: %d", seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # the global generator is what augmentations draw from
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)
    os.environ["PYTHONHASHSEED"] = str(seed)


def setup_environment() -> None:
    """Run the user's `setup_environment()` once per process.

    It is looked for in the module, or the Python file, that $DETECTRON2_ENV_MODULE names;
    without that variable nothing happens.

    Raises:
        AttributeError: the module has no function `setup_environment`.
    """
    global _setup_done
    source = os.environ.get("DETECTRON2_ENV_MODULE")
    if source and not _setup_done:
        _setup_done = True
        _import_file_or_module(source).setup_environment()


def fixup_module_metadata(
    module_name: str, namespace: dict[str, Any], keys: Iterable[str] | None = None
) -> None:
    """While documentation is being made, let a package's classes and functions call it their home.

    Without it a page would name the module that each is written in. At any other time nothing
    happens.

    Args:
        module_name: of the package, its `__name__`.
        namespace: the package's `globals()`.
        keys: the names concerned; all of `namespace` by default. Those with a leading underscore,
            and what comes from elsewhere, stay as they are.
    """
    if not DOC_BUILDING:
        return
    for name in [*(namespace if keys is None else keys)]:
        home = getattr(namespace[name], "__module__", None) or ""
        if not name.startswith("_") and home.startswith((module_name, "fvcore.")):
            namespace[name].__module__ = module_name


def _import_file_or_module(source: str) -> ModuleType:
    if not source.endswith(".py"):
        return importlib.import_module(source)
    spec = importlib.util.spec_from_file_location("detectron2_custom_environment", source)
    if spec is None or spec.loader is None:
        raise ImportError(f"$DETECTRON2_ENV_MODULE names {source!r}, which cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
