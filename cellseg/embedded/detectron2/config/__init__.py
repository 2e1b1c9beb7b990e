"""Configuration: every key of Detectron2 with its default, and constructors that take a cfg."""

from detectron2.config.config import CfgNode, global_cfg, set_global_cfg
from detectron2.config.configurable import configurable
from detectron2.config.defaults import get_cfg

__all__ = ["CfgNode", "configurable", "get_cfg", "global_cfg", "set_global_cfg"]
