"""Files that one process at a time holds, so that two of them never write into one folder.

The lock is the system's: it ends with the process, however that ends, and no process that this one
has started holds it. The file says who has it. A system or disk without locks locks nothing.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # a system without it locks nothing
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_mine: set[Path] = set()


class LockedError(Exception):
    """A lock is held.

    Args:
        holder: by whom, as `process 12 on host, since 2030-01-01T12:00:00+00:00,`.
    """

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


class FileLock:
    """A file that this process holds until `release`; `take_lock` makes one."""

    def __init__(self, path: Path, file: IO[str]) -> None:
        self.path = path
        self._file = file

    def release(self) -> None:
        """Remove the file and let go of it; a second time does nothing."""
        if self._file.closed:
            return
        _mine.discard(self.path)
        if _is_same_file(self._file, self.path):  # its folder may have been removed, and made again
            with suppress(OSError):  # it may have become read-only
                self.path.unlink()
        self._file.close()


def is_held_here(path: str | Path) -> bool:
    """Whether this process holds the lock of a file."""
    return _key(path) in _mine


def take_lock(path: str | Path) -> FileLock:
    """Hold a file, which is made, in a folder that is there.

    Args:
        path: of the file; nobody else reads or writes it.

    Raises:
        LockedError: another process holds it, or this one does already.
        OSError: it cannot be written.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> lock = take_lock(Path(folder.name, "in_use.lock"))
        >>> is_held_here(lock.path)
        True
        >>> lock.release()
        >>> is_held_here(lock.path), lock.path.exists()
        (False, False)
        >>> folder.cleanup()
    """
    place = _key(path)
    if place in _mine:  # closing it once more would let go of the system's lock
        raise LockedError("this process")
    file = _open_locked(place)
    _mine.add(place)
    return FileLock(place, file)


def _key(path: str | Path) -> Path:
    return Path(path).parent.resolve() / Path(path).name


def _open_locked(path: Path) -> IO[str]:
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            _lock(file, path)
            if _is_same_file(file, path):  # whoever had it has not removed it meanwhile
                file.truncate(0)
                holder = {"host": socket.gethostname(), "process": os.getpid(), "since": _now()}
                file.write(json.dumps(holder) + "\n")
                file.flush()
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: IO[str], path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise LockedError(_describe_holder(file)) from None
    except OSError as error:  # some network disks have no locks
        logger.warning("%s cannot be locked (%s): see that nobody else writes there", path, error)


def _describe_holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return f"process {holder['process']} on {holder['host']}, since {holder['since']},"
    except (ValueError, KeyError, TypeError):
        return "another process"


def _is_same_file(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _now() -> str:
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")
