"""Which detections are cells: thresholds per class, minimum area, NMS of masks."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from cellseg import load_config
from cellseg.cells.instances import CellInstances
from cellseg.cells.selection import (
    LOOKING_AT_EVERYTHING,
    Candidates,
    DetectionThresholds,
    select_cells,
    select_detections,
    values_of_classes,
)
from cellseg.errors import ConfigError
from cellseg.inference.detections import detections_to_cells
from detectron2.structures import Boxes, Instances

REPOSITORY = Path(__file__).resolve().parents[2]
QUICK_START = REPOSITORY / "configs/quick_start.yaml"
EVERYTHING = DetectionThresholds(score=0)


def bars(*spans: tuple[int, int], **more: list) -> CellInstances:
    """Cells in an image of one row: half-open column spans."""
    bitmaps = np.zeros((len(spans), 1, 60), bool)
    for bitmap, (start, stop) in zip(bitmaps, spans):
        bitmap[0, start:stop] = True
    return CellInstances.from_bitmaps(bitmaps, **more)


def scores_of(cells: CellInstances, **thresholds: object) -> list[float]:
    chosen = DetectionThresholds(**{"score": 0.0, **thresholds})
    return [round(float(score), 3) for score in select_cells(cells, chosen).scores]


def test_scores_per_class_and_equality_counts() -> None:
    cells = bars((0, 5), (10, 15), (20, 25), scores=[0.5, 0.7, 0.3], classes=[0, 1, 0])
    assert scores_of(cells, score=0.5) == [0.5, 0.7]
    assert scores_of(cells, score=[0.3, 0.8]) == [0.5, 0.3]
    assert scores_of(cells, score=[0.3, 0.7]) == [0.5, 0.7, 0.3]  # 0.7 is no float32


def test_minimum_area_per_class() -> None:
    cells = bars((0, 5), (10, 14), (20, 23), scores=[0.9, 0.8, 0.7], classes=[0, 1, 0])
    assert scores_of(cells, min_area_px=5) == [0.9]
    assert scores_of(cells, min_area_px=[3, 5]) == [0.9, 0.7]
    assert scores_of(cells, min_area_px=[3, 5], mask_nms=0.5) == [0.9, 0.7]


def test_a_mask_without_a_pixel_stays_unless_an_area_is_asked_for() -> None:
    cells = bars((0, 5), (7, 7), scores=[0.9, 0.8])
    assert scores_of(cells) == [0.9, 0.8]
    assert scores_of(cells, mask_nms=0.1) == [0.9, 0.8]
    assert scores_of(cells, min_area_px=1) == [0.9]


def test_nms_is_greedy_by_score() -> None:
    """a-b and b-c share 5 of 15 pixels, a-c none: b goes, and does not take c along."""
    a, b, c = (0, 10), (5, 15), (10, 20)
    assert scores_of(bars(c, b, a, scores=[0.7, 0.8, 0.9]), mask_nms=0.3) == [0.7, 0.9]
    assert scores_of(bars(c, b, a, scores=[0.7, 0.9, 0.8]), mask_nms=0.3) == [0.9]
    third = 1 / 3
    assert scores_of(bars(c, b, a, scores=[0.7, 0.9, 0.8]), mask_nms=third) == [0.7, 0.9, 0.8]


def test_nms_at_equal_scores_keeps_the_first() -> None:
    cells = bars((0, 10), (1, 10), (0, 9), scores=[0.6, 0.6, 0.6])
    kept = select_cells(cells, DetectionThresholds(score=0, mask_nms=0.5))
    assert kept.areas_px.tolist() == [10]


def test_nms_stays_within_a_class_and_has_a_limit_per_class() -> None:
    spans = ((0, 10), (0, 10), (30, 40), (32, 40), (0, 10))
    scores, classes = [0.9, 0.8, 0.7, 0.6, 0.5], [0, 1, 1, 1, 0]
    cells = bars(*spans, scores=scores, classes=classes)
    assert scores_of(cells, mask_nms=0.5) == [0.9, 0.8, 0.7]
    assert scores_of(cells, mask_nms=[1.0, 0.5]) == [0.9, 0.8, 0.7, 0.5]
    assert scores_of(cells, mask_nms=[0.5, 0.9]) == [0.9, 0.8, 0.7, 0.6]


def test_a_piece_of_better_cells_is_none() -> None:
    """b lies in a by half, c in b by half and in a not at all, d in a and b by a quarter each."""
    a, b, c, d = (0, 10), (5, 15), (10, 20), (8, 12)
    assert scores_of(bars(a, b, c, scores=[0.9, 0.8, 0.7]), max_covered=0.5) == [0.9, 0.8, 0.7]
    assert scores_of(bars(a, b, c, scores=[0.9, 0.8, 0.7]), max_covered=0.4) == [0.9, 0.7]
    assert scores_of(bars(a, c, d, scores=[0.9, 0.8, 0.7]), max_covered=0.6) == [0.9, 0.8]
    small = bars((0, 40), (3, 6), scores=[0.8, 0.7])  # IoU 0.075: nothing for NMS
    assert scores_of(small, mask_nms=0.1) == [0.8, 0.7]
    assert scores_of(small, max_covered=0.9) == [0.8]
    large = bars((3, 6), (0, 40), scores=[0.8, 0.7])
    assert scores_of(large, max_covered=0.1) == [0.8, 0.7]
    assert scores_of(large, max_covered=0.0) == [0.8]


def test_the_covered_share_stays_within_a_class_and_has_a_limit_per_class() -> None:
    cells = bars((0, 10), (2, 10), (30, 40), (32, 40), scores=[0.9, 0.8, 0.7, 0.6])
    cells = cells.replace(classes=np.array([0, 1, 1, 1]))
    assert scores_of(cells, max_covered=0.5) == [0.9, 0.8, 0.7]
    assert scores_of(cells, max_covered=[0.5, 1.0]) == [0.9, 0.8, 0.7, 0.6]


def test_a_share_that_is_just_reached_is_kept() -> None:
    cells = bars((0, 29), (0, 50), scores=[0.9, 0.8])
    assert scores_of(cells, max_covered=0.58) == [0.9, 0.8]  # 0.58 * 50 < 29 in floats


def test_what_is_no_cell_suppresses_nothing() -> None:
    small_on_large = bars((0, 6), (0, 10), scores=[0.9, 0.8])
    assert scores_of(small_on_large, mask_nms=0.5) == [0.9]
    assert scores_of(small_on_large, mask_nms=0.5, min_area_px=8) == [0.8]


def test_no_detections() -> None:
    none = CellInstances.empty((4, 6))
    for thresholds in (EVERYTHING, DetectionThresholds([0.1, 0.2], 0.5, [0.5, 1], [3, 4])):
        assert len(select_cells(none, thresholds)) == 0


def random_cells(rng: np.random.Generator, number: int) -> CellInstances:
    bitmaps = np.zeros((number, 24, 24), bool)
    for bitmap in bitmaps:
        row, col = rng.integers(0, 20, 2)
        bitmap[row : row + rng.integers(0, 9), col : col + rng.integers(0, 9)] = True
    scores = rng.integers(0, 12, number) / 12  # many are equal
    return CellInstances.from_bitmaps(bitmaps, scores, rng.integers(0, 3, number))


def brute_force(cells: CellInstances, thresholds: DetectionThresholds) -> list[int]:
    bitmaps = cells.to_bitmaps()
    kept: list[int] = []
    for k in sorted(range(len(cells)), key=lambda k: (-cells.scores[k], k)):
        number = cells.classes[k]
        if cells.scores[k] < np.float32(thresholds.score[number]):
            continue
        if bitmaps[k].sum() < thresholds.min_area_px[number]:
            continue
        iou = [
            (bitmaps[k] & bitmaps[j]).sum() / max(1, (bitmaps[k] | bitmaps[j]).sum())
            for j in kept
            if cells.classes[j] == number
        ]
        covered = sum(
            int((bitmaps[k] & bitmaps[j]).sum()) for j in kept if cells.classes[j] == number
        )
        most = thresholds.max_covered[number]
        piece = most < 1 and covered > most * bitmaps[k].sum()
        if max(iou, default=0) <= thresholds.mask_nms[number] and not piece:
            kept.append(k)
    return sorted(kept)


def test_equal_to_brute_force_over_bitmaps() -> None:
    rng = np.random.default_rng(0)
    removed = 0
    for _ in range(200):
        cells = random_cells(rng, int(rng.integers(0, 25)))
        thresholds = DetectionThresholds(
            score=rng.choice([0.0, 0.25, 0.5], 3),
            mask_nms=rng.choice([0.0, 0.2, 0.5, 1.0], 3),
            min_area_px=rng.choice([0, 1, 12], 3),
            max_covered=rng.choice([0.25, 0.5, 1.0], 3),
        )
        expected = brute_force(cells, thresholds)
        candidates = Candidates.measure(cells, LOOKING_AT_EVERYTHING)
        assert select_detections(candidates, thresholds)[0].tolist() == expected
        assert select_cells(cells, thresholds).offsets_rc.tolist() == (
            cells.offsets_rc[expected].tolist()
        )
        removed += len(cells) - len(expected)
    assert removed > 500


def test_two_thousand_detections_take_no_time() -> None:
    rng = np.random.default_rng(1)
    crop = np.ones((20, 20), bool)
    cells = CellInstances.from_crops(
        [crop] * 2000, rng.integers(0, 1000, (2000, 2)), (1024, 1024), scores=rng.random(2000)
    )
    begin = time.perf_counter()
    kept = select_cells(cells, DetectionThresholds(score=0, mask_nms=0.2))
    assert time.perf_counter() - begin < 2
    assert 1000 < len(kept) < 2000


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"score": 1.5}, r"score threshold is 1.5; expected 0 to 1.*SCORE_THRESHOLD"),
        ({"score": [0.5, -1]}, r"score threshold is \[0.5, -1\]"),
        ({"score": "high"}, "score threshold is high"),
        ({"score": True}, "score threshold is True"),
        ({"score": []}, r"score threshold is \[\]"),
        ({"mask": 0.0}, "mask threshold is 0.0; expected above 0"),
        ({"mask_nms": 2}, "mask NMS is 2"),
        ({"min_area_px": -1}, "minimum area is -1; expected 0"),
        ({"min_area_px": float("inf")}, "minimum area is inf"),
    ],
)
def test_refuses(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DetectionThresholds(**values)


def test_more_classes_than_numbers() -> None:
    with pytest.raises(ConfigError, match=r"of class 2 .* has 2 numbers"):
        values_of_classes((0.5, 0.5), np.array([0, 2]))
    with pytest.raises(ConfigError, match=r"MASK_NMS is \[0.5, 0.5\], 2 numbers; .* the 3 classes"):
        DetectionThresholds(mask_nms=[0.5, 0.5]).check_classes(3)


def test_in_words() -> None:
    assert DetectionThresholds().describe() == "score >= 0.5"
    found = DetectionThresholds([0.4, 0.65], 0.3, [1, 0.5], 30)
    assert found.describe() == "score >= 0.4/0.65, area >= 30 px, mask NMS 1/0.5"


def test_the_recipes_leave_out_pieces_and_otherwise_keep_the_defaults() -> None:
    found = DetectionThresholds.from_config(load_config(QUICK_START))
    assert found == DetectionThresholds(max_covered=0.5)


@pytest.mark.parametrize(
    ("word", "expected"), [("0.0", 0.0), ("0", 0.0), ("1", 1.0), ("[0.25]", (0.25,))]
)
def test_both_forms_on_the_command_line(word: str, expected: object) -> None:
    cfg = load_config(QUICK_START, ["CELLSEG.TEST.SCORE_THRESHOLD", word])
    assert DetectionThresholds.from_config(cfg).score == expected
    assert DetectionThresholds.from_config(cfg).mask == 0.5


def write_config(folder: Path, test_keys: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(f'_BASE_: "{QUICK_START}"\nCELLSEG:\n  TEST:\n{test_keys}')
    return path


def test_both_forms_in_a_file_and_the_command_line_wins(tmp_path: Path) -> None:
    keys = "    SCORE_THRESHOLD: [0.3]\n    MASK_NMS: 1\n    MIN_AREA: [12.5]\n"
    path = write_config(tmp_path, keys)
    cfg = load_config(path)
    expected = DetectionThresholds((0.3,), 0.5, 1.0, (12.5,), 0.5)
    assert DetectionThresholds.from_config(cfg) == expected
    cfg = load_config(path, ["CELLSEG.TEST.SCORE_THRESHOLD", "0.4", "CELLSEG.TEST.MIN_AREA", "7"])
    assert DetectionThresholds.from_config(cfg) == DetectionThresholds(0.4, 0.5, 1.0, 7, 0.5)
    written = tmp_path / "dumped.yaml"
    written.write_text(cfg.dump())
    assert load_config(written).CELLSEG == cfg.CELLSEG


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("    SCORE_THRESHOLD: 'high'\n", "score threshold is high"),
        ("    SCORE_THRESHOLD: [0.5, 0.5]\n", "2 numbers; expected one number, or one for each"),
        ("    MASK_THRESHOLD: 0\n", "above 0"),
        ("    MASK_NMS: {a: 1}\n", "CELLSEG.TEST.MASK_NMS is a section with the keys a"),
        ("    MASK_NSM: 1\n", "did you mean CELLSEG.TEST.MASK_NMS"),
    ],
)
def test_a_wrong_value_in_a_file_is_one_error(tmp_path: Path, keys: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(write_config(tmp_path, keys))


def test_mask_thresholds_per_class_cut_each_mask_on_its_own() -> None:
    """Equal soft masks, 0.2 left and 0.8 right, of two classes."""
    soft = torch.full((2, 1, 28, 28), 0.2)
    soft[..., 14:] = 0.8
    found = Instances(
        (40, 40),
        pred_boxes=Boxes(torch.tensor([[4.0, 4.0, 32.0, 32.0]] * 2)),
        scores=torch.tensor([0.9, 0.8]),
        pred_classes=torch.tensor([0, 1]),
        pred_masks=soft,
    )
    both = [detections_to_cells(found, mask_threshold=one).to_bitmaps() for one in (0.15, 0.5)]
    mixed = detections_to_cells(found, mask_threshold=(0.15, 0.5)).to_bitmaps()
    assert both[0][0].sum() > 1.8 * both[1][0].sum() > 0
    assert np.array_equal(mixed[0], both[0][0])
    assert np.array_equal(mixed[1], both[1][1])
