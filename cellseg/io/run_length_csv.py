"""A table of run lengths per image, with class and score: what a spreadsheet and pandas read.

    <root>/<split>/images/<id>.png          png, jpg, tif or bmp
    <root>/<split>/run_lengths/<id>.csv     image_id, label, class, score, height, width, rle

A row is a cell. `rle` is `start length start length ...` with pixels from 1, column by column (from
the upper edge down, then the next column), as in the Data Science Bowl 2018; `label` is the cell's
number in a label image of the same cells. Cells may overlap. An image without cells has a table
without rows. Regions of uncounted cells are not written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError
from cellseg.io.base import CLASSES, EMPTY_IMAGES, HOLES, OVERLAPS, SCORES, Problems
from cellseg.io.cell_file import CellFile
from cellseg.io.checks import cells_with_labels
from cellseg.io.outlines import score_to_text
from cellseg.io.per_image import classes_of_cells, format_of_files, size_problem
from cellseg.io.run_length_rows import cells_to_rows, rows_to_runs
from cellseg.io.table_rows import CsvWriter, read_rows

COLUMNS = ("image_id", "label", "class", "score", "height", "width", "rle")


def write_image_cells(
    record: ImageRecord,
    path: Path,
    classes: tuple[str, ...],
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write the cells of one image as a table, row by row.

    Args:
        record: an image and its cells; crowd regions and cells without a pixel are left out.
        path: the file; its folder is there.
        classes: class names.
        options: not used.
    """
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = CsvWriter(stream, "\n")
        table.writerow(COLUMNS)
        for labels, cells in cells_with_labels(record, classes):
            rows = zip(
                labels,
                cells.classes.tolist(),
                cells.scores,
                cells_to_rows(cells, row_major=False),
                cells.is_crowd.tolist(),
            )
            table.writerows(
                (record.image_id, label, classes[k], score_to_text(score), *record.image_hw, text)
                for label, k, score, text, is_crowd in rows
                if not is_crowd
            )


def read_image_cells(
    path: Path,
    image_hw: tuple[int, int],
    classes: tuple[str, ...] = ("cell",),
    options: Mapping[str, Any] | None = None,
) -> CellInstances | Problems:
    """The cells of a table, in the order of its rows.

    Args:
        path: the file; columns may come in any order, others are not read.
        image_hw: (height, width) of the image, pixels.
        classes: declared names.
        options: not used.

    Returns:
        The cells, or what is wrong with the rows.

    Raises:
        DatasetError: the file is no such table.
    """
    rows = [row for own in read_rows(path, COLUMNS).values() for row in own]
    lines, cells = [line for line, _ in rows], [row for _, row in rows]
    problems = Problems()
    for size in sorted({(row["height"], row["width"]) for row in cells}):
        problem = size_problem(path, "image of these cells", size, tuple(map(str, image_hw)))
        problems += [problem] if problem else []
    runs, wrong = rows_to_runs([row["rle"] for row in cells], image_hw, row_major=False)
    problems += [f"{path}: line {lines[k]}: {text}" for k, text in wrong.items()]
    problems += [
        f"{path}: line {line}: no run lengths; delete the row"
        for line, row in rows
        if not row["rle"]
    ]
    named = [(f"line {line}", row["class"]) for line, row in rows]
    numbers, unknown = classes_of_cells(named, classes, "the column `class`")
    problems += [f"{path}: {text}" for text in unknown]
    if problems:
        return problems
    scores = [_read_score(path, line, row["score"]) for line, row in rows]
    return CellInstances.from_runs(runs, len(rows), image_hw, classes=numbers, scores=scores)


def _read_score(path: Path, line: int, text: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = np.nan
    if not np.isfinite(score):
        raise DatasetError(f"{path}: line {line}: the score is {text!r}, expected a number")
    return score


def find_file_classes(path: Path, options: Mapping[str, Any]) -> set[str]:
    """Names of the classes in a table."""
    rows = read_rows(path, ("class",))
    return {name for name in rows if name}


FORMAT = format_of_files(
    CellFile(
        kind="table of run lengths",
        folder="run_lengths",
        suffixes=(".csv",),
        written_suffix=".csv",
        read=read_image_cells,
        write=write_image_cells,
        write_prediction=write_image_cells,
        prediction_suffix="_rle.csv",
        find_classes=find_file_classes,
        holds=frozenset((OVERLAPS, CLASSES, SCORES, HOLES, EMPTY_IMAGES)),
    )
)
