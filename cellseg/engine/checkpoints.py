"""Checkpoints that are either whole or not there."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cellseg.config.trained import TrainedConfig, portable_config
from cellseg.engine.run_folder import describe_room
from cellseg.errors import TrainingError
from cellseg.files import is_partial
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

PARTIAL_SUFFIX = ".partial"
_PYTORCH_FULL = re.compile(r"PytorchStreamWriter failed|unexpected pos \d+")

logger = logging.getLogger(__name__)


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
        needed: about how many bytes a checkpoint has; 0 where that is not known.
    """

    def __init__(self, path_manager: Any, needed: int = 0) -> None:
        self._path_manager = path_manager
        self._needed = needed
        self._written: Path | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._path_manager, name)

    def open(self, path: str, mode: str = "r", **options: Any) -> Any:
        """Like the path manager's `open`; for mode "w" and "wb" a context manager.

        A file that is not closed cleanly (an exception, a killed process, a full disk) leaves
        the file that had the name before untouched. A folder that was removed is made again.

        Raises:
            TrainingError: inside the context, the disk is full.
        """
        if mode not in ("w", "wb") or not _is_local(path):
            return self._path_manager.open(path, mode, **options)
        return self._write_whole(path, mode, options)

    @contextmanager
    def _write_whole(self, path: str, mode: str, options: dict[str, Any]) -> Iterator[IO[Any]]:
        folder, partial = Path(path).parent, f"{path}{PARTIAL_SUFFIX}"
        self._tell_if_gone(self._written)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with self._path_manager.open(partial, mode.replace("w", "w+"), **options) as file:
                yield file
                file.flush()
                if not os.path.exists(partial):
                    self._tell_if_gone(Path(partial))
                    _write_again(file, partial)
                os.fsync(file.fileno())
            os.replace(partial, path)
            self._written = Path(path)
        except (OSError, RuntimeError) as error:
            Path(partial).unlink(missing_ok=True)
            if not _is_full(error):
                raise
            raise TrainingError(
                f"{path} could not be written ({error}): {describe_room(folder, self._needed)}. "
                "The checkpoints that are there are whole: then go on with --resume"
            ) from error
        finally:
            Path(partial).unlink(missing_ok=True)

    def _tell_if_gone(self, path: Path | None) -> None:
        if path is not None and not path.exists():
            logger.warning(
                "%s is gone: somebody has removed or emptied the folder while training. What "
                "follows is written there again",
                path,
            )


def _write_again(file: IO[Any], path: str) -> None:
    """Write what an open file holds whose name was removed to that name once more."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    file.seek(0)
    with open(path, "wb" if isinstance(file.read(0), bytes) else "w") as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        os.fsync(copy.fileno())


def _is_local(path: str) -> bool:
    return "://" not in str(path)


def _is_full(error: BaseException) -> bool:
    """Whether there was no room; PyTorch says so in words of its own."""
    cause: BaseException | None = error
    while cause is not None:
        if getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if _PYTORCH_FULL.search(str(cause)):
            return True
        cause = cause.__context__
    return False


def remove_partial_files(folder: str | Path) -> None:
    """Delete what a killed run left half-written in its folder; a missing folder is fine.

    To be called by who has the folder for itself; see `cellseg.engine.run_folder.locked_folder`.
    """
    folder = Path(folder)
    for path in (*folder.glob("*"), *(folder / "inference").rglob("*")):
        if path.name.endswith(PARTIAL_SUFFIX) or is_partial(path):
            path.unlink(missing_ok=True)
