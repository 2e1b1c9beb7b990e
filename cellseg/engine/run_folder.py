"""The folder of a training: whose it is, what is in it already, and whether there is room."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from cellseg.config.files import CONFIG_FILE
from cellseg.config.runs import BEST_FILE, LAST_FILE, METRICS_FILE
from cellseg.engine.hooks.best import HISTORY_FILE
from cellseg.engine.hooks.run_record import RUN_FILE
from cellseg.errors import TrainingError
from cellseg.files import write_whole
from cellseg.locks import LockedError, is_held_here, take_lock
from detectron2.utils import comm

LOCK_FILE = "training.lock"
_CHECKPOINT = re.compile(r"model_(\d{7,}|final)\.pth")
_MB = 2**20

logger = logging.getLogger(__name__)


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """The checkpoints that a training has left in a folder, by name; the best one is none."""
    folder = Path(output_dir)
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _CHECKPOINT.fullmatch(path.name))


def check_new(output_dir: str | Path) -> None:
    """Refuse to begin a training where another one has left what it learned.

    A folder that is there, also one of a run that came to no checkpoint, is no reason.

    Raises:
        TrainingError: it holds checkpoints.
    """
    folder = Path(output_dir)
    found = [path.name for path in list_checkpoints(folder)]
    found += [name for name in (BEST_FILE,) if (folder / name).is_file()]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise TrainingError(
            f"{folder} holds a training: {', '.join(found[-3:])}{more}. A new one would mix with "
            "it, so nothing was touched. To go on with it: --resume. To begin another one: "
            "OUTPUT_DIR and another folder. To throw it away: --overwrite"
        )


def remove_run(output_dir: str | Path) -> None:
    """Remove what a training has left that the next one would take for its own."""
    folder = Path(output_dir)
    names = (BEST_FILE, LAST_FILE, METRICS_FILE, HISTORY_FILE, RUN_FILE)
    # the note on the last one first: a half-removed run is to look like none
    for path in (*(folder / name for name in names), *list_checkpoints(folder)):
        path.unlink(missing_ok=True)


@contextmanager
def kept_config(output_dir: str | Path) -> Iterator[None]:
    """Put a training's config.yaml back, which Detectron2 replaces when it only evaluates."""
    path = Path(output_dir) / CONFIG_FILE
    is_run = path.is_file() and (list_checkpoints(output_dir) or (path.parent / LOCK_FILE).exists())
    content = path.read_bytes() if is_run else None
    try:
        yield
    finally:
        if content is not None:
            with write_whole(path) as partial:
                partial.write_bytes(content)


@contextmanager
def locked_folder(output_dir: str | Path) -> Iterator[None]:
    """Keep a folder for one training at a time; to be used in the main process of a run.

    The lock is that of `cellseg.locks` on `training.lock`, which says who has it. Inside another
    such block for the same folder nothing happens.

    Raises:
        TrainingError: another process trains into it, or its name cannot be encoded.
        OSError: the folder cannot be made or written into.
    """
    try:
        str(output_dir).encode()
    except UnicodeEncodeError:
        raise TrainingError(
            f"OUTPUT_DIR is {str(output_dir)!a}, which is in no encoding that all programs read: "
            "choose another name"
        ) from None
    folder = Path(output_dir).resolve()
    path = folder / LOCK_FILE
    if is_held_here(path) or not comm.is_main_process():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = take_lock(path)
    except LockedError as error:
        raise TrainingError(
            f"{folder} is in use: {error.holder} trains into it. Wait until it has ended, or "
            "choose another OUTPUT_DIR"
        ) from None
    try:
        yield
    finally:
        lock.release()


def checkpoint_bytes(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, with_average: bool = False
) -> int:
    """About how large a checkpoint of a training will be.

    Args:
        model: its parameters and buffers are written.
        optimizer: keeps one number per trained parameter (SGD with momentum) or two (Adam).
        with_average: an average of the trained parameters is written too.
    """
    of_all = sum(_size(tensor) for tensor in model.state_dict().values())
    trained = sum(_size(each) for group in optimizer.param_groups for each in group["params"])
    copies = 2 if "betas" in optimizer.param_groups[0] else 1
    return of_all + trained * (copies + with_average)


def _size(tensor: Any) -> int:
    return int(tensor.numel()) * int(tensor.element_size())


def check_room(output_dir: str | Path, needed: int) -> None:
    """Refuse to begin where not even one checkpoint would have room; little room is told.

    Args:
        output_dir: is there.
        needed: bytes of a checkpoint.

    Raises:
        TrainingError: there is less room than that.
    """
    with suppress(OSError):
        free = shutil.disk_usage(output_dir).free
        if free < needed:
            raise TrainingError(f"{output_dir}: {describe_room(output_dir, needed)}")
        if free < 3 * needed:
            logger.warning("%s: %s", output_dir, describe_room(output_dir, needed))


def describe_room(folder: str | Path, needed: int) -> str:
    """How much room a checkpoint needs, how much there is, and what to do."""
    free = shutil.disk_usage(folder).free
    return (
        f"a checkpoint needs about {needed / _MB:.1f} MB, and {free / _MB:.1f} MB are free there: "
        "free some space, or choose an OUTPUT_DIR on another disk"
    )
