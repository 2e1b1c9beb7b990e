"""Time-lapses of discs and squares whose tracks are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import builders
import numpy as np
import tifffile
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord, PlaceInFile
from cellseg.cells.tracks import Tracks

HW = (60, 100)


def squares(*corners: tuple[int, int], size: int = 8) -> CellInstances:
    """Squares by their upper left (x, y), in an image of 60 x 100 pixels."""
    boxes = [(x, y, x + size, y + size) for x, y in corners]
    return rectangles(*boxes)


def rectangles(*boxes: tuple[int, int, int, int]) -> CellInstances:
    """Rectangles of half-open (x0, y0, x1, y1)."""
    masks = [builders.rectangle(HW, *box) for box in boxes]
    return CellInstances.from_bitmaps(np.array(masks, bool).reshape(-1, *HW))


def records(
    frames: Sequence[CellInstances], pixel_size_um: tuple[float, float] | None = None
) -> list[ImageRecord]:
    return [
        ImageRecord(
            f"frame_{number}", cells, place=PlaceInFile((("T", number),), "", pixel_size_um)
        )
        for number, cells in enumerate(frames)
    ]


def ids_of(tracks: Tracks) -> list[list[int]]:
    return [ids.tolist() for ids in tracks.ids]


def table_of(tracks: Tracks) -> list[tuple[int, int, int]]:
    """(first frame, last frame, parent) of track 1, 2, ..."""
    columns = (tracks.first, tracks.last, tracks.parents)
    return list(zip(*(column.tolist() for column in columns)))


DIVISION = [
    rectangles((10, 10, 26, 18)),
    rectangles((10, 10, 26, 18)),
    rectangles((8, 10, 17, 18), (19, 10, 28, 18)),
    rectangles((6, 10, 15, 18), (21, 10, 30, 18)),
]
"""A cell of 16 x 8 pixels that divides into two of 9 x 8 between frames 1 and 2."""

GAP = [squares((10, 10), (40, 10)), squares((40, 11)), squares((13, 10), (40, 12))]
"""Two cells, the left of which is missing in frame 1."""


def write_stack(path: Path, images: Sequence[np.ndarray]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.array(images), imagej=True, metadata={"axes": "TYX"})
    return path
