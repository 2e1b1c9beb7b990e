"""What CELLSEG.AUGMENTATION holds, and checks that need this package."""

from __future__ import annotations

from collections.abc import Iterator

from cellseg.config import find_problems
from cellseg.errors import ConfigError, collect_problems
from cellseg.training_data.augmentations.elastic import MAX_STRENGTH_PER_SIGMA
from cellseg.training_data.augmentations.registry import find_unknown_augmentations
from detectron2.config import CfgNode

PREFIX = "CELLSEG.AUGMENTATION"


def find_switches(node: CfgNode) -> dict[str, CfgNode]:
    """The augmentations of this package, by name: less EXTRA, and less the keys of plug-ins."""
    return {
        name: own for name, own in node.items() if isinstance(own, CfgNode) and "ENABLED" in own
    }


def check_augmentation_config(cfg: CfgNode) -> None:
    """Check all values below CELLSEG.AUGMENTATION, also of what is off.

    Args:
        cfg: config with the keys of `add_cellseg_config`, or those below CELLSEG.AUGMENTATION.

    Raises:
        ConfigError: naming every key with an impossible value, what it has and what it may have.
    """
    problems = list(find_problems(cfg, "AUGMENTATION."))
    node = cfg.CELLSEG.AUGMENTATION
    if not any("ELASTIC" in problem for problem in problems):
        problems += _find_folds(node.ELASTIC)
    problems += find_unknown_augmentations(node.EXTRA)
    if problems:
        raise ConfigError(
            collect_problems(
                f"{PREFIX}: values that cannot be used",
                problems,
                hint="docs/augmentation.md describes every key. Code that registers a name for "
                "EXTRA has to be listed in CELLSEG.PLUGINS.",
            )
        )


def _find_folds(elastic: CfgNode) -> Iterator[str]:
    strongest = MAX_STRENGTH_PER_SIGMA * elastic.SIGMA_PX
    if elastic.STRENGTH_PX[1] > strongest:
        yield (
            f"{PREFIX}.ELASTIC.STRENGTH_PX is {elastic.STRENGTH_PX!r}; expected at most "
            f"{strongest:g}, a fifth of SIGMA_PX: stronger shifts fold the image"
        )
