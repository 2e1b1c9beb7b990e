"""How many links between cells are right, where the truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from cellseg.cells.tracks import Tracks
from cellseg.errors import LabelError


@dataclass(frozen=True)
class LinkAccuracy:
    """Links that were found against the true ones, of the same cells.

    A link leads from a cell to itself in the next frame that shows it, or to its daughter.

    Attributes:
        true_links, found_links: how many there are.
        right_links: how many are among both.
        true_tracks: how many there are.
        complete_tracks: how many of them are found as one track with the same cells and no others.
    """

    true_links: int
    found_links: int
    right_links: int
    true_tracks: int
    complete_tracks: int

    @property
    def recall(self) -> float:
        """Share of the true links that are found; 1 where there are none."""
        return self.right_links / self.true_links if self.true_links else 1.0

    @property
    def precision(self) -> float:
        """Share of the found links that are true; 1 where there are none."""
        return self.right_links / self.found_links if self.found_links else 1.0


def score_links(true: Tracks, found: Tracks) -> LinkAccuracy:
    """Compare tracks that were found with the true ones of the same cells.

    Args:
        true: for instance of a truth that `cellseg.io.ctc.read_ctc` reads.
        found: what `link_cells` says of its frames.

    Raises:
        LabelError: the two are not of the same cells.
    """
    if [len(ids) for ids in true.ids] != [len(ids) for ids in found.ids]:
        raise LabelError("true and found tracks are not of the same cells in the same frames")
    true_links, found_links = set(true.links), set(found.links)
    return LinkAccuracy(
        len(true_links),
        len(found_links),
        len(true_links & found_links),
        len(true),
        len(_members(true) & _members(found)),
    )


def _members(tracks: Tracks) -> set[bytes]:
    """The cells of each track, numbered through all frames."""
    ids = np.concatenate([np.zeros(0, np.int64), *tracks.ids])
    order = np.argsort(ids, kind="stable")
    ends = np.searchsorted(ids[order], np.arange(1, len(tracks) + 2))
    return {order[start:end].tobytes() for start, end in pairwise(ends)}
