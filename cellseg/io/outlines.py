"""From outlines in an annotation file to the cells of its image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import Crop, crop_bitmap
from cellseg.cells.polygons import rings_to_crop
from cellseg.errors import LabelError
from cellseg.io.base import Problems
from cellseg.io.per_image import classes_of_cells

_MOST_SIDES = 100  # of the image, that an outline may reach from its corner


@dataclass(frozen=True)
class Outline:
    """One object of a file.

    Attributes:
        name: what messages call it.
        rings: its closed rings of (x, y); a pixel inside an odd number of them belongs to it.
        class_name: name of its class in the file; None where it has none.
        is_crowd: a region of uncounted cells.
        score: of a predicted cell; 1 where the file says nothing.
        mask: instead of rings, its pixels [h, w] and the (row, column) of the first of them.
    """

    name: str
    rings: Sequence[Any]
    class_name: str | None = None
    is_crowd: bool = False
    score: float = 1.0
    mask: tuple[Crop, tuple[int, int]] | None = None


def cut_to_image(
    crop: Crop, offset_rc: tuple[int, int], image_hw: tuple[int, int]
) -> tuple[Crop, tuple[int, int]]:
    """The part of a mask inside the image, as a tight crop and the place of its first pixel.

    Example:
        >>> crop, offset_rc = cut_to_image(np.ones((2, 3), bool), (-1, 2), (9, 4))
        >>> crop.shape, offset_rc
        ((1, 2), (0, 2))
    """
    row, col = offset_rc
    inside = crop[
        max(0, -row) : max(0, image_hw[0] - row), max(0, -col) : max(0, image_hw[1] - col)
    ]
    tight, (down, right) = crop_bitmap(inside)
    return tight, (max(row, 0) + down, max(col, 0) + right) if tight.size else (0, 0)


def outlines_to_cells(
    path: Path,
    image_hw: tuple[int, int],
    outlines: Sequence[Outline],
    classes: tuple[str, ...],
    *,
    where_from: str,
    problems: Sequence[str] = (),
    as_imagej: bool = False,
) -> CellInstances | Problems:
    """The cells of an image, or all that is wrong with its outlines.

    Args:
        path: the annotation file, for messages.
        image_hw: (height, width) of the image, pixels.
        outlines: the cells in their order.
        classes: declared names.
        where_from: where a cell would have the name of its class, for a message.
        problems: what was wrong with other objects of the file.
        as_imagej: which pixels an outline covers, by ImageJ's rule; see `rings_to_crop`.
    """
    found, crops, offsets = Problems(problems), [], []
    for outline in outlines:
        try:
            _check_reach(outline, image_hw)
            crop, offset_rc = (
                cut_to_image(*outline.mask, image_hw)
                if outline.mask
                else rings_to_crop(outline.rings, image_hw, as_imagej=as_imagej)
            )
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


def _check_reach(outline: Outline, image_hw: tuple[int, int]) -> None:
    """Raise LabelError for points so far outside that they are no part of this image."""
    most = _MOST_SIDES * max(image_hw)
    for ring in outline.rings:
        try:
            points = np.asarray(ring, np.float64).ravel()
        except (TypeError, ValueError):  # it is told of where it is filled
            continue
        far = points[np.isfinite(points) & (np.abs(points) > most)]
        if far.size:
            raise LabelError(
                f"a coordinate {far[0]:g} is far outside of the image ({image_hw[1]} x "
                f"{image_hw[0]}, width x height)"
            )


def score_to_text(score: float) -> str:
    """The shortest decimal number that is read as the same single-precision score."""
    return str(np.float32(score))
