"""Files that are whole or not there, and the folder for those that can be made again."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE_OFF = "off"


@contextmanager
def write_whole(path: str | Path) -> Iterator[Path]:
    """Give a temporary name to write to; it takes the place of `path` when the block ends well.

    After an error, or when the process is killed, `path` is what it was before. Folders are made
    as needed.

    Args:
        path: the file's final name; the temporary one is beside it, with the same suffix.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with write_whole(Path(folder, "cells.txt")) as partial:
        ...         _ = partial.write_text("12 cells")
        ...     Path(folder, "cells.txt").read_text()
        '12 cells'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{uuid.uuid4().hex}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def write_whole_folder(path: str | Path) -> Iterator[Path]:
    """`write_whole` for a folder: give an empty one, which takes the place of `path` at the end.

    Args:
        path: the folder's final name. An older folder or file of that name is put aside for the
            moment of the exchange, and removed after it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (path.with_name(f".{uuid.uuid4().hex}.{what}") for what in ("partial", "old"))
    try:
        partial.mkdir()
        yield partial
        if path.exists():
            os.replace(path, old)
        os.replace(partial, path)
    finally:
        if old.exists() and not path.exists():  # the exchange failed half-way
            os.replace(old, path)
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)
            left.unlink(missing_ok=True)


def is_cache_on() -> bool:
    """Whether $CELLSEG_CACHE does not say `off`."""
    return os.environ.get("CELLSEG_CACHE", "").lower() != CACHE_OFF


def cache_root() -> Path:
    """Folder for files that can be made again: $CELLSEG_CACHE or `~/.cache/cellseg`."""
    given = os.environ.get("CELLSEG_CACHE") if is_cache_on() else None
    return Path(given or Path.home() / ".cache" / "cellseg")
