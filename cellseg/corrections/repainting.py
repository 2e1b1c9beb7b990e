"""What somebody has painted, erased and filled in a label image, cell by cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cellseg.cells.labels import label_image_to_runs
from cellseg.cells.pieces import count_pieces
from cellseg.cells.runs import runs_to_boxes, runs_to_crops
from cellseg.cells.windows import Window
from cellseg.corrections.masks import Canvas, Mask, union_of, window_of
from numpy.typing import NDArray

HIGHEST_LABEL = 2**31
"""Labels from here on are given another number, so that there are numbers left."""


@dataclass(frozen=True)
class Repainted:
    """What came of a label image that was painted in.

    Attributes:
        new: id of each new cell by the label that it was painted with. The two differ where a cell
            that is gone has had the label: ids are never given twice. Then the label image is to be
            drawn anew (`CorrectedImage.label_image`).
        changed: cells of which pixels were erased, or which got more; they are accepted.
        painted_over: cells that only lost pixels to others. Nobody has said that the rest is right:
            they stay what they were.
        gone: cells without a pixel left; they are rejected.
        in_pieces: those of `new` and `changed` that consist of several pieces now, and did not
            before: a cell erased in the middle stays one cell. Splitting makes two of it.
    """

    new: dict[int, int] = field(default_factory=dict)
    changed: tuple[int, ...] = ()
    painted_over: tuple[int, ...] = ()
    gone: tuple[int, ...] = ()
    in_pieces: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.painted_over or self.gone)


def find_repainted(
    canvas: Canvas, painted: NDArray[Any], window: Window, next_id: int
) -> tuple[Repainted, dict[int, Mask]]:
    """Compare a painted window with the cells as they were.

    Args:
        canvas: the cells as they were.
        painted: the window's labels as they are, integers [h, w], not negative.
        window: where in the image it lies.
        next_id: the first id that no cell has had.

    Returns:
        What came of it, and the masks of the new cells, by their ids, and of those that have other
        pixels.
    """
    before = canvas.labels[window.rows, window.columns]
    differs = painted != before
    rows, columns = (np.flatnonzero(differs.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return Repainted(), {}
    inner = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    painted, before, differs = painted[inner], before[inner], differs[inner]
    top, left = window.top + int(rows[0]), window.left + int(columns[0])
    window = Window(top, left, top + painted.shape[0], left + painted.shape[1])
    was, now = before[differs].astype(np.int64), painted[differs].astype(np.int64)
    there = set(canvas.masks)
    new = dict(
        _give_ids([one for one in np.unique(now).tolist() if one and one not in there], next_id)
    )
    touched = [one for one in np.union1d(was, now).tolist() if one in there]
    masks = _masks_of([*new, *touched], canvas, painted, window)
    masks = {new.get(one, one): mask for one, mask in masks.items()}
    gone = tuple(one for one in touched if one not in masks)
    active = set(now.tolist()) | set(was[now == 0].tolist())
    changed = tuple(one for one in touched if one in masks and one in active)
    lost = tuple(one for one in touched if one in masks and one not in active)
    pieces = [
        one
        for one in (*new.values(), *changed)
        if count_pieces(masks[one][0]) > 1
        and (one not in there or count_pieces(canvas.masks[one][0]) == 1)
    ]
    return Repainted(new, changed, lost, gone, tuple(pieces)), masks


def _give_ids(labels: list[int], next_id: int) -> Iterator[tuple[int, int]]:
    """An id for each new label: the label, unless a cell has had it."""
    own = [one for one in labels if next_id <= one < HIGHEST_LABEL]
    free = max([next_id - 1, *own]) + 1
    for label in labels:
        if label in own:
            yield label, label
        else:
            yield label, free
            free += 1


def _masks_of(
    labels: list[int], canvas: Canvas, painted: NDArray[Any], window: Window
) -> dict[int, Mask]:
    """The masks of some labels after the painting, of those that have a pixel."""
    around = [window_of(canvas.masks[one]) for one in labels if one in canvas.masks]
    frame = union_of([window, *around])
    assert frame is not None
    after = canvas.labels[frame.rows, frame.columns].astype(np.int64)
    top, left = window.top - frame.top, window.left - frame.left
    after[top : top + window.hw[0], left : left + window.hw[1]] = painted
    after[~np.isin(after, labels)] = 0
    ids, runs = label_image_to_runs(after)
    height = frame.hw[0]
    crops, offsets_rc = runs_to_crops(runs, runs_to_boxes(runs, len(ids), height), height)
    places = (offsets_rc + np.array([frame.top, frame.left])).tolist()
    return {
        one: (crop, (row, column)) for one, crop, (row, column) in zip(ids.tolist(), crops, places)
    }
