"""Threshold tuning on sets whose best thresholds are known, and on one that holds nothing."""

from __future__ import annotations

import numpy as np
import pytest
from cellseg.cells.instances import CellInstances
from cellseg.cells.selection import DetectionThresholds, select_cells
from cellseg.errors import ConfigError, LabelError
from cellseg.evaluation.scoring import score
from cellseg.evaluation.tuning import Tuning, tune_thresholds

Images = tuple[list[CellInstances], list[CellInstances]]
HW = (60, 60)


def cells(*parts: tuple[int, int, int, float, int]) -> CellInstances:
    """Squares: row, column, side, score, class."""
    return CellInstances.from_crops(
        [np.ones((side, side), bool) for _, _, side, _, _ in parts],
        [part[:2] for part in parts],
        HW,
        scores=[part[3] for part in parts],
        classes=[part[4] for part in parts],
    )


def noisy_set(num_images: int, *, first_class_from: float = 0.3) -> Images:
    """Two classes, of which nothing but the right thresholds gives a perfect score.

    Class 0: cells of 100 px at scores from 0.3; spurious ones at up to 0.22. Class 1: cells at
    scores from 0.75, spurious ones at up to 0.68; a double of each cell, at 0.95, with an IoU of
    0.81; specks of 9 px at 0.9.
    """
    rng = np.random.default_rng(7)
    true, pred = [], []
    for _ in range(num_images):
        low = first_class_from + 0.1 * rng.random()
        real = [(2, 2, 10, low, 0), (2, 20, 10, 0.9, 0), (30, 2, 10, 0.99, 1)]
        real.append((30, 20, 10, 0.75 + 0.2 * rng.random(), 1))
        wrong = [(45, 40, 10, 0.22 * rng.random(), 0), (15, 40, 10, 0.68, 1), (50, 5, 3, 0.9, 1)]
        wrong.append((30, 2, 9, 0.95, 1))
        true.append(cells(*((*part[:3], 1.0, part[4]) for part in real)))
        pred.append(cells(*real, *wrong))
    return true, pred


def rescored(images: Images, thresholds: DetectionThresholds, metric: str) -> float:
    return score(images[0], [select_cells(p, thresholds) for p in images[1]], [metric])[metric]


def test_finds_the_thresholds_that_make_it_perfect() -> None:
    images = noisy_set(24)
    found = tune_thresholds(*images)
    assert found.after == found.held_out == 1
    assert found.before < 0.65
    score_0, score_1 = found.thresholds.score
    assert 0.22 <= score_0 <= 0.3
    assert 0.68 < score_1 <= 0.75
    assert found.thresholds.mask_nms[0] == 1  # nothing to gain: as before
    # either of the two takes the double, which lies in its cell
    assert found.thresholds.mask_nms[1] < 0.81 or found.thresholds.max_covered[1] < 1
    assert found.thresholds.min_area_px[0] == 0
    assert 9 < found.thresholds.min_area_px[1] <= 100
    assert found.thresholds.mask == 0.5
    assert found.gain == found.held_out_gain == pytest.approx(1 - found.before)
    assert found.interval is not None
    assert 0.3 < found.interval[0] <= found.gain <= found.interval[1]
    assert len(found.of_folds) == 5
    assert found.num_images == 24


@pytest.mark.parametrize(
    "metric",
    [
        *("ap_dsb", "ap_dsb@0.75", "f1@0.50", "pq_by_image", "ap_dsb_greedy@0.60"),
        *("aji", "dice_foreground", "boundary_f1", "seg_ctc", "count_error", "fp@0.50"),
        *("ap_coco_mask", "afnr_livecell", "errors_spurious"),
    ],
)
def test_its_figures_are_those_of_score(metric: str) -> None:
    images = noisy_set(4)
    start = DetectionThresholds(0.35, 0.5, 0.9, 4)
    found = tune_thresholds(*images, metric, start=start, folds=2)
    assert found.before == pytest.approx(rescored(images, start, metric), abs=1e-12)
    assert found.after == pytest.approx(rescored(images, found.thresholds, metric), abs=1e-12)
    assert found.gain >= 0
    assert (found.interval is None) == (metric in ("ap_coco_mask", "afnr_livecell"))


def test_lower_may_be_better() -> None:
    found = tune_thresholds(*noisy_set(6), "fp@0.50")
    assert found.before > found.after == 0
    assert found.gain == found.before
    assert tune_thresholds(*noisy_set(6), "errors_correct").gain >= 0


