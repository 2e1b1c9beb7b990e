"""How well the seams between tiles were closed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray
from cellseg.cells.runs import Runs, cut_at_line_ends
from cellseg.inference.tile_grid import Spans, TileGrid
from numpy.typing import NDArray

NONE, SEAM, INSIDE = 0, 1, 2


@dataclass
class EdgeCount:
    """Pixel pairs across lines, a pixel of a cell and what is on the other side of the line.

    Attributes:
        matched: the cell goes on.
        unmatched: it ends there.
    """

    matched: int = 0
    unmatched: int = 0

    @property
    def unmatched_share(self) -> float:
        """Share of the pairs in which a cell ends; 0 where there are none."""
        return self.unmatched / max(self.matched + self.unmatched, 1)


@dataclass
class SeamReport:
    """What happened at the seams of one image.

    A seam is where a window ends inside the image: there and nowhere else cells can be cut. As a
    measure of cut cells, it is counted how often a cell ends just there, and the same on equally
    many and long lines inside tiles, half a tile further on. Where both shares are alike no
    cells were cut.

    Args:
        grid: all tiles.

    Attributes:
        num_tiles, num_cells: counts.
        on_seams, inside_tiles: pixel pairs across the lines.
        num_joined: cells made of pieces, since they are larger than the overlap.
        num_pieces: what they were made of.
        num_cut: pieces that nothing could be joined to, kept as cells.
        num_dropped: pieces left out, since another tile has the cell.
    """

    grid: TileGrid
    num_cells: int = 0
    on_seams: EdgeCount = field(default_factory=EdgeCount)
    inside_tiles: EdgeCount = field(default_factory=EdgeCount)
    num_joined: int = 0
    num_pieces: int = 0
    num_cut: int = 0
    num_dropped: int = 0

    def __post_init__(self) -> None:
        self._rows = _kinds_of_lines(self.grid.row_spans, self.grid.tile_px)
        self._columns = _kinds_of_lines(self.grid.column_spans, self.grid.tile_px)

    @property
    def num_tiles(self) -> int:
        """How many tiles the image has."""
        return len(self.grid)

    @property
    def needs_more_overlap(self) -> bool:
        """Whether cells were larger than the overlap."""
        return self.num_joined + self.num_cut > 0

    def add(self, cells: CellInstances) -> None:
        """Count final cells, in the frame of the whole image."""
        self.num_cells += len(cells)
        if not len(cells) or len(self.grid) < 2:
            return
        height = cells.image_hw[0]
        runs = cut_at_line_ends(cells.runs, height)
        for kind, count in ((SEAM, self.on_seams), (INSIDE, self.inside_tiles)):
            for matched, unmatched in (
                _count_across_rows(runs, height, self._rows == kind),
                _count_across_columns(runs, height, self._columns == kind),
            ):
                count.matched += matched
                count.unmatched += unmatched

    def describe(self) -> str:
        """One line for the log."""
        words = [
            f"{self.num_tiles} tiles, {self.num_cells} cells",
            f"cells end at {100 * self.on_seams.unmatched_share:.1f} % of their pixels on seams, "
            f"{100 * self.inside_tiles.unmatched_share:.1f} % on lines inside tiles",
        ]
        if self.needs_more_overlap:
            words.append(
                f"{self.num_joined} cells joined from {self.num_pieces} pieces and "
                f"{self.num_cut} left cut: they are larger than the overlap of "
                f"{self.grid.overlap_px} px, enlarge it"
            )
        return "; ".join(words)


def _kinds_of_lines(spans: Spans, tile_px: int) -> NDArray[np.int8]:
    """For the line before each row (or column), what it is: int8 [length + 1]."""
    kinds = np.zeros(spans.length + 1, np.int8)
    seams = spans.seams
    kinds[seams] = SEAM
    for seam in seams.tolist():
        free = np.flatnonzero(kinds[1 : spans.length] == NONE) + 1
        if free.size:  # else the image is hardly larger than its seams
            wanted = (seam + tile_px // 2) % spans.length
            kinds[free[np.abs(free - wanted).argmin()]] = INSIDE
    return kinds


def _count_across_rows(runs: Runs, height: int, lines: NDArray[np.bool_]) -> tuple[int, int]:
    """Pixel pairs across horizontal lines: those in which a cell goes on, and ends."""
    first = runs.starts % height
    last = first + runs.ends - runs.starts
    before = np.cumsum(lines)  # lines up to and with this one
    matched = before[last - 1] - before[first]
    return int(matched.sum()), int(np.count_nonzero(lines[first]) + np.count_nonzero(lines[last]))


def _count_across_columns(runs: Runs, height: int, lines: NDArray[np.bool_]) -> tuple[int, int]:
    """The same across vertical lines."""
    column = runs.starts // height
    left = np.flatnonzero(lines[column + 1])
    right = np.flatnonzero(lines[column])
    stride = (len(lines) + 1) * height
    keys = runs.cells * stride
    # The runs on the left of a line moved over it: what they share with those on the right.
    starts = np.r_[(keys + runs.starts)[left] + height, (keys + runs.starts)[right]]
    lengths = (runs.ends - runs.starts)[np.r_[left, right]]
    total, union = int(lengths.sum()), _union_length(starts, starts + lengths)
    return total - union, 2 * union - total


def _union_length(starts: IntArray, ends: IntArray) -> int:
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], ends[order]
    reach = np.maximum.accumulate(np.r_[np.int64(-1), ends])[:-1]
    return int(np.maximum(ends - np.maximum(starts, reach), 0).sum())
