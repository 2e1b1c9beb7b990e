"""The config that a checkpoint of `cellseg train` carries."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from cellseg.arguments import checked
from cellseg.config.trained import ENTRY, TrainedConfig
from cellseg.limits import is_zip
from cellseg.models.explaining import explain_unreadable, without_advice
from cellseg.rules import PATH

logger = logging.getLogger(__name__)


@checked(path=PATH)
def read_carried_config(path: str | Path) -> TrainedConfig | None:
    """The config of the training that wrote a checkpoint, and the names of its classes.

    Weights are not read: the file is mapped, and no code in it is run.

    Args:
        path: of a file, `.pth` or any other.

    Returns:
        None where it carries none: a file of others, of an older cellseg, or one that is damaged.
    """
    if not is_zip(path):
        return None
    try:
        with without_advice():
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever unpickling raises; who loads the weights says more
        logger.info("%s: not known what it was trained with: %s", path, explain_unreadable(error))
        return None
    return TrainedConfig.from_entry(content.get(ENTRY)) if isinstance(content, dict) else None