def test_held_out_is_scored_with_the_thresholds_of_the_other_folds() -> None:
    """Image 0 alone needs a low threshold: fitted without it, it is missed."""
    true = [cells((0, 0, 10, 1, 0))] * 3
    pred = [cells((0, 0, 10, 0.2, 0))] + [
        cells((0, 0, 10, 0.9, 0), (30, 30, 10, 0.6, 0), (40, 10, 10, 0.4, 0))
    ] * 2
    found = tune_thresholds(true, pred, "f1@0.50", folds=3)
    # TP, FP, FN at 0.5: 2, 2, 1. Fitted to all: 2, 0, 1. Without image 0 the same thresholds.
    assert found.before == pytest.approx(4 / 7)
    assert found.after == found.held_out == pytest.approx(4 / 5)
    low = tune_thresholds([true[0]] * 2, [pred[0], pred[1]], "f1@0.50", folds=2)
    # Held out, image 0 is judged at a high threshold (FN), image 1 at the low one (TP, 2 FP).
    assert low.held_out is not None
    assert low.held_out == pytest.approx(2 / (2 + 2 + 1))
    assert low.held_out < low.after


def chance_set(seed: int, num_images: int) -> Images:
    """Right and wrong detections with scores that say nothing about which is which."""
    rng = np.random.default_rng(seed)
    true, pred = [], []
    for _ in range(num_images):
        places = [(row, col) for row in (0, 15, 30, 45) for col in (0, 15, 30, 45)]
        found = [(*place, 10, float(rng.uniform(0.5, 1)), 0) for place in places]
        real = rng.random(len(places)) < 0.4
        true.append(cells(*(part for part, is_real in zip(found, real) if is_real)))
        pred.append(cells(*found))
    return true, pred


def test_where_scores_say_nothing_the_honest_gain_is_none() -> None:
    """Fitting 8 images to chance looks like a gain on them; on held-out images it is not one."""
    results = [tune_thresholds(*chance_set(seed, 8), "ap_dsb@0.50", folds=4) for seed in range(12)]
    gains = [result.gain for result in results]
    held_out = [result.held_out_gain for result in results]
    assert min(gains) >= 0
    assert max(gains) > 0
    assert max(held_out) <= 1e-9
    assert np.mean(held_out) > -0.05
    assert np.mean(held_out) < np.mean(gains)


def test_nothing_to_gain_keeps_what_was() -> None:
    true = [cells((0, 0, 10, 1.0, 0), (20, 20, 10, 1.0, 0))] * 3
    start = DetectionThresholds(score=0.37, mask_nms=0.83, min_area_px=2)
    found = tune_thresholds(true, true, start=start)
    assert found.thresholds == DetectionThresholds((0.37,), 0.5, (0.83,), (2,), (1,))
    assert found.gain == found.held_out_gain == 0
    assert found.interval == (0, 0)


def test_no_threshold_below_what_the_model_gave() -> None:
    found = tune_thresholds(*noisy_set(4, first_class_from=0.05), "recall@0.50", lowest_score=0.05)
    assert min(found.thresholds.score) >= 0.05
    start = DetectionThresholds(score=[0.9, 0.9])
    assert tune_thresholds(*noisy_set(4), start=start).after == 1


def test_one_image_has_no_held_out_gain() -> None:
    found: Tuning = tune_thresholds(*noisy_set(1))
    assert found.after == 1
    assert found.held_out is found.held_out_gain is found.interval is None
    assert found.of_folds == ()


def test_images_without_cells_and_classes_that_do_not_occur() -> None:
    empty = CellInstances.empty(HW)
    found = tune_thresholds([empty, empty], [empty, cells((0, 0, 5, 0.9, 0))], num_classes=3)
    assert (found.before, found.after) == (0.5, 1)
    assert len(found.thresholds.score) == 3
    assert found.thresholds.score[1:] == (0.5, 0.5)


def test_refuses() -> None:
    with pytest.raises(LabelError, match="no metric 'f2'; did you mean"):
        tune_thresholds(*noisy_set(2), "f2")
    with pytest.raises(LabelError, match="0 images, 5 folds"):
        tune_thresholds([], [])
    with pytest.raises(LabelError, match="2 images, 1 folds"):
        tune_thresholds(*noisy_set(2), folds=1)
    with pytest.raises(LabelError, match="ground truth of 1 images"):
        tune_thresholds(noisy_set(1)[0], noisy_set(2)[1])
    with pytest.raises(ConfigError, match="the 2 classes"):
        tune_thresholds(*noisy_set(2), start=DetectionThresholds(score=[0.5] * 3))
