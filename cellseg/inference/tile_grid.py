"""Where the tiles of an image lie: what each one reads, and which cells it answers for.

Along one axis, for three tiles, with `m` the margin of half the overlap and the context:

    core      |<---- tile_px ---->|<---- tile_px ---->|<-- the rest ---->|
    window 0  [                       m  ]
    window 1                [ m                           m  ]
    window 2                                  [     m                    ]
              0                                                       length

The cores partition the image. Windows reach a margin beyond their cores on every side that is not
the image's edge; there they are moved inwards, so that all windows of a large image are of one
size, `tile_px` and two margins. Nothing is ever padded. The last core takes what is left, up to
`tile_px` and a margin, so a narrow rest makes no tile of its own.

A cell whose box is no longer than the overlap lies inside the window of the tile whose core holds
the middle of the box, with the context to spare. Cores begin at multiples of `tile_px`: where that
is a multiple of the chunks' (or TIFF tiles') size, no two tiles write into one chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from cellseg.cells.run_lengths import IntArray
from cellseg.cells.windows import Window
from cellseg.errors import InputValueError
from numpy.typing import NDArray

EDGE_PX = 2
"""A box that comes as near to an inner edge of a window counts as cut by it: the box of a cell
that is cut is predicted to within a pixel or two."""


@dataclass(frozen=True)
class Tile:
    """One piece of work.

    Attributes:
        number: place in the grid, row by row, from 0.
        row, column: row and column of the grid, from 0.
        core: the part of the image that this tile alone has.
        window: the part that is read, around the core.
    """

    number: int
    row: int
    column: int
    core: Window
    window: Window


@dataclass(frozen=True)
class TileGrid:
    """All tiles of an image, row by row; see the head of this module. May be pickled.

    Args:
        image_hw: (height, width) of the image, pixels.
        tile_px: side of a core, at least 1.
        overlap_px: length of the largest cell expected; cells up to it are never cut.
        context_px: what the network needs to see around a cell, beyond the overlap; at least
            `EDGE_PX` are taken.

    Raises:
        InputValueError: a length is out of range.

    Example:
        >>> grid = TileGrid((500, 1200), tile_px=512, overlap_px=60, context_px=34)
        >>> grid.shape, [tile.core.columns for tile in grid.tiles]
        ((1, 2), [slice(0, 512, None), slice(512, 1200, None)])
        >>> [tile.window.columns for tile in grid.tiles]
        [slice(0, 640, None), slice(448, 1200, None)]
    """

    image_hw: tuple[int, int]
    tile_px: int
    overlap_px: int
    context_px: int

    def __post_init__(self) -> None:
        least = {"tile_px": 1, "overlap_px": 0, "context_px": 0}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise InputValueError(
                    f"{name} is {getattr(self, name)}; expected {lowest} or more pixels"
                )
        if min(self.image_hw) < 0:
            raise InputValueError(f"image_hw is {self.image_hw}; expected (height, width), pixels")

    @property
    def margin_px(self) -> int:
        """How far a window reaches beyond its core: half the overlap, rounded up, and context."""
        return (self.overlap_px + 1) // 2 + max(self.context_px, EDGE_PX)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns of tiles."""
        return len(self.row_spans.cores), len(self.column_spans.cores)

    def __len__(self) -> int:
        return self.shape[0] * self.shape[1]

    @cached_property
    def row_spans(self) -> Spans:
        """Where the rows of tiles lie."""
        return Spans.of_axis(self.image_hw[0], self.tile_px, self.margin_px)

    @cached_property
    def column_spans(self) -> Spans:
        """Where the columns of tiles lie."""
        return Spans.of_axis(self.image_hw[1], self.tile_px, self.margin_px)

    @property
    def tiles(self) -> Iterator[Tile]:
        """All tiles, row by row; none for an image without a pixel."""
        return map(self.tile, range(len(self)))

    def tile(self, number: int) -> Tile:
        """The tile of a number."""
        row, column = divmod(number, self.shape[1])
        rows, columns = self.row_spans, self.column_spans
        (top, bottom), (left, right) = rows.cores[row].tolist(), columns.cores[column].tolist()
        core = Window(top, left, bottom, right)
        (top, bottom), (left, right) = rows.windows[row].tolist(), columns.windows[column].tolist()
        return Tile(number, row, column, core, Window(top, left, bottom, right))

    def interior(self, tile: Tile) -> Window:
        """The part of a tile's window that no other tile reads; may be empty (bottom <= top)."""
        top, bottom = self.row_spans.interiors[tile.row].tolist()
        left, right = self.column_spans.interiors[tile.column].tolist()
        return Window(top, left, bottom, right)

    def tiles_of(self, boxes_xyxy: IntArray) -> IntArray:
        """Number of the tile whose core holds the middle of each box, int64 [N].

        Args:
            boxes_xyxy: int64 [N, 4], boxes inside the image, x1 and y1 exclusive.
        """
        x0, y0, x1, y1 = boxes_xyxy.T
        rows = self.row_spans.holding((y0 + y1) // 2)
        return rows * self.shape[1] + self.column_spans.holding((x0 + x1) // 2)

    def are_whole(self, boxes_xyxy: IntArray, numbers: IntArray) -> NDArray[np.bool_]:
        """Which boxes lie inside the window of a tile, clear of its inner edges, bool [N].

        Args:
            boxes_xyxy: int64 [N, 4], as above.
            numbers: int64 [N], the tile that each box is seen in.
        """
        x0, y0, x1, y1 = boxes_xyxy.T
        rows, columns = np.divmod(numbers, self.shape[1])
        return self.row_spans.contain(y0, y1, rows) & self.column_spans.contain(x0, x1, columns)


@dataclass(frozen=True, eq=False)
class Spans:
    """Tiles along one axis: [first, last) of each, int64 [T, 2], ascending.

    Attributes:
        length: of the image along this axis, pixels.
        cores: partition [0, length).
        windows: what is read.
    """

    length: int
    cores: IntArray
    windows: IntArray

    @classmethod
    def of_axis(cls, length: int, tile_px: int, margin_px: int) -> Spans:
        """The tiles of an axis; none for length 0."""
        count = min(length, 1)
        if length > tile_px + 2 * margin_px:
            count = -(-(length - margin_px) // tile_px)
        starts = np.arange(count) * tile_px
        ends = np.append(starts[1:], length)[:count]
        size = tile_px + 2 * margin_px
        first = np.clip(starts - margin_px, 0, max(length - size, 0))
        windows = np.stack([first, np.minimum(first + size, length)], axis=1)
        return cls(length, np.stack([starts, ends], axis=1), windows)

    @property
    def interiors(self) -> IntArray:
        """The part of each window that no other one reads, int64 [T, 2]; last <= first: none."""
        if not len(self.windows):
            return self.windows
        first = np.r_[0, self.windows[:-1, 1]]
        return np.stack([first, np.r_[self.windows[1:, 0], self.length]], axis=1)

    @property
    def seams(self) -> IntArray:
        """Where windows begin or end inside the image, ascending, int64 [S]."""
        edges = np.unique(self.windows)
        return edges[(edges > 0) & (edges < self.length)]

    def holding(self, places: IntArray) -> IntArray:
        """Number of the core that holds each place."""
        return np.searchsorted(self.cores[:, 0], places, side="right") - 1

    def contain(self, first: IntArray, last: IntArray, numbers: IntArray) -> NDArray[np.bool_]:
        """Which of [first, last) lie inside window `numbers`, clear of its inner edges."""
        starts, ends = self.windows[numbers].T
        after = (first >= starts + EDGE_PX) | ((starts == 0) & (first >= 0))
        before = (last <= ends - EDGE_PX) | ((ends == self.length) & (last <= self.length))
        return after & before
