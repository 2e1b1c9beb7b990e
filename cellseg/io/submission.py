"""`submission.csv` of two competitions: one row of run lengths per cell, no pixel twice.

Sartorius - Cell Instance Segmentation (2021): columns id and predicted; pixels count row by row,
from 1. Data Science Bowl 2018: columns ImageId and EncodedPixels; pixels count column by column,
from 1. An image without cells has one row without run lengths.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.errors import LabelError, collect_problems
from cellseg.files import write_whole
from cellseg.io.records import CellAnnotation
from cellseg.io.run_length_rows import cells_to_rows, rows_to_runs


@dataclass(frozen=True)
class SubmissionFormat:
    """How a competition wants it.

    Attributes:
        columns: of the image's id and of the run lengths.
        row_major: pixels count row by row; else column by column.
    """

    columns: tuple[str, str]
    row_major: bool


SUBMISSION_FORMATS = {
    "sartorius": SubmissionFormat(("id", "predicted"), row_major=True),
    "dsb2018": SubmissionFormat(("ImageId", "EncodedPixels"), row_major=False),
}
SUBMISSION_NAME = "submission.csv"


def cells_to_submission_rows(cells: CellInstances, format_name: str) -> list[str]:
    """Run lengths, `start length start length ...`, of the cells of one image.

    Where cells overlap the one with the higher score keeps the pixel; a cell that has none left
    is dropped. The order of the others is kept.

    Args:
        cells: of one image; may be empty.
        format_name: of `SUBMISSION_FORMATS`.
    """
    apart = CellInstances.from_label_image(cells.to_label_image(by_score=True))
    annotations = [CellAnnotation(rle, (0, 0, 0, 0), "cell") for rle in apart.to_rles()]
    how = submission_format(format_name)
    return cells_to_rows(annotations, cells.image_hw, row_major=how.row_major)


def submission_format(name: str) -> SubmissionFormat:
    """The format of that name.

    Raises:
        LabelError: there is none.
    """
    if name not in SUBMISSION_FORMATS:
        raise LabelError(
            f"no submission format {name!r}; expected {' or '.join(SUBMISSION_FORMATS)}"
        )
    return SUBMISSION_FORMATS[name]


def find_row_problems(
    rows: Sequence[str], image_hw: tuple[int, int], format_name: str
) -> list[str]:
    """What a competition would refuse in the rows of one image; empty if nothing.

    Run lengths that are no ascending pairs of numbers, that leave the image, or that share pixels.

    Args:
        rows: one text per cell; none for an image without cells.
        image_hw: (height, width), pixels.
        format_name: of `SUBMISSION_FORMATS`.
    """
    how = submission_format(format_name)
    runs, problems = rows_to_runs(rows, image_hw, row_major=how.row_major)
    found = [f"cell {number}: {problem}" for number, problem in problems.items()]
    found += [f"cell {number}: no run lengths" for number, row in enumerate(rows) if not row]
    if found:
        return found
    order = np.argsort(runs.starts, kind="stable")
    cells, starts, ends = (values[order] for values in runs)
    shared = np.flatnonzero(starts[1:] < np.maximum.accumulate(ends)[:-1])
    if not shared.size:
        return []
    second = int(shared[0]) + 1
    pair = sorted((int(cells[ends[:second].argmax()]), int(cells[second])))
    return [f"cells {pair[0]} and {pair[1]} share pixels"]


class Submission:
    """The rows of a submission, image by image.

    Args:
        format_name: "sartorius" or "dsb2018".

    Example:
        >>> submission = Submission("sartorius")
        >>> submission.add("7ae19de7bc2a", CellInstances.from_label_image([[0, 1], [2, 1]]))
        >>> submission.rows
        {'7ae19de7bc2a': ['2 1 4 1', '3 1']}
    """

    def __init__(self, format_name: str) -> None:
        self._columns = submission_format(format_name).columns
        self._format_name = format_name
        self.rows: dict[str, list[str]] = {}

    def add(self, image_id: str, cells: CellInstances) -> None:
        """Add the cells of an image, overlaps removed; see `cells_to_submission_rows`.

        Raises:
            LabelError: the image is in it already.
        """
        rows = cells_to_submission_rows(cells, self._format_name)
        self.add_rows(image_id, rows, cells.image_hw)

    def add_rows(self, image_id: str, rows: Sequence[str], image_hw: tuple[int, int]) -> None:
        """Add the run lengths of an image.

        Raises:
            LabelError: the image is in it already, or the competition would refuse a row.
        """
        if image_id in self.rows:
            raise LabelError(f"image {image_id!r} comes twice in a submission")
        problems = find_row_problems(rows, image_hw, self._format_name)
        if problems:
            header = f"image {image_id!r} cannot be submitted ({self._format_name})"
            raise LabelError(collect_problems(header, problems))
        self.rows[image_id] = list(rows)

    def write(self, path: str | Path) -> int:
        """Write the table; an image without cells has one row without run lengths.

        Args:
            path: folders are made; replaced only when complete.

        Returns:
            The number of cells in it.
        """
        with write_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(self._columns)
            for image_id, rows in self.rows.items():
                table.writerows((image_id, row) for row in rows or [""])
        return sum(map(len, self.rows.values()))


def write_submission(
    results: Iterable[tuple[str, CellInstances]], path: str | Path, format_name: str
) -> int:
    """Write the cells of all images of a test set; see `Submission`.

    Args:
        results: (image id, cells) per image; may be a generator.
        path: folders are made; replaced only when complete.
        format_name: "sartorius" or "dsb2018".

    Returns:
        The number of cells in it.

    Raises:
        LabelError: an image comes twice; nothing is written then.
    """
    submission = Submission(format_name)
    for image_id, cells in results:
        submission.add(image_id, cells)
    return submission.write(path)
