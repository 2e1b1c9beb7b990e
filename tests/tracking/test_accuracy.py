"""Shares of links that are right, counted by hand."""

from __future__ import annotations

import pytest
from cellseg.cells.tracks import Tracks
from cellseg.errors import LabelError
from cellseg.tracking.accuracy import score_links

LINKS = [(0, 0, 1, 0), (0, 1, 1, 1), (1, 0, 2, 0), (1, 1, 2, 1), (1, 1, 2, 2)]
TRUE = Tracks.from_links([2, 2, 3], LINKS)


def test_all_right() -> None:
    found = score_links(TRUE, TRUE)
    assert (found.recall, found.precision) == (1, 1)
    assert (found.true_links, found.right_links, found.found_links) == (5, 5, 5)
    assert (found.true_tracks, found.complete_tracks) == (4, 4)


def test_two_cells_swapped_in_the_last_frame_and_a_division_missed() -> None:
    links = [(0, 0, 1, 0), (0, 1, 1, 1), (1, 0, 2, 1), (1, 1, 2, 0)]
    found = score_links(TRUE, Tracks.from_links([2, 2, 3], links))
    assert (found.right_links, found.found_links) == (2, 4)
    assert (found.recall, found.precision) == (2 / 5, 2 / 4)
    assert found.complete_tracks == 1  # the cell of one frame


def test_a_link_over_a_gap_is_one_link() -> None:
    gap = Tracks.from_links([1, 0, 1], [(0, 0, 2, 0)])
    none = Tracks.from_links([1, 0, 1], [])
    assert score_links(gap, gap).right_links == 1
    found = score_links(gap, none)
    assert (found.recall, found.precision, found.complete_tracks) == (0, 1, 0)
    assert score_links(none, gap).precision == 0


def test_no_cells() -> None:
    none = Tracks.from_links([0], [])
    assert score_links(none, none).recall == 1


def test_other_cells() -> None:
    with pytest.raises(LabelError, match="not of the same cells"):
        score_links(TRUE, Tracks.from_links([2, 2], []))
