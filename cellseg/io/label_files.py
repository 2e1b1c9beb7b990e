"""Cells as a label image, for Fiji, QuPath, napari, CellProfiler and every Python reader."""

from __future__ import annotations

from pathlib import Path

import tifffile
from cellseg.cells.instances import CellInstances
from cellseg.files import write_whole


def write_label_image(cells: CellInstances, path: str | Path) -> None:
    """Write the cells of one image as a zlib-compressed TIFF of the image's size.

    Pixel value 0 is background and k + 1 is cell k; uint16, uint32 above 65,535 cells. Where
    cells overlap, the one with the higher score keeps the pixel, so a cell that others cover
    wholly does not occur. An image without cells is all 0.

    Args:
        cells: the cells of one image.
        path: ends in .tif or .tiff by custom; folders are made; replaced only when complete.
    """
    with write_whole(path) as partial:
        tifffile.imwrite(
            partial, cells.to_label_image(by_score=True), compression="zlib", metadata=None
        )
