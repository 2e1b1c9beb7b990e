"""Parsed annotations kept on disk, so that a large dataset is parsed once.

A file per dataset and folder below $CELLSEG_CACHE (default `~/.cache/cellseg`). It is used only
while everything it was made of is the same: format, options, classes, the code of the readers, and
relative path, size and modification time of every file. Files that were young (or dated in the
future) when they were read are compared by content, as they may change within one tick of the
clock. CELLSEG_CACHE=off, or `cache: false` in a declaration, does without.

Nothing here can make a dataset unreadable: what is damaged is made again, what cannot be written is
not kept; both say so in the log.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cellseg
from cellseg.cells.records import ImageRecord
from cellseg.datasets.annotation_files import FORMAT_VERSION, read_annotations, write_annotations
from cellseg.files import cache_root, is_cache_on, write_whole

logger = logging.getLogger(__name__)

YOUNG_NS = 2_000_000_000  # coarser clocks of file systems tick every two seconds
MAX_BYTES_BY_CONTENT = 256 * 2**20
_LEFTOVER_S = 3600
_UNUSED_S = 90 * 24 * 3600
# Formats that read nothing beside the folder of the split; of others all of `root` counts.
_READ_SPLIT_FOLDER_ONLY = (
    *("cellpose", "geojson", "imagej_rois"),
    *("instance_masks", "label_images", "stardist"),
)

_refused: set[Path] = set()


class _CannotCompare(Exception):
    """The files cannot be told from others with certainty and little work."""


@dataclass(frozen=True)
class Reading:
    """What records are read from.

    Attributes:
        format_name: key of `cellseg.io.FORMATS`.
        root: the dataset's folder.
        split: as `read_records` takes it.
        classes: class names.
        options: the format's own.
        reader: the function that reads; its module's code counts.
    """

    format_name: str
    root: Path
    split: Any
    classes: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    reader: Callable[..., Any] | None = None

    def key(self) -> str:
        """JSON of everything but the files."""
        return json.dumps(
            {
                "format": self.format_name,
                "root": str(self.root.absolute()),
                "split": self.split,
                "classes": self.classes,
                "options": dict(self.options),
                "code": reader_version(self.reader),
                "layout": FORMAT_VERSION,
            },
            sort_keys=True,
            default=repr,
        )

    def cache_file(self) -> Path:
        """Where the records are kept."""
        name = hashlib.sha256(self.key().encode()).hexdigest()[:32]
        return cache_root() / "annotations" / f"{name}.npz"


@dataclass(frozen=True)
class FileState:
    """What is remembered of a file: `content` is its SHA-256, "" where size and time will do."""

    path: str
    size: int
    mtime_ns: int
    content: str = ""


@functools.lru_cache(maxsize=8)
def reader_version(reader: Callable[..., Any] | None = None) -> str:
    """A hash of the code that parses annotations, with that of `reader`'s module."""
    package = Path(cellseg.__file__).parent
    rooms = (package / room for room in ("cells", "images", "io", "datasets"))
    sources = [*package.glob("*.py"), *(path for room in rooms for path in room.rglob("*.py"))]
    try:
        own = inspect.getsourcefile(reader) if reader else None
    except TypeError:  # a callable object; its code is not found
        own = None
    digest = hashlib.sha256(cellseg.__version__.encode())
    for path in sorted({*sources, *([Path(own)] if own else [])}):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def cached_records(reading: Reading, read: Callable[[], list[ImageRecord]]) -> list[ImageRecord]:
    """Records from the cache, or from `read`, which are then kept.

    Args:
        reading: what the records are read from.
        read: parses the files; its errors are passed on, and nothing is kept.

    Returns:
        What `read` returns.
    """
    if not is_cache_on():
        return read()
    try:
        file = reading.cache_file()
    except (OSError, RuntimeError) as error:  # no home folder, or code that cannot be looked at
        _say_once(Path(reading.format_name), error)
        return read()
    kept = _find_kept(file, reading)
    if kept is not None:
        return kept
    before = _scan_or_none(reading)
    records = read()
    if before is not None:
        _keep(file, reading, before, records)
    return records


