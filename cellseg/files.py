"""Files that are whole or not there, and the folder for those that can be made again."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

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
        ...         _partial_path(_follow(Path(folder, "cells.txt"))).touch()  # and is killed
        ...     remove_partials(Path(folder, "cells.txt"), "writer 1")
        ...     os.listdir(folder)
        []
    """
    with marked_partials(mark):
        for kind in _KINDS:
            _remove(_partial_path(_follow(path), kind))


_KINDS = ("partial", "old")
_LONGEST_ENDING = 16
"""Letters of an ending that a partial name has too: it must not be longer than systems take."""
_PARTIAL = re.compile(rf"\.[0-9a-f]{{16}}\.({'|'.join(_KINDS)})")


def _partial_path(path: Path, kind: str = "partial") -> Path:
    """A name beside a path that nobody else uses, with the same ending."""
    mark = _mark.get() or uuid.uuid4().hex
    name = uuid.uuid5(uuid.NAMESPACE_OID, f"{mark}/{os.fsencode(path.name)!r}").hex[:16]
    ending = path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_ENDING else ""
    return path.with_name(f".{name}.{kind}{ending}")


def is_partial(path: Path) -> bool:
    """Whether a file's name is one that `write_whole` gives until all is written."""
    return _PARTIAL.match(path.name) is not None


def _remove(path: Path) -> None:
    """Remove a partial file or folder; where the system refuses, what went wrong before counts."""
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink()


def _follow(path: str | Path) -> Path:
    """What a link leads to, which is written while the link stays; other paths as they are."""
    return Path(os.path.realpath(path))


def _find(path: Path) -> os.stat_result | None:
    """What is there under a name, through links; None where nothing is.

    Raises:
        OSError: that cannot be told, as of links that lead in a circle.
    """
    try:
        return path.stat()
    except FileNotFoundError:
        return None


