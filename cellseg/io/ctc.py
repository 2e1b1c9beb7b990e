"""The layout of the Cell Tracking Challenge (celltrackingchallenge.net): masks, table of tracks.

    <folder>/mask000.tif, mask001.tif, ...    label image of each frame, uint16; a cell has the
                                              number of its track
    <folder>/res_track.txt                    a line `L B E P` per track: number, first and last
                                              frame (from 0), number of its parent or 0

is a result; `man_track000.tif`, ... and `man_track.txt` are the truth. A number occurs in each
frame from B to E and in no other, so what is missing in between begins a new track there, whose
parent is the one before the gap. Cells that overlap share no pixels here: the higher score keeps
them, and where nothing is left of a cell, it is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import tifffile
from cellseg.cells.tracks import Frame, Tracks
from cellseg.errors import DatasetError, LabelError, collect_problems
from cellseg.files import write_whole_folder
from cellseg.io.base import check_free
from cellseg.io.label_frames import LabelFrames, LabelPlane, draw_with_numbers
from numpy.typing import NDArray

MASK, TABLE = "mask", "res_track.txt"
NAMES = {TABLE: MASK, "man_track.txt": "man_track"}
RULES = "The rules: one line `L B E P` per track; L in the masks of frames B to E and in no other"
MAX_TRACKS = np.iinfo(np.uint16).max

_OWN_FILE = re.compile(r"mask\d+\.tif|res_track\.txt")


@dataclass
class _Row:
    """A line of the table."""

    number: int
    first: int
    last: int
    parent: int


def write_ctc(folder: str | Path, frames: Iterable[Frame], tracks: Tracks) -> int:
    """Write tracks in the challenge's layout, the whole folder or nothing of it.

    Args:
        folder: is made; one that holds such files and nothing else is replaced. The challenge
            calls them `01_RES`, `02_RES`, ...
        frames: those that the tracks were made of, in order of time; one at a time is in memory.
        tracks: their tracks.

    Returns:
        How many tracks there are in the files: more than in `tracks` where these have gaps.

    Raises:
        LabelError: frames and tracks do not belong together, or there are more than 65,535 tracks.
        DatasetError: the folder holds something else.
    """
    digits = max(3, len(str(len(tracks.ids) - 1)))
    pieces = _Pieces(tracks)
    with _replaced_folder(Path(folder)) as partial:
        for number, (record, ids) in enumerate(tracks.along(frames)):
            image = pieces.renumber(number, draw_with_numbers(record, ids, np.int64))
            name = f"{MASK}{number:0{digits}d}.tif"
            tifffile.imwrite(partial / name, image, compression="zlib", metadata=None)
        lines = [f"{one.number} {one.first} {one.last} {one.parent}\n" for one in pieces.rows]
        (partial / TABLE).write_text("".join(lines), "ascii")
    return len(pieces.rows)


@contextmanager
def _replaced_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to fill; it takes the place of `folder` when the block ends well."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    if not names or not all(map(_OWN_FILE.fullmatch, names)):
        check_free(folder)
    with write_whole_folder(folder) as partial:
        yield partial


class _Pieces:
    """Gives what comes after a gap a number of its own, frame by frame.

    Args:
        tracks: a track keeps its number up to its first gap.
    """

    def __init__(self, tracks: Tracks) -> None:
        self.parents = tracks.parents
        self.rows: list[_Row] = []
        self.current: dict[int, _Row] = {}  # of each track that was seen, its last piece
        self.unused = len(tracks) + 1

    def renumber(self, frame: int, image: NDArray[np.int64]) -> NDArray[np.uint16]:
        """The image of a frame, numbered by tracks, with the numbers of pieces."""
        seen = np.unique(image[image > 0])
        numbers = [self._piece(track, frame).number for track in seen.tolist()]
        if max(numbers, default=0) > MAX_TRACKS:
            raise LabelError(
                f"more than {MAX_TRACKS:,} tracks; the challenge's masks have 16 bits: link a part "
                "of the image, or a shorter time"
            )
        table = np.zeros(seen.max(initial=0) + 1, np.uint16)
        table[seen] = numbers
        return table[image]

    def _piece(self, track: int, frame: int) -> _Row:
        before = self.current.get(track)
        if before is not None and before.last == frame - 1:
            before.last = frame
            return before
        if before is None:
            mother = self.current.get(int(self.parents[track - 1]))
            piece = _Row(track, frame, frame, mother.number if mother else 0)
        else:
            piece = _Row(self.unused, frame, frame, before.number)
            self.unused += 1
        self.rows.append(piece)
        self.current[track] = piece
        return piece


def read_ctc(folder: str | Path) -> tuple[LabelFrames, Tracks]:
    """Read a result (`res_track.txt`) or a truth (`man_track.txt`), and check it by the rules.

    Args:
        folder: of the masks and the table.

    Returns:
        The frames, whose `labels` are the numbers in the files, and the tracks, numbered 1 to K in
        the order of these.

    Raises:
        DatasetError: there is no table or no mask, or what is wrong by the rules, in one message.
        ImageReadError: a mask cannot be read.
    """
    folder = Path(folder)
    table = next((folder / name for name in NAMES if (folder / name).is_file()), None)
    if table is None:
        raise DatasetError(f"{folder}: no {' or '.join(NAMES)}; expected masks and such a table")
    rows, problems = _read_table(table)
    masks = _find_masks(folder, NAMES[table.name])
    frames = LabelFrames([LabelPlane(path, path.stem) for path in masks])
    seen: dict[int, list[int]] = {row.number: [] for row in rows}
    labels = []
    for number, record in enumerate(frames):
        labels.append(record.labels)
        for label in record.labels.tolist():
            seen.setdefault(label, []).append(number)
    problems += _broken_rules(rows, seen)
    if problems:
        raise DatasetError(collect_problems(f"{table}: breaks the rules", problems, RULES))
    numbers = np.array([row.number for row in rows], np.int64)
    parents = np.array([row.parent for row in rows], np.int64)
    return frames, Tracks(
        tuple(np.searchsorted(numbers, one) + 1 for one in labels),
        np.array([row.first for row in rows], np.int64),
        np.array([row.last for row in rows], np.int64),
        np.where(parents > 0, np.searchsorted(numbers, parents) + 1, 0),
    )


def _find_masks(folder: Path, prefix: str) -> list[Path]:
    """The masks in order of time, of which none is missing."""
    matches = (re.fullmatch(rf"{prefix}(\d+)\.tif", path.name) for path in folder.iterdir())
    numbers = {int(match[1]): folder / match[0] for match in matches if match}
    missing = sorted(set(range(max(numbers, default=0) + 1)) - set(numbers))
    if missing:
        listed = ", ".join(f"{prefix}{number:03d}.tif" for number in missing[:10])
        raise DatasetError(f"{folder}: masks are missing: {listed}")
    return [numbers[number] for number in sorted(numbers)]


def _read_table(path: Path) -> tuple[list[_Row], list[str]]:
    """Rows by ascending number, and lines that are none."""
    rows, problems = [], []
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        values = line.split()
        if len(values) == 4 and all(value.isdecimal() for value in values):
            rows.append(_Row(*map(int, values)))
        elif values:
            problems.append(f"line {number}: {line[:60]!r} is not four whole numbers")
    return sorted(rows, key=lambda row: row.number), problems


def _broken_rules(rows: Sequence[_Row], seen: Mapping[int, Sequence[int]]) -> list[str]:
    by_number = {row.number: row for row in rows}
    problems = [
        f"track {one.number} has several lines"
        for one, other in pairwise(rows)
        if one.number == other.number
    ]
    for row in rows:
        name = f"track {row.number}"
        if row.number == 0 or row.first > row.last:
            problems.append(f"{name}: frames {row.first} to {row.last}")
        elif list(seen[row.number]) != list(range(row.first, row.last + 1)):
            found = ", ".join(map(str, seen[row.number][:20])) or "none"
            problems.append(f"{name}: frames {row.first} to {row.last}; its masks are in {found}")
        mother = by_number.get(row.parent)
        if row.parent and (mother is None or mother.last >= row.first):
            ends = "has no line" if mother is None else f"ends in frame {mother.last}"
            problems.append(f"{name} begins in frame {row.first}; its parent {row.parent} {ends}")
    unknown = [label for label in seen if label not in by_number]
    return problems + [f"label {label} has no line" for label in sorted(unknown)]
