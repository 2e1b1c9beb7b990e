"""From what a user names to image files, each with the name that its results get."""

from __future__ import annotations

import glob
import os
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cellseg.errors import ImageReadError
from cellseg.images import stem_of_image, why_no_image
from cellseg.images.formats import is_hidden
from cellseg.images.listing import (
    PassedOver,
    is_image_folder,
    list_folder,
    name_below,
    why_not_there,
)
from cellseg.inference.own_files import STATE_FOLDER, OwnFiles
from cellseg.names import unique_names

LIST_SUFFIX = ".txt"
RESULT = "a result of an earlier prediction, by its name"
OWN_RESULT = "a result of an earlier prediction; to predict it, copy it to another folder"


@dataclass(frozen=True)
class InputFile:
    """An image file to predict.

    Attributes:
        path: the file, or the folder of an OME-Zarr image.
        name: what its results are called, with the sub-folders below the folder that was named,
            such as `plate_1/A01_s1`.
        rivals: names of other files that begin with this one's and may be ids of its images.

    Example:
        >>> stack = InputFile(Path("a.tif"), "a", rivals=("a_t0",))
        >>> stack.image_id("_t0"), stack.image_id("_z5"), stack.image_id("")
        ('a~t0', 'a_z5', 'a')
    """

    path: Path
    name: str
    rivals: tuple[str, ...] = ()

    def image_id(self, plane_suffix: str) -> str:
        """The id of one of the file's images, which none of another file has.

        Args:
            plane_suffix: what tells it from the file's other images; "" for the only one, whose id
                is the file's name.
        """
        plain = f"{self.name}{plane_suffix}"
        if not plane_suffix or not any(
            plain == rival or plain.startswith(f"{rival}_") for rival in self.rivals
        ):
            return plain
        mark = "~"  # which is in no suffix
        while any(rival.startswith(f"{self.name}{mark}") for rival in self.rivals):
            mark += "~"
        return f"{self.name}{mark}{plane_suffix.removeprefix('_')}"


@dataclass
class FoundInputs:
    """What the inputs led to.

    Attributes:
        files: each image once, in the order of the inputs and by name within a folder or pattern.
        missing: inputs that gave nothing, and why.
        passed_over: files in folders that are not predicted, and why: no images by their ending,
            links that lead nowhere, further names of an image.
    """

    files: list[InputFile] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)


def find_inputs(inputs: Sequence[str], *, result_suffixes: Sequence[str] = ()) -> FoundInputs:
    """Resolve files, folders, patterns and lists to image files.

    Args:
        inputs: a file of any name; a folder, for the image files in it and below it; a pattern with
            `*`, `?`, `[...]` and `**`; or a text file (.txt, or any file with `@` in front) with
            one of these to a line, relative to the current folder; `#` begins a comment. Hidden
            files and folders, folders of results, and results wherever they lie, are passed over.
        result_suffixes: a file in a folder that is called like another image with one of these
            behind it is a result of an earlier prediction, and no image.

    Raises:
        ImageReadError: a list cannot be read.
    """
    found = FoundInputs()
    first: dict[Path, Path] = {}
    pairs: list[tuple[Path, str]] = []
    own_files = OwnFiles()
    for word in _expand_lists(inputs):
        try:
            resolved = _resolve_input(word, result_suffixes, found)
        except OSError as error:  # one of many, such as a folder that may not be read
            resolved = []
            found.passed_over.append(PassedOver(Path(word), error.strerror or str(error)))
        if not resolved:
            found.missing.append(word)
        for path, name in resolved:
            if own_files.have(path):
                found.passed_over.append(PassedOver(path, OWN_RESULT))
                continue
            known = first.setdefault(path.resolve(), path)
            if known is path:
                pairs.append((path, name))
            elif os.path.abspath(known) != os.path.abspath(path):
                found.passed_over.append(PassedOver(path, f"another name of {known}"))
    found.files = name_files([path for path, _ in pairs], [name for _, name in pairs])
    return found