@contextmanager
def write_whole(path: str | Path) -> Iterator[Path]:
    """Give a temporary name to write to; it takes the place of `path` when the block ends well.

    After an error, or when the process is killed, `path` is what it was before. Folders are made
    as needed. A link stays one, and what it leads to is written; a file that is there keeps its
    permissions. What goes to a pipe, a device or this process's own output is written there.

    Args:
        path: the file's final name; the temporary one is beside it, with the same suffix.

    Raises:
        OSError: it cannot be written: a folder, or a file that may not be changed, which is said
            before the block begins. Errors of the block name `path` in place of the temporary name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with write_whole(Path(folder, "cells.txt")) as partial:
        ...         _ = partial.write_text("12 cells")
        ...     Path(folder, "cells.txt").read_text()
        '12 cells'
    """
    path = Path(path)
    known = _find(path)
    if known is not None and (_own_stream(known) or not stat.S_ISREG(known.st_mode)):
        with _write_through(path, known) as partial:
            yield partial
        return
    place = _follow(path)
    if known is not None and not os.access(place, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    partial = _partial_path(place)
    try:
        with _naming(path, partial):
            place.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            if known is not None:
                _be_like(partial, known)
            os.replace(partial, place)
    finally:
        _remove(partial)


@contextmanager
def _write_through(path: Path, known: os.stat_result) -> Iterator[Path]:
    """Give a temporary file, whose content goes to a pipe or device when the block ends well."""
    if stat.S_ISDIR(known.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with tempfile.TemporaryDirectory() as folder:
        partial = Path(folder, f"whole{path.suffix[:_LONGEST_ENDING]}")
        with _naming(path, partial):
            yield partial
            own = _own_stream(known)
            if own:
                sys.stdout.flush()
            # Of a pipe that nobody reads the system says so at once, instead of waiting.
            number = os.dup(own) if own else os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            os.set_blocking(number, True)
            with open(number, "wb") as stream, partial.open("rb") as content:
                shutil.copyfileobj(content, stream)


def _own_stream(known: os.stat_result) -> int:
    """1 or 2 for what is this process's own output, which has been written to; else 0."""
    for number in (1, 2):
        with suppress(OSError):
            if os.path.samestat(os.fstat(number), known):
                return number
    return 0


def _be_like(partial: Path, known: os.stat_result) -> None:
    """Give a new file the permissions, and where that is allowed the owner, of the one before."""
    with suppress(OSError):
        os.chown(partial, known.st_uid, known.st_gid)
    partial.chmod(stat.S_IMODE(known.st_mode))


@contextmanager
def _naming(path: Path, partial: Path) -> Iterator[None]:
    """Errors within the context name the final path, and not the one that is soon gone."""
    try:
        yield
    except Exception as error:
        one: BaseException | None = error
        seen: set[int] = set()
        while one is not None and id(one) not in seen:
            seen.add(id(one))
            _rename(one, path, partial)
            one = one.__cause__ or one.__context__
        raise


def _rename(error: BaseException, path: Path, partial: Path) -> None:
    def final(text: Any) -> Any:
        if isinstance(text, Path):
            text = str(text)
        if not isinstance(text, str):
            return text
        return text.replace(str(partial), str(path)).replace(partial.name, path.name)

    if isinstance(error, OSError) and error.errno is not None:
        error.filename = final(error.filename)
        if error.filename2 is not None and error.filename == str(path):  # of a change of names
            error.filename2 = None
        if error.filename is None and error.errno in _OF_WRITING:
            error.filename = str(path)
    elif not isinstance(error, UnicodeError):
        error.args = tuple(map(final, error.args))


_OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EPIPE)


@contextmanager
def write_whole_folder(path: str | Path) -> Iterator[Path]:
    """`write_whole` for a folder: give an empty one, which takes the place of `path` at the end.

    Args:
        path: the folder's final name. An older folder or file of that name is put aside for the
            moment of the exchange, and removed after it; whoever calls knows that it may be.

    Raises:
        NotADirectoryError: a device or a pipe has that name.
    """
    path = Path(path)
    known = _find(path)
    is_folder = known is not None and stat.S_ISDIR(known.st_mode)
    if known is not None and not is_folder and not stat.S_ISREG(known.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    place = _follow(path)
    partial, old = (_partial_path(place, kind) for kind in _KINDS)
    try:
        with _naming(path, partial):
            place.parent.mkdir(parents=True, exist_ok=True)
            partial.mkdir()
            yield partial
            if known is not None:
                if is_folder:
                    _be_like(partial, known)
                os.replace(place, old)
            os.replace(partial, place)
    finally:
        if old.exists() and not place.exists():  # the exchange failed half-way
            os.replace(old, place)
        for left in (partial, old):
            _remove(left)


def check_no_pipe(path: str | Path) -> None:
    """Raise OSError for a named pipe, which reading would wait for without end.

    Those of a shell, as in `<(command)`, have a writer.
    """
    named = os.path.abspath(path)
    if Path(path).is_fifo() and not named.startswith(("/dev/", "/proc/")):
        raise OSError(errno.EINVAL, "a pipe, which is not waited for", str(path))


def is_inside(path: str | Path, folder: str | Path) -> bool:
    """Whether a path, which need not be there, is a folder or lies in it, through links too.

    Example:
        >>> is_inside("data/train/new/cells.csv", "data/train"), is_inside("data", "data/train")
        (True, False)
    """
    place = _follow(path)
    for one in (place, *place.parents):
        with suppress(OSError):
            if one.samefile(folder):
                return True
    return place.is_relative_to(_follow(folder))


def is_cache_on() -> bool:
    """Whether $CELLSEG_CACHE does not say `off`."""
    return os.environ.get("CELLSEG_CACHE", "").lower() != CACHE_OFF


def cache_root() -> Path:
    """Folder for files that can be made again: $CELLSEG_CACHE or `~/.cache/cellseg`.

    Raises:
        OSError: neither is known.
    """
    given = os.environ.get("CELLSEG_CACHE") if is_cache_on() else None
    if given:
        return Path(given)
    try:
        return Path.home() / ".cache" / "cellseg"
    except RuntimeError as error:
        text = "Could not determine home directory; set $CELLSEG_CACHE to a folder"
        raise OSError(errno.ENOENT, text, "~/.cache/cellseg") from error
