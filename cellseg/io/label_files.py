"""Label images as TIFF, written strip by strip, and the table of their labels' classes."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from cellseg.cells.label_bands import label_bands, label_blocks
from cellseg.cells.labels import label_dtype
from cellseg.cells.records import ImageRecord
from cellseg.io.checks import cells_with_labels
from cellseg.io.table_rows import CsvWriter
from numpy.typing import NDArray

STRIP_BYTES = 2**19
BAND_ROWS = 256
ZLIB_LEVEL = 3  # of label images: nearly as small as with 6, in a third of the time
LARGE_PX = 2**25
"""Label images of more pixels are written in tiles, of which programs read those they show."""
TILE_PX = 512
TIFF_LIMIT = 2**32 - 2**25  # bytes; a file without "Big" has 32-bit addresses


def write_label_file(record: ImageRecord, path: Path) -> NDArray[np.bool_]:
    """Write the cells of one image as a zlib-compressed TIFF of the image's size.

    Pixel value 0 is background and k + 1 is cell k; uint16, uint32 above 65,535 cells. A cell that
    others cover wholly does not occur. An image without cells is all 0. The file says what ImageJ
    reads: the size of a pixel, where it is known, and the range of values to be shown. It is
    never in memory as a whole: it is written in strips or, with more than `LARGE_PX` pixels, in
    tiles of 512 x 512, as a BigTIFF where it could grow beyond 4 GiB.

    Args:
        record: an image and its cells; `cells.label_bands` says more about them.
        path: the TIFF; its folder is there.

    Returns:
        Which labels occur, bool [number of cells + 1]; the background is the first.
    """
    dtype = np.dtype(label_dtype(record.num_cells)).newbyteorder("<")
    height, width = record.image_hw
    occurs = np.zeros(record.num_cells + 1, bool)
    size_um = record.place.pixel_size_um
    common: dict[str, Any] = {
        "shape": record.image_hw,
        "dtype": dtype,
        "byteorder": "<",
        "photometric": "minisblack",
        "metadata": None,
        "description": _imagej_description(record),
        "resolution": None if size_um is None else (1 / size_um[1], 1 / size_um[0]),
        "resolutionunit": "NONE",  # ImageJ's unit is in the description
    }
    if height * width > LARGE_PX:
        tifffile.imwrite(path, _tiles(record, dtype, occurs), **common, **_tiling(record, dtype))
        return occurs
    strip_rows = max(1, min(height, STRIP_BYTES // max(1, width * dtype.itemsize)))
    tifffile.imwrite(
        path,
        _strips(record, strip_rows, dtype, occurs) if height and width else None,
        compression="zlib" if height and width else None,
        rowsperstrip=strip_rows,
        **common,
    )
    return occurs


def _strips(
    record: ImageRecord, strip_rows: int, dtype: np.dtype[Any], occurs: NDArray[np.bool_]
) -> Iterator[bytes]:
    """Compressed strips from the upper edge down; notes the labels in them."""
    band_rows = strip_rows * -(-BAND_ROWS // strip_rows)
    for _, band in label_bands(record, band_rows):
        occurs[band.ravel()] = True
        for row in range(0, len(band), strip_rows):
            strip = np.ascontiguousarray(band[row : row + strip_rows], dtype)
            yield zlib.compress(strip.data, ZLIB_LEVEL)


def _tiling(record: ImageRecord, dtype: np.dtype[Any]) -> dict[str, Any]:
    """What `tifffile.imwrite` needs to know of tiles; it compresses them in threads."""
    size_bytes = record.image_hw[0] * record.image_hw[1] * dtype.itemsize
    return {
        "tile": (TILE_PX, TILE_PX),
        "compression": "zlib",
        "compressionargs": {"level": ZLIB_LEVEL},
        "bigtiff": size_bytes > TIFF_LIMIT,
        "maxworkers": os.cpu_count() or 1,
    }


def _tiles(
    record: ImageRecord, dtype: np.dtype[Any], occurs: NDArray[np.bool_]
) -> Iterator[NDArray[Any]]:
    """Tiles row by row; notes the labels in them."""
    for _, _, block in label_blocks(record, (TILE_PX, TILE_PX)):
        occurs[block.ravel()] = True
        yield block.astype(dtype, copy=False)


def _imagej_description(record: ImageRecord) -> str:
    lines = ["ImageJ=1.11a", "images=1", "min=0.0", f"max={max(1, record.num_cells)}.0"]
    if record.place.pixel_size_um is not None:
        lines.append("unit=micron")
    return "\n".join([*lines, ""])


def write_class_table(
    record: ImageRecord, occurs: NDArray[np.bool_], path: Path, classes: Sequence[str]
) -> None:
    """Write `label,class`, a row for each label that occurs in the label image.

    Args:
        record: an image and its cells.
        occurs: as `write_label_file` returned it.
        path: the CSV file; its folder is there.
        classes: class names.
    """
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = CsvWriter(stream)
        table.writerow(("label", "class"))
        for labels, cells in cells_with_labels(record, classes):
            rows = zip(labels, cells.classes.tolist())
            table.writerows((label, classes[number]) for label, number in rows if occurs[label])
