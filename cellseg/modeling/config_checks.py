"""What a config says about the model, checked before anything is built."""

from __future__ import annotations

import logging

from cellseg.modeling.cell_types import check_cell_type_config
from cellseg.modeling.mask_losses import parse_loss
from cellseg.modeling.registry_check import check_registered_names
from cellseg.modeling.roi_heads import check_box_head_config
from cellseg.modeling.torchvision_weights import torchvision_mismatches
from cellseg.modeling.unread_keys import unread_keys
from detectron2.config import CfgNode

logger = logging.getLogger(__name__)


def check_model_config(cfg: CfgNode) -> None:
    """Check the parts of the model that `cfg` selects, and warn of what has no effect.

    Args:
        cfg: the whole config; plug-ins are imported.

    Raises:
        ConfigError: naming the key, what was found and what was expected.
    """
    check_cell_type_config(cfg)
    parse_loss(cfg.CELLSEG.MASK_HEAD.LOSS, cfg.CELLSEG.MASK_HEAD.BOUNDARY_WEIGHT)
    check_box_head_config(cfg)
    check_registered_names(cfg)
    for mismatch in torchvision_mismatches(cfg):
        logger.warning("%s (docs/weights.md)", mismatch)
    for setting in unread_keys(cfg):
        logger.warning("%s", setting)
