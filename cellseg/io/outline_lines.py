"""Outlines as lines of text, `x1,y1,x2,y2,...`, as Cellpose writes them and its macro reads them.

    <root>/<split>/images/<id>.png          png, jpg, tif or bmp
    <root>/<split>/outlines/<id>.txt        a line per cell

A line is a closed polygon along the pixels' edges, whole numbers, (0, 0) the image's upper left
corner: ImageJ's polygon of these points covers exactly the cell's pixels. (Cellpose's own lines run
through the centres of the border pixels, so that ImageJ loses half a pixel all around; they are
read here as ImageJ reads them.) What belongs to a cell with holes or of several pieces is joined by
lines that go there and back and so enclose nothing.

A line has no room for classes, scores, and regions of uncounted cells; and a line's number is not
the cell's label where a cell without a pixel was left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.polygons import crops_to_rings
from cellseg.cells.records import ImageRecord
from cellseg.cells.run_lengths import IntArray
from cellseg.errors import DatasetError
from cellseg.io.base import EMPTY_IMAGES, HOLES, OVERLAPS, Problems
from cellseg.io.cell_file import CellFile
from cellseg.io.checks import cells_with_labels
from cellseg.io.outlines import Outline, outlines_to_cells
from cellseg.io.per_image import format_of_files


def join_rings(rings: Sequence[IntArray]) -> IntArray:
    """One closed polygon that covers what an odd number of the rings covers.

    From the first point of the first ring it goes to every other ring, around it and back; these
    ways there and back enclose nothing.

    Args:
        rings: closed rings of (x, y), [K, 2] each; at least one.

    Returns:
        The polygon's points, [P, 2], the first not repeated at the end.

    Example:
        >>> square = np.array([[0, 0], [9, 0], [9, 9], [0, 9]])
        >>> hole = np.array([[2, 2], [2, 3], [3, 3], [3, 2]])
        >>> ["%d,%d" % (x, y) for x, y in join_rings([square, hole])]
        ['0,0', '9,0', '9,9', '0,9', '0,0', '2,2', '2,3', '3,3', '3,2', '2,2']
    """
    home = rings[0][:1]
    parts = [rings[0]]
    for ring in rings[1:]:
        parts += [home, ring, ring[:1]]
    return np.concatenate(parts)


def write_image_cells(
    record: ImageRecord,
    path: Path,
    classes: tuple[str, ...],
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write the outlines of one image's cells, a line for each.

    Args:
        record: an image and its cells; crowd regions and cells without a pixel are left out.
        path: the file; its folder is there.
        classes: class names; they are not written.
        options: not used.
    """
    with path.open("w", encoding="ascii", newline="\n") as stream:
        for _, cells in cells_with_labels(record, classes):
            counted = cells.counted
            for rings in crops_to_rings(counted.crops, counted.offsets_rc):
                numbers = join_rings(rings).ravel().tolist()
                stream.write(",".join(map(str, numbers)) + "\n")


def read_image_cells(
    path: Path,
    image_hw: tuple[int, int],
    classes: tuple[str, ...] = ("cell",),
    options: Mapping[str, Any] | None = None,
) -> CellInstances | Problems:
    """The cells of a file of outlines, in the order of its lines; empty lines do not count.

    Args:
        path: the file.
        image_hw: (height, width) of the image, pixels.
        classes: one declared name.
        options: not used.

    Returns:
        The cells, or what is wrong with the lines.

    Raises:
        DatasetError: the file cannot be read.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as lines of text: {error}") from error
    problems, outlines = Problems(), []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            points = np.array(line.split(","), np.float64).reshape(-1, 2)
        except ValueError:
            problems.append(f"{path}: line {number}: expected x1,y1,x2,y2,...; found {line[:60]!r}")
            continue
        outlines.append(Outline(f"line {number}", [points]))
    where_from = "another format: lines of points have no room for classes"
    return outlines_to_cells(
        path,
        image_hw,
        outlines,
        classes,
        where_from=where_from,
        problems=problems,
        as_imagej=True,
    )


FORMAT = format_of_files(
    CellFile(
        kind="outlines",
        folder="outlines",
        suffixes=(".txt",),
        written_suffix=".txt",
        read=read_image_cells,
        write=write_image_cells,
        write_prediction=write_image_cells,
        holds=frozenset((OVERLAPS, HOLES, EMPTY_IMAGES)),
    )
)
