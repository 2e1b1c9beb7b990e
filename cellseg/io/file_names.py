"""Names of files as annotations have them: of Windows, in a URL, in another Unicode form.

macOS takes names apart (`e` and an accent, NFD), other systems keep one letter (NFC). They look the
same and are two names to a computer; here they are one.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cellseg.errors import DatasetError
from cellseg.images.listing import list_folder
from cellseg.io.base import ids_of_images
from cellseg.names import find_near_names

_SHOWN = 3


def name_key(name: str) -> str:
    """What is the same of two names that look the same: their composed form (NFC).

    Example:
        >>> name_key("e\\u0301.png") == name_key("\\u00e9.png")
        True
    """
    return unicodedata.normalize("NFC", name)


def show_name(name: str, others: Iterable[str] = ()) -> str:
    """A name for a message, its letters by number where another one looks the same.

    Example:
        >>> show_name("\\u00e9.png", ["e\\u0301.png"])
        '\\\\xe9.png'
    """
    twins = (other for other in others if other != name and name_key(other) == name_key(name))
    return ascii(name)[1:-1] if next(twins, None) is not None else name


def parts_of_name(file_name: str) -> tuple[str, ...]:
    """The folders and the name in an annotation's `file_name`, from any system or a URL.

    A URL of Label Studio's local files names the file in its query (`?d=`); of others the query
    goes.

    Example:
        >>> parts_of_name(r"C:\\plates\\day 1\\a.tif"), parts_of_name("https://x.org/b%20c.png?size=9")
        (('plates', 'day 1', 'a.tif'), ('b c.png',))
    """
    text = file_name
    if "://" in text or text.startswith("/data/"):
        url = urlsplit(text)
        local = parse_qs(url.query).get("d", [])
        text = local[0] if local else unquote(url.path)
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
    return tuple(parts[1:] if parts and parts[0].endswith(":") else parts)


def find_named_files(
    folders: Sequence[Path], file_names: Sequence[str]
) -> tuple[list[Path], list[str]]:
    """The image of each `file_name`: at its place in a folder, else by its name alone below it.

    Args:
        folders: the first is where the images are expected; the others are looked through where a
            name is not found there, in turn.
        file_names: as the annotations have them.

    Returns:
        A path for each, and what was not found or found more than once; the paths of these are no
        files.
    """
    parts = [parts_of_name(name) for name in file_names]
    direct = [folders[0].joinpath(*own) if own else folders[0] for own in parts]
    absent = [k for k, path in enumerate(direct) if not path.is_file()]
    problems: list[str] = []
    indexes: dict[Path, _Below] = {}
    for k in absent:
        found: list[Path] = []
        for folder in folders:
            if folder not in indexes:
                indexes[folder] = _Below.of(folder)
            found = indexes[folder].paths.get(name_key(direct[k].name), [])
            found = _best_matches(found, parts[k])
            if found:
                break
        if len(found) == 1:
            direct[k] = found[0]
            continue
        there = [path.name for paths in indexes[folders[-1]].paths.values() for path in paths]
        where = f"found {', '.join(map(str, found))}" if found else "no such image"
        where = indexes[folders[0]].dangling.get(direct[k], where)
        problems.append(
            f"{direct[k]}: {where}; looked for in {folders[0]} and the folders below"
            f"{'' if found else say_beside(direct[k].name, there)}"
        )
    twice = [path for path, count in Counter(direct).items() if count > 1 and path.is_file()]
    problems += [f"{path}: several of the images are this file" for path in twice]
    return direct, problems


@dataclass
class _Below:
    """The files below a folder: paths by the key of their names, and links that lead nowhere."""

    paths: dict[str, list[Path]] = field(default_factory=dict)
    dangling: dict[Path, str] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> _Below:
        below = cls()
        if folder.is_dir():
            listing = list_folder(folder, lambda path: "", is_deep=True)
            below.dangling = {broken.path: broken.reason for broken in listing.broken}
            for path in listing.files:
                below.paths.setdefault(name_key(path.name), []).append(path)
        return below


def _best_matches(paths: Sequence[Path], parts: Sequence[str]) -> list[Path]:
    """Those of the paths that share most of the folders before the name."""

    def shared(path: Path) -> int:
        pairs = zip(reversed(path.parts), reversed(parts))
        same = [name_key(one) == name_key(other) for one, other in pairs]
        return same.index(False) if False in same else len(same)

    most = max(map(shared, paths), default=0)
    return [path for path in paths if shared(path) == most]


def say_beside(wanted: str, names: Iterable[str]) -> str:
    """`; there is a.TIF`: files whose name is nearly the one that is missing; "" without any.

    Args:
        wanted: a file's name, with or without its ending.
        names: of the files that there are.

    Example:
        >>> say_beside("a.png", ["a.bmp", "b.png"]), say_beside("a.png", ["x.txt"])
        ('; there is a.bmp', '')
    """
    there = list(names)
    stem = name_key(Path(wanted).stem).casefold()
    near = [name for name in there if name_key(name).casefold().split(".")[0] == stem]
    near = near or find_near_names(wanted, there, _SHOWN, likeness=0.75)
    return f"; there is {', '.join(near[:_SHOWN])}" if near else ""


def name_records(file_names: Sequence[str]) -> list[str]:
    """The ids of a file's images; see `ids_of_images`.

    Example:
        >>> name_records([r"C:\\plates\\day_1\\a.tif", "plates/day_2/a.tif"])
        ['plates_day_1_a', 'plates_day_2_a']
    """
    return ids_of_images([name_key("/".join(parts_of_name(name))) for name in file_names])


def check_declared_size(
    path: Path, file: Path, declared_hw: Sequence[Any], image_hw: tuple[int, int]
) -> None:
    """Raise DatasetError where a file says that its image has another size.

    Args:
        path: the image.
        file: what says so.
        declared_hw: height and width in it; None where it says nothing.
        image_hw: what the image has.
    """
    said = [own if one is None else one for one, own in zip(declared_hw, image_hw)]
    strange = [one for one in said if not isinstance(one, (int, float)) or isinstance(one, bool)]
    if strange:
        raise DatasetError(
            f"{path}: {file.name} has {strange[0]!r} as its height or width; expected a number"
        )
    if tuple(said) != tuple(image_hw):
        raise DatasetError(
            f"{path}: the image is {image_hw[1]} x {image_hw[0]} (width x height); "
            f"{file.name} says {said[1]} x {said[0]}"
        )
