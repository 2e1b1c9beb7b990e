"""An image and its cells: what every file format reads and writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellseg.arguments import check_fields, of_type
from cellseg.cells.instances import CellInstances
from cellseg.rules import PATH, TEXT


@dataclass(frozen=True)
class PlaceInFile:
    """Which plane of a file an image is, and how large its pixels are.

    Attributes:
        position: axis letter and number from 0 along each axis of several planes, such as
            `(("T", 3), ("Z", 0))`.
        scene: name of the scene, series or position; "" where the file has one only.
        pixel_size_um: (height, width) of a pixel in micrometres; None where nobody said.
        downsample: pixels of the file's finest level along the side of a pixel; above 1 where a
            coarser level of a slide was looked at.
        scale: what the sides of the image were multiplied by to look for its cells, where their
            diameter decided it; None where it was looked at as it is.
        page: its number among the planes of the file, from 0, where a data set has the planes of a
            stack as images of their own; None where the file is the image.
    """

    position: tuple[tuple[str, int], ...] = ()
    scene: str = ""
    pixel_size_um: tuple[float, float] | None = None
    downsample: float = 1.0
    scale: float | None = None
    page: int | None = None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> PlaceInFile:
        """The place of which `dataclasses.asdict` was written as JSON."""
        place = dict(content)
        place["position"] = tuple((axis, number) for axis, number in place["position"])
        if place["pixel_size_um"] is not None:
            place["pixel_size_um"] = tuple(place["pixel_size_um"])
        return cls(**place)


_RULES = {
    "image_id": TEXT,
    "cells": of_type(CellInstances, "cells (CellInstances)"),
    "image_path": PATH,
    "place": of_type(PlaceInFile, "a PlaceInFile"),
}


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image and its cells, true or predicted.

    Attributes:
        image_id: names the image within its data set; usually the stem of its file.
        cells: may be empty; crowd regions are among them, with their flag. A cell's class is a
            place in the list of class names that belongs to the data set.
        image_path: the image's file; None where only the cells are known.
        place: which plane of the file it is; the only one by default.
    """

    image_id: str
    cells: CellInstances
    image_path: Path | None = None
    place: PlaceInFile = PlaceInFile()

    def __eq__(self, other: object) -> bool:
        """Whether two records say the same of one image, the cells in the same order."""
        return (
            isinstance(other, ImageRecord)
            and (self.image_id, self.image_path) == (other.image_id, other.image_path)
            and self.place == other.place
            and self.cells.equals(other.cells)
        )

    def __post_init__(self) -> None:
        check_fields(self, _RULES)

    __hash__ = None  # type: ignore[assignment]

    @property
    def image_hw(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.cells.image_hw

    @property
    def num_cells(self) -> int:
        """How many cells and crowd regions there are."""
        return len(self.cells)

    def batches(self) -> Iterator[CellInstances]:
        """The cells, in pieces that fit into memory; all have the frame of the whole image.

        Cell k of all pieces taken together has label k + 1. Writers of formats go through these
        pieces, so that an image of any size can be written.
        """
        yield self.cells
