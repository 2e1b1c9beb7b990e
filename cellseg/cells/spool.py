"""SpooledCells: the cells of an image that is larger than memory, kept on disk in batches."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import PlaceInFile
from cellseg.cells.runs import Runs
from cellseg.errors import LabelError
from numpy.typing import NDArray


class SpooledCells:
    """One image and its cells, which are appended to a temporary file and read back in batches.

    It has the attributes of an `ImageRecord`, so that writers of formats take either. The file has
    no name: the system removes it on `close`, and also when the process is killed. About 330
    bytes per cell of 25 pixels across.

    Args:
        folder: where the file lies, made if need be; best on the disk that results go to. None:
            where the system has its temporary files.
        image_hw: (height, width) of the image, pixels.
        image_id, image_path, place: as in `ImageRecord`.

    Attributes:
        image_hw, image_id, image_path, place: as given.
        num_cells: how many cells were appended.

    Example:
        >>> cells = CellInstances.from_label_image([[1, 2], [0, 2]])
        >>> with tempfile.TemporaryDirectory() as folder, SpooledCells(folder, (2, 2)) as spooled:
        ...     spooled.append(cells[:1])
        ...     spooled.append(cells[1:])
        ...     spooled.num_cells, [len(batch) for batch in spooled.batches()]
        (2, [1, 1])
    """

    def __init__(
        self,
        folder: str | Path | None,
        image_hw: tuple[int, int],
        image_id: str = "",
        image_path: Path | None = None,
        place: PlaceInFile | None = None,
    ) -> None:
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
        self.image_hw = (int(image_hw[0]), int(image_hw[1]))
        self.image_id = image_id
        self.image_path = image_path
        self.place = place or PlaceInFile()
        self.num_cells = 0
        self._batches: list[tuple[int, int, int]] = []  # place in the file, cells, runs
        self._size = 0
        pixels = self.image_hw[0] * self.image_hw[1]
        # The last run may end behind the last pixel.
        self._pixel_dtype = np.uint32 if pixels < np.iinfo(np.uint32).max else np.uint64
        self._file: Any = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (`close` closes it)

    def append(self, cells: CellInstances) -> None:
        """Keep one batch; its cells are numbered after those that are there.

        Args:
            cells: in the frame of the whole image; for `label_bands` the topmost row of each is
                not above that of the one before.

        Raises:
            LabelError: the cells of an image of another size.
        """
        if cells.image_hw != self.image_hw:
            raise LabelError(f"cells of an image of {cells.image_hw}; expected {self.image_hw}")
        if not len(cells):
            return
        runs = cells.runs
        columns = (
            cells.boxes_xyxy,
            cells.scores,
            cells.classes.astype(np.int32),
            cells.is_crowd,
            np.bincount(runs.cells, minlength=len(cells)).astype(np.uint32),
            runs.starts.astype(self._pixel_dtype),
            (runs.ends - runs.starts).astype(self._pixel_dtype),
        )
        written = b"".join(np.ascontiguousarray(column).tobytes() for column in columns)
        self._file.write(written)
        self._file.flush()
        self._batches.append((self._size, len(cells), runs.cells.size))
        self._size += len(written)
        self.num_cells += len(cells)

    def batches(self) -> Iterator[CellInstances]:
        """The cells in the batches that they were appended in; see `ImageRecord.batches`."""
        for place, num_cells, num_runs in self._batches:
            yield self._read(place, num_cells, num_runs)

    def _read(self, place: int, num_cells: int, num_runs: int) -> CellInstances:
        layout: tuple[tuple[int, Any], ...] = (
            (4 * num_cells, np.float32),
            (num_cells, np.float32),
            (num_cells, np.int32),
            (num_cells, np.bool_),
            (num_cells, np.uint32),
            (num_runs, self._pixel_dtype),
            (num_runs, self._pixel_dtype),
        )
        columns: list[NDArray[Any]] = []
        for count, dtype in layout:
            size = count * np.dtype(dtype).itemsize
            # Read at a place, not from where the file stands: several writers may be at work.
            columns.append(np.frombuffer(os.pread(self._file.fileno(), size, place), dtype))
            place += size
        boxes, scores, classes, is_crowd, counts, starts, lengths = columns
        first = starts.astype(np.int64)
        numbers = np.repeat(np.arange(num_cells), counts)
        return CellInstances.from_runs(
            Runs(numbers, first, first + lengths.astype(np.int64)),
            num_cells,
            self.image_hw,
            scores=scores,
            classes=classes,
            boxes_xyxy=boxes.reshape(-1, 4),
            is_crowd=is_crowd,
        )

    @property
    def cells(self) -> CellInstances:
        """All cells at once, in memory."""
        return CellInstances.concatenate(list(self.batches()), self.image_hw)

    def close(self) -> None:
        """Give the file up; the cells are gone."""
        self._file.close()

    def __enter__(self) -> SpooledCells:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
