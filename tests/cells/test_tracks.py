"""Tracks from links, along frames, and the centres of cells."""

from __future__ import annotations

import builders
import numpy as np
import pytest
from cellseg.cells.instances import CellInstances
from cellseg.cells.shapes import find_centroids
from cellseg.cells.tracks import Tracks
from cellseg.errors import LabelError
from time_lapse_scenes import ids_of, records, squares, table_of

LINKS = [(0, 1, 1, 0), (1, 0, 2, 0), (1, 0, 2, 1), (0, 0, 2, 2)]
"""Cell 1 of frame 0 goes on and divides; cell 0 is missing in frame 1 and comes back."""


def test_tracks_are_numbered_by_first_frame_and_cell() -> None:
    tracks = Tracks.from_links([2, 2, 4], LINKS)
    assert ids_of(tracks) == [[1, 2], [2, 3], [4, 5, 1, 6]]
    assert table_of(tracks) == [(0, 2, 0), (0, 1, 0), (1, 1, 0), (2, 2, 2), (2, 2, 2), (2, 2, 0)]
    assert (len(tracks), tracks.divisions) == (6, 1)


def test_the_links_of_tracks_are_those_they_were_made_of() -> None:
    assert sorted(Tracks.from_links([2, 2, 4], LINKS).links) == sorted(LINKS)


def test_cells_without_a_track() -> None:
    without = [np.array([True, False]), np.array([False])]
    tracks = Tracks.from_links([2, 1], [(0, 1, 1, 0)], without)
    assert ids_of(tracks) == [[0, 1], [1]]


@pytest.mark.parametrize("counts", [[], [0], [0, 0]])
def test_no_cells(counts: list[int]) -> None:
    tracks = Tracks.from_links(counts, [])
    assert (len(tracks.ids), len(tracks), tracks.links, tracks.divisions) == (len(counts), 0, [], 0)


@pytest.mark.parametrize(
    ("links", "what"),
    [
        ([(0, 0, 1, 0), (0, 1, 1, 0)], "two predecessors"),
        ([(1, 0, 0, 0)], "a later one"),
        ([(1, 0, 1, 1)], "a later one"),
    ],
)
def test_links_that_make_no_tracks(links: list[tuple[int, ...]], what: str) -> None:
    with pytest.raises(LabelError, match=what):
        Tracks.from_links([2, 2], links)


def test_frames_that_the_tracks_were_not_made_of() -> None:
    tracks = Tracks.from_links([1, 2], [(0, 0, 1, 0)])
    one, two = squares((1, 1)), squares((1, 1), (20, 1))
    assert [ids.tolist() for _, ids in tracks.along(records([one, two]))] == [[1], [1, 2]]
    for frames, what in (
        ([one, one], "frame_1: frame 1 has 1 cells, the tracks were made of 2"),
        ([one, two, two], "frame 2 has 2 cells, the tracks have no such frame"),
        ([one], "1 frames; the tracks were made of 2"),
    ):
        with pytest.raises(LabelError, match=what):
            list(tracks.along(records(frames)))


@pytest.mark.parametrize("name", list(builders.all_scenes()))
def test_centres_are_those_of_the_bitmaps(name: str) -> None:
    scene = builders.all_scenes()[name]
    found = find_centroids(CellInstances.from_bitmaps(scene.masks))
    expected = [np.argwhere(mask).mean(axis=0) for mask in scene.masks]
    np.testing.assert_allclose(found, np.reshape(expected, (-1, 2)))


def test_a_cell_without_a_pixel_has_no_centre() -> None:
    cells = CellInstances.from_bitmaps(np.zeros((1, 4, 4)))
    assert np.isnan(find_centroids(cells)).all()
