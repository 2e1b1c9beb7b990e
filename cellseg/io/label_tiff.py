"""Label images as TIFF files, of any size."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from cellseg.cells.label_bands import CellSource, label_blocks
from cellseg.cells.labels import label_dtype
from numpy.typing import NDArray

LARGE_PX = 2**25
"""Label images of more pixels are written in tiles, smaller ones in one piece."""
BLOCK_PX = 512
_TIFF_LIMIT = 2**32 - 2**25  # bytes; a file without "Big" has 32-bit addresses


def write_labels(
    record: CellSource, path: Path, is_visible: NDArray[np.bool_] | None = None
) -> None:
    """Write the label image of a record as a compressed TIFF; whole or, if large, in tiles.

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
    how: dict[str, Any] = {"compression": "zlib", "metadata": None}
    if not is_large:
        whole = next(blocks, np.zeros((height, width), np.uint16))
        tifffile.imwrite(path, whole, **how)
        return
    dtype = np.dtype(label_dtype(record.num_cells))
    how |= {"tile": (BLOCK_PX, BLOCK_PX), "bigtiff": height * width * dtype.itemsize > _TIFF_LIMIT}
    workers = os.cpu_count() or 1
    tifffile.imwrite(path, blocks, shape=(height, width), dtype=dtype, maxworkers=workers, **how)


def _noting_labels(
    blocks: Iterable[tuple[int, int, NDArray[Any]]], is_visible: NDArray[np.bool_] | None
) -> Iterator[NDArray[Any]]:
    for _, _, block in blocks:
        if is_visible is not None:
            is_visible[block] = True
        yield block
