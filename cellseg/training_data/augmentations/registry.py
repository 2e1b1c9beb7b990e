"""Augmentations of plug-ins, by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cellseg.errors import ConfigError
from cellseg.names import describe_unknown_names
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.utils.registry import Registry

EXTRA_KEY = "CELLSEG.AUGMENTATION.EXTRA"

AUGMENTATION_REGISTRY = Registry("AUGMENTATION")
"""Augmentations for CELLSEG.AUGMENTATION.EXTRA.

What is registered, a class or a function, is called `f(cfg)` and gives a Detectron2
`T.Augmentation` or `T.Transform`. It draws from numpy's global generator, as Detectron2's do, and
is pickled where data loading workers are spawned.
"""


def build_extra_augmentations(cfg: CfgNode) -> list[T.Augmentation | T.Transform]:
    """Build what CELLSEG.AUGMENTATION.EXTRA names, in its order; a name may come twice.

    Raises:
        ConfigError: a name is not registered, or gives something that is no augmentation.
    """
    return [_build_augmentation(name, cfg) for name in cfg.CELLSEG.AUGMENTATION.EXTRA]


def _build_augmentation(name: str, cfg: CfgNode) -> T.Augmentation | T.Transform:
    built: Any = AUGMENTATION_REGISTRY.get(name)(cfg)
    if not isinstance(built, (T.Augmentation, T.Transform)):
        raise ConfigError(
            f"{EXTRA_KEY} names {name!r}, which gave a {type(built).__name__}; expected an "
            "Augmentation or a Transform of detectron2.data.transforms"
        )
    return built


def find_unknown_augmentations(names: list[str]) -> Iterator[str]:
    """A description of each name that is not in AUGMENTATION_REGISTRY."""
    return describe_unknown_names(EXTRA_KEY, names, AUGMENTATION_REGISTRY)
