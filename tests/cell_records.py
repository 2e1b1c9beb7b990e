"""Records from bitmaps, and what is in records as bitmaps, boxes and plain tuples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord, PlaceInFile
from pycocotools import mask as coco_mask


def make_record(
    image_id: str,
    path: Path | None,
    masks: Any,
    image_hw: tuple[int, int] | None = None,
    **how: Any,
) -> ImageRecord:
    """A record of bitmaps [N, H, W]; `how` has classes, scores and is_crowd."""
    hw = image_hw or np.shape(masks)[1:]
    cells = CellInstances.from_bitmaps(np.asarray(masks, bool).reshape(-1, *hw))
    return ImageRecord(image_id, cells.replace(**how), path)


def bitmaps_of(record: ImageRecord) -> np.ndarray:
    """bool [N, H, W], by way of the cells' RLEs."""
    masks = [coco_mask.decode(rle) for rle in record.cells.to_rles()]
    return np.array(masks, bool).reshape(-1, *record.image_hw)


def boxes_of(record: ImageRecord) -> list[tuple[float, ...]]:
    return [tuple(box) for box in record.cells.boxes_xyxy.tolist()]


def names_of(record: ImageRecord, classes: Sequence[str]) -> list[str]:
    return [classes[number] for number in record.cells.classes]


def content_of(record: ImageRecord) -> tuple[Any, ...]:
    """Everything but the image's file, comparable."""
    cells = record.cells
    return (
        record.image_id,
        record.image_hw,
        [rle["counts"] for rle in cells.to_rles()],
        boxes_of(record),
        cells.classes.tolist(),
        cells.is_crowd.tolist(),
        cells.scores.tolist(),
    )


def contents_of(records: Sequence[ImageRecord]) -> list[tuple[Any, ...]]:
    return [content_of(record) for record in records]


@dataclass
class BatchedRecord:
    """A record that gives its cells in batches only, as those of images larger than memory."""

    record: ImageRecord
    batch_size: int

    def __post_init__(self) -> None:
        self.image_id, self.image_path = self.record.image_id, self.record.image_path
        self.place: PlaceInFile = self.record.place
        self.image_hw, self.num_cells = self.record.image_hw, self.record.num_cells

    @property
    def cells(self) -> CellInstances:
        raise AssertionError("all cells at once are more than the memory holds")

    def batches(self) -> Iterator[CellInstances]:
        for start in range(0, self.num_cells, self.batch_size):
            yield self.record.cells[start : start + self.batch_size]
