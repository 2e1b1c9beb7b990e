"""Checkpoints that are either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cellseg.config.trained import TrainedConfig, portable_config
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

PARTIAL_SUFFIX = ".partial"


class CarriedConfig:
    """The config of a training, for every checkpoint that it writes.

    To be added to an fvcore `Checkpointer` under `cellseg.config.trained.ENTRY`. It is read by who
    loads the weights; a resumed training goes on with its own.

    Args:
        cfg: of the training.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self._entry = TrainedConfig(portable_config(cfg), class_names(cfg)).to_entry()

    def state_dict(self) -> dict[str, Any]:
        return self._entry

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass


def class_names(cfg: CfgNode) -> tuple[str, ...]:
    """The names of a model's classes as its training sets have them; () where they have not."""
    for name in cfg.DATASETS.TRAIN:
        names = MetadataCatalog.get(name).get("thing_classes") or ()
        if len(names) == cfg.MODEL.ROI_HEADS.NUM_CLASSES:
            return tuple(map(str, names))
    return ()


class AtomicWrites:
    """A path manager whose local writes appear under their name only when they are complete.

    It stands in for the `path_manager` of an fvcore `Checkpointer`, which opens the checkpoint
    and the `last_checkpoint` file through it. Everything but opening for writing is passed on.

    Args:
        path_manager: the iopath `PathManager` that opens all files in the end.
    """

    def __init__(self, path_manager: Any) -> None:
        self._path_manager = path_manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self._path_manager, name)

    def open(self, path: str, mode: str = "r", **options: Any) -> Any:
        """Like the path manager's `open`; for mode "w" and "wb" a context manager.

        A file that is not closed cleanly (an exception, a killed process, a full disk) leaves
        the file that had the name before untouched.
        """
        if mode not in ("w", "wb") or not _is_local(path):
            return self._path_manager.open(path, mode, **options)
        return _write_whole(self._path_manager, path, mode, options)


def _is_local(path: str) -> bool:
    return "://" not in str(path)


@contextmanager
def _write_whole(
    path_manager: Any, path: str, mode: str, options: dict[str, Any]
) -> Iterator[IO[Any]]:
    partial = f"{path}{PARTIAL_SUFFIX}"
    try:
        with path_manager.open(partial, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)


def remove_partial_files(folder: str | Path) -> None:
    """Delete what a killed run left half-written in `folder`; a missing folder is fine."""
    for path in Path(folder).glob(f"*{PARTIAL_SUFFIX}"):
        path.unlink(missing_ok=True)
