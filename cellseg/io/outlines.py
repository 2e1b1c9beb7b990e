"""From outlines in an annotation file to the record of its image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from cellseg.cells.polygons import rings_to_crop
from cellseg.errors import LabelError
from cellseg.io.base import Problems, make_cells
from cellseg.io.per_image import Pair, classes_of_cells
from cellseg.io.records import CellRecord


@dataclass(frozen=True)
class Outline:
    """One object of a file.

    Attributes:
        name: what messages call it.
        rings: its closed rings of (x, y); a pixel inside an odd number of them belongs to it.
        class_name: name of its class in the file; None where it has none.
        is_crowd: a region of uncounted cells.
    """

    name: str
    rings: Sequence[Any]
    class_name: str | None = None
    is_crowd: bool = False


def outlines_to_record(
    pair: Pair,
    image_hw: tuple[int, int],
    outlines: Sequence[Outline],
    classes: tuple[str, ...],
    *,
    where_from: str,
    problems: Sequence[str] = (),
) -> CellRecord | Problems:
    """The record of an image, or all that is wrong with its outlines.

    Args:
        pair: the image and the annotation file.
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
            found.append(f"{pair.annotation}: {outline.name}: {error}")
            continue
        if not crop.size:
            found.append(
                f"{pair.annotation}: {outline.name}: no pixel of the image ({image_hw[1]} x "
                f"{image_hw[0]}, width x height) has its centre inside: delete the object"
            )
        crops.append(crop)
        offsets.append(offset_rc)
    named = [(outline.name, outline.class_name) for outline in outlines]
    names, unknown = classes_of_cells(named, classes, where_from)
    found += [f"{pair.annotation}: {text}" for text in unknown]
    if found:
        return found
    cells = make_cells(crops, np.array(offsets, np.int64).reshape(-1, 2), image_hw, names)
    marked = tuple(
        replace(cell, is_crowd=True) if outline.is_crowd else cell
        for cell, outline in zip(cells, outlines)
    )
    return CellRecord(pair.image_id, pair.image, image_hw, marked)
