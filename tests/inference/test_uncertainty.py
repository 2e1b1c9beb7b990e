"""The signs that a model may be wrong, on cells whose shares are counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cellseg.cells.instances import CellInstances
from cellseg.cells.selection import DetectionThresholds
from cellseg.cells.windows import Window
from cellseg.inference.uncertainty import (
    Known,
    agreement_of_views,
    entropy_of_odds,
    measure_doubts,
    odds_of_scores,
    surplus_of_odd,
)

THRESHOLDS = DetectionThresholds(score=0.5)


def squares(
    corners: list[tuple[int, int]], scores: list[float], side: int = 4, classes: object = None
) -> CellInstances:
    """Squares in an image of 20 x 40 pixels."""
    crops = [np.ones((side, side), bool)] * len(corners)
    return CellInstances.from_crops(crops, corners, (20, 40), scores=scores, classes=classes)


def test_odds_are_one_half_at_the_threshold_of_each_class() -> None:
    thresholds = DetectionThresholds(score=[0.2, 0.8])
    scores = np.array([0.0, 0.1, 0.2, 0.6, 1.0, 0.4, 0.8, 0.9], np.float32)
    classes = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    odds = odds_of_scores(scores, classes, thresholds)
    assert odds == pytest.approx([0, 0.25, 0.5, 0.75, 1, 0.25, 0.5, 0.75], abs=1e-6)


@pytest.mark.parametrize(("limit", "expected"), [(0.0, [0.5, 0.75, 1.0]), (1.0, [0.0, 0.25, 1.0])])
def test_thresholds_at_the_ends(limit: float, expected: list[float]) -> None:
    thresholds = DetectionThresholds(score=limit)
    odds = odds_of_scores(np.array([0.0, 0.5, 1.0]), np.zeros(3, np.int64), thresholds)
    assert odds.tolist() == expected


def test_entropy_is_that_of_a_coin() -> None:
    odds = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    quarter = 0.25 * 2 + 0.75 * math.log2(4 / 3)
    assert entropy_of_odds(odds) == pytest.approx([0, quarter, 1, quarter, 0], abs=1e-9)


def test_agreement_of_equal_shifted_missing_and_other_cells() -> None:
    cells = squares([(0, 0), (0, 10), (0, 20), (0, 30)], [0.9] * 4, classes=[0, 0, 0, 0])
    # The first as it is, the second one column on (12 of 20 pixels), the third of another class.
    others = squares([(0, 11), (0, 0), (0, 20)], [0.9] * 3, classes=[0, 0, 1])
    of_cells, of_others = agreement_of_views(cells, others)
    assert of_cells == pytest.approx([1, 0.6, 0, 0])
    assert of_others == pytest.approx([0.6, 1, 0])


def test_signs_of_an_image() -> None:
    detections = squares([(0, 0), (0, 10), (0, 20), (10, 0)], [0.9, 0.6, 0.5, 0.25])
    views = [squares([(0, 0), (0, 10)], [0.9, 0.9]), squares([], [])]
    # Seen at 0.5 the size, squares of 16 px have a diameter of 2.26 px.
    doubts = measure_doubts(detections, views, Known(THRESHOLDS, (3, 5, 9)), 0.5)
    entropy = [entropy_of_odds(np.array([odds]))[0] for odds in (0.9, 0.6, 0.5, 0.25)]
    assert (doubts.num_cells, doubts.num_detections, doubts.num_uncertain) == (3, 4, 2)
    assert doubts.uncertainty == pytest.approx(sum(entropy) / 4)
    # The first view agrees with 2 of 3 cells and all its own 2, the second with none of 3.
    assert doubts.disagreement == pytest.approx(1 - 4 / 8)
    assert (doubts.num_odd, doubts.odd_sizes) == (3, surplus_of_odd(3, 3))


@pytest.mark.parametrize(("num_odd", "num_cells"), [(2, 10), (40, 100), (3, 3), (0, 5), (1, 10)])
def test_only_more_odd_sizes_than_chance_count(num_odd: int, num_cells: int) -> None:
    """Wilson's bound solves (share - p)^2 = z^2 p (1 - p) / n for p, the lower solution."""
    share, z2 = num_odd / num_cells, 1.645**2 / num_cells
    lower = float(np.roots([1 + z2, -2 * share - z2, share**2]).real.min())
    assert surplus_of_odd(num_odd, num_cells) == pytest.approx(max(lower - 0.1, 0) / 0.9, abs=1e-9)


def test_cells_of_odd_sizes_are_counted_as_the_network_sees_them() -> None:
    small = squares([(0, 4 * k) for k in range(7)], [0.9] * 7)  # 4.5 px across
    large = squares([(10, 10 * k) for k in range(3)], [0.9] * 3, side=9)  # 10.2 px across
    cells = CellInstances.concatenate([small, large], (20, 40))
    for scale, expected in ((1.0, 3), (2.0, 10), (0.5, 0), (0.25, 7)):
        doubts = measure_doubts(cells, [], Known(THRESHOLDS, (2, 4, 6)), scale)
        assert doubts.num_odd == expected
        assert doubts.odd_sizes == surplus_of_odd(expected, 10)


def test_what_cannot_be_measured_is_not_known() -> None:
    known = Known(THRESHOLDS)
    nothing = measure_doubts(squares([], []), [squares([], [])], known, 1.0)
    assert (nothing.num_cells, nothing.num_detections) == (0, 0)
    assert np.isnan([nothing.uncertainty, nothing.disagreement, nothing.odd_sizes]).all()
    alone = measure_doubts(squares([(0, 0)], [0.5]), [], known, 1.0)
    assert alone.uncertainty == pytest.approx(1)
    assert np.isnan([alone.disagreement, alone.odd_sizes]).all()


def test_a_tile_counts_what_has_its_middle_in_it() -> None:
    detections = squares([(0, 8), (0, 19), (0, 30)], [0.9, 0.5, 0.9])
    view = squares([(0, 8), (0, 30)], [0.9, 0.9])
    left = measure_doubts(detections, [view], Known(THRESHOLDS), 1.0, Window(0, 0, 20, 20))
    right = measure_doubts(detections, [view], Known(THRESHOLDS), 1.0, Window(0, 20, 20, 40))
    assert (left.num_cells, left.disagreement) == (1, 0)
    assert right.num_cells == 2  # the middle of columns 19 to 22 is at 21
    assert right.disagreement == pytest.approx(1 / 3)
