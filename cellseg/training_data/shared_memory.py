"""Room for what a loader's process hands over: its tensors go through /dev/shm.

Where that is full, a thread of PyTorch's worker loses the image with a traceback, and the training
waits for it for ever. Containers have little (Docker: 64 MB). So a worker looks first.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from cellseg.errors import TrainingError
from torch import Tensor
from torch.utils.data import get_worker_info

SHARED_MEMORY = Path("/dev/shm")
PREFETCHED = 2
"""Images that each worker has ready; PyTorch's default."""
WAIT_S = 120.0
"""How long others may need to give room back."""

_MB = 2**20


def wait_for_room(entry: Any, folder: Path = SHARED_MEMORY, wait_s: float = WAIT_S) -> None:
    """Wait in a loader's process until an image fits into shared memory; elsewhere do nothing.

    Args:
        entry: what is handed over, with tensors at any depth.
        folder: where shared memory is mounted; systems without it need no room.
        wait_s: for so long, in seconds.

    Raises:
        TrainingError: it would not hold what all workers have ready, or stays full.
    """
    info = get_worker_info()
    if info is None or not folder.is_dir():
        return
    size = tensor_bytes(entry)
    ready = PREFETCHED * info.num_workers * size
    deadline = time.monotonic() + wait_s
    while True:
        found = os.statvfs(folder)
        total, free = (found.f_frsize * blocks for blocks in (found.f_blocks, found.f_bavail))
        if total >= ready and free >= info.num_workers * size:
            return
        if total < ready or time.monotonic() > deadline:
            raise TrainingError(
                f"{folder} has {total / _MB:.1f} MB, {free / _MB:.1f} of them free; the loader's "
                f"{info.num_workers} processes need {ready / _MB:.1f} MB for images such as this: "
                "set DATALOADER.NUM_WORKERS 0, or give the container more (docker run "
                "--shm-size 8g)"
            )
        time.sleep(0.2)


def tensor_bytes(value: Any) -> int:
    """Bytes of all tensors in nested containers and objects.

    Example:
        >>> tensor_bytes({"image": torch.zeros(3, 4), "more": [torch.zeros(2, dtype=torch.int8)]})
        50
    """
    if isinstance(value, Tensor):
        return value.untyped_storage().nbytes()
    if isinstance(value, dict):
        return sum(map(tensor_bytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(tensor_bytes, value))
    return tensor_bytes(vars(value)) if hasattr(value, "__dict__") else 0