def _find_kept(file: Path, reading: Reading) -> list[ImageRecord] | None:
    if not os.path.isfile(file):
        return None
    try:
        note, records = read_annotations(file, reading.root)
        states = [FileState(*entry) for entry in note["files"]]
        is_ours = note["key"] == reading.key()
    except Exception as error:  # a damaged file raises nearly anything
        logger.warning("%s: the cache is damaged and made again (%s)", file, _reason(error))
        return None
    return records if is_ours and _is_unchanged(states, reading) else None


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _is_unchanged(kept: Sequence[FileState], reading: Reading) -> bool:
    try:
        if stat_files(reading) != _stats(kept):
            return False
        by_content = [state for state in kept if state.content]
        return all(_hash_content(reading.root / one.path) == one.content for one in by_content)
    except OSError:  # a file that went away meanwhile; reading will say so
        return False


def _hash_content(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def stat_files(reading: Reading) -> dict[str, tuple[int, int]]:
    """Path below the root -> size in bytes and time of modification in ns; see `find_files`."""
    stats = {path: os.stat(reading.root / path) for path in find_files(reading)}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


def scan_files(reading: Reading) -> list[FileState]:
    """State of every file that the records can depend on, sorted by path."""
    young_from_ns = time.time_ns() - YOUNG_NS
    stats = stat_files(reading)
    young = {path for path, (_, mtime_ns) in stats.items() if mtime_ns >= young_from_ns}
    if sum(stats[path][0] for path in young) > MAX_BYTES_BY_CONTENT:
        raise _CannotCompare("too much was written just now, or is dated in the future")
    return [
        FileState(path, *stat, _hash_content(reading.root / path) if path in young else "")
        for path, stat in stats.items()
    ]


def _scan_or_none(reading: Reading) -> list[FileState] | None:
    try:
        return scan_files(reading)
    except OSError:  # reading will say what is missing
        return None
    except _CannotCompare as error:
        logger.info("%s: annotations are not cached: %s", reading.root, error)
        return None


def find_files(reading: Reading) -> list[str]:
    """Paths, relative to the root, of all files the records can depend on; sorted.

    Everything below the folder of the split; for formats that read beside it everything below the
    root; and whatever the split and the options name. Hidden files are left out.
    """
    folders = list(_strings_in(reading.split))
    named = list(_strings_in(dict(reading.options)))
    places = [reading.root / name for name in (*folders, *named)]
    for folder in folders:
        inside = (name.replace("{split}", folder) for name in named)
        places += [reading.root / folder / name for name in inside]
    if reading.format_name not in _READ_SPLIT_FOLDER_ONLY:
        places.append(reading.root)
    found: set[str] = set()
    for place in places:
        if place.is_file():
            found.add(os.path.relpath(place, reading.root))
        elif place.is_dir():
            found.update(os.path.relpath(path, reading.root) for path in _walk(place, ()))
    return sorted(found)


def _strings_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _strings_in(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _strings_in(one)


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Files below a folder, also through links, but not through those that lead back up."""
    stat = os.stat(folder)
    own = (stat.st_dev, stat.st_ino)
    if own in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _walk(Path(entry.path), (*above, own))
            elif entry.is_file():
                yield entry.path


def _keep(
    file: Path, reading: Reading, before: Sequence[FileState], records: Sequence[ImageRecord]
) -> None:
    """Write the cache file, unless a file changed while it was read; failing is no error."""
    note = {
        "key": reading.key(),
        "files": [[one.path, one.size, one.mtime_ns, one.content] for one in before],
    }
    try:
        if stat_files(reading) != _stats(before):
            raise ValueError("files changed while they were read")
        with write_whole(file) as partial:
            write_annotations(partial, records, reading.root, note)
            if read_annotations(partial, reading.root)[1] != list(records):
                raise ValueError("these records would not come back the same")
        _remove_old(file.parent)
    except ValueError as error:
        logger.info("%s: annotations are not cached: %s", reading.root, error)
    except OSError as error:
        _say_once(file.parent, error)


def _say_once(place: Path, error: Exception) -> None:
    if place not in _refused:
        _refused.add(place)
        logger.warning(
            "%s: annotations are not cached (%s); set CELLSEG_CACHE to a folder with room, or to "
            "off",
            place,
            _reason(error),
        )


def _stats(states: Sequence[FileState]) -> dict[str, tuple[int, int]]:
    return {one.path: (one.size, one.mtime_ns) for one in states}


def _remove_old(folder: Path) -> None:
    """Remove what killed processes left, and caches that nobody made again for long."""
    now = time.time()
    for path in folder.iterdir():
        limit_s = _LEFTOVER_S if ".partial" in path.name else _UNUSED_S
        try:
            if now - path.stat().st_mtime > limit_s:
                path.unlink()
        except OSError:  # another process was faster
            continue
