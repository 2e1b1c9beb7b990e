"""Detections that share pixels: which of them is a cell, and whose the pixels are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np
from cellseg.cells.cleaning import Mask, NewMasks, largest_component
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import Crop, IntArray, crop_bitmap
from cellseg.cells.overlaps import Overlaps
from cellseg.cells.runs import find_shared_pixels
from cellseg.cells.thresholds import DetectionThresholds, flags_of_classes, values_of_classes
from numpy.typing import NDArray

_ROUNDING = 1e-6  # pixels; a share times an area is seldom a whole number


def find_own_overlaps(cells: CellInstances, *, across_classes: bool = False) -> Overlaps:
    """Pairs of detections of one image that share pixels, each pair once.

    The detection of the higher score (of equal ones that of the lower number) is `true_index`,
    which is not ascending here.

    Args:
        cells: the detections.
        across_classes: find pairs of different classes too; otherwise those of one class only.
    """
    pairs = find_shared_pixels(cells.runs, len(cells))
    first, second, shared_px = pairs.earlier, pairs.later, pairs.pixels
    if not across_classes:
        same = cells.classes[first] == cells.classes[second]
        first, second, shared_px = first[same], second[same], shared_px[same]
    later_is_better = cells.scores[second] > cells.scores[first]
    better = np.where(later_is_better, second, first)
    worse = np.where(later_is_better, first, second)
    areas_px = cells.areas_px
    iou = shared_px / (areas_px[better] + areas_px[worse] - shared_px)
    return Overlaps((len(cells), len(cells)), better, worse, shared_px, iou)


def suppress(
    cells: CellInstances,
    areas_px: IntArray,
    overlaps: Overlaps,
    thresholds: DetectionThresholds,
    kept: NDArray[np.bool_],
    judged: NDArray[np.bool_] | None = None,
) -> NDArray[np.bool_]:
    """NMS of masks and the covered share, both at once and by descending score.

    Args:
        cells: N detections; their masks are not looked at.
        areas_px: int64 [N], their areas.
        overlaps: pairs of detections as `find_own_overlaps` gives them; those of two classes play
            no part.
        thresholds: `mask_nms` and `max_covered` are looked at.
        kept: bool [N], which are cells so far; the others suppress nothing.
        judged: bool [N], which may be suppressed; by default all.

    Returns:
        bool [N], which are cells.
    """
    kept = kept.copy()
    limits = values_of_classes(thresholds.mask_nms, cells.classes)
    shares = values_of_classes(thresholds.max_covered, cells.classes)
    left_px = np.where(shares < 1, shares * areas_px, np.inf)
    better, worse = overlaps.true_index, overlaps.pred_index
    suppressed = overlaps.iou > limits[better]
    matters = kept[better] & kept[worse] & (suppressed | (shares[worse] < 1))
    rivals = np.flatnonzero(matters if judged is None else matters & judged[worse])
    rivals = rivals[cells.classes[better[rivals]] == cells.classes[worse[rivals]]]
    # By descending score of the better one: whether it stays is settled when its turn comes.
    rivals = rivals[np.lexsort((better[rivals], -cells.scores[better[rivals]]))]
    columns = (better, worse, suppressed, overlaps.intersection_px)
    for winner, loser, at_once, shared_px in zip(*(each[rivals].tolist() for each in columns)):
        if kept[winner]:
            left_px[loser] -= shared_px
            if at_once or left_px[loser] < -_ROUNDING:
                kept[loser] = False
    return kept


def share_out_pixels(
    cells: CellInstances,
    overlaps: Overlaps,
    thresholds: DetectionThresholds,
    kept: NDArray[np.bool_],
    final: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.bool_], NewMasks]:
    """Give every pixel to one cell, by descending score.

    Each cell keeps the pixels that none kept before it; where `largest_component` holds for it,
    the largest piece of them. If that is no pixel, or fewer than `min_area_px`, it is no cell, and
    the pixels are free for those behind it.

    Args:
        cells: N detections.
        overlaps: all pairs that share pixels, across classes too (`find_own_overlaps`).
        thresholds: `exclusive` says which classes take part.
        kept: bool [N], which are cells so far; the others have no pixels.
        final: bool [N], which lose nothing, since they have no pixel too many; by default none.

    Returns:
        bool [N], which are cells; and the masks of those that lost pixels.
    """
    kept, new = kept.copy(), dict[int, Mask]()
    takes_part = kept & flags_of_classes(thresholds.exclusive, cells.classes)
    one_piece = flags_of_classes(thresholds.largest_component, cells.classes)
    least_px = np.maximum(values_of_classes(thresholds.min_area_px, cells.classes), 1)
    for number in np.flatnonzero(takes_part).tolist():
        kept[number] = cells.crops[number].any()
    loses = takes_part if final is None else takes_part & ~final
    for loser, winners in _losers(cells, overlaps, takes_part, loses):
        mask, offset_rc = cells.crops[loser].copy(), cells.offsets_rc[loser].tolist()
        for winner in winners:
            if kept[winner]:
                taken, taken_rc = new.get(winner) or (
                    cells.crops[winner],
                    cells.offsets_rc[winner].tolist(),
                )
                _take_away(mask, offset_rc, taken, taken_rc)
        if np.array_equal(mask, cells.crops[loser]):
            continue
        if one_piece[loser]:
            mask = largest_component(mask)
        crop, (row, column) = crop_bitmap(mask)
        kept[loser] = np.count_nonzero(crop) >= least_px[loser]
        new[loser] = crop, (offset_rc[0] + row, offset_rc[1] + column)
    return kept, {number: mask for number, mask in new.items() if kept[number]}


def _losers(
    cells: CellInstances,
    overlaps: Overlaps,
    takes_part: NDArray[np.bool_],
    loses: NDArray[np.bool_],
) -> Iterator[tuple[int, list[int]]]:
    """Each cell that may lose pixels, by descending score, with those that may take them."""
    better, worse = overlaps.true_index, overlaps.pred_index
    pairs = np.flatnonzero(takes_part[better] & loses[worse])
    pairs = pairs[np.lexsort((worse[pairs], -cells.scores[worse[pairs]]))]
    listed = zip(worse[pairs].tolist(), better[pairs].tolist())
    for loser, group in groupby(listed, key=lambda pair: pair[0]):
        yield loser, [winner for _, winner in group]


def _take_away(
    mask: Crop, offset_rc: tuple[int, int], taken: Crop, taken_rc: tuple[int, int]
) -> None:
    """Clear the pixels of a window that another one has."""
    top, left = max(offset_rc[0], taken_rc[0]), max(offset_rc[1], taken_rc[1])
    bottom = min(offset_rc[0] + mask.shape[0], taken_rc[0] + taken.shape[0])
    right = min(offset_rc[1] + mask.shape[1], taken_rc[1] + taken.shape[1])
    if top < bottom and left < right:
        rows, columns = slice(top, bottom), slice(left, right)
        mask[_moved(rows, offset_rc[0]), _moved(columns, offset_rc[1])] &= ~taken[
            _moved(rows, taken_rc[0]), _moved(columns, taken_rc[1])
        ]


def _moved(span: slice, start: int) -> slice:
    return slice(span.start - start, span.stop - start)
