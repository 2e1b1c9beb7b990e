"""Tracks: which cells of a time-lapse's frames are one and the same cell, and which divided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray
from cellseg.cells.records import PlaceInFile
from cellseg.errors import LabelError
from numpy.typing import ArrayLike


class Frame(Protocol):
    """What is asked of a frame: an `ImageRecord`, or a record whose cells are on disk."""

    @property
    def image_id(self) -> str: ...

    @property
    def image_hw(self) -> tuple[int, int]: ...

    @property
    def num_cells(self) -> int: ...

    @property
    def place(self) -> PlaceInFile: ...

    @property
    def cells(self) -> CellInstances: ...

    def batches(self) -> Iterator[CellInstances]: ...


F = TypeVar("F", bound=Frame)


@dataclass(frozen=True, eq=False)
class Tracks:
    """The tracks of a time-lapse, numbered 1 to K; track k + 1 has place k in the arrays.

    A track is one cell from its first frame to its last, between which it may be missing in some.
    A cell that divides ends its track; each daughter begins one of her own.

    Attributes:
        ids: per frame the track of each of its cells, int64 [N]; 0 for a cell without one: a region
            of uncounted cells, or a detection without a pixel.
        first: number of each track's first frame, from 0, int64 [K].
        last: number of its last one, int64 [K].
        parents: number of the track that divided into it; 0 for none, int64 [K].

    Example:
        A cell that divides into two: cell 0 of frame 0 is followed by cells 0 and 1 of frame 1.

        >>> tracks = Tracks.from_links([1, 2], [(0, 0, 1, 0), (0, 0, 1, 1)])
        >>> [ids.tolist() for ids in tracks.ids], tracks.parents.tolist()
        ([[1], [2, 3]], [0, 1, 1])
    """

    ids: tuple[IntArray, ...]
    first: IntArray
    last: IntArray
    parents: IntArray

    def __len__(self) -> int:
        return len(self.first)

    @property
    def divisions(self) -> int:
        """How many tracks end in a division."""
        return len(np.unique(self.parents[self.parents > 0]))

    @property
    def links(self) -> list[tuple[int, int, int, int]]:
        """(frame, cell, later frame, cell) of each step of a track and from mother to daughter."""
        before: dict[int, tuple[int, int]] = {}
        found = []
        for frame, ids in enumerate(self.ids):
            for cell in np.flatnonzero(ids).tolist():
                track = int(ids[cell])
                source = before.get(track) or before.get(int(self.parents[track - 1]))
                if source:
                    found.append((*source, frame, cell))
                before[track] = (frame, cell)
        return found

    def along(self, frames: Iterable[F]) -> Iterator[tuple[F, IntArray]]:
        """Each frame with the tracks of its cells.

        Args:
            frames: those that the tracks were made of, in order of time.

        Raises:
            LabelError: there are more or fewer frames, or cells in one of them.
        """
        count = 0
        for record in frames:
            found = len(self.ids[count]) if count < len(self.ids) else -1
            if record.num_cells != found:
                raise LabelError(
                    f"{record.image_id}: frame {count} has {record.num_cells} cells, the tracks "
                    + ("have no such frame" if found < 0 else f"were made of {found}")
                )
            yield record, self.ids[count]
            count += 1
        if count < len(self.ids):
            raise LabelError(f"{count} frames; the tracks were made of {len(self.ids)}")

    @classmethod
    def from_links(
        cls,
        counts: Sequence[int],
        links: ArrayLike,
        without: Sequence[ArrayLike] | None = None,
    ) -> Tracks:
        """Number the tracks that links make, by their first frame and the cell's number in it.

        Args:
            counts: number of cells of each frame.
            links: [L, 4], (frame, cell, later frame, cell). A cell has one predecessor at most;
                one with several successors divides into them.
            without: per frame bool [N], the cells that have no track; by default there are none.

        Raises:
            LabelError: a cell has two predecessors, or a link does not lead to a later frame.
        """
        pairs = np.asarray(links, np.int64).reshape(-1, 4)
        if (pairs[:, 0] >= pairs[:, 2]).any():
            raise LabelError("a link between cells leads from a frame to a later one")
        offsets = np.cumsum([0, *counts])
        source, target = offsets[pairs[:, 0]] + pairs[:, 1], offsets[pairs[:, 2]] + pairs[:, 3]
        if len(np.unique(target)) < len(target):
            raise LabelError("a cell has two predecessors: tracks divide, they do not merge")
        before = np.full(offsets[-1], -1)
        before[target] = source
        followers = np.bincount(source, minlength=offsets[-1])
        frames = np.repeat(np.arange(len(counts)), counts)
        tracked = np.ones(len(frames), bool)
        if without is not None:
            tracked = ~np.concatenate([np.zeros(0), *without]).astype(bool)
        ids = np.zeros(len(frames), np.int64)
        first: list[int] = []
        last: list[int] = []
        parents: list[int] = []
        for cell in np.flatnonzero(tracked).tolist():
            mother = before[cell]
            if mother >= 0 and followers[mother] == 1:
                ids[cell] = ids[mother]
                last[ids[cell] - 1] = frames[cell]
                continue
            first.append(frames[cell])
            last.append(frames[cell])
            parents.append(ids[mother] if mother >= 0 else 0)
            ids[cell] = len(first)
        split = np.split(ids, offsets[1:-1]) if len(counts) else []
        table = (np.array(column, np.int64) for column in (first, last, parents))
        return cls(tuple(split), *table)
