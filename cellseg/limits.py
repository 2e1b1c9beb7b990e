"""How much a file, a server or a pattern may take, asked before it is given any of it.

A file of a few bytes can claim terabytes, a server can stay silent, a pattern can search for ever.
Whatever reads what others made asks here first. A ceiling is a row of `CEILINGS`; an environment
variable of its name sets another one (docs/limits.md).

Example:
    >>> try:
    ...     check_claim(10**13, 124, "a mask")
    ... except LimitError as error:
    ...     print(str(error)[:62])
    implausible: a mask would take 9.1 TiB, of which 124 bytes are
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import regex
from cellseg.errors import ConfigError

_KIB = 1024


class LimitError(ValueError):
    """More is asked for than may be had; whoever reads says of which file and item it is."""


@dataclass(frozen=True)
class Ceiling:
    """One limit.

    Attributes:
        name: the environment variable that sets another value.
        default: what holds without it.
        about: a sentence.
    """

    name: str
    default: float
    about: str

    @property
    def value(self) -> float:
        """What holds now.

        Raises:
            ConfigError: the environment variable is no number above 0.
        """
        text = os.environ.get(self.name, "")
        try:
            value = float(text) if text else self.default
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise ConfigError(f"${self.name} is {text!r}; expected a number above 0. {self.about}")
        return value


MEMORY_SHARE = Ceiling(
    "CELLSEG_MAX_MEMORY_SHARE", 0.7, "The share of free memory that one thing may take."
)
INFLATION = Ceiling(
    "CELLSEG_MAX_INFLATION",
    100,
    "How many times as large as it is stored a packed file may become; 256 MiB it may in any case.",
)
PLANES = Ceiling("CELLSEG_MAX_PLANES", 200_000, "So many planes one image file may have.")
IMAGES = Ceiling("CELLSEG_MAX_SYNTHETIC", 100_000, "So many synthetic images are drawn at most.")
ANSWER_S = Ceiling("CELLSEG_TIMEOUT", 30, "So many seconds a server may stay silent.")
SEARCH_S = Ceiling("CELLSEG_MAX_SEARCH", 2, "So many seconds a pattern may search in one name.")
CEILINGS = (MEMORY_SHARE, INFLATION, PLANES, IMAGES, ANSWER_S, SEARCH_S)

_HARMLESS_BYTES = 1 << 28


def check_memory(needed_bytes: float, what: str) -> None:
    """Refuse what does not fit into memory.

    Args:
        needed_bytes: how much it will take.
        what: it, for the message.

    Raises:
        LimitError: it is more than the share of the free memory that one thing may take.
    """
    if needed_bytes <= _HARMLESS_BYTES:
        return
    free = available_memory()
    if needed_bytes > MEMORY_SHARE.value * free:
        raise LimitError(
            f"{what} would take {describe_bytes(needed_bytes)} of memory; {describe_bytes(free)} "
            "are free. Close other programs, or take a machine with more"
        )


def check_claim(claimed_bytes: float, stored_bytes: float, what: str) -> None:
    """Refuse what becomes far larger than it is stored, or does not fit into memory.

    Args:
        claimed_bytes: what it says that it will take.
        stored_bytes: what of it lies on the disk.
        what: it, for the message.

    Raises:
        LimitError: no such file is honest.
    """
    if claimed_bytes > _HARMLESS_BYTES + INFLATION.value * stored_bytes:
        raise LimitError(
            f"implausible: {what} would take {describe_bytes(claimed_bytes)}, of which "
            f"{describe_bytes(stored_bytes)} are stored. If it is honest, set ${INFLATION.name} "
            "higher"
        )
    check_memory(claimed_bytes, what)


def check_planes(claimed: int) -> None:
    """Refuse an image file that claims more planes than any has.

    Raises:
        LimitError: more than `PLANES`.
    """
    if claimed > PLANES.value:
        raise LimitError(
            f"implausible: it claims {claimed} planes; expected at most {PLANES.value:.0f}. If it "
            f"is honest, set ${PLANES.name} higher"
        )


@contextmanager
def open_zip(path: str | Path) -> Iterator[zipfile.ZipFile]:
    """An archive whose files together are no bomb.

    Raises:
        LimitError: unpacked they are far larger than the archive, or than memory.
        OSError: it cannot be read.
        zipfile.BadZipFile: it is damaged.
    """
    try:
        archive = zipfile.ZipFile(path)
    except NotImplementedError as error:  # of a later version, as damaged ones may claim to be
        raise zipfile.BadZipFile(str(error)) from error
    with archive:
        check_zip(path, archive)
        try:
            yield archive
        except EOFError as error:  # a member that ends before its length
            raise zipfile.BadZipFile("what is in it ends too soon") from error


def is_zip(path: str | Path) -> bool:
    """Whether a file is a zip archive, perhaps a damaged one; False where it cannot be read."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # its last record says that it is a part of one
        return True


