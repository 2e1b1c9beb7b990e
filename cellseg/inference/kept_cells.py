"""The cells of one predicted image on disk, a line per cell, to be read back in pieces."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord, PlaceInFile
from cellseg.files import write_whole
from cellseg.io.coco_results import cells_to_coco_results, entries_to_cells

CELLS_AT_ONCE = 10_000

Json = dict[str, Any]


@dataclass(frozen=True)
class KeptRecord:
    """An image and its cells, which stay on disk until they are asked for; see `ImageRecord`."""

    path: Path
    image_id: str
    image_hw: tuple[int, int]
    num_cells: int
    image_path: Path | None = None
    place: PlaceInFile = field(default_factory=PlaceInFile)

    def entries(self) -> Iterator[str]:
        """COCO's result of each cell, as JSON text."""
        with self.path.open(encoding="utf-8") as stream:
            next(stream)
            yield from (line.rstrip("\n") for line in stream)

    def batches(self) -> Iterator[CellInstances]:
        """As `ImageRecord.batches`."""
        lines = self.entries()
        classes = json.loads(self._head())["category_ids"]
        numbers = {category: number for number, category in enumerate(classes)}
        while block := [json.loads(line) for line in islice(lines, CELLS_AT_ONCE)]:
            results = dict(enumerate(block))
            yield entries_to_cells(self.path, self.image_id, results, numbers, self.image_hw)

    def _head(self) -> str:
        with self.path.open(encoding="utf-8") as stream:
            return stream.readline()

    def load(self) -> ImageRecord:
        """The record with all its cells in memory."""
        return ImageRecord(self.image_id, self.cells, self.image_path, self.place)

    @property
    def cells(self) -> CellInstances:
        """All cells at once."""
        return CellInstances.concatenate(list(self.batches()), self.image_hw)


def keep_cells(record: ImageRecord, path: Path, category_ids: Sequence[int]) -> None:
    """Write the cells of an image, whole or not at all.

    Args:
        record: may be one that is gone through in pieces.
        path: of the file; its folder is made.
        category_ids: the category id of each class.
    """
    head = {
        "image_id": record.image_id,
        "image_hw": list(record.image_hw),
        "num_cells": record.num_cells,
        "image_path": None if record.image_path is None else str(record.image_path),
        "category_ids": list(category_ids),
        "place": asdict(record.place),
    }
    with write_whole(path) as partial, partial.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(head) + "\n")
        for cells in record.batches():
            for entry in cells_to_coco_results(record.image_id, cells, category_ids):
                stream.write(json.dumps(entry) + "\n")


def read_kept(path: Path) -> KeptRecord:
    """The record of a file that `keep_cells` wrote."""
    with path.open(encoding="utf-8") as stream:
        head: Json = json.loads(stream.readline())
    return KeptRecord(
        path,
        head["image_id"],
        (head["image_hw"][0], head["image_hw"][1]),
        head["num_cells"],
        None if head["image_path"] is None else Path(head["image_path"]),
        PlaceInFile.from_json(head["place"]),
    )
