"""What people draw in annotation programs, sorted: outlines of cells, points, boxes, lines.

Outlines and masks are cells. Points mark or count and are left out with a warning; boxes and lines
are errors, boxes in one line: no one can tell which pixels of a box are the cell's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import Crop
from cellseg.errors import DatasetError
from cellseg.io.base import Problems
from cellseg.io.outlines import Outline, outlines_to_cells
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

BOX_ADVICE = (
    "a box says where a cell is and not which pixels it has: draw outlines or masks, or delete it"
)
_ELLIPSE_POINTS = 256
_SHOWN = 5


@dataclass
class DrawnShapes:
    """The shapes of one image.

    Attributes:
        outlines: of cells.
        points, boxes: what messages call these.
        problems: lines about the others.
    """

    outlines: list[Outline] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    boxes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add_polygon(self, name: str, points: Any, class_name: str | None) -> None:
        """A closed outline of (x, y); with fewer than three points it is a problem."""
        try:
            ring = np.asarray(points, np.float64).reshape(-1, 2)
        except (TypeError, ValueError) as error:
            self.problems.append(f"{name}: its points are no numbers: {error}")
            return
        if len(ring) < 3:
            self.problems.append(f"{name}: an outline has three points or more; found {len(ring)}")
            return
        self.outlines.append(Outline(name, [ring], class_name))

    def add_mask(
        self, name: str, crop: Crop, offset_rc: tuple[int, int], class_name: str | None
    ) -> None:
        """Pixels [h, w] and the (row, column) of the first."""
        self.outlines.append(Outline(name, [], class_name, mask=(crop, offset_rc)))

    def to_cells(
        self, path: Path, image_hw: tuple[int, int], classes: tuple[str, ...], where_from: str
    ) -> CellInstances | Problems:
        """The cells, or what is wrong; points are left out with a warning.

        Args:
            path: the annotation file.
            image_hw: (height, width) of the image, pixels.
            classes: declared names.
            where_from: where a cell would have the name of its class.
        """
        lines = [f"{path}: {text}" for text in self.problems]
        if self.boxes:
            lines.append(f"{path}: {describe_boxes(self.boxes)}")
        if self.points:
            shown = ", ".join(self.points[:_SHOWN]) + (", ..." if len(self.points) > _SHOWN else "")
            logger.warning(
                "%s: %d points are no cells and left out: %s", path, len(self.points), shown
            )
        return outlines_to_cells(
            path, image_hw, self.outlines, classes, where_from=where_from, problems=lines
        )


def describe_boxes(names: Sequence[str]) -> str:
    """One line for all boxes."""
    number = f"{len(names)} boxes" if len(names) > 1 else "a box"
    return f"{number} without an outline (the first: {names[0]}): {BOX_ADVICE}"


def ellipse_ring(
    centre_xy: tuple[float, float], radii_xy: tuple[float, float], angle_rad: float = 0.0
) -> NDArray[np.float64]:
    """Points of an ellipse, (x, y); positive angles turn from x towards y, clockwise on screen."""
    angles = np.arange(_ELLIPSE_POINTS) * (2 * np.pi / _ELLIPSE_POINTS)
    x, y = radii_xy[0] * np.cos(angles), radii_xy[1] * np.sin(angles)
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return np.stack([centre_xy[0] + x * cos - y * sin, centre_xy[1] + x * sin + y * cos], axis=1)


def runs_to_crop(counts: Sequence[int], shape_hw: tuple[int, int]) -> Crop:
    """The mask of row-major runs, background and cell by turns.

    Raises:
        DatasetError: they do not add up to the mask's pixels.

    Example:
        >>> runs_to_crop([1, 2, 1], (2, 2)).astype(int).tolist()
        [[0, 1], [1, 0]]
    """
    lengths = np.asarray(counts, np.int64)
    if (lengths.size and lengths.min() < 0) or lengths.sum() != shape_hw[0] * shape_hw[1]:
        raise DatasetError(
            f"runs that add up to {lengths.sum()}; a mask of {shape_hw[1]} x {shape_hw[0]} (width "
            f"x height) has {shape_hw[0] * shape_hw[1]} pixels"
        )
    return np.repeat(np.arange(lengths.size) % 2 == 1, lengths).reshape(shape_hw)
