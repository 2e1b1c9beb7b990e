"""Configuration: every key of Detectron2 with its default, and constructors that take a cfg."""

from detectron2.config.compat import downgrade_config, upgrade_config
from detectron2.config.config import CfgNode, global_cfg, set_global_cfg
from detectron2.config.configurable import configurable
from detectron2.config.defaults import get_cfg
from detectron2.config.instantiate import instantiate
from detectron2.config.lazy import LazyCall, LazyConfig

__all__ = [
    "CfgNode",
    "LazyCall",
    "LazyConfig",
    "configurable",
    "downgrade_config",
    "get_cfg",
    "global_cfg",
    "instantiate",
    "set_global_cfg",
    "upgrade_config",
]
