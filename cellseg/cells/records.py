"""An image and its cells: what every file format reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cellseg.cells.instances import CellInstances


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image and its cells, true or predicted.

    Attributes:
        image_id: names the image within its data set; usually the stem of its file.
        cells: may be empty; crowd regions are among them, with their flag. A cell's class is a
            place in the list of class names that belongs to the data set.
        image_path: the image's file; None where only the cells are known.
    """

    image_id: str
    cells: CellInstances
    image_path: Path | None = None

    def __eq__(self, other: object) -> bool:
        """Whether two records say the same of one image, the cells in the same order."""
        return (
            isinstance(other, ImageRecord)
            and (self.image_id, self.image_path) == (other.image_id, other.image_path)
            and self.cells.equals(other.cells)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def image_hw(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.cells.image_hw
