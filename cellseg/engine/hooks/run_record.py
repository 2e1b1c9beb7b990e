"""run.json: what a run was made of, and what came out."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from cellseg.datasets.registration import datasets_root
from cellseg.engine.hooks.schedule import TrainingStopped
from cellseg.engine.working_trees import describe_working_trees
from cellseg.files import write_whole
from cellseg.interrupts import Interrupted
from cellseg.json_text import read_json
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase
from detectron2.utils import comm

RUN_FILE = "run.json"
FIGURES_FILE = "figures.json"
"""Metrics of `cellseg train --eval-only`, in OUTPUT_DIR."""

logger = logging.getLogger(__name__)


class RunRecord(HookBase):
    """Writes `run.json`: {"runs": [...]}, one entry for each start of a training.

    An entry is written when training starts, with status "running", and completed when it ends:
    "finished", "stopped early", "interrupted" or "failed", with the reason, which a training that
    ended at its last planned iteration has none of. Resumed runs add to the list, new ones begin
    it. To be used in the main process, behind the hooks that evaluate.

    Args:
        cfg: the config of the run.
        engine: which engine runs, with versions.
    """

    def __init__(self, cfg: CfgNode, engine: str) -> None:
        self._cfg = cfg
        self._engine = engine
        self._path = Path(cfg.OUTPUT_DIR) / RUN_FILE
        self._earlier: list[Any] = []
        self._entry: dict[str, Any] = {}

    def before_train(self) -> None:
        """Write all that is known now."""
        self._earlier = self._read_earlier() if self.trainer.start_iter > 0 else []
        self._entry = {
            "status": "running",
            "start_time": _local_time_now(),
            "start_iteration": self.trainer.start_iter,
            "command": sys.argv,
            "engine": self._engine,
            "machine": describe_machine(),
            "git": describe_working_trees(),
            "datasets": {
                name: describe_dataset(name)
                for name in (*self._cfg.DATASETS.TRAIN, *self._cfg.DATASETS.TEST)
            },
            "config_sha256": hash_config(self._cfg),
            "config": yaml.safe_load(self._cfg.dump()),
        }
        self._write_record()

    def after_train(self) -> None:
        """Complete the entry."""
        trainer = self.trainer
        self._entry |= {
            **self._describe_end(),
            "end_time": _local_time_now(),
            "end_iteration": trainer.iter,
            "figures": {
                name: value if math.isfinite(value) else None
                for name, (value, _) in sorted(trainer.storage.latest().items())
            },
        }
        self._write_record()

    def _describe_end(self) -> dict[str, str]:
        error = sys.exc_info()[1]  # what is on its way through the trainer's `finally`
        reason = {"reason": str(error)} if isinstance(error, TrainingStopped) else {}
        if isinstance(error, Interrupted):
            return {"status": "interrupted", "reason": error.signum.name}
        if self.trainer.iter >= self.trainer.max_iter:
            return {"status": "finished", **reason}
        if reason:
            return {"status": "stopped early", **reason}
        return {"status": "failed", "reason": f"{type(error).__name__}: {error}"}

    def _read_earlier(self) -> list[Any]:
        if not self._path.is_file():
            return []
        try:
            return list(read_json(self._path)["runs"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s cannot be read and is begun anew: %s", self._path, error)
            return []

    def _write_record(self) -> None:
        with write_whole(self._path) as partial:
            runs = [*self._earlier, self._entry]
            partial.write_text(json.dumps({"runs": runs}, indent=1) + "\n", "utf-8")


def _local_time_now() -> str:
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")


def describe_machine() -> dict[str, Any]:
    """Python, torch, CUDA, the GPUs in use and the number of processes."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "gpus": gpus,
        "processes": comm.get_world_size(),
    }


def hash_config(cfg: CfgNode) -> str:
    """SHA-256 of all keys but OUTPUT_DIR: equal for the same run into another folder."""
    plain = cfg.clone()
    plain.defrost()
    plain.OUTPUT_DIR = ""
    return hashlib.sha256(plain.dump().encode()).hexdigest()


def describe_dataset(name: str) -> dict[str, Any]:
    """Numbers that tell one state of a dataset from another.

    Args:
        name: the data set's name in DatasetCatalog.

    Returns:
        Numbers of images and cells, classes, least and greatest (height, width), and "sha256" of
        ids, sizes, classes, boxes and masks in order; the same wherever the files lie.
    """
    images = DatasetCatalog.get(name)
    sizes = np.array([_size_hw(image) for image in images if "height" in image]).reshape(-1, 2)
    digest = hashlib.sha256()
    for image in images:
        digest.update(_describe_image(image).encode())
    return {
        "images": len(images),
        "cells": sum(len(image.get("annotations", ())) for image in images),
        "classes": list(MetadataCatalog.get(name).get("thing_classes") or ()),
        "smallest_hw": sizes.min(axis=0).tolist() if len(sizes) else None,
        "largest_hw": sizes.max(axis=0).tolist() if len(sizes) else None,
        "datasets_root": str(datasets_root()),
        "sha256": digest.hexdigest(),
    }


def _size_hw(image: Mapping[str, Any]) -> tuple[Any, Any]:
    return image.get("height"), image.get("width")


def _describe_image(image: Mapping[str, Any]) -> str:
    cells = [
        (cell.get("category_id"), [float(edge) for edge in cell["bbox"]], _as_plain_value(cell))
        for cell in image.get("annotations", ())
    ]
    return repr((str(image.get("image_id")), *_size_hw(image), cells)) + "\n"


def _as_plain_value(cell: Mapping[str, Any]) -> Any:
    """A segmentation of any kind as something with a stable `repr`."""
    segmentation = cell.get("segmentation")
    if isinstance(segmentation, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(segmentation).tobytes()).hexdigest()
    if isinstance(segmentation, dict):
        counts = segmentation["counts"]
        return counts.decode() if isinstance(counts, bytes) else counts
    return segmentation