def name_files(paths: Sequence[Path], names: Sequence[str]) -> list[InputFile]:
    """The files with names of their own, made from `names`."""
    unique = unique_names(names)
    ordered = sorted(unique)
    return [
        InputFile(path, name, tuple(_longer_names(name, ordered)))
        for path, name in zip(paths, unique)
    ]


def _longer_names(name: str, ordered: Sequence[str]) -> Iterator[str]:
    """Names that begin with this one and might be those of its planes; they stand behind it."""
    for at in range(bisect(ordered, name), len(ordered)):
        if not ordered[at].startswith(name):
            return
        if ordered[at][len(name)] in "_~":
            yield ordered[at]


def _expand_lists(inputs: Sequence[str]) -> Iterator[str]:
    for word in inputs:
        is_list = word.startswith("@") and not Path(word).exists()
        path = Path(word.removeprefix("@") if is_list else word)
        if not is_list and (path.suffix.lower() != LIST_SUFFIX or not path.is_file()):
            yield word
            continue
        try:
            content = path.read_bytes()
            if b"\0" in content:
                raise ValueError("it is no text")
        except (OSError, ValueError) as error:
            raise ImageReadError(
                f"{path}: cannot be read as a list of images, one path to a line: {error}"
            ) from error
        lines = os.fsdecode(content).splitlines()  # names are bytes, of whatever alphabet
        stripped = (line.strip() for line in lines)
        yield from (line for line in stripped if line and not line.startswith("#"))


def _resolve_input(
    word: str, result_suffixes: Sequence[str], found: FoundInputs
) -> list[tuple[Path, str]]:
    """Files of one input, with names that are not unique yet."""
    path = Path(word)
    if path.is_file() or is_image_folder(path):  # names may hold brackets
        return [(path, stem_of_image(path))]
    base = path if path.is_dir() else Path(_fixed_part(word))
    files = _walk(path, found) if path.is_dir() else list(_match_pattern(word, found))
    named = [(file, name_below(base, file)) for file in files]
    names = {name for _, name in named}
    results = {
        file
        for file in files
        if _is_result(file.relative_to(base).as_posix(), names, result_suffixes)
    }
    found.passed_over += [PassedOver(file, RESULT) for file in files if file in results]
    return [(file, name) for file, name in named if file not in results]


def _match_pattern(pattern: str, found: FoundInputs) -> Iterator[Path]:
    """Files that a pattern matches and those in folders that it matches, by name.

    Where it says the ending (`*.img`), it is that of images; else the rules of folders hold.
    """
    ending = Path(pattern).suffix
    says_ending = bool(ending) and not glob.has_magic(ending)
    for match in sorted(Path(match) for match in glob.glob(pattern, recursive=True)):
        if is_hidden(match):
            continue
        if match.is_dir() and not is_image_folder(match):
            yield from _walk(match, found)
            continue
        reason = why_not_there(match) or ("" if says_ending else why_no_image(match))
        if reason:
            found.passed_over.append(PassedOver(match, reason))
        else:
            yield match


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


def _walk(folder: Path, found: FoundInputs) -> list[Path]:
    """Image files in a folder and below it, but for folders of results."""
    listing = list_folder(folder, is_deep=True, skip=lambda one: os.path.isdir(one / STATE_FOLDER))
    found.passed_over += listing.passed_over
    return listing.files


def _is_result(name: str, stems: set[str], suffixes: Sequence[str]) -> bool:
    """True for `x_overlay.png` and the like beside an image of stem `x`."""
    return any(name.endswith(each) and name.removesuffix(each) in stems for each in suffixes)


def take_part(files: Sequence[InputFile], part: int, parts: int) -> list[InputFile]:
    """Every `parts`-th file, from number `part` on, which counts from 1: one job of an array."""
    return list(files[part - 1 :: parts])
