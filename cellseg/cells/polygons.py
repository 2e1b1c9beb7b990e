"""Cells as polygons along pixel edges, and polygons as pixels.

A *ring* is a closed outline, an array [K, 2] of (x, y) in image coordinates whose last point is
joined to its first. The pixel of row r and column c covers [c, c + 1] x [r, r + 1]; its centre is
(c + 0.5, r + 0.5). Outer rings run clockwise as seen on the screen (y points down), holes
counter-clockwise. Pixels that touch at a corner only are not joined (4-connectivity).

How outlines are traced, for a cell (#) of four pixels in a window of six:

    # # .      0-------1       An outline turns only at the numbered vertices, the corners. They
    # . #      |       |       are found by the four pixels around each vertex and numbered row by
               |   2---3---4   row. Vertex 3 is a crossing: two pixels of the cell touch there.
               |   |   |   |
               5---6   7---8

In every row of vertices the outline runs from the first corner to the second, from the third to
the fourth, and so on, a crossing counting twice: 0-1, 2-3, 3-4, 5-6, 7-8. Columns likewise: 0-5,
2-6, 1-3, 3-7, 4-8. Each edge is directed so that the cell lies on its right, and edges across and
down alternate along the outline; where two edges begin, at a crossing, the outline turns right,
which keeps it at the same pixel. The walks are 0 1 3 2 6 5 and 3 4 8 7, the rings of two pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from cellseg.arguments import IMAGE_HW, checked, is_numeric, several
from cellseg.cells.labels import Crop, crop_bitmap
from cellseg.cells.run_lengths import IntArray
from cellseg.errors import LabelError
from cellseg.rules import Rule
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

Ring = NDArray[Any]

# A vertex is described by which of the four pixels around it belong to the cell.
_UPPER_LEFT, _UPPER_RIGHT, _LOWER_LEFT, _LOWER_RIGHT = 1, 2, 4, 8
_CROSSINGS = (_UPPER_LEFT + _LOWER_RIGHT, _UPPER_RIGHT + _LOWER_LEFT)
_STRAIGHT = (0, 3, 5, 10, 12, 15)  # no pixel, a half, or all
_IMAGEJ_SHIFT = 1e-8  # px, by which ImageJ moves edges to the right
_IS_CORNER = ~np.isin(np.arange(16), _STRAIGHT)

_CROP = Rule(
    "an array [h, w] of True and False",
    lambda value: is_numeric(value) and np.ndim(value) == 2,
    (list, tuple, np.ndarray),
)
_RING = Rule(
    "(x, y) of the points of a ring, [K, 2]",
    lambda value: is_numeric(value) and np.size(value) % 2 == 0 and np.ndim(value) in (1, 2),
    (list, tuple),
)


@checked(crop=_CROP, offset_rc=IMAGE_HW.said("(row, column), two whole numbers"))
def crop_to_rings(crop: ArrayLike, offset_rc: Sequence[int] = (0, 0)) -> list[IntArray]:
    """Outlines of one cell along its pixels' edges.

    Args:
        crop: window of the cell, bool [h, w]; may have holes and several pieces, need not be
            tight, may be empty.
        offset_rc: (row, column) of the crop's first pixel in the image.

    Returns:
        Rings of corners, int64 [K, 2] as (x, y), each simple (it meets itself nowhere): one outer
        ring per piece and one ring per hole; none for a cell without a pixel.

    Example:
        >>> [ring.tolist() for ring in crop_to_rings([[True, True]], (5, 2))]
        [[[2, 5], [4, 5], [4, 6], [2, 6]]]
        >>> [ring.tolist() for ring in crop_to_rings([[True, True, False], [True, False, True]])]
        [[[0, 0], [2, 0], [2, 1], [1, 1], [1, 2], [0, 2]], [[2, 1], [3, 1], [3, 2], [2, 2]]]
    """
    return crops_to_rings([np.asarray(crop, bool)], [offset_rc])[0]


def crops_to_rings(crops: Sequence[Crop], offsets_rc: ArrayLike) -> list[list[IntArray]]:
    """Outlines of many cells of one image; see `crop_to_rings`.

    Args:
        crops: one window per cell, bool [h, w].
        offsets_rc: (row, column) of each crop's first pixel in the image, [N, 2].

    Returns:
        The rings of each cell, in the order of the cells.
    """
    offsets = np.asarray(offsets_rc, np.int64).reshape(-1, 2)
    cells, rows, cols, kinds = _find_corners(crops, offsets)
    rings: list[list[IntArray]] = [[] for _ in crops]
    points = np.stack([cols, rows], axis=1)
    for walk in _trace(cells, rows, cols, kinds):
        cell = int(cells[walk[0]])
        rings[cell] += [points[loop] for loop in _simple_loops(walk)]
    return rings


def _find_corners(
    crops: Sequence[Crop], offsets_rc: IntArray
) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Cell, row, column and kind of every vertex at which an outline turns, in raster order."""
    kinds_at, places, widths = [], [], []
    for crop in crops:
        # A frame of background, so that every vertex has four pixels around it. The kind of a
        # vertex is the sum of the constants above of those that belong to the cell.
        framed = np.zeros((crop.shape[0] + 2, crop.shape[1] + 2), np.uint8)
        framed[1:-1, 1:-1] = crop
        kinds = framed[:-1, :-1] + 2 * framed[:-1, 1:] + 4 * framed[1:, :-1] + 8 * framed[1:, 1:]
        place = np.flatnonzero(_IS_CORNER[kinds])
        places.append(place)
        kinds_at.append(kinds.ravel()[place])
        widths.append(kinds.shape[1])
    if not crops:
        return (np.zeros(0, np.int64),) * 4
    cells = np.repeat(np.arange(len(crops)), [place.size for place in places])
    rows, cols = np.divmod(np.concatenate(places), np.array(widths, np.int64)[cells])
    rows, cols = rows + offsets_rc[cells, 0], cols + offsets_rc[cells, 1]
    return cells, rows, cols, np.concatenate(kinds_at).astype(np.int64)


