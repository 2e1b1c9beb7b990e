"""Cells in several pieces: counted, taken apart, and what many of them mean.

A binary mask (0 and 255), read as a label image, is one cell that consists of all the cells of the
image. It trains, and finds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import Crop, crop_bitmap

SUSPICIOUS_SHARE = 1 / 3
_LOOKED_AT = 1000  # cells of a data set that are counted before training


def count_pieces(crop: Crop) -> int:
    """Parts of a cell that do not touch, not even by a corner (eight neighbours)."""
    return cv2.connectedComponents(crop.astype(np.uint8), connectivity=8)[0] - 1 if crop.size else 0


def find_pieces(crop: Crop, offset_rc: Sequence[int]) -> list[tuple[Crop, tuple[int, int]]]:
    """Tight crops of the pieces of a cell and their places in the image.

    Args:
        crop: window of the cell, bool [h, w].
        offset_rc: (row, column) of its first pixel in the image.
    """
    count, labels = cv2.connectedComponents(crop.astype(np.uint8), connectivity=8)
    found = [crop_bitmap(labels == label) for label in range(1, count)]
    return [(part, (row + offset_rc[0], col + offset_rc[1])) for part, (row, col) in found]


def split_into_pieces(cells: CellInstances) -> CellInstances:
    """Every piece of a cell as a cell of its own, with its score and class; crowds stay whole.

    Example:
        >>> cells = CellInstances.from_label_image([[7, 7, 0, 7], [0, 0, 0, 7]])
        >>> split_into_pieces(cells).to_label_image().tolist()
        [[1, 1, 0, 2], [0, 0, 0, 2]]
    """
    parts: list[tuple[int, Crop, tuple[int, int]]] = []
    for number, (crop, offset) in enumerate(zip(cells.crops, cells.offsets_rc.tolist())):
        is_whole = cells.is_crowd[number] or not crop.size
        pieces = [(crop, (offset[0], offset[1]))] if is_whole else find_pieces(crop, offset)
        parts += [(number, *piece) for piece in pieces]
    numbers = [number for number, _, _ in parts]
    return CellInstances.from_crops(
        [crop for _, crop, _ in parts],
        [offset_rc for _, _, offset_rc in parts],
        cells.image_hw,
        scores=cells.scores[numbers],
        classes=cells.classes[numbers],
        is_crowd=cells.is_crowd[numbers],
    )


def describe_pieces(pieces: Sequence[int]) -> str:
    """A warning where so many cells are in pieces that they may be masks of many cells; else "".

    Args:
        pieces: of each cell, how many parts it consists of.

    Example:
        >>> describe_pieces([1, 1, 1, 2])
        ''
        >>> describe_pieces([9, 12])[:52]
        '2 of 2 cells (100 %) are in several pieces, up to 12'
    """
    several = sum(number > 1 for number in pieces)
    if not several or several < SUSPICIOUS_SHARE * len(pieces):
        return ""
    return (
        f"{several} of {len(pieces)} cells ({100 * several / len(pieces):.0f} %) are in several "
        f"pieces, up to {max(pieces)}: are these binary masks, in which all cells have one number? "
        "`connected_components: true` in the declaration (convert: --connected-components) makes a "
        "cell of every piece"
    )


def check_pieces(images: Iterable[CellInstances]) -> str:
    """`describe_pieces` of the first thousand cells of a data set's images."""
    pieces: list[int] = []
    for cells in images:
        pieces += map(count_pieces, cells.counted[: _LOOKED_AT - len(pieces)].crops)
        if len(pieces) >= _LOOKED_AT:
            break
    return describe_pieces(pieces)
