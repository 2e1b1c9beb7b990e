from __future__ import annotations

import math

import numpy as np
import pytest
from cell_scenes import bars, random_bitmaps, shift_some
from cellseg.cells.instances import CellInstances
from cellseg.evaluation.metrics import (
    IOU_THRESHOLDS,
    POOLED_FIGURES,
    MatchCounts,
    count_matches,
    count_matches_by_class,
    summarize_counts,
)

EMPTY = bars()


def stacked(*counts: MatchCounts) -> MatchCounts:
    return MatchCounts.stack(counts)


def no_images() -> MatchCounts:
    nothing = np.zeros((0, len(IOU_THRESHOLDS)), dtype=np.int64)
    return MatchCounts(nothing, nothing, nothing, nothing.astype(float))


def with_classes(cells: CellInstances, *classes: int) -> CellInstances:
    return CellInstances.from_crops(
        cells.crops, cells.offsets_rc, cells.image_hw, classes=list(classes)
    )


def test_thresholds_are_the_literal_ones():
    assert IOU_THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def test_two_images_by_hand():
    # Image 1: cell 0 at IoU 8/10, cell 1 missed, one false. Image 2: one cell, exactly found.
    first = count_matches(bars((0, 10), (20, 30)), bars((0, 8), (40, 50)))
    second = count_matches(bars((5, 9)), bars((5, 9)))
    figures = summarize_counts(stacked(first, second))
    assert (figures["tp@0.80"], figures["fp@0.80"], figures["fn@0.80"]) == (2, 1, 1)
    assert (figures["tp@0.85"], figures["fp@0.85"], figures["fn@0.85"]) == (1, 2, 2)
    assert figures["ap_dsb@0.50"] == pytest.approx((1 / 3 + 1) / 2)
    assert figures["ap_dsb@0.85"] == pytest.approx((0 + 1) / 2)
    # Seven thresholds up to 0.80 and three above.
    assert figures["ap_dsb"] == pytest.approx((7 * 2 / 3 + 3 * 1 / 2) / 10)
    assert figures["precision@0.50"] == pytest.approx(2 / 3)
    assert figures["recall@0.50"] == pytest.approx(2 / 3)
    assert figures["f1@0.50"] == pytest.approx(2 / 3)
    assert figures["mean_iou@0.50"] == pytest.approx(0.9)
    assert figures["pq@0.50"] == pytest.approx(1.8 / 3)
    assert figures["mean_iou@0.95"] == 1


def test_more_predictions_than_cells():
    counts = count_matches(bars((0, 10)), bars((0, 10), (20, 30), (30, 40)))
    figures = summarize_counts(stacked(counts))
    assert figures["precision@0.50"] == pytest.approx(1 / 3)
    assert figures["recall@0.50"] == 1
    assert figures["f1@0.50"] == pytest.approx(2 * (1 / 3) / (1 + 1 / 3))


@pytest.mark.parametrize("seed", range(10))
def test_perfect_prediction_scores_one_everywhere(seed):
    labels = np.random.default_rng(seed).integers(0, 30, size=(24, 31))
    cells = CellInstances.from_label_image(labels)
    figures = summarize_counts(stacked(count_matches(cells, cells)))
    for name, value in figures.items():
        if name[:2] == "tp":
            assert value == len(cells)
        else:
            assert value == (0 if name[:2] in ("fp", "fn") else 1)


@pytest.mark.parametrize(
    ("true", "pred", "expected"),
    [
        (EMPTY, EMPTY, {"ap_dsb": 1, "precision": 1, "recall": 1, "f1": 1, "pq": 1, "mean_iou": 1}),
        (bars((0, 5)), EMPTY, dict.fromkeys(["ap_dsb", *POOLED_FIGURES], 0)),
        (EMPTY, bars((0, 5)), dict.fromkeys(["ap_dsb", *POOLED_FIGURES], 0)),
    ],
)
def test_empty_cases_are_defined(true, pred, expected):
    figures = summarize_counts(stacked(count_matches(true, pred)))
    assert all(math.isfinite(value) for value in figures.values())
    for name, value in expected.items():
        assert figures[f"{name}@0.50"] == figures[f"{name}@0.95"] == value
    assert figures["ap_dsb"] == expected["ap_dsb"]


def test_an_empty_image_found_empty_raises_ap_but_not_the_pooled_figures():
    half = count_matches(bars((0, 5), (10, 15)), bars((0, 5)))
    nothing = count_matches(EMPTY, EMPTY)
    figures = summarize_counts(stacked(half, nothing))
    assert figures["ap_dsb@0.50"] == pytest.approx((1 / 2 + 1) / 2)
    assert figures["recall@0.50"] == pytest.approx(1 / 2)


