"""From outlines in an annotation file to the cells of its image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.polygons import rings_to_crop
from cellseg.errors import LabelError
from cellseg.io.base import Problems
from cellseg.io.per_image import classes_of_cells


@dataclass(frozen=True)
class Outline:
    """One object of a file.

    Attributes:
        name: what messages call it.
        rings: its closed rings of (x, y); a pixel inside an odd number of them belongs to it.
        class_name: name of its class in the file; None where it has none.
        is_crowd: a region of uncounted cells.
        score: of a predicted cell; 1 where the file says nothing.
    """

    name: str
    rings: Sequence[Any]
    class_name: str | None = None
    is_crowd: bool = False
    score: float = 1.0


def outlines_to_cells(
    path: Path,
    image_hw: tuple[int, int],
    outlines: Sequence[Outline],
    classes: tuple[str, ...],
    *,
    where_from: str,
    problems: Sequence[str] = (),
) -> CellInstances | Problems:
    """The cells of an image, or all that is wrong with its outlines.

    Args:
        path: the annotation file, for messages.
        image_hw: (height, width) of the image, pixels.
        outlines: the cells in their order.
        classes: declared names.
        where_from: where a cell would have the name of its class, for a message.
        problems: what was wrong with other objects of the file.
    """
    found, crops, offsets = Problems(problems), [], []
    for outline in outlines:
        try:
            crop, offset_rc = rings_to_crop(outline.rings, image_hw)
        except LabelError as error:
            found.append(f"{path}: {outline.name}: {error}")
            continue
        if not crop.size:
            found.append(
                f"{path}: {outline.name}: no pixel of the image ({image_hw[1]} x "
                f"{image_hw[0]}, width x height) has its centre inside: delete the object"
            )
        crops.append(crop)
        offsets.append(offset_rc)
    named = [(outline.name, outline.class_name) for outline in outlines]
    numbers, unknown = classes_of_cells(named, classes, where_from)
    found += [f"{path}: {text}" for text in unknown]
    if found:
        return found
    return CellInstances.from_crops(
        crops,
        offsets,
        image_hw,
        scores=[outline.score for outline in outlines],
        classes=numbers,
        is_crowd=[outline.is_crowd for outline in outlines],
    )


def score_to_text(score: float) -> str:
    """The shortest decimal number that is read as the same single-precision score."""
    return str(np.float32(score))
