"""From what somebody names to the images of a folder of corrections."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cellseg.corrections.entries import ImageEntry, find_entries, identify
from cellseg.errors import CorrectionError, ImageReadError, collect_problems
from cellseg.files import is_inside
from cellseg.images.listing import PassedOver
from cellseg.inference.inputs import InputFile, find_inputs, name_files
from cellseg.names import unique_names

MARK_FILE = "corrections.json"
"""In a folder of training data that was saved from corrections; its images are no new ones."""


@dataclass(frozen=True)
class Added:
    """What adding images came to.

    Attributes:
        image_ids: of the new images.
        passed_over: files that were not taken, and why.
    """

    image_ids: list[str] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)


def find_new(
    words: Sequence[str], known: Sequence[ImageEntry], root: Path
) -> tuple[list[ImageEntry], Added]:
    """The images that are not among the known ones yet.

    Args:
        words: files, folders, patterns.
        known: the images that there are.
        root: the folder of corrections, in which nothing is an image.

    Raises:
        CorrectionError: a word leads to no image.
    """
    try:
        found = find_inputs(words)
    except ImageReadError as error:
        raise CorrectionError(str(error)) from error
    if found.missing:
        raise CorrectionError(
            collect_problems("no images found", found.missing, "Name files, folders or patterns.")
        )
    added = Added(passed_over=[one for one in found.passed_over if not is_inside(one.path, root)])
    files = list(_take_new(found.files, known, root, added))
    entries: list[ImageEntry] = []
    for file in _name_behind(files, known):
        try:
            entries += _entries_of(file, [*known, *entries])
        except (ImageReadError, CorrectionError) as error:  # one bad file ends nothing
            added.passed_over.append(PassedOver(file.path, str(error)))
    added.image_ids.extend(entry.image_id for entry in entries)
    return entries, added


def _take_new(
    files: Sequence[InputFile], known: Sequence[ImageEntry], root: Path, added: Added
) -> Iterator[InputFile]:
    there = {entry.path.resolve() for entry in known}
    for file in files:
        if file.path.resolve() in there:
            continue
        if is_inside(file.path, root):
            continue
        if any((one / MARK_FILE).is_file() for one in file.path.absolute().parents):
            added.passed_over.append(PassedOver(file.path, "saved from corrections"))
            continue
        yield file


def _name_behind(files: Sequence[InputFile], known: Sequence[ImageEntry]) -> list[InputFile]:
    """The files, named so that none has the name of a known one."""
    first = {entry.file_name: entry.path for entry in known}
    paths = [*first.values(), *(file.path.absolute() for file in files)]
    named = name_files(paths, [*first, *(file.name for file in files)])
    return named[len(first) :]


def _entries_of(file: InputFile, known: Sequence[ImageEntry]) -> list[ImageEntry]:
    """One entry for each plane of a file."""
    num_bytes, fingerprint = identify(file.path)
    planes = find_entries(file.path, file.name)
    ids = [entry.image_id for entry in known]
    names = unique_names([*ids, *(file.image_id(suffix) for suffix, _, _ in planes)])[len(ids) :]
    return [
        ImageEntry(
            name,
            file.name,
            file.path,
            image_hw,
            num_bytes,
            fingerprint,
            _journal_name(len(known) + k, name),
            place,
        )
        for k, (name, (_, image_hw, place)) in enumerate(zip(names, planes), 1)
    ]


def _journal_name(number: int, image_id: str) -> str:
    """A name for a file that no other image's has, on any disk.

    Example:
        >>> _journal_name(7, "plate 1/A01_t3")
        '000007_plate_1_A01_t3.jsonl'
    """
    plain = re.sub(r"[^A-Za-z0-9_.+-]+", "_", image_id)[-60:]
    return f"{number:06d}_{plain}.jsonl"
