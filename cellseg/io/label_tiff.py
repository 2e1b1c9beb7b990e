"""Label images as TIFF files, of any size, and the table of their labels' classes."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tifffile
from cellseg.cells.label_bands import CellSource, label_blocks
from cellseg.cells.labels import label_dtype
from cellseg.cells.records import ImageRecord, PlaceInFile
from cellseg.io.checks import cells_with_labels
from numpy.typing import NDArray

LARGE_PX = 2**25
"""Label images of more pixels are written in tiles, smaller ones in one piece."""
BLOCK_PX = 512
_TIFF_LIMIT = 2**32 - 2**25  # bytes; a file without "Big" has 32-bit addresses


class PlacedCells(CellSource, Protocol):
    """A record that says how large its pixels are: an `ImageRecord` or a `SpooledCells`."""

    @property
    def place(self) -> PlaceInFile: ...


def write_labels(
    record: PlacedCells, path: Path, is_visible: NDArray[np.bool_] | None = None
) -> None:
    """Write the label image of a record as a compressed TIFF; whole or, if large, in tiles.

    Pixel value 0 is background and k + 1 is cell k; uint16, uint32 above 65,535 cells. A cell that
    others cover wholly does not occur. An image without cells is all 0. The file says what ImageJ
    reads: the size of a pixel, where it is known, and the range of values to be shown.

    One of more than `LARGE_PX` pixels is written in tiles of 512 x 512, from the batches of the
    record, and is never in memory as a whole; as a BigTIFF where it could grow beyond 4 GiB.

    Args:
        record: see `label_bands`.
        path: the file, which is overwritten.
        is_visible: bool [N + 1]; becomes True for each label that occurs.
    """
    height, width = record.image_hw
    is_large = height * width > LARGE_PX
    rows = BLOCK_PX if is_large else max(height, 1)
    blocks = _noting_labels(
        label_blocks(record, (rows, rows if is_large else max(width, 1))), is_visible
    )
    how = {"compression": "zlib", "metadata": None, **_imagej_tags(record)}
    if not is_large:
        whole = next(blocks, np.zeros((height, width), np.uint16))
        tifffile.imwrite(path, whole, **how)
        return
    dtype = np.dtype(label_dtype(record.num_cells))
    how |= {"tile": (BLOCK_PX, BLOCK_PX), "bigtiff": height * width * dtype.itemsize > _TIFF_LIMIT}
    workers = os.cpu_count() or 1
    tifffile.imwrite(path, blocks, shape=(height, width), dtype=dtype, maxworkers=workers, **how)


def _imagej_tags(record: PlacedCells) -> dict[str, Any]:
    """What ImageJ reads from a TIFF, as arguments of `tifffile.imwrite`."""
    lines = ["ImageJ=1.11a", "images=1", "min=0.0", f"max={max(1, record.num_cells)}.0"]
    size_um = record.place.pixel_size_um
    if size_um is None:
        return {"description": "\n".join([*lines, ""])}
    return {
        "description": "\n".join([*lines, "unit=micron", ""]),
        "resolution": (1 / size_um[1], 1 / size_um[0]),  # pixels per unit: across, down
        "resolutionunit": "NONE",
    }


def write_class_table(
    record: ImageRecord, is_visible: NDArray[np.bool_], path: Path, classes: Sequence[str]
) -> None:
    """Write `label,class`, a row for each label that occurs in the label image.

    Args:
        record: an image and its cells.
        is_visible: as `write_labels` filled it.
        path: the CSV file; its folder is there.
        classes: class names.
    """
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(("label", "class"))
        for labels, cells in cells_with_labels(record, classes):
            rows = zip(labels, cells.classes.tolist())
            table.writerows((label, classes[k]) for label, k in rows if is_visible[label])


def _noting_labels(
    blocks: Iterable[tuple[int, int, NDArray[Any]]], is_visible: NDArray[np.bool_] | None
) -> Iterator[NDArray[Any]]:
    for _, _, block in blocks:
        if is_visible is not None:
            is_visible[block] = True
        yield block
