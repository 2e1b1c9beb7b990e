"""Folders of corrections to test with, and what a test compares of an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from builders import write_png
from cellseg.cells.instances import CellInstances
from cellseg.corrections import CorrectedImage, CorrectionFolder

CLASSES = ("nucleus", "debris")


def write_image(path: Path, hw: tuple[int, int] = (20, 30), value: int = 40) -> Path:
    """A grey image that differs from others by its value."""
    return write_png(path, np.full(hw, value, np.uint8))


def new_folder(place: Path, *names: str, hw: tuple[int, int] = (20, 30)) -> CorrectionFolder:
    """A folder `corrections` with images of these names, which lie in `images`."""
    for number, name in enumerate(names or ("a",)):
        write_image(place / "images" / f"{name}.png", hw, 40 + number)
    folder = CorrectionFolder.open(place / "corrections", CLASSES, author="Ada")
    folder.add_images(place / "images")
    return folder


def squares() -> CellInstances:
    """Three squares of 4 x 4 pixels in an image of 20 x 30; the second and third touch.

    Scores 0.9, 0.5 and 0.7, classes 0, 1 and 0.
    """
    labels = np.zeros((20, 30), np.uint8)
    labels[2:6, 2:6] = 1
    labels[10:14, 2:6] = 2
    labels[10:14, 6:10] = 3
    return CellInstances.from_label_image(labels, classes=[0, 1, 0], scores=[0.9, 0.5, 0.7])


def look(image: CorrectedImage) -> dict[str, Any]:
    """All that is seen of an image, to be compared."""
    cells = image.cells
    return {
        "labels": image.label_image().tolist(),
        "ids": image.ids.tolist(),
        "states": image.states,
        "classes": cells.classes.tolist(),
        "scores": cells.scores.tolist(),
        "areas": cells.areas_px.tolist(),
        "counted": image.counted_region().tolist(),
        "is_done": image.is_done,
    }
