"""Whether there is something to learn, and whether what is measured is new to the model."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from cellseg.errors import DatasetError
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

logger = logging.getLogger(__name__)

Entry = Mapping[str, Any]


def check_training_sets(cfg: CfgNode) -> None:
    """Look at the images of the training before it begins.

    What is a training and not what was meant is told: a set without a cell beside others, and
    images that the model is both trained on and measured by.

    Args:
        cfg: of the training; its data sets are read, once.

    Raises:
        DatasetError: there is not one cell in all training sets.
    """
    train = {name: DatasetCatalog.get(name) for name in dict.fromkeys(cfg.DATASETS.TRAIN)}
    without = [name for name, entries in train.items() if not any(map(_has_cell, entries))]
    if train and len(without) == len(train):
        images = sum(map(len, train.values()))
        raise DatasetError(
            f"{', '.join(train)}: not one cell in {images} images; there is nothing to learn. "
            "`cellseg inspect` shows what is read of the annotations"
        )
    for name in without:
        logger.warning("%s: not one cell in its %d images", name, len(train[name]))
    trained = {_place_of(entry) for entries in train.values() for entry in entries}
    for name in dict.fromkeys(cfg.DATASETS.TEST):
        _tell_overlap(name, DatasetCatalog.get(name), trained)


def _has_cell(entry: Entry) -> bool:
    return any(not cell.get("iscrowd", 0) for cell in entry.get("annotations", ()))


def _place_of(entry: Entry) -> tuple[str, Any]:
    """The image of an entry: its file, and the page where it is one of a stack."""
    return os.path.realpath(str(entry.get("file_name"))), entry.get("page")


def _tell_overlap(name: str, entries: Sequence[Entry], trained: set[tuple[str, Any]]) -> None:
    both = [entry for entry in entries if _place_of(entry) in trained]
    if both:
        logger.warning(
            "%s: %d of its %d images are trained on as well, the first is %s: its metrics do not "
            "say how the model does on new images",
            *(name, len(both), len(entries), both[0].get("file_name")),
        )
