"""A trained model by its name: a bundle, the folder of a run, or a checkpoint in one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cellseg.arguments import checked
from cellseg.config import read_config_tree
from cellseg.engine.setup import load_config
from cellseg.inference.model import CellModel
from cellseg.inference.predictor import CellPredictor
from cellseg.modeling.device import default_device, has_device
from cellseg.models import find_model
from cellseg.rules import PATH
from detectron2.config import CfgNode

logger = logging.getLogger(__name__)


def load_config_of_model(
    model: str | Path, config_file: Sequence[str | Path] = (), opts: Sequence[Any] = ()
) -> CfgNode:
    """The config to predict with a model on this machine.

    Args:
        model: a model bundle (its name, folder or zip), the OUTPUT_DIR of a run, or a checkpoint in
            one.
        config_file: configs whose keys win over the run's, such as tuned thresholds.
        opts: KEY VALUE pairs, alternating; they win over all.

    Returns:
        The run's config with `MODEL.WEIGHTS` set. A device that only the run names and that is
        not here, such as the GPU it was trained on, becomes the one that is.

    Raises:
        ConfigError: there is no such model, or its config cannot be used.
        CheckpointError: the folder holds no checkpoint, or the bundle cannot be used.
    """
    files = find_model(model)
    config = files.config
    if isinstance(config, Path):
        read = read_config_tree(config)
        config = replace(read, tree=_without_lost_data(read.tree, config))
    cfg = load_config([config, *config_file], opts, weights=files.weights)
    if "MODEL.WEIGHTS" in opts[::2]:
        logger.warning("MODEL.WEIGHTS is not looked at: the weights are those of %s", model)
    named = str(opts[::2]).count("MODEL.DEVICE")
    if not named and not has_device(cfg.MODEL.DEVICE):
        logger.info("%s is not here; using %s", cfg.MODEL.DEVICE, default_device())
        cfg.MODEL.DEVICE = default_device()
    return cfg


def _without_lost_data(tree: dict[str, Any], config: Path) -> dict[str, Any]:
    """A run's config without its data sets where the files that declare them are not here.

    They are looked for from the current folder, and often on another machine than the training's;
    predicting needs none.
    """
    own = _section(tree, "CELLSEG")
    declared = _section(own, "DATASETS").get("DECLARATIONS")
    named = declared if isinstance(declared, list | tuple) else []
    lost = [one for one in named if not Path(str(one)).is_file()]
    if not lost:
        return tree
    logger.info("%s: %s is not here; the model is used without its data sets", config, lost[0])
    train = {key: one for key, one in _section(own, "TRAIN").items() if key != "BEST_METRIC"}
    kept = {key: value for key, value in own.items() if key != "DATASETS"}
    rest = {key: value for key, value in tree.items() if key != "DATASETS"}
    return {**rest, "CELLSEG": {**kept, "TRAIN": train}}


def _section(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of a config; empty where there is none, or something else, which is told later."""
    found = tree.get(name)
    return found if isinstance(found, dict) else {}


@checked(model=PATH)
def load(
    model: str | Path, opts: Sequence[Any] = (), *, config_file: Sequence[str | Path] = ()
) -> CellModel:
    """A trained model, ready to find cells: `cellseg.load("output/my_run").predict(image)`.

    Args:
        model: the OUTPUT_DIR of a run of `cellseg train`, a checkpoint in one, or a model bundle:
            its folder, its zip, or its name where `cellseg info --models` lists it.
        opts: KEY VALUE pairs, alternating, such as `["CELLSEG.TEST.SCORE_THRESHOLD", 0.4]`; they
            win over all.
        config_file: configs whose keys win over the run's, such as tuned thresholds.

    Raises:
        ConfigError: there is no such model, or its config or a key cannot be used.
        CheckpointError: the weights are missing or cannot be read.
    """
    return CellModel(CellPredictor(load_config_of_model(model, config_file, opts)))
