"""The vote over the cells of an image, in every place where detections become cells."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cellseg import load_config
from cellseg.cells.instances import CellInstances
from cellseg.cells.selection import DetectionThresholds, select_cells, vote_class
from cellseg.errors import ConfigError
from cellseg.evaluation.scoring import score
from cellseg.evaluation.trials import prepare_images
from cellseg.evaluation.tuning import _Search, tune_thresholds
from cellseg.inference.predictor import CellPredictor
from detectron2.structures import Boxes, Instances

QUICK_START = Path(__file__).resolve().parents[2] / "configs/quick_start.yaml"
BY_VOTE = DetectionThresholds(score=0.3, vote="image")


def bars(*spans: tuple[int, int], **more: list) -> CellInstances:
    """Cells in an image of one row: half-open column spans."""
    bitmaps = np.zeros((len(spans), 1, 60), bool)
    for bitmap, (start, stop) in zip(bitmaps, spans):
        bitmap[0, start:stop] = True
    return CellInstances.from_bitmaps(bitmaps, **more)


@pytest.mark.parametrize(
    ("scores", "classes", "expected"),
    [
        ([0.9, 0.5, 0.5], [0, 1, 1], 1),  # 0.9 < 1.0
        ([0.9, 0.4, 0.4], [0, 1, 1], 0),
        ([0.9, 0.5, 0.29, 0.29], [2, 1, 1, 1], 2),  # those below the threshold do not vote
        ([0.5, 0.5], [2, 1], 1),  # of equal ones the first
        ([0.3], [4], 4),  # as float32 it is above 0.3
        ([0.1, 0.2], [0, 1], None),
        ([], [], None),
    ],
)
def test_votes_are_weighted_by_score(
    scores: list[float], classes: list[int], expected: int | None
) -> None:
    votes = np.array(scores, np.float32), np.array(classes, np.int64)
    assert vote_class(*votes, BY_VOTE) == expected
    assert vote_class(*votes, replace(BY_VOTE, vote="none")) is None


def test_the_lowest_threshold_of_all_types_says_who_votes() -> None:
    scores, classes = np.array([0.5, 0.3, 0.3], np.float32), np.array([1, 0, 0])
    assert vote_class(scores, classes, DetectionThresholds((0.9, 0.2), vote="image")) == 0
    assert vote_class(scores, classes, DetectionThresholds((0.9, 0.4), vote="image")) == 1


def test_the_vote_comes_before_all_thresholds() -> None:
    """Score, area and NMS are those of the type that was voted for."""
    cells = bars(
        (0, 9), (0, 10), (20, 26), (30, 42), scores=[0.9, 0.8, 0.5, 0.5], classes=[0, 1, 1, 1]
    )
    thresholds = DetectionThresholds((0.95, 0.3), 0.5, (1.0, 0.5), (0, 8), vote="image")
    kept = select_cells(cells, thresholds)
    assert kept.classes.tolist() == [1, 1]
    assert kept.scores.tolist() == pytest.approx([0.9, 0.5])
    assert kept.areas_px.tolist() == [9, 12]
    assert cells.classes.tolist() == [0, 1, 1, 1]
    without = select_cells(cells, replace(thresholds, vote="none"))
    assert (without.classes.tolist(), without.areas_px.tolist()) == ([1, 1], [10, 12])


def test_voting_twice_or_without_those_below_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        count = int(rng.integers(1, 9))
        spans = [(6 * k, 6 * k + 4) for k in range(count)]
        cells = bars(*spans, scores=rng.random(count), classes=rng.integers(0, 3, count))
        first = select_cells(cells, BY_VOTE)
        assert len(set(first.classes)) <= 1
        above = cells[cells.scores >= np.float32(0.3)]
        for again in (select_cells(first, BY_VOTE), select_cells(above, BY_VOTE)):
            assert again.classes.tolist() == first.classes.tolist()
            assert again.offsets_rc.tolist() == first.offsets_rc.tolist()


def test_no_detections() -> None:
    assert len(select_cells(CellInstances.empty((4, 6)), BY_VOTE)) == 0


def test_from_the_config_and_in_words() -> None:
    cfg = load_config(QUICK_START, ["CELLSEG.CELL_TYPE.VOTE", "image"])
    found = DetectionThresholds.from_config(cfg)
    assert found == DetectionThresholds(max_covered=0.5, vote="image")
    assert found.describe() == "score >= 0.5, covered <= 0.5, type by vote over the image"
    with pytest.raises(ConfigError, match="the vote is 'dish'"):
        DetectionThresholds(vote="dish")


def test_mask_thresholds_are_those_of_the_type_that_was_voted_for(
    checkpoint_options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal soft masks, 0.2 left and 0.8 right; of class 0, which masks are wide for, and 1."""
    options = [*checkpoint_options, "CELLSEG.CELL_TYPE.VOTE", "image"]
    predictor = CellPredictor(load_config(QUICK_START, options))
    predictor.thresholds = replace(predictor.thresholds, mask=(0.1, 0.5), score=0.3)
    soft = torch.full((3, 1, 28, 28), 0.2)
    soft[..., 14:] = 0.8
    corners = [[4.0, 4.0, 32.0, 32.0], [4.0, 34.0, 32.0, 62.0], [34.0, 4.0, 62.0, 32.0]]
    found = Instances(
        (64, 64),
        pred_boxes=Boxes(torch.tensor(corners)),
        scores=torch.tensor([0.9, 0.8, 0.8]),
        pred_classes=torch.tensor([0, 1, 1]),
        pred_masks=soft,
    )
    monkeypatch.setattr(predictor.model, "inference", lambda *_, **__: [found])
    cells = predictor(np.zeros((64, 64), np.uint8))
    assert cells.classes.tolist() == [1, 1, 1]
    assert len(set(cells.areas_px.tolist())) == 1
    assert cells.areas_px[0] < 500  # half of 28 x 28
    assert found.pred_classes.tolist() == [0, 1, 1]


