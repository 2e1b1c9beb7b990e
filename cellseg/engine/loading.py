"""A trained model by its name: a bundle, the folder of a run, or a checkpoint in one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from cellseg.arguments import checked
from cellseg.cells.selection import DetectionThresholds
from cellseg.config import read_config_tree
from cellseg.datasets.registration import category_ids_of
from cellseg.engine.setup import load_config
from cellseg.inference.adjustable import LEAST_SCORE
from cellseg.inference.model import CellModel
from cellseg.inference.predictor import CellPredictor
from cellseg.io.category_ids import choose_category_ids, number_names
from cellseg.modeling.device import default_device, has_device
from cellseg.models import find_model, locate_bundle, open_bundle, read_carried_config
from cellseg.rules import PATH
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

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


class AdjustableModel(NamedTuple):
    """A model whose cells are chosen after the network ran: `cellseg.inference.adjustable`.

    Attributes:
        model: its predictor takes all detections down to `LEAST_SCORE`.
        thresholds: what its own config says that is a cell.
        classes: names of its classes.
    """

    model: CellModel
    thresholds: DetectionThresholds
    classes: tuple[str, ...]


@checked(model=PATH)
def load_adjustable(model: str | Path, opts: Sequence[Any] = ()) -> AdjustableModel:
    """A trained model for `detect_softly`; arguments and errors as in `load`."""
    cfg = load_config_of_model(model, opts=opts)
    thresholds = DetectionThresholds.from_config(cfg)
    least = min(LEAST_SCORE, thresholds.lowest_score)
    predictor = CellPredictor(cfg, score_threshold=least)
    return AdjustableModel(CellModel(predictor), thresholds, tuple(find_classes(cfg)[0]))


def find_classes(cfg: CfgNode) -> tuple[list[str], list[int]]:
    """Names and category ids of the model's classes.

    Those of its data set, where that is known; else the names that its bundle or checkpoint has for
    them, or numbers.
    """
    number = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    for dataset in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        names = MetadataCatalog.get(dataset).get("thing_classes") or ()
        if dataset in DatasetCatalog.list() and len(names) == number:
            ids = category_ids_of(dataset)
            return list(names), sorted(ids, key=lambda category: ids[category])
    names = _names_with_weights(cfg.MODEL.WEIGHTS) if cfg.MODEL.WEIGHTS else []
    if len(names) != number:
        names = number_names(number)
    return names, list(choose_category_ids(number))


def _names_with_weights(weights: str) -> list[str]:
    """The names of classes that a bundle or a checkpoint has for them; [] where there are none."""
    bundle = locate_bundle(weights)
    if bundle is not None:
        return list(open_bundle(bundle).card.classes)
    carried = read_carried_config(weights) if Path(weights).is_file() else None
    return list(carried.classes) if carried is not None else []