def _trace(cells: IntArray, rows: IntArray, cols: IntArray, kinds: IntArray) -> Iterator[list[int]]:
    """Closed walks over the corners, each a list of corner numbers, cell on the right hand.

    The example at the top of this module shows how.
    """
    repeats = 1 + np.isin(kinds, _CROSSINGS)  # a crossing ends one edge and begins another
    across = np.repeat(np.arange(kinds.size), repeats).reshape(-1, 2)
    by_column = np.lexsort((rows, cols, cells))
    down = np.repeat(by_column, repeats[by_column]).reshape(-1, 2)
    # Directions: 0 is right or down, 1 is left or up.
    turns_left = (kinds[across[:, 0]] & _LOWER_RIGHT) == 0
    turns_up = (kinds[down[:, 0]] & _LOWER_LEFT) == 0
    across[turns_left] = across[turns_left, ::-1]
    down[turns_up] = down[turns_up, ::-1]
    after_across = _successors(across, turns_left, down, turns_up)
    after_down = _successors(down, ~turns_up, across, turns_left)
    following = after_down[after_across].tolist()
    starts, ends = across.T.tolist()
    seen = [False] * len(following)
    for first in range(len(following)):
        edge = first
        walk: list[int] = []
        while not seen[edge]:
            seen[edge] = True
            walk += (starts[edge], ends[edge])
            edge = following[edge]
        if walk:
            yield walk


def _successors(
    edges: IntArray, wanted: NDArray[np.bool_], others: IntArray, directions: NDArray[np.bool_]
) -> IntArray:
    """For each edge the number of the edge that follows it along the outline.

    Args:
        edges: corners where each edge begins and ends, [E, 2]; all across, or all down.
        wanted: for each edge the direction of the edge to its right, which follows it at a
            crossing: True is left or up.
        others: begins and ends of the edges that may follow: down if `edges` are across, and the
            other way round.
        directions: direction of each of the others: True is left or up.
    """
    order = np.lexsort((directions, others[:, 0]))
    begins = others[order, 0]
    place = np.searchsorted(begins, edges[:, 1])
    is_crossing = np.r_[begins[1:] == begins[:-1], False][place]
    return order[place + (is_crossing & wanted)]


