"""The numbers behind the charts, on rectangles counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from builders import rectangle
from cellseg.cells.instances import CellInstances
from cellseg.evaluation import Comparisons, class_confusion, compare
from cellseg.report import measures

HW = (60, 80)


def cells(*found: tuple, hw: tuple[int, int] = HW) -> CellInstances:
    """(class, x0, y0, x1, y1[, score]) each."""
    if not found:
        return CellInstances.empty(hw)
    masks = np.stack([rectangle(hw, *one[1:5]) for one in found])
    scores = [one[5] if len(one) > 5 else 1.0 for one in found]
    return CellInstances.from_bitmaps(masks, scores=scores, classes=[one[0] for one in found])


TRUE = cells((0, 2, 2, 12, 12), (0, 20, 2, 40, 12), (1, 2, 30, 12, 40), (1, 12, 30, 22, 40))
PRED = cells(
    (0, 20, 2, 30, 12, 0.8), (0, 30, 2, 40, 12, 0.75), (1, 2, 30, 22, 40, 0.7),
    (0, 50, 40, 60, 50, 0.6),
)  # fmt: skip
EMPTY = CellInstances.empty(HW)


def compared(*pairs: tuple[CellInstances, CellInstances]) -> Comparisons:
    return Comparisons([compare(true, pred) for true, pred in pairs])


def test_kinds():
    found = measures.find_kinds(compare(TRUE, PRED))
    assert found.true == ("missed", "split", "merge", "merge")
    assert found.pred == ("split", "split", "merge", "spurious")
    expected = {"missed": 1, "spurious": 1, "split": 1, "merge": 1, "catastrophe": 0, "confused": 0}
    assert found.counts == expected


def test_right_outline_of_another_class_is_confused():
    found = measures.find_kinds(compare(cells((0, 5, 5, 25, 25)), cells((1, 5, 5, 25, 25))))
    assert found.true == found.pred == ("confused",)
    assert found.counts["confused"] == 1
    assert found.counts["missed"] == found.counts["spurious"] == 0


def test_metrics_over_iou():
    # IoU 100 / 140 = 0.714: found up to 0.70
    pair = (cells((0, 0, 0, 10, 10)), cells((0, 0, 0, 14, 10)))
    values = measures.metrics_over_iou(compared(pair), ["f1", "ap_dsb"])
    assert values == {"f1": [1.0] * 5 + [0.0] * 5, "ap_dsb": [1.0] * 5 + [0.0] * 5}


def test_precision_over_recall():
    true = cells((0, 0, 0, 10, 10), (0, 20, 0, 30, 10))
    pred = cells((0, 0, 0, 10, 10, 0.9), (0, 40, 0, 50, 10, 0.8), (0, 20, 0, 30, 10, 0.7))
    recall, precision = measures.precision_over_recall(compared((true, pred)), 0.5)
    np.testing.assert_allclose(recall, np.linspace(0, 1, 101))
    np.testing.assert_allclose(precision[:51], 1)
    np.testing.assert_allclose(precision[51:], 2 / 3)
    assert np.isnan(measures.precision_over_recall(compared((EMPTY, pred)), 0.5)[1]).all()


def test_precision_over_recall_at_an_iou():
    pair = (cells((0, 0, 0, 10, 10)), cells((0, 0, 0, 14, 10)))  # IoU 0.714
    assert measures.precision_over_recall(compared(pair), 0.7)[1].tolist() == pytest.approx(
        [1.0] * 101
    )
    assert measures.precision_over_recall(compared(pair), 0.75)[1].tolist() == [0.0] * 101


def test_recall_and_precision_are_means_over_classes():
    true = cells((0, 0, 0, 10, 10), (0, 20, 0, 30, 10), (1, 40, 0, 50, 10))
    pred = cells((0, 0, 0, 10, 10), (1, 40, 0, 50, 10), (1, 60, 0, 70, 10), (2, 20, 20, 30, 30))
    # class 0: recall 1/2, precision 1; class 1: recall 1, precision 1/2; class 2 is not true
    assert measures.recall_and_precision(compared((true, pred)), 0.5) == (0.75, 0.75)
    assert np.isnan(measures.recall_and_precision(compared((EMPTY, pred)), 0.5)).all()
    assert np.isnan(measures.recall_and_precision(compared(), 0.5)).all()


def test_judging_takes_the_best_score_first_and_keeps_classes_apart():
    true = cells((0, 0, 0, 10, 10), (1, 20, 0, 30, 10))
    pred = cells((0, 0, 0, 10, 10, 0.5), (0, 0, 0, 10, 9, 0.75), (0, 20, 0, 30, 10, 0.25))
    scores, right = measures.judge_detections(compared((true, pred), (EMPTY, EMPTY)))
    assert dict(zip(scores.tolist(), right.tolist())) == {0.5: 0, 0.75: 1, 0.25: 0}


def test_calibration():
    found = measures.calibrate(np.array([0.05, 0.85, 0.87, 1.0]), np.array([0.0, 1.0, 0.0, 1.0]))
    assert found.detections.tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 2, 1]
    assert found.share_correct[[0, 8, 9]].tolist() == [0, 0.5, 1]
    assert found.mean_score[[0, 8, 9]].tolist() == pytest.approx([0.05, 0.86, 1])
    assert found.error == pytest.approx((0.05 + 2 * 0.36 + 0) / 4)
    assert np.isnan(found.share_correct[1])
    assert math.isnan(measures.calibrate(np.zeros(0), np.zeros(0)).error)


def test_diameters_of_matches():
    pair = (cells((0, 0, 0, 10, 10), (0, 40, 40, 50, 50)), cells((0, 0, 0, 10, 8)))
    expected = [[2 * math.sqrt(100 / math.pi), 2 * math.sqrt(80 / math.pi)]]
    np.testing.assert_allclose(measures.diameters_of_matches(compared(pair)), expected)
    assert measures.diameters_of_matches(compared((EMPTY, EMPTY))).shape == (0, 2)


def test_confusion_matrix():
    true = cells((0, 0, 0, 10, 10), (0, 20, 0, 30, 10), (1, 40, 0, 50, 10))
    pred = cells((1, 0, 0, 10, 10), (0, 20, 0, 30, 10), (1, 60, 40, 70, 50))
    expected = [[1, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert class_confusion([true], [pred], num_classes=2).tolist() == expected
    assert class_confusion([], [], num_classes=1).tolist() == [[0, 0], [0, 0]]


def test_gallery_keeps_the_worst_and_samples_the_rest():
    assert measures.choose_images(range(5), 5) == [0, 1, 2, 3, 4]
    assert measures.choose_images(range(100), 6) == [0, 1, 2, 3, 51, 99]
    assert measures.choose_images(range(10), 1) == [0]
    assert measures.choose_images(range(10), 0) == []
