"""One cell cut in two along a drawn line, and several joined to one."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from cellseg.cells.labels import Crop
from cellseg.cells.windows import Window
from cellseg.corrections.masks import Labels, Mask, paste, tight, union_of, window_of
from cellseg.errors import CorrectionError
from numpy.typing import NDArray

GAP_PX = 2
"""Free pixels between cells that touch all the same, as whoever merges them sees it: programs leave
such lines between cells. They are filled."""

_FARTHEST = 2**20  # pixels from the window; of a line beyond nothing matters but its direction
_POINTS_AT_ONCE = 2**20


def split_mask(mask: Mask, line_rc: NDArray[np.float64], name: str) -> tuple[Mask, Mask]:
    """The two parts of a cell on both sides of a line.

    The line is drawn one pixel wide, such that no step of it can be slipped through, not even by a
    corner. What is left of the cell falls into pieces; each belongs to the side of the line on
    which most of its pixels beside the line are. Pieces that the line does not touch, and the
    pixels below it, go to the nearer side.

    Args:
        mask: of the cell.
        line_rc: float [K, 2], (row, column) of the line's points in the image; a pixel's centre
            has whole numbers.
        name: of the cell, for messages.

    Returns:
        The larger part and the smaller one; together they have the cell's pixels.

    Raises:
        CorrectionError: the line does not divide the cell.
    """
    inner = window_of(mask)
    window = Window(inner.top - 1, inner.left - 1, inner.bottom + 1, inner.right + 1)
    cell = paste(mask, window)
    points = line_rc - (window.top, window.left)
    below = _draw_line(points, window.hw)
    count, numbers = cv2.connectedComponents((cell & ~below).view(np.uint8), connectivity=8)
    pieces = np.asarray(numbers, np.int32)
    beside = cell & ~below & cv2.dilate(below.view(np.uint8), np.ones((3, 3), np.uint8)).view(bool)
    touched = np.unique(pieces[beside])
    if len(touched) < 2:
        raise CorrectionError(
            f"the line does not divide {name}: draw it from outside the cell through it to the "
            "outside again. Nothing was changed"
        )
    sides = _choose_sides(pieces, beside, points, count)
    parts = _share_out(cell, [np.isin(pieces, np.flatnonzero(sides == one)) for one in (1, -1)])
    halves = sorted((tight(part, window[:2]) for part in parts), key=lambda one: -one[0].sum())
    return halves[0], halves[1]


def _draw_line(points: NDArray[np.float64], hw: tuple[int, int]) -> Crop:
    """The pixels of a line whose steps share an edge, which parts what is joined by a corner."""
    canvas = np.zeros(hw, np.uint8)
    corners = np.rint(np.clip(points, -_FARTHEST, _FARTHEST)).astype(np.int32)[:, ::-1]
    cv2.polylines(canvas, [np.ascontiguousarray(corners)], False, 1, 1, cv2.LINE_4)
    return canvas.view(bool)


def _choose_sides(
    pieces: NDArray[np.int32], beside: Crop, points: NDArray[np.float64], count: int
) -> NDArray[np.int64]:
    """1 or -1 for each piece that the line touches, by its number; 0 for the others."""
    rows_columns = np.argwhere(beside)
    votes = np.bincount(pieces[beside], _signs(rows_columns, points), minlength=count)
    sides = np.sign(votes).astype(np.int64)
    sides[0] = 0
    if not ((sides > 0).any() and (sides < 0).any()):  # such as a line that crosses itself
        touched = np.unique(pieces[beside])
        areas = np.bincount(pieces.ravel(), minlength=count)
        sides[touched] = -1
        sides[touched[np.argmax(areas[touched])]] = 1
    return sides


def _signs(places_rc: NDArray[np.int64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """On which side of the nearest stretch of a line each place lies: 1, -1, or 0 on it."""
    starts, steps = points[:-1], np.diff(points, axis=0)
    lengths = np.maximum((steps**2).sum(axis=1), 1e-12)
    signs = np.zeros(len(places_rc))
    at_once = max(1, _POINTS_AT_ONCE // len(starts))
    for begin in range(0, len(places_rc), at_once):
        away = places_rc[begin : begin + at_once, None, :] - starts
        along = np.clip((away * steps).sum(axis=2) / lengths, 0, 1)
        distances = ((away - along[..., None] * steps) ** 2).sum(axis=2)
        nearest = distances.argmin(axis=1)
        turn = steps[:, 0] * away[..., 1] - steps[:, 1] * away[..., 0]
        signs[begin : begin + at_once] = np.sign(turn[np.arange(len(nearest)), nearest])
    return signs


def _share_out(cell: Crop, parts: Sequence[Crop]) -> tuple[Crop, Crop]:
    """Give the pixels of a cell that no part has to the nearer one, in doubt to the first."""
    first, second = (
        cv2.distanceTransform((~part).view(np.uint8), cv2.DIST_L2, 5) for part in parts
    )
    return cell & (first <= second), cell & (first > second)


def join_masks(masks: dict[int, Mask], labels: Labels, *, apart: bool = False) -> Mask:
    """One mask of several; free pixels in a narrow gap between them become part of it.

    Args:
        masks: of the cells by id, two or more.
        labels: the label image, uint32 [H, W].
        apart: cells that lie apart are joined as they are, to a cell in pieces.

    Raises:
        CorrectionError: some are more than `GAP_PX` pixels apart, and `apart` is False.
    """
    inner = union_of(window_of(mask) for mask in masks.values())
    assert inner is not None
    margin = GAP_PX + 1
    window = Window(
        inner.top - margin, inner.left - margin, inner.bottom + margin, inner.right + margin
    )
    joined = np.zeros(window.hw, bool)
    for mask in masks.values():
        joined |= paste(mask, window)
    count = _groups(masks, joined, window)[0]
    if count > 1:
        closed = joined | (_close(joined) & _free(labels, window))
        count, groups = _groups(masks, closed, window)
        if count == 1:
            return tight(_bridges(joined, closed), window[:2])
        if not apart:
            one, other = (min(group) for group in groups[:2])
            raise CorrectionError(
                f"the cells {one} and {other} do not touch: there are more than {GAP_PX} pixels, "
                "or another cell, between them. `apart` makes one cell in pieces of them. Nothing "
                "was changed"
            )
    return tight(joined, window[:2])


def _close(mask: Crop) -> Crop:
    """A mask whose narrow gaps are filled."""
    square = np.ones((GAP_PX + 1, GAP_PX + 1), np.uint8)  # an odd side, or the mask would move
    return cv2.morphologyEx(mask.view(np.uint8), cv2.MORPH_CLOSE, square).view(bool)


def _free(labels: Labels, window: Window) -> Crop:
    """Which pixels of a window, which may reach beyond the image, no cell has."""
    free = np.zeros(window.hw, bool)
    top, left = max(window.top, 0), max(window.left, 0)
    part = labels[top : max(window.bottom, 0), left : max(window.right, 0)] == 0
    row, column = top - window.top, left - window.left
    free[row : row + part.shape[0], column : column + part.shape[1]] = part
    return free


def _bridges(joined: Crop, closed: Crop) -> Crop:
    """What was joined, and what closing added where it links pieces; not the dents it filled."""
    _, pieces = cv2.connectedComponents(joined.view(np.uint8), connectivity=8)
    count, added = cv2.connectedComponents((closed & ~joined).view(np.uint8), connectivity=4)
    result = joined.copy()
    around = np.ones((3, 3), np.uint8)
    for number in range(1, count):
        part = added == number
        near = np.unique(pieces[cv2.dilate(part.view(np.uint8), around).view(bool)])
        if np.count_nonzero(near) > 1:
            result |= part
    return result


def _groups(masks: dict[int, Mask], joined: Crop, window: Window) -> tuple[int, list[set[int]]]:
    """How many groups of cells there are that hang together by the pieces of a mask."""
    _, pieces = cv2.connectedComponents(joined.view(np.uint8), connectivity=8)
    groups: list[tuple[set[int], set[int]]] = []
    for one, mask in masks.items():
        ids, own = {one}, set(np.unique(pieces[paste(mask, window)]).tolist())
        apart = []
        for known in groups:
            if known[1] & own:
                ids, own = ids | known[0], own | known[1]
            else:
                apart.append(known)
        groups = [*apart, (ids, own)]
    return len(groups), [ids for ids, _ in groups]
