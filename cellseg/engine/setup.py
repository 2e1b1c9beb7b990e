"""Where everything is put together: config files, plug-ins, declarations and all checks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from cellseg.arguments import checked, or_nothing
from cellseg.cells.selection import TEST_KEYS, DetectionThresholds
from cellseg.config import (
    KEYS,
    ConfigTree,
    add_cellseg_config,
    check_combinations,
    check_keys,
    check_value,
    describe_places,
    find_config_file,
    merge_given,
    pairs_to_tree,
    read_config_tree,
    read_value,
)
from cellseg.datasets.declarations import builtin_declarations
from cellseg.datasets.registration import datasets_root, register_declarations
from cellseg.engine.best_metric import check_best_metric
from cellseg.errors import ConfigError, DatasetError
from cellseg.evaluation.registry import check_evaluator_names, check_metric_names
from cellseg.images import ImageInput
from cellseg.inference.augmented import check_test_augmentation_config
from cellseg.modeling.config_checks import check_model_config
from cellseg.modeling.dataset_classes import DECLARED, check_classes
from cellseg.modeling.downloads import register_downloads
from cellseg.modeling.torchvision_weights import register_torchvision_weights
from cellseg.names import suggest_name
from cellseg.plugins import explain_plugin, import_installed, import_plugins
from cellseg.rules import PATH, number, show
from cellseg.training_data.augmentations import check_augmentation_config
from detectron2.config import CfgNode, downgrade_config, get_cfg, upgrade_config
from detectron2.data import DatasetCatalog, MetadataCatalog

OWN, PLUGINS = "CELLSEG", "PLUGINS"
CHECKED_AS_THRESHOLDS = tuple(f"TEST.{key}" for key in TEST_KEYS)

logger = logging.getLogger(__name__)

ConfigSource = str | Path | ConfigTree


@checked(weights=or_nothing(PATH))
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
        InputTypeError: an argument is of another type.
        ConfigError: a file is missing or no YAML, a key is unknown, a value cannot be used.
        PluginError: a plug-in cannot be imported.
        DatasetError: a declaration is wrong.

    Example:
        >>> cfg = load_config("quick_start.yaml", ["SOLVER.MAX_ITER", 10])
        >>> cfg.SOLVER.MAX_ITER, cfg.CELLSEG.SOLVER.OPTIMIZER
        (10, 'ADAMW')
    """
    given = config_file if isinstance(config_file, (list, tuple)) else (config_file,)
    trees = [_read(one) for one in given]
    if not trees:
        raise ConfigError("no config file is named; quick_start.yaml is one to begin with")
    if not any(one.tree for one in trees):
        raise ConfigError(f"{trees[0].place}: sets no key; expected keys and values")
    if plugins is not None:
        _say_not_imported(trees, plugins)
        opts = [*opts, f"{OWN}.{PLUGINS}", list(plugins)]
    given_here = pairs_to_tree(opts)
    cfg = get_cfg()
    if not torch.cuda.is_available():  # Detectron2's default is "cuda"; a device named stays named
        cfg.MODEL.DEVICE = "cpu"
    add_cellseg_config(cfg)
    _add_keys_of_plugins(cfg, [*(trees if plugins is None else ()), given_here])
    if plugins is not None:
        trees = [replace(one, tree=_without_unknown_keys(one.tree, cfg)) for one in trees]
    trees.append(given_here)
    places: dict[str, str] = {}
    for one in trees:
        _merge(cfg, one)
        places |= {key: one.places.get(key, one.place) for key in one.names()}
    if weights is not None:
        cfg.MODEL.WEIGHTS = str(weights)
    register_downloads()
    register_torchvision_weights()
    try:
        _register_declared(cfg)
        check_config(cfg, builds_model=plugins is None)
    except (ConfigError, DatasetError) as error:
        raise type(error)(f"{error}{describe_places(str(error), places)}") from error
    return cfg


def _read(source: Any) -> ConfigTree:
    return source if isinstance(source, ConfigTree) else read_config_tree(find_config_file(source))


def _say_not_imported(trees: Sequence[ConfigTree], given: Sequence[str]) -> None:
    for one in trees:
        named = read_value(_named_plugins(one))
        for plugin in named if KEYS[PLUGINS].rule.accepts(named) else ():
            if plugin not in given:
                logger.warning(
                    "%s names the plug-in %s, whose code is not run here; --plugin %s runs it",
                    one.place,
                    plugin,
                    plugin,
                )


def _named_plugins(given: ConfigTree) -> Any:
    """What is given as CELLSEG.PLUGINS, of whatever type; None where it is not."""
    own = given.tree.get(OWN)
    return own.get(PLUGINS) if isinstance(own, dict) else None


def _without_unknown_keys(tree: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """What of a config has a key in another one, at every depth."""
    return {
        key: _without_unknown_keys(value, known[key])
        if isinstance(value, dict) and isinstance(known[key], dict)
        else value
        for key, value in tree.items()
        if key in known
    }


def _add_keys_of_plugins(cfg: CfgNode, given: Sequence[ConfigTree]) -> None:
    """Import what CELLSEG.PLUGINS will name before keys are merged: plug-ins may add some.

    Args:
        cfg: the keys that there are.
        given: files, and last of all the command line.
    """
    named: list[str] = []
    namer = given[-1]
    for one in given:
        plugins = read_value(_named_plugins(one))
        if plugins is None:
            continue
        if not KEYS[PLUGINS].rule.accepts(plugins):
            place = one.places.get(f"{OWN}.{PLUGINS}", one.place)
            raise ConfigError(
                f"{place}: CELLSEG.PLUGINS is {show(plugins)}; expected a list of names"
            )
        named, namer = list(plugins), one
    files = [one for one in given[:-1] if one is namer or namer is given[-1]]
    base_dir = Path(files[-1].place).parent if files else None
    modules = (
        import_plugins(named, base_dir=base_dir)
        if namer.is_file
        else import_installed(named, namer.place)
    )
    for name, module in zip(named, modules):
        if hasattr(module, "add_config"):
            with explain_plugin(name):
                module.add_config(cfg)


def _merge(cfg: CfgNode, given: ConfigTree) -> None:
    """Merge what is given; keys of an old version of Detectron2's config are translated."""
    version = read_value(given.tree.get("VERSION"))
    if version in (None, cfg.VERSION):
        merge_given(cfg, given)
        return
    if not number(1, cfg.VERSION, whole=True).accepts(version):
        place = given.places.get("VERSION", given.place)
        raise ConfigError(
            f"{place}: VERSION is {show(version)}; expected 1 to {cfg.VERSION}, the version of "
            "Detectron2's keys"
        )
    old = downgrade_config(cfg, to_version=version)
    merge_given(old, given)
    cfg.update(upgrade_config(old))


def _register_declared(cfg: CfgNode) -> None:
    declarations = cfg.CELLSEG.DATASETS.DECLARATIONS
    check_value("DATASETS.DECLARATIONS", declarations)
    register_declarations([*builtin_declarations(), *map(Path, declarations)], datasets_root())


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
