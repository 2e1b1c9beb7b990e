"""Where everything is put together: config files, plug-ins, declarations and all checks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from cellseg.cells.selection import TEST_KEYS, DetectionThresholds
from cellseg.config import (
    ConfigTree,
    add_cellseg_config,
    check_combinations,
    check_keys,
    check_value,
    find_config_file,
    open_types,
    read_config_tree,
)
from cellseg.datasets.declarations import builtin_declarations
from cellseg.datasets.registration import datasets_root, register_declarations
from cellseg.engine.best_metric import check_best_metric
from cellseg.errors import ConfigError
from cellseg.evaluation.registry import check_evaluator_names, check_metric_names
from cellseg.images import ImageInput
from cellseg.inference.augmented import check_test_augmentation_config
from cellseg.modeling.config_checks import check_model_config
from cellseg.modeling.dataset_classes import DECLARED, check_classes
from cellseg.modeling.downloads import register_downloads
from cellseg.modeling.torchvision_weights import register_torchvision_weights
from cellseg.names import did_you_mean, suggest_name
from cellseg.plugins import import_installed, import_plugins
from cellseg.training_data.augmentations import check_augmentation_config
from detectron2.config import CfgNode, downgrade_config, get_cfg, upgrade_config
from detectron2.data import DatasetCatalog, MetadataCatalog

OWN, PLUGINS = "CELLSEG", "PLUGINS"
CHECKED_AS_THRESHOLDS = tuple(f"TEST.{key}" for key in TEST_KEYS)

logger = logging.getLogger(__name__)

Tree = dict[str, Any]
ConfigSource = str | Path | ConfigTree


def load_config(
    config_file: ConfigSource | Sequence[ConfigSource],
    opts: Sequence[Any] = (),
    *,
    weights: str | None = None,
    plugins: Sequence[str] | None = None,
) -> CfgNode:
    """Read YAML files and command-line overrides, import plug-ins, register datasets, check.

    Args:
        config_file: a YAML file with Detectron2's keys and those below `CELLSEG`, or several, of
            which later ones win. Each may have a `_BASE_`, and may be the name of a recipe that
            comes with cellseg; see `find_config_file`. A `ConfigTree` is one that has been read.
        opts: KEY VALUE pairs, alternating; they win over the files.
        weights: sets `MODEL.WEIGHTS`, last of all.
        plugins: for a config that may be a stranger's and of which no model is built: these are
            imported, and not what its `CELLSEG.PLUGINS` names, which is told of. Keys that those
            would have added are left out, and the parts of the model are not checked.

    Returns:
        A CfgNode, not frozen. Plug-ins are imported and datasets registered (both once).

    Raises:
        ConfigError: a file is missing or no YAML, a key is unknown, a value cannot be used.
        PluginError: a plug-in cannot be imported.
        DatasetError: a declaration is wrong.

    Example:
        >>> cfg = load_config("quick_start.yaml", ["SOLVER.MAX_ITER", 10])
        >>> cfg.SOLVER.MAX_ITER, cfg.CELLSEG.SOLVER.OPTIMIZER
        (10, 'ADAMW')
    """
    given = [config_file] if isinstance(config_file, ConfigSource) else config_file
    found = [one if isinstance(one, ConfigTree) else find_config_file(one) for one in given]
    if not found:
        raise ConfigError("no config file is named; quick_start.yaml is one to begin with")
    trees = [
        one if isinstance(one, ConfigTree) else ConfigTree(str(one), read_config_tree(one), True)
        for one in found
    ]
    cfg = get_cfg()
    if not torch.cuda.is_available():  # Detectron2's default is "cuda"; a device named stays named
        cfg.MODEL.DEVICE = "cpu"
    add_cellseg_config(cfg)
    if plugins is not None:
        _say_not_imported(trees, plugins)
        opts = [*opts, f"{OWN}.{PLUGINS}", list(plugins)]
    for plugin in _import_named(trees if plugins is None else (), opts):
        if hasattr(plugin, "add_config"):
            plugin.add_config(cfg)
    if plugins is not None:
        trees = [replace(one, tree=_without_unknown_keys(one.tree, cfg)) for one in trees]
    for one in trees:
        _merge(cfg, one.tree, one.place)
    _merge(cfg, list(opts), "command line")
    if weights is not None:
        cfg.MODEL.WEIGHTS = weights
    register_downloads()
    register_torchvision_weights()
    declarations = cfg.CELLSEG.DATASETS.DECLARATIONS
    check_value("DATASETS.DECLARATIONS", declarations)
    register_declarations([*builtin_declarations(), *map(Path, declarations)], datasets_root())
    check_config(cfg, builds_model=plugins is None)
    return cfg


def _say_not_imported(trees: Sequence[ConfigTree], given: Sequence[str]) -> None:
    for one in trees:
        named = _named_plugins(one.tree)
        for plugin in named if isinstance(named, list) else ():
            if plugin not in given:
                logger.warning(
                    "%s names the plug-in %s, whose code is not run here; --plugin %s runs it",
                    one.place,
                    plugin,
                    plugin,
                )


def _named_plugins(tree: Tree) -> Any:
    """What a config has as CELLSEG.PLUGINS, of whatever type; None where it has none."""
    own = tree.get(OWN)
    return own.get(PLUGINS) if isinstance(own, dict) else None


def _without_unknown_keys(tree: Tree, known: Tree) -> Tree:
    """What of a config has a key in another one, at every depth."""
    return {
        key: _without_unknown_keys(value, known[key])
        if isinstance(value, dict) and isinstance(known[key], dict)
        else value
        for key, value in tree.items()
        if key in known
    }


def _import_named(trees: Sequence[ConfigTree], opts: Sequence[Any]) -> list[Any]:
    """Import what CELLSEG.PLUGINS will name before other keys are merged: plug-ins may add some."""
    named, place, came_with_weights = CfgNode({PLUGINS: []}), "command line", False
    base_dir = Path(trees[-1].place).parent if trees else None
    try:
        for one in trees:
            plugins = _named_plugins(one.tree)
            if plugins is not None:
                place, came_with_weights = one.place, not one.is_file
                base_dir = Path(place).parent
                named.merge_from_other_cfg(CfgNode({PLUGINS: plugins}))
        for key, value in zip(opts[::2], opts[1::2]):
            if key == f"{OWN}.{PLUGINS}":
                place, came_with_weights = "command line", False
                named.merge_from_list([PLUGINS, value])
    except Exception as error:
        raise ConfigError(f"{place}: CELLSEG.PLUGINS must be a list of names: {error}") from error
    if came_with_weights:
        return import_installed(named[PLUGINS], place)
    return import_plugins(named[PLUGINS], base_dir=base_dir)


def _merge(cfg: CfgNode, given: Tree | list[Any], place: str) -> None:
    """Merge a file's keys, or KEY VALUE pairs; the engine's many errors become ConfigError."""
    try:
        with open_types(cfg):
            if isinstance(given, list):
                cfg.merge_from_list(given)
            else:
                _merge_tree(cfg, given)
    except Exception as error:
        raise ConfigError(f"{place}: {_explain(error, cfg)}") from error


def _merge_tree(cfg: CfgNode, tree: Tree) -> None:
    """As `merge_from_file`: keys of an old version of Detectron2's config are translated."""
    version = tree.get("VERSION")
    if version in (None, cfg.VERSION):
        cfg.merge_from_other_cfg(CfgNode(tree))
        return
    old = downgrade_config(cfg, to_version=version)
    old.merge_from_other_cfg(CfgNode(tree))
    cfg.update(upgrade_config(old))


