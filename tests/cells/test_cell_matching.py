from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from cell_scenes import bars, random_bitmaps, shift_some
from cellseg.cells.instances import CellInstances
from cellseg.cells.matching import match_cells, match_overlaps
from cellseg.cells.overlaps import cell_windows, find_overlaps, pairs_of_touching_windows
from cellseg.errors import LabelError
from cellseg.evaluation import iou_matrix


def bitmap_iou(true: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """IoU over full bitmaps, pair by pair."""
    expected = np.zeros((len(true), len(pred)))
    for i, a in enumerate(true):
        for j, b in enumerate(pred):
            union = (a | b).sum()
            expected[i, j] = (a & b).sum() / union if union else 0
    return expected


def best_matching(iou: np.ndarray, threshold: float) -> tuple[int, float]:
    """Most pairs, then most IoU, over every possible assignment."""
    if iou.shape[0] > iou.shape[1]:
        iou = iou.T
    options = []
    for columns in permutations(range(iou.shape[1]), iou.shape[0]):
        values = iou[np.arange(iou.shape[0]), list(columns)]
        values = values[values >= threshold]
        options.append((len(values), values.sum()))
    return max(options)


@pytest.mark.parametrize("seed", range(50))
def test_iou_matrix_equals_the_one_over_full_bitmaps(seed):
    rng = np.random.default_rng(seed)
    image_hw = (int(rng.integers(1, 30)), int(rng.integers(1, 40)))
    true = random_bitmaps(rng, int(rng.integers(0, 12)), image_hw)
    pred = random_bitmaps(rng, int(rng.integers(0, 12)), image_hw)
    cells = CellInstances.from_bitmaps(true), CellInstances.from_bitmaps(pred)
    np.testing.assert_array_equal(iou_matrix(*cells), bitmap_iou(true, pred))


@pytest.mark.parametrize("seed", range(10))
def test_iou_of_label_images_equals_iou_of_bitmaps(seed):
    rng = np.random.default_rng(seed)
    pair = rng.integers(0, 5, size=(2, 13, 17)) * [[[7]], [[70_000]]]
    bitmaps = [
        np.array([labels == k for k in np.unique(labels) if k]).reshape(-1, 13, 17)
        for labels in pair
    ]
    np.testing.assert_array_equal(iou_matrix(*pair), bitmap_iou(*bitmaps))


def test_iou_of_empty_label_images():
    empty = np.zeros((4, 5), np.uint16)
    one = empty.copy()
    one[1, 1] = 3
    assert iou_matrix(empty, one).shape == (0, 1)
    assert iou_matrix(one, empty).shape == (1, 0)
    assert iou_matrix(one, one).tolist() == [[1.0]]
    assert iou_matrix(np.ones((2, 2), int), np.ones((2, 2), int)).tolist() == [[1.0]]


def test_label_images_of_different_shape():
    with pytest.raises(LabelError, match="do not compare"):
        iou_matrix(np.zeros((2, 2), int), np.zeros((2, 3), int))


def test_cells_of_different_image_sizes():
    with pytest.raises(LabelError, match=r"\(4, 5\).*\(5, 4\)"):
        iou_matrix(CellInstances.empty((4, 5)), CellInstances.empty((5, 4)))


def test_crops_need_not_be_tight():
    crop = np.zeros((5, 6), dtype=bool)
    crop[1:3, 2:4] = True
    loose = CellInstances.from_crops([crop], [(2, 1)], (10, 10))
    tight = CellInstances.from_crops([np.ones((2, 2), bool)], [(3, 3)], (10, 10))
    assert iou_matrix(loose, tight).tolist() == [[1.0]]


def test_more_cells_than_are_compared_at_once():
    count = 700
    cells = bars(*((3 * k, 3 * k + 2) for k in range(count)), length=3 * count)
    overlaps = find_overlaps(cells, cells)
    assert overlaps.true_index.tolist() == list(range(count))
    assert overlaps.pred_index.tolist() == list(range(count))
    assert overlaps.intersection_px.tolist() == [2] * count
    assert (overlaps.iou == 1).all()


def test_margin_joins_windows_that_nearly_touch():
    windows = cell_windows(bars((0, 4), (6, 9), (9, 12)))

    def pairs(margin_px: int) -> list[tuple[int, int]]:
        found = pairs_of_touching_windows(windows, windows, margin_px)
        return [(i, j) for i, j in zip(*(index.tolist() for index in found)) if i < j]

    assert pairs(0) == []
    assert pairs(1) == [(1, 2)]
    assert pairs(2) == [(1, 2)]
    assert pairs(3) == [(0, 1), (1, 2)]


def test_matching_prefers_two_pairs_over_the_single_best():
    matching = match_cells(np.array([[0.9, 0.6], [0.6, 0.0]]), 0.5)
    assert matching.true_index.tolist() == [0, 1]
    assert matching.pred_index.tolist() == [1, 0]
    assert matching.iou.tolist() == [0.6, 0.6]
    assert len(matching) == 2


def test_among_equally_many_pairs_the_most_iou_wins():
    matching = match_cells(np.array([[0.6, 0.7], [0.7, 0.6]]), 0.5)
    assert matching.pred_index.tolist() == [1, 0]


def test_threshold_is_met_by_equality_unless_strict():
    iou = np.array([[0.5]])
    assert len(match_cells(iou, 0.5)) == 1
    assert len(match_cells(iou, 0.5, strict=True)) == 0


@pytest.mark.parametrize("hundredths", range(50, 100, 5))
def test_ratios_that_equal_a_threshold_match(hundredths):
    true, pred = bars((0, 100), length=100), bars((0, hundredths), length=100)
    threshold = round(0.01 * hundredths, 2)
    assert len(match_overlaps(find_overlaps(true, pred), threshold)) == 1
    assert len(match_overlaps(find_overlaps(true, pred), threshold, strict=True)) == 0


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (2, 2)])
def test_nothing_to_match(shape):
    matching = match_cells(np.zeros(shape), 0.5)
    assert len(matching) == len(matching.true_index) == len(matching.pred_index) == 0


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.01, float("nan")])
def test_threshold_outside_its_range(threshold):
    with pytest.raises(LabelError, match="IoU threshold"):
        match_cells(np.ones((1, 1)), threshold)


@pytest.mark.parametrize("seed", range(50))
def test_matching_is_optimal(seed):
    rng = np.random.default_rng(seed)
    shape = rng.integers(1, 7, size=2)
    iou = rng.choice([0, 0, 0.3, 0.5, 0.55, 0.6, 0.7, 0.9], size=shape)
    for threshold in (0.3, 0.5, 0.6):
        matching = match_cells(iou, threshold)
        count, total = best_matching(iou, threshold)
        assert len(matching) == count
        assert matching.iou.sum() == pytest.approx(total)
        assert (iou[matching.true_index, matching.pred_index] == matching.iou).all()
        assert (np.diff(matching.true_index) > 0).all()
        assert len(set(matching.pred_index.tolist())) == count


@pytest.mark.parametrize("seed", range(20))
def test_order_of_cells_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    true = random_bitmaps(rng, 10, (20, 20))
    pred = shift_some(rng, true)
    order = rng.permutation(10)
    first = match_cells(bitmap_iou(true, pred), 0.3)
    second = match_cells(bitmap_iou(true[order], pred), 0.3)
    assert sorted(first.iou) == pytest.approx(sorted(second.iou))
