"""How the commands that take a config begin, and those that run a model."""

from __future__ import annotations

import argparse
import logging

import cellseg  # before detectron2: it makes `import detectron2` work
from cellseg.engine.loading import load_config_of_model
from cellseg.engine.setup import load_config
from cellseg.errors import ConfigError
from cellseg.modeling.device import check_device, describe_device
from cellseg.models import find_bundle
from detectron2.config import CfgNode

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
