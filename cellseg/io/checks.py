"""What every writer asks of the cells that it is given, and the pieces in which it gets them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError
from cellseg.names import why_unsafe_name

CELLS_AT_A_TIME = 4096


def check_file_name(record: ImageRecord) -> None:
    """Raise DatasetError for an image id that cannot be the name of a file."""
    name = f"{record.image_id}.x"
    if not record.image_id or record.image_id.startswith(".") or Path(name).name != name:
        raise DatasetError(
            f"{record.image_path}: the image id {record.image_id!r} cannot be a file's name"
        )


def check_cells(record: ImageRecord, classes: Sequence[str]) -> None:
    """Raise DatasetError for cells that no file could say: without a pixel, or of no class."""
    check_classes(record, record.cells, classes)
    empty = (record.cells.areas_px == 0).nonzero()[0].tolist()
    if empty:
        where = record.image_path or record.image_id
        raise DatasetError(f"{where}: cell {empty[0] + 1} has no pixel")


def check_classes(record: ImageRecord, cells: CellInstances, classes: Sequence[str]) -> None:
    """Raise DatasetError for cells, all of an image or some, whose class has no name."""
    strange = sorted(set(np.unique(cells.classes).tolist()) - set(range(len(classes))))
    if strange:
        raise DatasetError(
            f"{record.image_path or record.image_id}: a cell of class {strange[0]} (from 0); there "
            f"are {len(classes)}: {', '.join(classes)}"
        )


def cells_in_pieces(record: ImageRecord) -> Iterator[tuple[int, CellInstances]]:
    """Go through the cells of an image, at most `CELLS_AT_A_TIME`; the label of the first of each.

    Writers make outlines, run lengths and lines of such a piece only, whatever the image holds.
    """
    label = 1
    for batch in record.batches():
        for start in range(0, len(batch), CELLS_AT_A_TIME):
            yield label + start, batch[start : start + CELLS_AT_A_TIME]
        label += len(batch)


def cells_with_labels(
    record: ImageRecord, classes: Sequence[str]
) -> Iterator[tuple[list[int], CellInstances]]:
    """Go through the cells of an image that have a pixel, in pieces, with their labels.

    Args:
        record: cell k of all its batches has label k + 1.
        classes: class names.

    Yields:
        Labels, ascending, and the cells that have them; cells without a pixel are left out.

    Raises:
        DatasetError: a cell's class has no name.
    """
    for first, cells in cells_in_pieces(record):
        check_classes(record, cells, classes)
        kept = np.flatnonzero(cells.areas_px > 0)
        yield (first + kept).tolist(), cells[kept]


def check_place(image_id: str) -> None:
    """Raise DatasetError for an id below which no results can be written safely.

    It may name sub-folders, as in `plate1/a_t3`, but nothing outside the folder of results.
    """
    if reason := why_unsafe_name(image_id):
        raise DatasetError(
            f"the image id {image_id!r} cannot be the name of a file of results: {reason}"
        )