def _simple_loops(walk: list[int]) -> list[list[int]]:
    """Cut a closed walk where it meets itself.

    Programs that check outlines (QuPath among them) refuse rings that touch themselves, but not
    holes that touch their outer ring or each other.

    Example:
        >>> _simple_loops([0, 1, 2, 3, 1, 4])
        [[0, 1, 4], [1, 2, 3]]
    """
    if len(set(walk)) == len(walk):
        return [walk]
    loops: list[list[int]] = []
    path: list[int] = []
    place: dict[int, int] = {}
    for corner in walk:
        if corner in place:
            begin = place[corner]
            loops.append(path[begin:])
            for passed in path[begin + 1 :]:
                del place[passed]
            del path[begin + 1 :]
        else:
            place[corner] = len(path)
            path.append(corner)
    return [path, *loops]


@checked(ring=_RING)
def ring_area(ring: ArrayLike) -> float:
    """Signed area in pixels by the shoelace formula: positive for outer rings.

    Args:
        ring: (x, y) of its points, [K, 2].
    """
    x, y = np.asarray(ring, np.float64).reshape(-1, 2).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def group_rings(rings: Sequence[IntArray]) -> list[list[IntArray]]:
    """Sort the rings of one cell into pieces: each an outer ring followed by its holes.

    Args:
        rings: all rings of one cell, as `crop_to_rings` returns them.

    Returns:
        One list per piece; none for a cell without rings.
    """
    if len(rings) == 1:  # most cells; their only ring is an outer one
        return [list(rings)]
    is_outer = [ring_area(ring) > 0 for ring in rings]
    outer = [ring for ring, yes in zip(rings, is_outer) if yes]
    holes = [ring for ring, yes in zip(rings, is_outer) if not yes]
    if len(outer) < 2 or not holes:
        return [[ring, *holes] for ring in outer]
    corner = np.concatenate(outer).min(axis=0)
    extent = np.concatenate(outer).max(axis=0) - corner
    crop = _fill([ring - corner for ring in rings], (0, int(extent[1])), (0, int(extent[0])))
    pieces, _ = ndimage.label(crop)
    groups: dict[int, list[IntArray]] = {}
    for ring in (*outer, *holes):
        row, col = _pixel_beside(ring - corner)
        groups.setdefault(int(pieces[row, col]), []).append(ring)
    return list(groups.values())


def _pixel_beside(ring: IntArray) -> tuple[int, int]:
    """Row and column of the pixel on the right hand of a ring's first edge."""
    (x, y), (to_x, to_y) = ring[:2].tolist()
    if y == to_y:
        return (y, x) if to_x > x else (y - 1, x - 1)
    return (y, x - 1) if to_y > y else (y - 1, x)


@checked(
    rings=several(words="a list of rings, each with (x, y) of its points [K, 2]"),
    image_hw=IMAGE_HW,
)
def rings_to_crop(
    rings: Sequence[ArrayLike], image_hw: tuple[int, int], *, as_imagej: bool = False
) -> tuple[Crop, tuple[int, int]]:
    """The pixels whose centres lie inside an odd number of rings.

    The inverse of `crop_to_rings`, and the pixels of outlines drawn by hand. A centre that lies
    on an edge belongs to the side to its right or below it, so that two cells with a common edge
    share no pixel and leave none out.

    Args:
        rings: closed rings of (x, y), [K, 2] each, integers or floats; the first point may be
            repeated at the end. Outer rings and holes come in any order and direction.
        image_hw: (height, width) of the image, pixels; what lies outside is cut off.
        as_imagej: a centre on an edge belongs to the side to its left or above it, as in ImageJ
            since 1.52u (its class PolygonFiller says so, and moves edges by 1e-8 for it). On
            outlines of whole numbers with steps of 45 degrees every centre is on an edge.

    Returns:
        The tight crop, bool [h, w], and (row, column) of its first pixel; a 0 x 0 crop at (0, 0)
        if there is no pixel (no ring, a ring without area, all outside the image).

    Raises:
        LabelError: a ring is not of shape [K, 2], or not finite.

    Example:
        >>> crop, offset_rc = rings_to_crop([[(0.4, 0.4), (2.4, 0.4), (0.4, 2.4)]], (5, 5))
        >>> crop.astype(int).tolist(), offset_rc
        ([[1, 1], [1, 0]], (0, 0))
        >>> triangle = [(0, 0), (2, 0), (0, 2)]
        >>> rings_to_crop([triangle], (5, 5))[0].astype(int).tolist()
        [[1]]
        >>> rings_to_crop([triangle], (5, 5), as_imagej=True)[0].astype(int).tolist()
        [[1, 1], [1, 0]]
    """
    arrays = [_check_ring(ring) for ring in rings]
    points = np.concatenate([np.zeros((0, 2)), *arrays])
    if not len(points):
        return np.zeros((0, 0), bool), (0, 0)
    limits = np.array([image_hw[1], image_hw[0]], np.float64)
    low = np.clip(np.floor(points.min(axis=0)), 0, limits).astype(np.int64)
    high = np.clip(np.ceil(points.max(axis=0)), 0, limits).astype(np.int64)
    window = (int(low[1]), int(high[1])), (int(low[0]), int(high[0]))
    filled = _fill(arrays, *window, as_imagej=as_imagej)
    crop, (row, col) = crop_bitmap(filled)
    return crop, (row + int(low[1]), col + int(low[0])) if crop.size else (0, 0)


