"""What one tile says about its cells, by itself: what is final, and what its neighbours decide.

This is the work that tiles do apart from each other, on other machines if need be; the result goes
to `cellseg.inference.stitching`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray
from cellseg.cells.runs import find_shared_pixels, runs_to_boxes
from cellseg.cells.selection import Stage, clean_detections
from cellseg.cells.thresholds import DetectionThresholds, passes_score
from cellseg.cells.tile_selection import select_in_tile
from cellseg.cells.windows import Window, move_cells
from cellseg.errors import LabelError
from cellseg.inference.tile_grid import Tile, TileGrid
from numpy.typing import NDArray

CENTRE_SLACK_PX = 4
"""Two tiles see the edge of a cell a pixel or two apart, so the middle of its box may lie outside
the core for both. A whole detection that is nearer than this to the core is kept as a spare, for
the case that no other tile has the cell."""


class Role(IntEnum):
    """What a detection is to its tile.

    INSIDE: no other tile reads any of its pixels.
    OWNED: whole, and the middle of its box lies in the core.
    SPARE: whole, but it belongs to another tile, which may have it cut or not at all.
    CUT: it touches an inner edge of the window.
    """

    INSIDE = 0
    OWNED = 1
    SPARE = 2
    CUT = 3


@dataclass(frozen=True, eq=False)
class TileCells:
    """Result of one tile; small, and may be pickled.

    Attributes:
        tile: number of the tile.
        cells: N cells and detections, in the frame of the whole image.
        stages: int64 [N], a `Stage`: only those INSIDE have come further than OPEN.
        roles: int64 [N], a `Role`.
        are_rivals: bool [N], those DONE that share pixels with one that is not.
        num_dropped: parts of cells that neighbours have, left out here.
    """

    tile: int
    cells: CellInstances
    stages: IntArray
    roles: IntArray
    are_rivals: NDArray[np.bool_]
    num_dropped: int


def sort_tile_cells(
    grid: TileGrid, tile: Tile, cells: CellInstances, thresholds: DetectionThresholds
) -> TileCells:
    """Sort the detections of a tile by what other tiles have to say about them.

    Left out at once: whole detections that belong to a tile which sees them whole as well, and cut
    ones that reach no pixel's row and column of the core: whoever has those pixels sees more.
    A cell larger than the overlap has pixels in some core, so none is lost by that.

    Detections without a pixel are left out too, since they have no position.

    Args:
        grid: all tiles.
        tile: the one that was looked at.
        cells: detections in the frame of `tile.window`. No detection may have been thrown away
            because of another one that the window cuts, so overlaps (NMS of masks, covered share)
            are not decided yet; those below the score may have been left out.
        thresholds: what a detection needs to be a cell.

    Raises:
        LabelError: `cells` are of another size than the window.
    """
    if cells.image_hw != tile.window.hw:
        raise LabelError(
            f"tile {tile.number} has cells of an image of {cells.image_hw}; its window has "
            f"{tile.window.hw} (rows, columns)"
        )
    found = move_cells(cells, (tile.window.top, tile.window.left), grid.image_hw)
    passed = passes_score(cells.scores, cells.classes, thresholds) & (found.areas_px > 0)
    found = found if passed.all() else found[passed]
    boxes = runs_to_boxes(found.runs, len(found), grid.image_hw[0])
    roles, needed = _find_roles(grid, tile, boxes)
    num_dropped = int(((roles == Role.CUT) & ~needed).sum())
    found, _ = clean_detections(found, thresholds, roles == Role.CUT)
    settled = select_in_tile(found, thresholds, roles != Role.INSIDE)
    roles, needed = roles[settled.numbers], needed[settled.numbers]
    are_rivals = share_pixels(settled.cells, settled.stages != Stage.DONE)
    are_rivals &= settled.stages == Stage.DONE
    return TileCells(
        tile.number,
        settled.cells[needed],
        settled.stages[needed],
        roles[needed],
        are_rivals[needed],
        num_dropped,
    )


def _find_roles(grid: TileGrid, tile: Tile, boxes: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
    """Role of each detection [N], and which are any of the tile's business, bool [N]."""
    owners = grid.tiles_of(boxes)
    is_whole = grid.are_whole(boxes, np.full(len(boxes), tile.number))
    is_mine = owners == tile.number
    roles = np.where(is_whole, np.where(is_mine, Role.OWNED, Role.SPARE), Role.CUT)
    roles[lie_in(boxes, grid.interior(tile))] = Role.INSIDE
    x0, y0, x1, y1 = boxes.T
    column, row = (x0 + x1) // 2, (y0 + y1) // 2
    middles = np.stack([column, row, column + 1, row + 1], axis=1)
    near = lie_in(middles, _grown(tile.core, CENTRE_SLACK_PX))
    is_needed = is_mine | near | ~grid.are_whole(boxes, owners)
    core = tile.core
    in_core = (y0 < core.bottom) & (y1 > core.top) & (x0 < core.right) & (x1 > core.left)
    return roles, np.where(is_whole, is_needed, in_core)


def lie_in(boxes_xyxy: IntArray, window: Window) -> NDArray[np.bool_]:
    """Which boxes lie in a window, bool [N]."""
    x0, y0, x1, y1 = boxes_xyxy.T
    inside = (y0 >= window.top) & (y1 <= window.bottom)
    return np.asarray(inside & (x0 >= window.left) & (x1 <= window.right))


def _grown(window: Window, by_px: int) -> Window:
    top, left, bottom, right = window
    return Window(top - by_px, left - by_px, bottom + by_px, right + by_px)


def share_pixels(cells: CellInstances, members: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the cells share pixels with another one that is among `members`, bool [N]."""
    pairs = find_shared_pixels(cells.runs, len(cells))
    found = np.zeros(len(cells), bool)
    found[pairs.earlier[members[pairs.later]]] = True
    found[pairs.later[members[pairs.earlier]]] = True
    return found
