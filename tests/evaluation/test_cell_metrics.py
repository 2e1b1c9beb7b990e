"""The counts and the metrics of the table of an evaluation, by hand and by brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cell_scenes import bars, random_bitmaps, shift_some
from cellseg.cells.instances import CellInstances
from cellseg.evaluation import IOU_THRESHOLDS, Comparison, Comparisons, compare
from cellseg.evaluation.metrics import CELL_IOU_METRICS, cell_iou_names, name_at

EMPTY = bars()
RATIOS = CELL_IOU_METRICS[:-3]


def with_classes(cells: CellInstances, *classes: int) -> CellInstances:
    return cells.replace(classes=list(classes))


def with_crowd(true: CellInstances, crowd: CellInstances) -> CellInstances:
    """Both in one, the second as regions of uncounted cells."""
    return CellInstances.from_bitmaps(
        np.concatenate([true.to_bitmaps(), crowd.to_bitmaps()]),
        classes=np.concatenate([true.classes, crowd.classes]),
    ).replace(is_crowd=[False] * len(true) + [True] * len(crowd))


def table(*images: Comparison) -> dict[str, float]:
    """All metrics under cell_iou; classes play no part."""
    return Comparisons(images, match_classes=False).metrics(cell_iou_names())


def test_thresholds_are_the_literal_ones():
    assert IOU_THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def test_two_images_by_hand():
    # Image 1: cell 0 at IoU 8/10, cell 1 missed, one false. Image 2: one cell, exactly found.
    first = compare(bars((0, 10), (20, 30)), bars((0, 8), (40, 50)))
    second = compare(bars((5, 9)), bars((5, 9)))
    metrics = table(first, second)
    assert (metrics["tp@0.80"], metrics["fp@0.80"], metrics["fn@0.80"]) == (2, 1, 1)
    assert (metrics["tp@0.85"], metrics["fp@0.85"], metrics["fn@0.85"]) == (1, 2, 2)
    assert metrics["ap_dsb@0.50"] == pytest.approx((1 / 3 + 1) / 2)
    assert metrics["ap_dsb@0.85"] == pytest.approx((0 + 1) / 2)
    # Seven thresholds up to 0.80 and three above.
    assert metrics["ap_dsb"] == pytest.approx((7 * 2 / 3 + 3 * 1 / 2) / 10)
    assert metrics["precision@0.50"] == pytest.approx(2 / 3)
    assert metrics["recall@0.50"] == pytest.approx(2 / 3)
    assert metrics["f1@0.50"] == pytest.approx(2 / 3)
    assert metrics["mean_iou@0.50"] == pytest.approx(0.9)
    assert metrics["pq@0.50"] == pytest.approx(1.8 / 3)
    assert metrics["mean_iou@0.95"] == 1


def test_more_predictions_than_cells():
    metrics = table(compare(bars((0, 10)), bars((0, 10), (20, 30), (30, 40))))
    assert metrics["precision@0.50"] == pytest.approx(1 / 3)
    assert metrics["recall@0.50"] == 1
    assert metrics["f1@0.50"] == pytest.approx(2 * (1 / 3) / (1 + 1 / 3))


@pytest.mark.parametrize("seed", range(10))
def test_perfect_prediction_scores_one_everywhere(seed):
    labels = np.random.default_rng(seed).integers(0, 30, size=(24, 31))
    cells = CellInstances.from_label_image(labels)
    metrics = table(compare(cells, cells))
    for name, value in metrics.items():
        if name[:2] == "tp":
            assert value == len(cells)
        else:
            assert value == (0 if name[:2] in ("fp", "fn") else 1)


@pytest.mark.parametrize(
    ("true", "pred", "expected"),
    [
        (EMPTY, EMPTY, {"ap_dsb": 1, "precision": 1, "recall": 1, "f1": 1, "pq": 1, "mean_iou": 1}),
        (bars((0, 5)), EMPTY, dict.fromkeys(RATIOS, 0)),
        (EMPTY, bars((0, 5)), dict.fromkeys(RATIOS, 0)),
    ],
)
def test_empty_cases_are_defined(true, pred, expected):
    metrics = table(compare(true, pred))
    assert all(math.isfinite(value) for value in metrics.values())
    for name, value in expected.items():
        assert metrics[f"{name}@0.50"] == metrics[f"{name}@0.95"] == value
    assert metrics["ap_dsb"] == expected["ap_dsb"]


def test_an_empty_image_found_empty_raises_ap_but_not_the_pooled_metrics():
    half = compare(bars((0, 5), (10, 15)), bars((0, 5)))
    metrics = table(half, compare(EMPTY, EMPTY))
    assert metrics["ap_dsb@0.50"] == pytest.approx((1 / 2 + 1) / 2)
    assert metrics["recall@0.50"] == pytest.approx(1 / 2)


def test_no_image_at_all_scores_one():
    metrics = table()
    assert metrics["ap_dsb"] == metrics["pq@0.75"] == 1
    assert metrics["tp@0.50"] == 0


def test_a_detection_without_a_pixel_is_false():
    pixelless = CellInstances.from_crops([np.zeros((0, 0), bool)], [(0, 0)], (1, 60))
    assert compare(bars((0, 5)), pixelless).count(0.5) == (0, 1, 1, 0)


@pytest.mark.parametrize("seed", range(50))
def test_counts_agree_with_greedy_matching_of_disjoint_masks(seed):
    # Above IoU 0.5 disjoint masks have one candidate at most, so no assignment is needed.
    rng = np.random.default_rng(seed)
    labels = np.zeros((25, 30), dtype=int)
    for k, bitmap in enumerate(random_bitmaps(rng, 12, labels.shape), 1):
        labels[bitmap] = k
    moved = np.roll(labels, rng.integers(-1, 2, size=2), axis=(0, 1))
    image = compare(labels, moved)
    ids, moved_ids = np.unique(labels[labels > 0]), np.unique(moved[moved > 0])
    for threshold in IOU_THRESHOLDS[1:]:
        ious = [
            ((labels == a) & (moved == b)).sum() / ((labels == a) | (moved == b)).sum()
            for a in ids
            for b in moved_ids
        ]
        matched = [iou for iou in ious if iou >= threshold]
        counts = image.count(threshold)
        assert counts.tp == len(matched)
        assert counts.fp == len(moved_ids) - len(matched)
        assert counts.fn == len(ids) - len(matched)
        assert counts.iou_sum == pytest.approx(sum(matched))


@pytest.mark.parametrize("seed", range(20))
def test_order_of_cells_does_not_change_the_counts(seed):
    rng = np.random.default_rng(seed)
    bitmaps = random_bitmaps(rng, 12, (20, 20))
    true, pred = (
        CellInstances.from_bitmaps(masks) for masks in (bitmaps, shift_some(rng, bitmaps))
    )
    first = compare(true, pred)
    second = compare(true[rng.permutation(len(true))], pred[rng.permutation(len(pred))])
    for threshold in IOU_THRESHOLDS:
        one, other = first.count(threshold), second.count(threshold)
        assert one.tp == other.tp
        assert one.iou_sum == pytest.approx(other.iou_sum)


def test_a_cell_of_another_class_is_no_match():
    true = with_classes(bars((0, 10), (20, 30)), 0, 1)
    pred = with_classes(bars((0, 10), (20, 30)), 0, 0)
    image = compare(true, pred)
    counts = [image.of_class(number).count(0.5)[:3] for number in range(3)]
    assert counts == [(1, 1, 0), (0, 0, 1), (0, 0, 0)]
    assert image.within_classes.count(0.5)[:3] == (1, 1, 1)


def test_crowd_regions_swallow_false_cells_but_are_no_cells():
    true, crowd = bars((0, 10)), bars((20, 40))
    pred = bars((0, 10), (22, 30), (34, 44), (50, 55))
    image = compare(with_crowd(true, crowd), pred)
    # (22, 30) lies wholly in the crowd, (34, 44) to 6 / 10, (50, 55) not at all.
    assert image.count(0.5)[:3] == (1, 1, 0)
    assert image.count(0.65)[:3] == (1, 2, 0)


def test_crowd_counts_within_its_class_only():
    crowd = with_classes(bars((20, 40)), 1)
    pred = with_classes(bars((22, 30), (22, 30)), 0, 1)
    image = compare(with_crowd(EMPTY, crowd), pred)
    assert [image.of_class(number).count(0.5).fp for number in range(2)] == [1, 0]
    assert image.within_classes.count(0.5).fp == 1
    assert image.count(0.5).fp == 0  # classes play no part


def test_names_at_thresholds():
    assert cell_iou_names([0.3]) == [
        "ap_dsb",
        "ap_dsb@0.30",
        "precision@0.30",
        "recall@0.30",
        "f1@0.30",
        "pq@0.30",
        "mean_iou@0.30",
        "tp@0.30",
        "fp@0.30",
        "fn@0.30",
    ]
    assert name_at("f1", 0.5) == "f1@0.50"
    assert name_at("f1", 0.333) == "f1@0.333"  # not another threshold
    metrics = table(compare(bars((0, 4)), bars((0, 4))))
    assert all(type(value) is float for value in metrics.values())
