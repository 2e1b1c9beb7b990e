"""Records whose cells come in several batches, as those of images larger than memory do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord


@dataclass(frozen=True, eq=False)
class RecordInPieces(ImageRecord):
    """A record whose batches have these numbers of cells."""

    sizes: Sequence[int] = ()

    def batches(self) -> Iterator[CellInstances]:
        bounds = np.cumsum([0, *self.sizes])
        assert bounds[-1] == len(self.cells)
        for low, high in pairwise(bounds):
            yield self.cells[low:high]


def in_pieces(cells: CellInstances, sizes: Sequence[int]) -> RecordInPieces:
    return RecordInPieces("a", cells, sizes=sizes)