def _check_ring(ring: ArrayLike) -> Ring:
    """The ring as float64 [K, 2]; LabelError if it is none."""
    try:
        array = np.asarray(ring, np.float64)
    except (ValueError, TypeError) as error:
        raise LabelError(f"a ring is a list of points (x, y); found {str(ring)[:80]}") from error
    if array.size == 0:
        return np.zeros((0, 2))
    if array.ndim != 2 or array.shape[1] != 2:
        raise LabelError(f"a ring is a list of points (x, y); found shape {list(array.shape)}")
    if not np.isfinite(array).all():
        raise LabelError("a ring has a coordinate that is not finite (NaN or infinite)")
    return array


def _fill(
    rings: Sequence[Ring],
    row_range: tuple[int, int],
    col_range: tuple[int, int],
    *,
    as_imagej: bool = False,
) -> NDArray[np.bool_]:
    """The pixels of a window whose centres lie inside an odd number of rings.

    Along each row of pixels the column is noted where an edge crosses the line through the
    centres, and every crossing toggles all pixels to its right. A triangle (0, 0), (3, 0), (0, 3)
    in a window of two rows and three columns:

        crossings      row 0: x = 0 and 2.5     row 1: x = 0 and 1.5
        toggles        1 0 1 | 0                1 1 0 | 0     at the centres behind them
        their sums     1 1 0 | 0                1 0 0 | 0     modulo 2: the pixels

    The last column is one more than the window has, for what begins to its right.

    Args:
        rings: checked rings of (x, y).
        row_range: first row of the window and the row behind its last.
        col_range: first column of the window and the column behind its last.
        as_imagej: which side has the centres on an edge; see `rings_to_crop`.
    """
    top, left = row_range[0], col_range[0]
    height, width = row_range[1] - top, col_range[1] - left
    begins = np.concatenate(rings).astype(np.float64)
    ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings]).astype(np.float64)
    # An edge is crossed by the rows whose centres lie in [lower y, upper y); ImageJ: (..., ...].
    spans = np.sort(np.stack([begins[:, 1], ends[:, 1]]) - (top + 0.5), axis=0)
    begin_rows = np.floor(spans) + 1 if as_imagej else np.ceil(spans)
    first, last = np.clip(begin_rows, 0, height).astype(np.int64)
    counts = last - first
    edges = np.repeat(np.arange(len(counts)), counts)
    rows = np.arange(edges.size) - np.repeat(np.cumsum(counts) - counts, counts) + first[edges]
    # From the upper end to the lower one, so that the common edge of two cells is rounded alike.
    is_upward = (ends[:, 1] < begins[:, 1])[:, None]
    begins, ends = np.where(is_upward, ends, begins), np.where(is_upward, begins, ends)
    (x, y), (to_x, to_y) = begins[edges].T, ends[edges].T
    cross_x = x + (rows + (top + 0.5) - y) * ((to_x - x) / (to_y - y))
    places = cross_x - (left + 0.5)
    begin_cols = np.floor(places + _IMAGEJ_SHIFT) + 1 if as_imagej else np.ceil(places)
    cols = np.clip(begin_cols, 0, width).astype(np.int64)
    # Every crossing toggles the rest of its row; each row has an even number of them, so that the
    # sum starts anew in the next.
    toggles = np.bincount(rows * (width + 1) + cols, minlength=height * (width + 1))
    inside = np.cumsum(toggles.astype(np.uint8), dtype=np.uint8) & 1
    return inside.reshape(height, width + 1)[:, :width].astype(bool)
