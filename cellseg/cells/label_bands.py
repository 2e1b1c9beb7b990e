"""The label image of a record, band by band or block by block: it never has to be there as a whole.

The pixels are those of `CellInstances.to_label_image`: cell k of all batches together has label
k + 1, and of cells that overlap the one with the higher score keeps the pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from cellseg.cells.instances import CellInstances, select_runs
from cellseg.cells.labels import Crop, label_dtype
from cellseg.cells.runs import runs_to_boxes, runs_to_crops
from cellseg.cells.windows import Window, crop_runs
from cellseg.errors import LabelError
from numpy.typing import NDArray


class CellSource(Protocol):
    """What is asked of a record: `ImageRecord`, or a `SpooledCells` with the cells on disk."""

    @property
    def image_hw(self) -> tuple[int, int]: ...

    @property
    def num_cells(self) -> int: ...

    def batches(self) -> Iterator[CellInstances]: ...


def label_bands(record: CellSource, rows_per_band: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """The label image from its top to its bottom, in bands as wide as the image.

    In memory are one band and the cells of those batches that reach into it.

    Args:
        record: its batches are ordered by position (the topmost row of each cell); a record with
            one batch may have its cells in any order.
        rows_per_band: height of a band, pixels; the last one may be lower.

    Yields:
        Number of the band's first row, and its labels [h, W], uint16 (uint32 from 65,536 cells
        on); every band is an array of its own.

    Raises:
        LabelError: a batch has a cell above one of an earlier batch.

    Example:
        >>> from cellseg.cells.records import ImageRecord
        >>> record = ImageRecord("a", CellInstances.from_label_image([[1, 0], [1, 2], [0, 2]]))
        >>> [(row, band.tolist()) for row, band in label_bands(record, 2)]
        [(0, [[1, 0], [1, 2]]), (2, [[0, 2]])]
    """
    height, width = record.image_hw
    waiting = _WaitingCells(record)
    dtype = label_dtype(record.num_cells)
    for top in range(0, height, rows_per_band):
        bottom = min(top + rows_per_band, height)
        band = np.zeros((bottom - top, width), dtype)
        window = Window(top, 0, bottom, width)
        for crop, (row, column), label in waiting.cells_in(window):
            rows, columns = crop.shape
            np.copyto(band[row : row + rows, column : column + columns], label, where=crop)
        yield top, band


def label_blocks(
    record: CellSource, block_hw: tuple[int, int]
) -> Iterator[tuple[int, int, NDArray[Any]]]:
    """The label image in blocks, row by row, as chunked files are written.

    Args:
        record: as for `label_bands`.
        block_hw: (height, width) of a block, pixels; those at the lower and right edge of the
            image may be smaller.

    Yields:
        Row and column of the block's first pixel, and its labels [h, w].
    """
    for top, band in label_bands(record, block_hw[0]):
        for left in range(0, band.shape[1], block_hw[1]):
            yield top, left, band[:, left : left + block_hw[1]]


class _WaitingCells:
    """The cells of a record that bands still need, with their labels."""

    def __init__(self, record: CellSource) -> None:
        self._batches = record.batches()
        self._cells = CellInstances.empty(record.image_hw)
        self._boxes = np.zeros((0, 4), np.int64)
        self._labels = np.zeros(0, np.int64)
        self._seen = 0
        self._lowest_top = -1

    def cells_in(self, window: Window) -> Iterator[tuple[Crop, tuple[int, int], int]]:
        """The parts of cells in a band, the one to be painted over by others first."""
        while self._lowest_top < window.bottom:
            batch = next(self._batches, None)
            if batch is None:
                break
            self._take(batch, window.top)
        self._keep(self._boxes[:, 3] > window.top)
        numbers = np.flatnonzero(self._boxes[:, 1] < window.bottom)
        last_first = np.lexsort((-self._labels[numbers], self._cells.scores[numbers]))
        numbers = numbers[last_first]
        runs = select_runs(self._cells.runs, numbers, len(self._cells))
        runs = crop_runs(runs, self._cells.image_hw[0], window)
        boxes = runs_to_boxes(runs, len(numbers), window.hw[0])
        crops, offsets_rc = runs_to_crops(runs, boxes, window.hw[0])
        yield from zip(crops, map(tuple, offsets_rc.tolist()), self._labels[numbers].tolist())

    def _take(self, batch: CellInstances, top: int) -> None:
        labels = self._seen + 1 + np.arange(len(batch))
        boxes = runs_to_boxes(batch.runs, len(batch), batch.image_hw[0])
        drawn = np.flatnonzero(~batch.is_crowd & (boxes[:, 3] > 0))
        if self._seen and drawn.size and boxes[drawn, 1].min() < max(top, 0):
            raise LabelError(
                f"a cell of a later batch begins in row {boxes[drawn, 1].min()}, above row {top} "
                "which is drawn already; batches are ordered by the topmost row of their cells"
            )
        self._seen += len(batch)
        self._lowest_top = max(self._lowest_top, int(boxes[drawn, 1].max(initial=-1)))
        self._cells = CellInstances.concatenate([self._cells, batch[drawn]], self._cells.image_hw)
        self._boxes = np.concatenate([self._boxes, boxes[drawn]])
        self._labels = np.concatenate([self._labels, labels[drawn]])

    def _keep(self, needed: NDArray[np.bool_]) -> None:
        if not needed.all():
            self._cells = self._cells[needed]
            self._boxes, self._labels = self._boxes[needed], self._labels[needed]