def test_no_image_at_all_scores_one():
    figures = summarize_counts(no_images())
    assert figures["ap_dsb"] == figures["pq@0.75"] == 1
    assert figures["tp@0.50"] == 0


def test_a_detection_without_a_pixel_is_false():
    pixelless = CellInstances.from_crops([np.zeros((0, 0), bool)], [(0, 0)], (1, 60))
    counts = count_matches(bars((0, 5)), pixelless)
    assert (counts.tp[0], counts.fp[0], counts.fn[0]) == (0, 1, 1)


@pytest.mark.parametrize("seed", range(50))
def test_counts_agree_with_greedy_matching_of_disjoint_masks(seed):
    # Above IoU 0.5 disjoint masks have one candidate at most, so no assignment is needed.
    rng = np.random.default_rng(seed)
    labels = np.zeros((25, 30), dtype=int)
    for k, bitmap in enumerate(random_bitmaps(rng, 12, labels.shape), 1):
        labels[bitmap] = k
    moved = np.roll(labels, rng.integers(-1, 2, size=2), axis=(0, 1))
    counts = count_matches(
        CellInstances.from_label_image(labels), CellInstances.from_label_image(moved)
    )
    ids, moved_ids = np.unique(labels[labels > 0]), np.unique(moved[moved > 0])
    for t, threshold in enumerate(IOU_THRESHOLDS[1:], 1):
        ious = [
            ((labels == a) & (moved == b)).sum() / ((labels == a) | (moved == b)).sum()
            for a in ids
            for b in moved_ids
        ]
        matched = [iou for iou in ious if iou >= threshold]
        assert counts.tp[t] == len(matched)
        assert counts.fp[t] == len(moved_ids) - len(matched)
        assert counts.fn[t] == len(ids) - len(matched)
        assert counts.iou_sum[t] == pytest.approx(sum(matched))


@pytest.mark.parametrize("seed", range(20))
def test_order_of_cells_does_not_change_the_counts(seed):
    rng = np.random.default_rng(seed)
    bitmaps = random_bitmaps(rng, 12, (20, 20))
    true, pred = (
        CellInstances.from_bitmaps(masks) for masks in (bitmaps, shift_some(rng, bitmaps))
    )
    first = count_matches(true, pred)
    second = count_matches(true[rng.permutation(len(true))], pred[rng.permutation(len(pred))])
    np.testing.assert_array_equal(first.tp, second.tp)
    np.testing.assert_allclose(first.iou_sum, second.iou_sum)


def test_a_cell_of_another_class_is_no_match():
    true = with_classes(bars((0, 10), (20, 30)), 0, 1)
    pred = with_classes(bars((0, 10), (20, 30)), 0, 0)
    counts = count_matches_by_class(true, pred, 3)
    assert counts.tp[:, 0].tolist() == [1, 0, 0]
    assert counts.fp[:, 0].tolist() == [1, 0, 0]
    assert counts.fn[:, 0].tolist() == [0, 1, 0]
    assert counts.sum(axis=0).tp[0] == 1


def test_crowd_regions_swallow_false_cells_but_are_no_cells():
    true, crowd = bars((0, 10)), bars((20, 40))
    pred = bars((0, 10), (22, 30), (34, 44), (50, 55))
    counts = count_matches(true, pred, [0.5, 0.65], crowd=crowd)
    # (22, 30) lies wholly in the crowd, (34, 44) to 6 / 10, (50, 55) not at all.
    assert counts.tp.tolist() == [1, 1]
    assert counts.fp.tolist() == [1, 2]
    assert counts.fn.tolist() == [0, 0]


def test_crowd_counts_within_its_class_only():
    crowd = with_classes(bars((20, 40)), 1)
    pred = with_classes(bars((22, 30), (22, 30)), 0, 1)
    counts = count_matches_by_class(EMPTY, pred, 2, [0.5], crowd=crowd)
    assert counts.fp.tolist() == [[1], [0]]


def test_thresholds_and_suffix_name_the_figures():
    counts = stacked(count_matches(bars((0, 4)), bars((0, 4)), [0.3]))
    figures = summarize_counts(counts, [0.3], suffix="/neuron")
    assert sorted(figures) == sorted(
        f"{name}/neuron"
        for name in [
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
    )
    assert all(type(value) is float for value in figures.values())


def test_a_figure_of_ones_own(monkeypatch):
    monkeypatch.setitem(POOLED_FIGURES, "found", lambda counts: counts.tp > 0)
    figures = summarize_counts(stacked(count_matches(bars((0, 4)), bars((0, 3)))))
    assert figures["found@0.75"] == 1
    assert figures["found@0.80"] == 0
