"""A file to which lines of JSON are added, and in which nothing is ever changed.

What a call of `Journal.append` returned for is on the disk. A process that is killed in the middle
of one leaves a last line without its end, which no call returned for: it is dropped, with a word.
Anything else that is wrong is damage, and said; then nothing is read, and nothing written.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cellseg.errors import CorrectionError
from cellseg.files import write_whole
from cellseg.json_text import parse_json

logger = logging.getLogger(__name__)

Line = dict[str, Any]

NUMBER = "n"
"""The key by which every line says the how-manieth it is, from 0."""


@dataclass
class Journal:
    """One file of lines, each a JSON object.

    Args:
        path: of the file, which the first `append` makes, with its folder.
        is_writable: whether a last line without its end may be removed.
        hint: what else can be done about damage, behind "mend the line".

    Attributes:
        count: how many lines `read` has found and `append` has added.
    """

    path: Path
    is_writable: bool = True
    hint: str = ""
    count: int = 0
    _size: int = 0

    def read(self) -> list[Line]:
        """All lines; none where there is no file.

        Raises:
            DamagedJournalError: a line that is no JSON object, or lines that are missing.
            CorrectionError: the file cannot be read.
        """
        content = self._read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content) and self.is_writable:  # else somebody may be writing it
            logger.warning(
                "%s: the last line was not written to its end, by a process that was killed, and "
                "is dropped (%d bytes)",
                self.path,
                len(content) - whole,
            )
            os.truncate(self.path, whole)
        lines = [self._parse(number, text) for number, text in _lines(content[:whole])]
        self.count, self._size = len(lines), whole
        return lines

    def _read_bytes(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            reason = error.strerror or error
            raise CorrectionError(f"{self.path}: cannot be read: {reason}") from error

    def _parse(self, number: int, text: bytes) -> Line:
        try:
            line = parse_json(text)
        except ValueError as error:
            raise DamagedJournalError(self, number + 1, f"no JSON ({error})") from error
        if not isinstance(line, dict) or line.get(NUMBER) != number:
            found = line.get(NUMBER, "no number") if isinstance(line, dict) else "no object"
            reason = f"expected the one with {NUMBER} {number}; found {found}"
            raise DamagedJournalError(self, number + 1, reason)
        return line

    def append(self, *lines: Mapping[str, Any]) -> None:
        """Add lines; when this returns they are on the disk.

        Args:
            lines: JSON objects; their numbers are added here.

        Raises:
            CorrectionError: they cannot be written, or somebody else has written into the file;
                then none of them is there.
        """
        self._check_unchanged()
        numbered = [{NUMBER: self.count + k, **line} for k, line in enumerate(lines)]
        text = "".join(json.dumps(one, allow_nan=False) + "\n" for one in numbered)
        try:
            if not self.count:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as stream:
                _write_all(stream.fileno(), text.encode())
            if not self.count:
                sync_folders(self.path.parent, self.path.parent.parent)
        except OSError as error:
            reason = error.strerror or error
            raise CorrectionError(
                f"{self.path}: cannot be written: {reason}. The last correction is not kept; make "
                "room, or see that the folder can be written, and make it again"
            ) from error
        self.count += len(lines)
        self._size += len(text)

    def _check_unchanged(self) -> None:
        """On disks without locks two windows may have the folder; and folders are removed."""
        size = self.path.stat().st_size if self.path.is_file() else 0
        if size != self._size:
            raise CorrectionError(
                f"{self.path}: has {size} bytes; expected {self._size}: another program has "
                "changed it. Nothing was written. Close the folder of corrections everywhere, and "
                "open it in one window"
            )

    def cut(self, line: int) -> Path:
        """Keep the lines before one that is broken; the whole file stays beside.

        Args:
            line: number of the broken one, from 1.

        Returns:
            Where the file is, as it was.
        """
        content = self.path.read_bytes()
        kept = b"".join(text + b"\n" for number, text in _lines(content) if number < line - 1)
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        aside = self.path.with_name(f"{self.path.name}.broken-{now}")
        with write_whole(aside) as partial:
            partial.write_bytes(content)
        with write_whole(self.path) as partial:
            partial.write_bytes(kept)
        return aside


class DamagedJournalError(CorrectionError):
    """A line in the middle of a journal cannot be read, or is missing.

    Attributes:
        journal: it.
        line: the line's number, from 1; those before it are sound.
    """

    def __init__(self, journal: Journal, line: int, reason: str) -> None:
        super().__init__(
            f"{journal.path}: line {line} is broken: {reason}. Nothing was changed. Put the file "
            f"back from a copy, or mend the line{journal.hint}"
        )
        self.journal, self.line = journal, line


def _lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Number, from 0, and text of each line."""
    return enumerate(content.split(b"\n")[:-1])


def _write_all(number: int, content: bytes) -> None:
    """Write to the end of an open file, down to the disk; or leave the file as it was."""
    length = os.fstat(number).st_size
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(number, left) :]
        os.fsync(number)
    except BaseException:
        with suppress(OSError):
            os.ftruncate(number, length)
        raise


def sync_folders(*folders: Path) -> None:
    """See that the names of new files are on the disk, too, where the system can."""
    for folder in folders:
        with suppress(OSError):  # Windows opens no folders
            number = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)


def utc_now() -> str:
    """The time as journals say it, ISO 8601 in UTC.

    Example:
        >>> len(utc_now()), utc_now()[-1]
        (20, 'Z')
    """
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def check_head(path: Path, lines: Sequence[Line], name: str, version: int) -> Line:
    """The first line of a journal, which says what it is.

    Raises:
        CorrectionError: it is a journal of something else, or of a later version.
    """
    head = lines[0]
    if head.get("format") != name:
        raise CorrectionError(f"{path}: expected {name!r}; found {head.get('format')!r}")
    if head.get("version") != version:
        raise CorrectionError(
            f"{path}: is of version {head.get('version')!r}; this cellseg reads {version}: use a "
            "later one"
        )
    return head