def check_zip(path: str | Path, archive: zipfile.ZipFile) -> None:
    """See `open_zip`; for an archive that is open already."""
    entries = archive.infolist()
    total = sum(entry.file_size for entry in entries)
    check_claim(total, Path(path).stat().st_size, f"the {len(entries)} files in it")


def gunzip(data: bytes) -> bytes:
    """What gzip has packed.

    Raises:
        LimitError: it is far larger than the data.
        EOFError: the data end too soon.
        zlib.error: they are damaged.
    """
    most = int(_HARMLESS_BYTES + INFLATION.value * len(data))
    found = bytearray()
    while data:  # a file may hold several pieces, one behind the other
        unpacker = zlib.decompressobj(wbits=31)
        found += unpacker.decompress(data, most + 1 - len(found))
        if len(found) > most:
            check_claim(len(found), len(data), "its content")
        if not unpacker.eof:
            raise EOFError("it ends before the end-of-stream marker")
        data = unpacker.unused_data.lstrip(b"\0")
    return bytes(found)


def search_within_time(
    pattern: regex.Pattern[str], text: str, *, whole: bool = False
) -> regex.Match[str] | None:
    """Search a text for a pattern that a user wrote, which may take for ever.

    Args:
        pattern: of `regex.compile`.
        text: where to search.
        whole: it is to match the whole text.

    Raises:
        LimitError: it takes longer than `SEARCH_S`.
    """
    search = pattern.fullmatch if whole else pattern.search
    try:
        return search(text, timeout=SEARCH_S.value)
    except TimeoutError as error:
        raise LimitError(
            f"the pattern {pattern.pattern!r} searches for longer than {SEARCH_S.value:g} s in "
            f"{text[:80]!r}: repeats within repeats, such as (a+)+, try every way to divide the "
            "text. Write it without them"
        ) from error


def describe_bytes(count: float) -> str:
    """A number of bytes for people.

    Example:
        >>> [describe_bytes(count) for count in (124, 4608, 31e9)]
        ['124 bytes', '4.5 KiB', '28.9 GiB']
    """
    if count < _KIB:
        return f"{count:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        count /= _KIB
        if count < _KIB:
            return f"{count:.1f} {unit}"
    return f"{count / _KIB:.1f} TiB"


def available_memory() -> int:
    """Bytes of main memory that can be had without swapping, of the machine or the container.

    Linux says so in /proc/meminfo; elsewhere psutil does, and where it is not installed half of
    what is built in is taken. A limit of a container (cgroup 2) counts where it is lower.
    """
    free = _free_by_kernel(Path("/proc/meminfo")) or _free_by_psutil()
    free = free or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return min(free, _left_in_container(Path("/sys/fs/cgroup"), free))


def _free_by_kernel(path: Path) -> int:
    try:
        lines = path.read_text("ascii").splitlines()
        found = dict(line.split(":", 1) for line in lines)
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0


def _free_by_psutil() -> int:
    try:
        import psutil
    except ImportError:
        return 0
    return int(psutil.virtual_memory().available)


def _left_in_container(folder: Path, default: int) -> int:
    try:
        limit = int((folder / "memory.max").read_text("ascii"))
        return max(limit - int((folder / "memory.current").read_text("ascii")), 0)
    except (OSError, ValueError):  # no such file, or "max"
        return default
