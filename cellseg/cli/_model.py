"""How the commands that take a config begin, and those that run a model."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import cellseg  # before detectron2: it makes `import detectron2` work
from cellseg.datasets.registration import category_ids_of
from cellseg.engine.loading import load_config_of_model
from cellseg.engine.setup import load_config
from cellseg.errors import ConfigError
from cellseg.io.category_ids import choose_category_ids, number_names
from cellseg.modeling.device import check_device, describe_device
from cellseg.models import find_bundle, locate_bundle, open_bundle, read_carried_config
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

logger = logging.getLogger(__name__)


def load_given_config(args: argparse.Namespace) -> CfgNode:
    """The config that `--config-file` and the overrides give."""
    return load_config(args.config_file, args.opts)


def load_model_config(args: argparse.Namespace) -> CfgNode:
    """The config that `--config-file` and the overrides give, for a model on this machine.

    Raises:
        ConfigError: it is wrong, or the device that it names is missing.
    """
    cfg = load_given_config(args)
    check_device(cfg)
    return cfg


def model_config_of(args: argparse.Namespace, default_model: str = "") -> CfgNode:
    """The config that `--model` or `--config-file` gives, with the overrides.

    Args:
        args: the command's.
        default_model: what is taken, and told of, where neither is given.

    Raises:
        ConfigError: neither is given, and there is no default, or what is given cannot be used.
        CheckpointError: the folder of `--model` holds no checkpoint, or its bundle is damaged.
    """
    model = args.model
    if model is None and not args.config_file and default_model:
        model = default_model
        card = find_bundle(model).card
        logger.info(
            "No --model is given: taking %s %s. %s", card.name, card.version, card.description
        )
    if model is not None:
        return load_config_of_model(model, args.config_file or (), args.opts)
    if not args.config_file:
        raise ConfigError(
            "no model is named; expected --model with the OUTPUT_DIR of a run of `cellseg train` "
            "or a model bundle, or --config-file and MODEL.WEIGHTS"
        )
    return load_model_config(args)


def log_engine_and_device(logger: logging.Logger, cfg: CfgNode) -> None:
    """Say what runs, and where."""
    logger.info("Engine: %s", cellseg.engine_info())
    logger.info("Device: %s", describe_device(cfg.MODEL.DEVICE))


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
