"""Images and cells mirrored and turned: the eight ways to look at a square."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import Crop
from numpy.typing import NDArray


class Turning(NamedTuple):
    """One way to look at an image: mirrored, then turned.

    Attributes:
        mirrored: left and right are exchanged.
        turns: by 90 degrees, counter-clockwise, 0 to 3.

    Example:
        >>> turning = Turning(mirrored=False, turns=1)
        >>> labels = turning.turn_image(np.array([[1, 0, 2]]))
        >>> labels.tolist()
        [[2], [0], [1]]
        >>> cells = turning.turn_back(CellInstances.from_label_image(labels))
        >>> cells.to_label_image().tolist()
        [[1, 0, 2]]
    """

    mirrored: bool
    turns: int

    def turn_image(self, image: NDArray[Any]) -> NDArray[Any]:
        """A view [H, W] or [H, W, C] of an image, as this one looks at it; nothing is copied."""
        return np.rot90(image[:, ::-1] if self.mirrored else image, self.turns)

    def turn_back(self, cells: CellInstances) -> CellInstances:
        """Cells found in the turned image, in the frame of the image.

        Args:
            cells: in their order; predicted boxes become those of the masks' windows.
        """
        (height, width), turned = cells.image_hw, []
        for crop, offset_rc in zip(cells.crops, cells.offsets_rc.tolist()):
            turned.append(self._window_back(crop, offset_rc, (height, width)))
        return CellInstances.from_crops(
            [crop for crop, _ in turned],
            np.array([offset for _, offset in turned]).reshape(-1, 2),
            (width, height) if self.turns % 2 else (height, width),
            scores=cells.scores,
            classes=cells.classes,
            is_crowd=cells.is_crowd,
        )

    def _window_back(
        self, crop: Crop, offset_rc: tuple[int, int], image_hw: tuple[int, int]
    ) -> tuple[Crop, tuple[int, int]]:
        """One window of the turned image, and where it begins in the image."""
        (row, column), (height, width) = offset_rc, image_hw
        for _ in range(self.turns):  # a quarter turn clockwise each
            row, column = column, height - row - crop.shape[0]
            crop, (height, width) = np.rot90(crop, -1), (width, height)
        if self.mirrored:
            crop, column = crop[:, ::-1], width - column - crop.shape[1]
        return crop, (row, column)


TURNINGS = (
    Turning(False, 0),
    Turning(True, 0),
    Turning(True, 2),
    Turning(False, 2),
    Turning(True, 1),
    Turning(False, 1),
    Turning(False, 3),
    Turning(True, 3),
)
"""All eight; the image as it is first, then those that keep height and width."""
