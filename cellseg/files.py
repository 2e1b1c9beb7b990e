"""Files that are whole or not there, and the folder for those that can be made again."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

CACHE_OFF = "off"

_mark: ContextVar[str] = ContextVar("mark", default="")


@contextmanager
def marked_partials(mark: str) -> Iterator[None]:
    """Files that are written whole within the context have partial names that follow from `mark`.

    So that, where the process is killed, another one that knows the mark can remove what is left;
    see `remove_partials`. No two writers may share one.
    """
    token = _mark.set(mark)
    try:
        yield
    finally:
        _mark.reset(token)


def remove_partials(path: str | Path, mark: str) -> None:
    """Remove what a killed writer of a file, or a folder, left beside it.

    Args:
        path: the final name.
        mark: as `marked_partials` was given it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with marked_partials("writer 1"):
        ...         _partial_path(Path(folder, "cells.txt")).touch()  # and is killed
        ...     remove_partials(Path(folder, "cells.txt"), "writer 1")
        ...     os.listdir(folder)
        []
    """
    with marked_partials(mark):
        for kind in _KINDS:
            _remove(_partial_path(Path(path), kind))


_KINDS = ("partial", "old")
_PARTIAL = re.compile(rf"\.[0-9a-f]{{32}}\.({'|'.join(_KINDS)})")


def _partial_path(path: Path, kind: str = "partial") -> Path:
    """A name beside a path that nobody else uses, with the same ending."""
    mark = _mark.get() or uuid.uuid4().hex
    name = uuid.uuid5(uuid.NAMESPACE_OID, f"{mark}/{path.name}").hex
    return path.with_name(f".{name}.{kind}{path.suffix}")


def is_partial(path: Path) -> bool:
    """Whether a file's name is one that `write_whole` gives until all is written."""
    return _PARTIAL.match(path.name) is not None


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)


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
    partial = _partial_path(path)
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
    partial, old = (_partial_path(path, kind) for kind in _KINDS)
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
            _remove(left)


def is_cache_on() -> bool:
    """Whether $CELLSEG_CACHE does not say `off`."""
    return os.environ.get("CELLSEG_CACHE", "").lower() != CACHE_OFF


def cache_root() -> Path:
    """Folder for files that can be made again: $CELLSEG_CACHE or `~/.cache/cellseg`."""
    given = os.environ.get("CELLSEG_CACHE") if is_cache_on() else None
    return Path(given or Path.home() / ".cache" / "cellseg")
