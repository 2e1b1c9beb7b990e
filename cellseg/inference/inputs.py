"""From what a user names to image files, each with the name that its results get."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cellseg.errors import ImageReadError
from cellseg.images import is_readable_name, stem_of_image
from cellseg.images.formats import format_of_name

LIST_SUFFIX = ".txt"
STATE_FOLDER = ".cellseg"
"""In a folder of results; where it lies, nothing is taken for an image."""
_MOST_NAMED = 3


@dataclass(frozen=True)
class InputFile:
    """An image file to predict.

    Attributes:
        path: the file, or the folder of an OME-Zarr image.
        name: what its results are called, with the sub-folders below the folder that was named,
            such as `plate_1/A01_s1`.
    """

    path: Path
    name: str


@dataclass
class FoundInputs:
    """What the inputs led to.

    Attributes:
        files: each image once, in the order of the inputs and by name within a folder or pattern.
        missing: inputs that gave nothing, and why.
        passed_over: files in folders that are no images by their ending, broken links.
    """

    files: list[InputFile] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    passed_over: list[Path] = field(default_factory=list)

    def describe_passed_over(self) -> str:
        """The files passed over, counted by their ending; "" if there are none.

        Example:
            >>> found = FoundInputs(passed_over=[Path("a/b.csv"), Path("a/c.csv")])
            >>> found.describe_passed_over()
            '2 .csv (b.csv, c.csv)'
        """
        endings = Counter(path.suffix.lower() or "without ending" for path in self.passed_over)
        parts = []
        for ending, count in sorted(endings.items()):
            names = [
                p.name for p in self.passed_over if (p.suffix.lower() or "without ending") == ending
            ]
            more = ", ..." if count > _MOST_NAMED else ""
            parts.append(f"{count} {ending} ({', '.join(names[:_MOST_NAMED])}{more})")
        return ", ".join(parts)


def find_inputs(inputs: Sequence[str], *, result_suffixes: Sequence[str] = ()) -> FoundInputs:
    """Resolve files, folders, patterns and lists to image files.

    Args:
        inputs: a file of any name; a folder, for the image files in it and below it; a pattern with
            `*`, `?`, `[...]` and `**`; or a text file (.txt, or any file with `@` in front) with
            one of these to a line, relative to the current folder; `#` begins a comment. Hidden
            files and folders, and folders of results, are passed over.
        result_suffixes: a file in a folder that is called like another image with one of these
            behind it is a result of an earlier prediction, and no image.

    Raises:
        ImageReadError: a list cannot be read.
    """
    found = FoundInputs()
    taken: set[Path] = set()
    pairs: list[tuple[Path, str]] = []
    for word in _expand_lists(inputs):
        resolved = _resolve_input(word, result_suffixes, found)
        if not resolved:
            found.missing.append(word)
        for path, name in resolved:
            real = path.resolve()
            if real not in taken:
                taken.add(real)
                pairs.append((path, name))
    names = unique_names([name for _, name in pairs])
    found.files = [InputFile(path, name) for (path, _), name in zip(pairs, names)]
    return found


def _expand_lists(inputs: Sequence[str]) -> Iterator[str]:
    for word in inputs:
        is_list = word.startswith("@") and not Path(word).exists()
        path = Path(word.removeprefix("@") if is_list else word)
        if not is_list and (path.suffix.lower() != LIST_SUFFIX or not path.is_file()):
            yield word
            continue
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ImageReadError(
                f"{path}: cannot be read as a list of images, one path to a line: {error}"
            ) from error
        stripped = (line.strip() for line in lines)
        yield from (line for line in stripped if line and not line.startswith("#"))


def _resolve_input(
    word: str, result_suffixes: Sequence[str], found: FoundInputs
) -> list[tuple[Path, str]]:
    """Files of one input, with names that are not unique yet."""
    path = Path(word)
    if path.is_file() or (path.is_dir() and _is_image_folder(path)):  # names may hold brackets
        return [(path, stem_of_image(path))]
    if path.is_dir():
        files = list(_walk(path, found))
        named = [(file, _name_below(path, file)) for file in files]
        names = {name for _, name in named}
        return [
            (file, name)
            for file, name in named
            if not _is_result(file.relative_to(path).as_posix(), names, result_suffixes)
        ]
    base = Path(_fixed_part(word))
    named = []
    for match in sorted(Path(match) for match in glob.glob(word, recursive=True)):
        inside = [match] if match.is_file() or _is_image_folder(match) else _walk(match, found)
        named += [(path, _name_below(base, path)) for path in inside]
    return named


def _fixed_part(pattern: str) -> str:
    """The folders of a pattern before its first wildcard.

    >>> _fixed_part("plates/*/site_1.tif")
    'plates'
    """
    parts = Path(pattern).parts[:-1]
    fixed = []
    for part in parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return os.path.join(*fixed) if fixed else ""


def _name_below(folder: Path, file: Path) -> str:
    """A file's name without its ending, with the sub-folders below a folder."""
    return (file.relative_to(folder).parent / stem_of_image(file)).as_posix()


def _is_image_folder(path: Path) -> bool:
    found = format_of_name(path)
    return found is not None and found.is_folder and path.is_dir()


def _walk(folder: Path, found: FoundInputs) -> Iterator[Path]:
    """Image files in a folder and below it, by name; folders come behind files."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    folders = []
    for entry in entries:
        if _is_image_folder(entry):
            yield entry
        elif entry.is_dir():
            folders.append(entry)
        elif is_readable_name(entry) and entry.is_file():
            yield entry
        else:
            found.passed_over.append(entry)
    for inner in folders:
        is_loop = folder.resolve().is_relative_to(inner.resolve())
        if not is_loop and not (inner / STATE_FOLDER).is_dir():
            yield from _walk(inner, found)


def _is_result(name: str, stems: set[str], suffixes: Sequence[str]) -> bool:
    """True for `x_overlay.png` and the like beside an image of stem `x`."""
    return any(name.endswith(each) and name.removesuffix(each) in stems for each in suffixes)


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, with `_2`, `_3`, ... behind those that came before."""
    taken, used = set(names), set()
    unique = []
    for name in names:
        candidate, number = name, 2
        while candidate in used or (candidate != name and candidate in taken):
            candidate, number = f"{name}_{number}", number + 1
        used.add(candidate)
        unique.append(candidate)
    return unique


def take_part(files: Sequence[InputFile], part: int, parts: int) -> list[InputFile]:
    """Every `parts`-th file, from number `part` on, which counts from 1: one job of an array."""
    return list(files[part - 1 :: parts])