def _explain(error: Exception, cfg: CfgNode) -> str:
    """The merge error's text, with the nearest known keys where a key was not found."""
    text = str(error).strip("'\"")
    if "Non-existent" not in text:
        return text
    wanted = text.split(":")[-1].strip().strip("'\"")
    known = list(_flat_keys(cfg))
    near = did_you_mean(wanted, known) or did_you_mean(wanted.rpartition(".")[0], known)
    return f"{wanted} is no key of the config{near and f'; {near}'}"


def _flat_keys(cfg: CfgNode, prefix: str = "") -> Iterable[str]:
    for key, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from _flat_keys(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def check_config(cfg: CfgNode, *, builds_model: bool = True) -> None:
    """Check what would otherwise fail, or silently go wrong, in the middle of a run.

    Args:
        cfg: the whole config; datasets are registered and plug-ins imported.
        builds_model: also check the names that training and evaluating look up.

    Raises:
        ConfigError: naming the key, what was found and what was expected.
    """
    check_keys(cfg, skip=CHECKED_AS_THRESHOLDS)
    check_combinations(cfg)
    ImageInput.from_config(cfg)
    DetectionThresholds.from_config(cfg)
    check_metric_names(cfg)
    if builds_model:
        check_augmentation_config(cfg)
        check_model_config(cfg)
        check_test_augmentation_config(cfg)
        check_evaluator_names(cfg)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        _check_dataset(cfg, name)
    check_best_metric(cfg)


def _check_dataset(cfg: CfgNode, name: str) -> None:
    known = list(DatasetCatalog.list())
    if name not in known:
        hint = suggest_name(name, known, "known:", 3)
        raise ConfigError(
            f"DATASETS names {name!r}, which is not registered; {hint} Declare your own in a "
            "YAML file and name it in CELLSEG.DATASETS.DECLARATIONS (see datasets/README.md)"
        )
    is_declared = MetadataCatalog.get(name).get("evaluator_type") == DECLARED
    if is_declared and cfg.MODEL.MASK_ON and cfg.INPUT.MASK_FORMAT != "bitmask":
        raise ConfigError(
            f"INPUT.MASK_FORMAT is {cfg.INPUT.MASK_FORMAT!r}, but {name} holds run-length masks; "
            "expected 'bitmask'"
        )
    check_classes(cfg, name)
