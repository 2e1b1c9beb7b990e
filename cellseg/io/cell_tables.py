"""The table of an image's cells, one row per cell: `<image>_cells.csv` or `.parquet`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from cellseg.cells.measurements import DEFAULTS, MeasurementSettings, measure_cells
from cellseg.cells.records import ImageRecord
from cellseg.images import PlaneImage
from cellseg.io.tables import Row, open_table
from cellseg.names import printable

CELLS = "_cells"
"""What the name of an image's table has after that of the image."""


def write_cell_tables(
    record: ImageRecord,
    paths: Sequence[Path],
    classes: Sequence[str] = ("cell",),
    image: PlaneImage | None = None,
    constants: Row | None = None,
    settings: MeasurementSettings = DEFAULTS,
) -> int:
    """Measure the cells of an image once, and write their table to one or several files.

    Args:
        record: the image's cells; see `measure_cells`.
        paths: `.csv` or `.parquet`; their folders are made.
        classes: class names, by the numbers of the cells' classes.
        image: the image itself, whose raw channels are measured; None for size and shape alone.
        constants: columns before the others that are the same in each row, such as the image's
            name or its well; those that are None are left out.
        settings: distances.

    Returns:
        The number of rows. Without cells the files hold the names of the columns.

    Raises:
        DatasetError: another ending, or pyarrow is not there for Parquet.
        LabelError: as `measure_cells`.
        ImageReadError: the image cannot be read.
    """
    read_channels = None if image is None else image.read_channels
    channel_names = () if image is None else image.channel_names
    fixed = {
        name: printable(value) if isinstance(value, str) else value
        for name, value in (constants or {}).items()
        if value is not None
    }
    count = 0
    with ExitStack() as stack:
        writers = [stack.enter_context(open_table(path)) for path in paths]
        for table in measure_cells(record, classes, read_channels, channel_names, settings):
            rows = len(table["label"])
            whole = {name: np.full(rows, value) for name, value in fixed.items()} | table
            for write in writers:
                write(whole)
            count += rows
    return count
