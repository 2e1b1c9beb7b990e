"""Plate, well and site of images from their files' names; files that are one image's channels."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from cellseg.errors import ConfigError
from cellseg.images.name_patterns import PATTERNS, NamePattern, find_pattern
from cellseg.images.plate_positions import PlatePosition

logger = logging.getLogger(__name__)

MAX_LISTED = 5


def detect_pattern(paths: Iterable[str | Path]) -> NamePattern | None:
    """The one of `PATTERNS` that most of the files are named by; None if no file is by any."""
    files = list(paths)
    counts = {name: sum(map(bool, map(one.parse, files))) for name, one in PATTERNS.items()}
    best = max(counts, key=lambda name: counts[name])
    return PATTERNS[best] if counts[best] else None


def find_positions(paths: Iterable[str | Path], pattern: str = "") -> dict[Path, PlatePosition]:
    """Where on their plates images were taken.

    Args:
        paths: files of images.
        pattern: as in `find_pattern`; by default the one of `PATTERNS` that fits most of them.

    Returns:
        The positions; files whose names are not made by the pattern are not among them, and the
        log names them if the pattern was asked for.

    Raises:
        ConfigError: as `find_pattern`, or no file at all is named by the pattern asked for.
    """
    files = [Path(path) for path in paths]
    chosen = find_pattern(pattern) if pattern else detect_pattern(files)
    if chosen is None:
        return {}
    found = {file: chosen.parse(file) for file in files}
    others = [str(file) for file, position in found.items() if position is None]
    listed = ", ".join(others[:MAX_LISTED]) + (", ..." if len(others) > MAX_LISTED else "")
    if pattern and files and len(others) == len(found):
        raise ConfigError(f"no file is named by the pattern {pattern!r}: {listed}")
    if pattern and others:
        logger.warning("%d files are not named by the pattern %r: %s", len(others), pattern, listed)
    return {file: position for file, position in found.items() if position is not None}


def group_channel_files(paths: Iterable[str | Path], pattern: str = "") -> list[list[Path]]:
    """Files that are channels of one image, together.

    Args:
        paths: files of images.
        pattern: as in `find_positions`.

    Returns:
        Groups in the order of their first files, each by the number or name of the channel. Files
        in different folders, or that differ in anything but the channel, are different images; so
        is a file that the pattern finds no channel in.

    Example:
        >>> names = ["A01_s1_w2.tif", "A01_s1_w1.tif", "A01_s2_w1.tif", "notes.tif"]
        >>> [[path.name for path in group] for group in group_channel_files(names)]
        [['A01_s1_w1.tif', 'A01_s1_w2.tif'], ['A01_s2_w1.tif'], ['notes.tif']]
    """
    files = [Path(path) for path in paths]
    positions = find_positions(files, pattern)
    groups: dict[object, list[tuple[str, Path]]] = defaultdict(list)
    for file in files:
        position = positions.get(file)
        if position is None or position.channel is None:
            groups[file].append(("", file))
            continue
        others = {name: v for name, v in position.columns().items() if name != "channel"}
        channel = position.channel
        by_number = f"{channel:09d}" if isinstance(channel, int) else channel
        groups[(file.parent, file.suffix, *others.values())].append((by_number, file))
    return [[file for _, file in sorted(group)] for group in groups.values()]
