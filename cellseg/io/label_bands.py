"""The label image of a record in bands of rows, so that it never stands in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import Crop, label_dtype
from cellseg.cells.records import ImageRecord
from cellseg.errors import LabelError
from numpy.typing import NDArray


class _Cell(NamedTuple):
    """What is needed to draw one cell; of cells that overlap the later in order is on top."""

    score: float
    negative_label: int
    top: int
    left: int
    crop: Crop


def label_bands(record: ImageRecord, band_rows: int) -> Iterator[NDArray[Any]]:
    """Draw the cells band by band; together the bands are `CellInstances.to_label_image`.

    Held in memory are one band, the cells that reach into it, and one of the record's batches.

    Args:
        record: an image and its cells. Where it has several batches, their cells come by
            position, from the upper edge down, as those of predictions do.
        band_rows: rows of a band; the last one may have fewer.

    Yields:
        uint16 [rows, W], uint32 where there are 65,536 cells or more: 0 is background, k + 1 the
        cell k. Where cells overlap the higher score keeps the pixel, of equal scores the lower
        label. Crowd regions are not drawn.

    Raises:
        LabelError: a cell comes after the band that it begins in.

    Example:
        >>> cells = CellInstances.from_label_image([[0, 1], [2, 1], [2, 0]])
        >>> [band.tolist() for band in label_bands(ImageRecord("a", cells), 2)]
        [[[0, 1], [2, 1]], [[2, 0]]]
    """
    height, width = record.image_hw
    dtype = label_dtype(record.num_cells)
    coming = _from_the_top(record)
    following = next(coming, None)
    active: list[_Cell] = []
    for top in range(0, height, band_rows):
        band = np.zeros((min(band_rows, height - top), width), dtype)
        bottom = top + len(band)
        while following is not None and following.top < bottom:
            if following.top < top:
                raise LabelError(
                    f"{record.image_id}: the cells do not come by position: label "
                    f"{-following.negative_label} begins in row {following.top}, above row {top}"
                )
            active.append(following)
            following = next(coming, None)
        for cell in sorted(active, key=lambda one: one[:2]):
            _draw(band, top, cell)
        active = [cell for cell in active if cell.top + len(cell.crop) > bottom]
        yield band


def _from_the_top(record: ImageRecord) -> Iterator[_Cell]:
    """Cells that have a pixel and are counted; those of a batch by their first row."""
    before = 0
    for batch in record.batches():
        chosen = np.flatnonzero(~batch.is_crowd & (batch.areas_px > 0))
        yield from _sorted_cells(batch[chosen], before + 1 + chosen)
        before += len(batch)


def _sorted_cells(cells: CellInstances, labels: NDArray[np.int64]) -> Iterator[_Cell]:
    order = np.argsort(cells.offsets_rc[:, 0], kind="stable")
    columns = (cells.scores, -labels, *cells.offsets_rc.T)
    values = zip(*(column[order].tolist() for column in columns))
    for k, (score, negative_label, top, left) in zip(order.tolist(), values):
        yield _Cell(score, negative_label, top, left, cells.crops[k])


def _draw(band: NDArray[Any], top: int, cell: _Cell) -> None:
    first, last = max(cell.top, top), min(cell.top + len(cell.crop), top + len(band))
    part = cell.crop[first - cell.top : last - cell.top]
    window = band[first - top : last - top, cell.left : cell.left + cell.crop.shape[1]]
    window[part] = -cell.negative_label
