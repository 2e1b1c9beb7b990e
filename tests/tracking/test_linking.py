"""Linking: exact expectations on small scenes, and against brute force."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import numpy as np
import pytest
from cellseg.cells.instances import CellInstances
from cellseg.errors import ConfigError, LabelError
from cellseg.tracking.linking import LinkRules, _assign, link_cells
from time_lapse_scenes import DIVISION, GAP, HW, ids_of, records, rectangles, squares, table_of

pytest.importorskip("laptrack")
PLAIN = LinkRules(max_gap_frames=0, splitting=False)
NOTHING = CellInstances.empty(HW)


def test_moving_cells_keep_their_tracks_in_whatever_order_they_come() -> None:
    frames = [squares((10 + 3 * t, 10), (60 - 3 * t, 40)) for t in range(5)]
    frames[2] = frames[2][[1, 0]]
    tracks = link_cells(frames)
    assert ids_of(tracks) == [[1, 2], [1, 2], [2, 1], [1, 2], [1, 2]]
    assert table_of(tracks) == [(0, 4, 0), (0, 4, 0)]


def test_records_and_cells_are_the_same() -> None:
    assert ids_of(link_cells(iter(records(GAP)))) == ids_of(link_cells(GAP))


def test_cells_appear_and_disappear() -> None:
    frames = [squares((10, 10)), squares((11, 10), (60, 40)), squares((60, 41))]
    assert ids_of(link_cells(frames)) == [[1], [1, 2], [2]]


@pytest.mark.parametrize("frames", [[], [NOTHING], [NOTHING, NOTHING, NOTHING]])
def test_no_cells(frames: list[CellInstances]) -> None:
    tracks = link_cells(frames)
    assert ids_of(tracks) == [[] for _ in frames]
    assert len(tracks) == 0


def test_one_frame_and_empty_frames_between() -> None:
    assert ids_of(link_cells([squares((1, 1), (30, 1))])) == [[1, 2]]
    frames = [NOTHING, squares((10, 10)), NOTHING, NOTHING, squares((10, 10)), NOTHING]
    assert ids_of(link_cells(frames)) == [[], [1], [], [], [2], []]
    assert ids_of(link_cells(frames, LinkRules(max_gap_frames=2))) == [[], [1], [], [], [1], []]


def test_a_division() -> None:
    tracks = link_cells(DIVISION)
    assert ids_of(tracks) == [[1], [1], [2, 3], [2, 3]]
    assert table_of(tracks) == [(0, 1, 0), (2, 3, 1), (2, 3, 1)]
    assert tracks.divisions == 1


def test_cells_that_may_not_divide() -> None:
    tracks = link_cells(DIVISION, LinkRules(splitting=False))
    assert sorted(table_of(tracks)) == [(0, 3, 0), (2, 3, 0)]


def test_divisions_by_distance() -> None:
    """The daughters lie beside the mother and share no pixel with her."""
    frames = [squares((40, 20), size=10), rectangles((32, 20, 39, 28), (51, 20, 58, 28))]
    assert link_cells(frames).divisions == 0
    by_distance = LinkRules(metric="distance", max_distance_px=15)
    assert table_of(link_cells(frames, by_distance)) == [(0, 0, 0), (1, 1, 1), (1, 1, 1)]


@pytest.mark.parametrize("metric", ["overlap", "distance"])
def test_a_neighbour_that_comes_into_view_is_no_daughter(metric: str) -> None:
    """It overlaps where the cell was, and is as large."""
    frames = [squares((20, 20)), squares((17, 20), (25, 20))]
    tracks = link_cells(frames, LinkRules(metric=metric))
    assert table_of(tracks) == [(0, 1, 0), (1, 1, 0)]


def test_a_gap_is_closed_up_to_its_length() -> None:
    assert ids_of(link_cells(GAP)) == [[1, 2], [2], [1, 2]]
    assert ids_of(link_cells(GAP, LinkRules(max_gap_frames=0))) == [[1, 2], [2], [3, 2]]
    longer = [GAP[0], GAP[1], GAP[1], GAP[2]]
    assert ids_of(link_cells(longer)) == [[1, 2], [2], [2], [3, 2]]
    assert ids_of(link_cells(longer, LinkRules(max_gap_frames=2))) == [[1, 2], [2], [2], [1, 2]]


def test_a_gap_is_closed_within_the_distance() -> None:
    frames = [squares((10, 10)), NOTHING, squares((17, 10))]
    assert ids_of(link_cells(frames, LinkRules(max_distance_px=7.1))) == [[1], [], [1]]
    assert ids_of(link_cells(frames, LinkRules(max_distance_px=7))) == [[1], [], [2]]


def test_two_cells_seen_as_one_in_a_frame_do_not_divide() -> None:
    apart = rectangles((20, 20, 28, 28), (28, 20, 34, 28))
    frames = [apart, rectangles((20, 20, 34, 28)), apart]
    tracks = link_cells(frames)
    assert ids_of(tracks) == [[1, 2], [1], [1, 2]]


def test_cells_that_pass_each_other() -> None:
    frames = [squares((10 + 4 * t, 20), (50 - 4 * t, 29)) for t in range(11)]
    tracks = link_cells(frames)
    assert ids_of(tracks) == [[1, 2]] * 11


def test_cells_that_change_places_in_one_step_are_taken_for_staying() -> None:
    """What is promised of crossing cells: speeds are not known."""
    frames = [squares((20, 20), (28, 20)), squares((28, 20), (20, 20))]
    assert ids_of(link_cells(frames)) == [[1, 2], [2, 1]]


def test_a_row_of_cells_is_not_shifted_by_one() -> None:
    """One leaves at the left, one comes at the right; a link to the neighbour is possible."""
    row = [(10 + 9 * k, 20) for k in range(6)]
    frames = [squares(*row[:5]), squares(*row[1:])]
    for metric in ("overlap", "distance"):
        rules = LinkRules(max_distance_px=12, metric=metric)
        assert ids_of(link_cells(frames, rules)) == [[1, 2, 3, 4, 5], [2, 3, 4, 5, 6]]


def test_overlap_and_distance_differ_for_a_long_cell() -> None:
    """A long cell becomes longer, and a small one comes to lie beside where its centre was."""
    frames = [rectangles((10, 20, 30, 24)), rectangles((10, 20, 46, 24), (18, 25, 22, 27))]
    by = {
        metric: ids_of(link_cells(frames, LinkRules(20, 0, False, metric)))
        for metric in ("overlap", "distance")
    }
    assert by == {"overlap": [[1], [1, 2]], "distance": [[1], [2, 1]]}


def test_the_greatest_step_is_the_median_diameter() -> None:
    """Squares of 8 x 8 pixels have that of a circle of 64 pixels, 9.03."""
    for step, found in ((9, [[1], [1]]), (10, [[1], [2]])):
        frames = [squares((10, 20)), squares((10 + step, 20))]
        assert ids_of(link_cells(frames)) == found


def test_crowds_and_cells_without_a_pixel_have_no_track() -> None:
    cells = CellInstances.from_bitmaps(
        [np.ones(HW), squares((10, 10)).to_bitmaps()[0], np.zeros(HW)]
    ).replace(is_crowd=[True, False, False])
    assert ids_of(link_cells([cells, cells])) == [[0, 1, 0], [0, 1, 0]]


def test_frames_of_two_sizes() -> None:
    with pytest.raises(LabelError, match=r"frame 1 has \(height, width\) \(9, 9\)"):
        link_cells([squares((1, 1)), CellInstances.empty((9, 9))])


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"max_distance_px": 0}, "0 pixels; expected more than 0"),
        ({"max_distance_px": float("nan")}, "expected more than 0"),
        ({"max_gap_frames": -1}, "-1 frames; expected 0 or more"),
        ({"metric": "iou"}, "no metric 'iou'; there are overlap, distance"),
    ],
)
def test_rules_that_cannot_be_used(values: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        LinkRules(**values)


def test_without_laptrack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "laptrack", None)
    with pytest.raises(ConfigError, match=r"pip install 'cellseg\[track\]'"):
        link_cells(iter(lambda: pytest.fail("a frame was read"), None))
    assert ids_of(link_cells(GAP, PLAIN)) == [[1, 2], [2], [3, 2]]


def least_cost(costs: np.ndarray) -> float:
    """Of all ways to pair rows with columns, by trying each."""
    count, other = costs.shape
    best = np.inf
    for size in range(min(costs.shape) + 1):
        for rows in itertools.combinations(range(count), size):
            for columns in itertools.permutations(range(other), size):
                best = min(best, costs[rows, columns].sum() + count + other - 2 * size)
    return float(best)


@pytest.mark.parametrize("seed", range(20))
def test_the_assignment_is_the_cheapest_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = rng.uniform(0, 2, rng.integers(1, 5, 2))
    costs[rng.random(costs.shape) < 0.4] = np.inf
    one, two = np.nonzero(np.isfinite(costs))
    taken = _assign(one, two, costs[one, two])
    assert len(set(one[taken])) == len(set(two[taken])) == len(taken)
    total = costs[one[taken], two[taken]].sum() + sum(costs.shape) - 2 * len(taken)
    assert total == pytest.approx(least_cost(costs))


def test_links_of_no_cost() -> None:
    none = np.zeros(0, np.int64)
    assert _assign(none, none, np.zeros(0)).tolist() == []
    assert _assign(np.array([0, 1]), np.array([3, 2]), np.zeros(2)).tolist() == [0, 1]


def test_the_same_cells_give_the_same_tracks() -> None:
    rng = np.random.default_rng(5)
    frames = [squares(*rng.integers(0, 50, (12, 2)).tolist()) for _ in range(8)]
    first, second = link_cells(frames), link_cells(frames)
    assert (ids_of(first), table_of(first)) == (ids_of(second), table_of(second))