def dishes() -> tuple[list[CellInstances], list[CellInstances]]:
    """Images of one type; one cell of three is taken for another; a wrong one at 0.4."""
    true, pred = [], []
    for number in range(4):
        kind = number % 2
        spans = [(2 + number, 12 + number), (22, 32), (40, 50)]
        true.append(bars(*spans, classes=[kind] * 3))
        scores = [0.9, 0.7, 0.8, 0.4]
        pred.append(bars(*spans, (53, 58), scores=scores, classes=[kind, kind, 1 - kind, 1 - kind]))
    return true, pred


def test_tuning_knows_the_vote() -> None:
    true, pred = dishes()
    start = DetectionThresholds(0.35, vote="image")
    without = [select_cells(cells, replace(start, vote="none")) for cells in pred]
    assert score(true, without)["ap_dsb"] == pytest.approx(2 / 5)  # 2 right, 2 wrong, 1 missed
    found = tune_thresholds(true, pred, start=start, folds=2)
    assert found.before == pytest.approx(3 / 4)
    assert found.after == 1
    assert found.held_out is not None
    assert found.thresholds.vote == "image"
    shown = [select_cells(cells, found.thresholds) for cells in pred]
    assert score(true, shown)["ap_dsb"] == 1


@pytest.mark.parametrize("metric", ["ap_coco_mask", "f1@0.50", "dice_foreground"])
@pytest.mark.parametrize("scores", [(0.35, 0.35), (0.95, 0.75), (0.85, 0.2)])
def test_trials_of_tuning_are_what_select_cells_gives(
    metric: str, scores: tuple[float, float]
) -> None:
    true, pred = dishes()
    search = _Search(prepare_images(true, pred), metric, 2, 0.0)
    for vote in ("image", "none", "image"):
        trial = DetectionThresholds(scores, 0.5, (1.0, 0.5), (0.0, 6.0), vote=vote)
        shown = [select_cells(cells, trial) for cells in pred]
        expected = score(true, shown, [metric])[metric]
        assert search.at(np.arange(len(pred)), trial) == pytest.approx(expected)
