"""How the commands that take a config begin, and those that run a model."""

from __future__ import annotations

import argparse
import logging

import cellseg  # before detectron2: it makes `import detectron2` work
from cellseg.engine.setup import load_config
from cellseg.modeling.device import check_device, describe_device
from detectron2.config import CfgNode


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


def log_engine_and_device(logger: logging.Logger, cfg: CfgNode) -> None:
    """Say what runs, and where."""
    logger.info("Engine: %s", cellseg.engine_info())
    logger.info("Device: %s", describe_device(cfg.MODEL.DEVICE))
