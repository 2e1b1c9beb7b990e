"""What is in a folder: the one rule by which every command looks for files.

Hidden files and what file managers leave behind (`._a.png`, `.DS_Store`, `Thumbs.db`, `__MACOSX`)
are not there. Links are followed, to files and to folders, but not back up. Whatever else is not
taken is said, with the reason: never passed over without a word.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cellseg.images.formats import format_of_name, is_hidden, stem_of_image, why_no_image
from cellseg.names import printable

WhyNot = Callable[[Path], str]
"""Why a file is none of those that are looked for; "" where it is one."""

_MOST_NAMED = 3


class PassedOver(NamedTuple):
    """A file that is not taken, and why."""

    path: Path
    reason: str


@dataclass
class FolderListing:
    """What was found in a folder.

    Attributes:
        files: those that were looked for, by name; sub-folders behind the files.
        folders: the sub-folders, which are not images.
        passed_over: all other files but hidden ones.
        broken: of `passed_over`, what may have been looked for and is not there: links that lead
            nowhere, folders that cannot be opened.
    """

    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)
    broken: list[PassedOver] = field(default_factory=list)


def list_folder(
    folder: str | Path,
    why_not: WhyNot = why_no_image,
    *,
    is_deep: bool = False,
    skip: Callable[[Path], bool] = lambda folder: False,
) -> FolderListing:
    """Look for files in a folder.

    Args:
        folder: where; a hidden one, too, if it is named.
        why_not: why a file is none of those looked for, by its name; by default images are. An
            image that is a folder (OME-Zarr) counts as a file.
        is_deep: look into the folders below, too.
        skip: folders below that are not looked into.

    Raises:
        OSError: the folder cannot be opened.
    """
    found = FolderListing()
    waiting = [(Path(folder), _identify(folder), frozenset[FolderKey]())]
    while waiting:
        place, own, above = waiting.pop()
        try:
            inner = _look_into(place, why_not, found)
        except OSError as error:
            if not above:
                raise
            problem = PassedOver(place, f"cannot be opened: {error.strerror or error}")
            found.passed_over.append(problem)
            found.broken.append(problem)
            continue
        found.folders += inner
        for one in reversed(inner if is_deep else ()):
            key = _identify(one)
            if key != own and key not in above and not skip(one):
                waiting.append((one, key, above | {own}))
    return found


FolderKey = tuple[int, int]


def _identify(folder: str | Path) -> FolderKey:
    """What tells a folder from others, whatever name it is reached by."""
    stat = os.stat(folder)
    return stat.st_dev, stat.st_ino


def _look_into(folder: Path, why_not: WhyNot, found: FolderListing) -> list[Path]:
    """Add what is in a folder; its sub-folders."""
    folders = []
    for entry in sorted(entry for entry in folder.iterdir() if not is_hidden(entry)):
        if entry.is_dir() and not is_image_folder(entry):
            folders.append(entry)
            continue
        other, problem = why_not(entry), why_not_there(entry)
        if not other and not problem:
            found.files.append(entry)
            continue
        found.passed_over.append(PassedOver(entry, problem or other))
        if problem and (not other or not entry.suffix):  # without ending it may be a folder
            found.broken.append(found.passed_over[-1])
    return folders


def is_image_folder(path: Path) -> bool:
    """Whether a folder is an image (OME-Zarr), by its name."""
    one = format_of_name(path)
    return one is not None and one.is_folder and path.is_dir()


def why_not_there(path: Path) -> str:
    """Why nothing can be read from a name that is in a folder; "" where it can."""
    if path.is_file() or path.is_dir():
        return ""
    if path.is_symlink() and not path.exists():
        return f"a link to {os.readlink(path)}, which is not there"
    return "neither a file nor a folder"


def name_below(folder: Path, file: Path) -> str:
    """An image's name without its ending, with the sub-folders below a folder.

    Example:
        >>> name_below(Path("plates"), Path("plates/day_1/a.ome.tif"))
        'day_1/a'
    """
    return (file.relative_to(folder).parent / stem_of_image(file)).as_posix()


def describe_passed_over(passed_over: Sequence[PassedOver]) -> str:
    """Files that were not taken, counted and grouped by the reason; "" if there are none.

    Example:
        >>> reason = "the ending .csv is not known"
        >>> describe_passed_over([PassedOver(Path(f"x/{name}.csv"), reason) for name in "abcde"])
        '5 files passed over: a.csv, b.csv, c.csv and 2 more (the ending .csv is not known)'
    """
    if not passed_over:
        return ""
    reasons: dict[str, list[str]] = {}
    for path, reason in passed_over:
        reasons.setdefault(printable(reason), []).append(printable(path.name))
    parts = list(_describe_groups(reasons.items()))
    count = len(passed_over)
    return f"{count} file{'s' if count > 1 else ''} passed over: {'; '.join(parts)}"


def _describe_groups(groups: Iterable[tuple[str, list[str]]]) -> Iterator[str]:
    for reason, names in groups:
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        yield f"{', '.join(names[:_MOST_NAMED])}{more} ({reason})"
