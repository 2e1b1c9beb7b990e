"""Checkpoints that are either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

PARTIAL_SUFFIX = ".partial"


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
