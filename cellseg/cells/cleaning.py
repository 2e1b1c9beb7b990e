"""Masks of one piece and without holes, and cells at the edge of the image.

Pixels of a cell that touch at a corner are of one piece, and so a corner is no way out of a hole:
the two connectivities of the plane, 8 for the cell and 4 for what is around it.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from cellseg.arguments import MASK, checked
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import Crop, crop_bitmap
from cellseg.cells.overlaps import cell_windows
from numpy.typing import NDArray

Mask = tuple[Crop, tuple[int, int]]
"""The window of a cell, bool [h, w], and (row, column) of its first pixel."""

NewMasks = Mapping[int, Mask]
"""Number of a cell to its new mask."""


def clean_masks(
    cells: CellInstances, one_piece: NDArray[np.bool_], without_holes: NDArray[np.bool_]
) -> tuple[CellInstances, NDArray[np.bool_]]:
    """First the largest component of some masks, then the holes of some filled.

    Args:
        cells: N cells.
        one_piece: bool [N], whose largest component is kept.
        without_holes: bool [N], whose holes are filled.

    Returns:
        The cells, of which those that change have tight windows and all the boxes that they had;
        and bool [N], which have other pixels than before.
    """
    found: dict[int, Mask] = {}
    for number in np.flatnonzero(one_piece | without_holes).tolist():
        crop = cells.crops[number]
        cleaned = largest_component(crop) if one_piece[number] else crop
        cleaned = fill_holes(cleaned) if without_holes[number] else cleaned
        if cleaned is not crop:
            window, (row, column) = crop_bitmap(cleaned)
            top, left = cells.offsets_rc[number].tolist()
            found[number] = window, (top + row, left + column)
    return replace_masks(cells, found)


def replace_masks(cells: CellInstances, new: NewMasks) -> tuple[CellInstances, NDArray[np.bool_]]:
    """The cells with other masks of some; the same object if none changes.

    Args:
        cells: N cells.
        new: the new masks of some of them.

    Returns:
        The cells with the boxes that they had, and bool [N], which are in `new`.
    """
    changed = np.zeros(len(cells), bool)
    changed[list(new)] = True
    if not new:
        return cells, changed
    crops, offsets_rc = list(cells.crops), cells.offsets_rc.copy()
    for number, (crop, offset_rc) in new.items():
        crops[number], offsets_rc[number] = crop, offset_rc
    replaced = CellInstances.from_crops(
        crops,
        offsets_rc,
        cells.image_hw,
        scores=cells.scores,
        classes=cells.classes,
        boxes_xyxy=cells.boxes_xyxy,
        is_crowd=cells.is_crowd,
    )
    return replaced, changed


@checked(mask=MASK)
def largest_component(mask: Crop) -> Crop:
    """The piece with the most pixels; of equal ones that which is first met row by row.

    Args:
        mask: bool [h, w].

    Returns:
        bool [h, w]; the same array if the mask is of one piece, or empty.

    Example:
        >>> largest_component(np.array([[True, False, True, True]])).astype(int).tolist()
        [[0, 0, 1, 1]]
    """
    if not mask.size:
        return mask
    count, labels = cv2.connectedComponents(_as_bytes(mask), connectivity=8, ltype=cv2.CV_32S)
    if count <= 2:  # background and one piece
        return mask
    areas = np.bincount(labels.ravel(), minlength=count)
    areas[0] = 0
    flat = labels.ravel()
    first = int(np.argmax(areas[flat] == areas.max()))  # OpenCV promises no order of labels
    return np.asarray(labels == flat[first])


@checked(mask=MASK)
def fill_holes(mask: Crop) -> Crop:
    """The mask and all background from which no way along pixel sides leads out of it.

    Args:
        mask: bool [h, w].

    Returns:
        bool [h, w]; the same array if there is no hole.

    Example:
        >>> ring = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0]], bool)
        >>> fill_holes(ring).astype(int).tolist()
        [[1, 1, 1], [1, 1, 1], [0, 1, 0]]
    """
    if min(mask.shape) < 3:
        return mask
    around = np.ones((mask.shape[0] + 2, mask.shape[1] + 2), np.uint8)
    np.logical_not(mask, out=around[1:-1, 1:-1].view(bool))
    count, labels = cv2.connectedComponents(around, connectivity=4, ltype=cv2.CV_32S)
    if count <= 2:  # the mask, and what is outside
        return mask
    return np.asarray(labels[1:-1, 1:-1] != labels[0, 0])


def _as_bytes(mask: Crop) -> NDArray[np.uint8]:
    return np.ascontiguousarray(mask).view(np.uint8)


def touches_border(cells: CellInstances) -> NDArray[np.bool_]:
    """Which cells have a pixel in the first or last row or column of the image, bool [N]."""
    touching = np.zeros(len(cells), bool)
    height, width = cells.image_hw
    windows = cell_windows(cells)
    reach = (windows[:, :2] == 0).any(axis=1) | (windows[:, 2:] == (height, width)).any(axis=1)
    for number in np.flatnonzero(reach).tolist():
        crop, (top, left, bottom, right) = cells.crops[number], windows[number].tolist()
        touching[number] = (
            (top == 0 and crop[:1].any())
            or (left == 0 and crop[:, :1].any())
            or (bottom == height and crop[-1:].any())
            or (right == width and crop[:, -1:].any())
        )
    return touching
