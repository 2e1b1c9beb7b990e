"""Detections that cells are chosen among again and again: what `predict` finds, every time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from cellseg.cells.selection import DetectionThresholds
from cellseg.cells.windows import Window
from cellseg.inference import adjustable
from cellseg.inference.adjustable import AdjustableDetections, detect_softly
from cellseg.inference.detections import SoftDetections
from cellseg.inference.model import CellModel, plane_of_array
from cellseg.inference.predictor import CellPredictor
from detectron2.config import CfgNode
from scipy import ndimage


def make_image(seed: int = 0, image_hw: tuple[int, int] = (60, 90)) -> np.ndarray:
    """Bright rectangles, none of which touch."""
    rng = np.random.default_rng(seed)
    image = np.zeros(image_hw, np.uint8)
    for row in range(2, image_hw[0] - 12, 14):
        for column in range(2, image_hw[1] - 12, 14):
            height, width = rng.integers(3, 11, 2)
            image[row : row + height, column : column + width] = rng.integers(100, 255)
    return image


class TestChoosing:
    """An untrained network finds cells everywhere, overlapping, at low scores."""

    @pytest.mark.parametrize(
        "thresholds",
        [
            DetectionThresholds(score=0.0),
            DetectionThresholds(score=0.06),
            DetectionThresholds(score=0.05, mask=0.47, min_area_px=30, max_area_px=900),
            DetectionThresholds(score=0.0, mask_nms=0.3, max_covered=0.6, border="drop"),
            DetectionThresholds(score=0.0, mask=0.51, largest_component=True, fill_holes=True),
            DetectionThresholds(score=0.0, exclusive=True, min_area_px=10),
        ],
    )
    def test_it_chooses_what_the_predictor_finds(
        self, cfg: CfgNode, thresholds: DetectionThresholds
    ) -> None:
        predictor, image = CellPredictor(cfg), make_image()
        found = AdjustableDetections(detect_softly(CellModel(predictor), plane_of_array(image)))
        predictor.thresholds = thresholds
        expected = predictor(image)
        chosen = found.choose(thresholds)
        assert chosen.cells.equals(expected)
        assert (np.diff(chosen.ids) > 0).all()
        if thresholds == DetectionThresholds(score=0.0):
            assert len(expected) > 3

    def test_ids_last_and_masks_are_cut_only_when_they_change(self, cfg: CfgNode) -> None:
        plane = plane_of_array(make_image())
        found = AdjustableDetections(detect_softly(CellModel(CellPredictor(cfg)), plane))
        low, high = DetectionThresholds(score=0.0), DetectionThresholds(score=0.1, mask_nms=0.2)
        every, few = found.choose(low), found.choose(high)
        assert set(few.ids) < set(every.ids)
        assert every.cells.scores[few.ids - 1].tolist() == few.cells.scores.tolist()
        measured = found.measure(low)
        assert found.measure(high) is measured
        assert found.measure(replace(high, mask=0.6)) is not measured

    def test_after_any_way_of_the_sliders_it_is_as_if_chosen_at_once(
        self, cfg: CfgNode, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        soft = detect_softly(CellModel(CellPredictor(cfg)), plane_of_array(make_image()))
        scores = np.quantile(soft.scores.numpy(), [0.2, 0.5, 0.9, 0.5, 0.0, 0.7]).tolist()
        ways = [
            DetectionThresholds(score=score, mask=mask, mask_nms=0.4)
            for score, mask in zip(scores, [0.5, 0.5, 0.45, 0.45, 0.45, 0.55])
        ]
        moved = AdjustableDetections(soft)
        monkeypatch.setattr(adjustable, "MOST_KEPT_PX", 0)  # at once: nothing is kept
        for thresholds in ways:
            chosen, expected = (
                moved.choose(thresholds),
                AdjustableDetections(soft).choose(thresholds),
            )
            assert chosen.cells.equals(expected.cells)
            assert chosen.ids.tolist() == expected.ids.tolist()
            monkeypatch.undo()
        assert moved._pasted is not None
        assert len({len(moved.choose(thresholds).ids) for thresholds in ways}) > 2

    def test_the_types_vote(self) -> None:
        boxes = torch.tensor([[0.0, 0, 4, 4], [5, 5, 9, 9], [10, 0, 14, 4]])
        soft = SoftDetections(
            (20, 20),
            boxes,
            torch.ones(3, 7, 7),
            torch.tensor([0.9, 0.6, 0.5]),
            torch.tensor([0, 1, 1]),
        )
        found = AdjustableDetections(soft)
        vote = DetectionThresholds(score=0.4, vote="image")
        assert found.choose(vote).cells.classes.tolist() == [1, 1, 1]
        assert found.choose(replace(vote, score=0.7)).cells.classes.tolist() == [0]

    def test_nothing_found(self) -> None:
        chosen = AdjustableDetections(SoftDetections.empty((5, 7))).choose(DetectionThresholds())
        assert (len(chosen.cells), chosen.cells.image_hw, len(chosen.ids)) == (0, (5, 7), 0)


def find_softly(pixels: np.ndarray, limits: Any, scale: float, **how: Any) -> SoftDetections:
    """What stands in for the network: the boxes of bright rectangles, also of cut ones."""
    labels, count = ndimage.label(pixels > 0)
    places = ndimage.find_objects(labels)
    boxes = [[x.start, y.start, x.stop, y.stop] for y, x in places]
    scores = ndimage.maximum(pixels, labels, range(1, count + 1)) / 256 if count else []
    return SoftDetections(
        (pixels.shape[0], pixels.shape[1]),
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.ones(count, 7, 7),
        torch.tensor(np.asarray(scores, np.float32)),
        torch.zeros(count, dtype=torch.int64),
    )


class TestTiles:
    @pytest.fixture
    def model(self, cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> CellModel:
        cfg.merge_from_list(
            ["INPUT.MIN_SIZE_TEST", 0, "CELLSEG.TEST.TILE", 64, "CELLSEG.TEST.TILE_OVERLAP", 24]
        )
        predictor = CellPredictor(cfg)
        monkeypatch.setattr(predictor, "detect_softly", find_softly)
        return CellModel(predictor)

    @pytest.mark.parametrize("seed", range(3))
    def test_each_cell_is_found_once(self, model: CellModel, seed: int) -> None:
        image = make_image(seed, (500, 430))
        steps: list[tuple[int, int]] = []
        found = detect_softly(model, plane_of_array(image), progress=lambda *at: steps.append(at))
        chosen = AdjustableDetections(found).choose(DetectionThresholds(score=0.1, mask=0.2))
        labels, count = ndimage.label(image)
        assert len(chosen.cells) == count
        assert np.array_equal(chosen.cells.to_label_image() > 0, labels > 0)
        assert steps[-1][0] == steps[-1][1] > 20
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)

    def test_a_part_of_the_image(self, model: CellModel) -> None:
        image, part = make_image(1, (500, 430)), Window(100, 30, 330, 400)
        found = detect_softly(model, plane_of_array(image), window=part)
        chosen = AdjustableDetections(found).choose(DetectionThresholds(score=0.1, mask=0.2))
        assert chosen.cells.image_hw == (230, 370)
        expected = image[part.rows, part.columns] > 0
        assert np.array_equal(chosen.cells.to_label_image() > 0, expected)

    def test_it_stops_in_the_middle_of_the_network(self, cfg: CfgNode) -> None:
        model = CellModel(CellPredictor(cfg))
        plane, calls = plane_of_array(make_image()), []

        def stop_at_tenth(done: int, total: int) -> None:
            calls.append((done, total))
            if len(calls) == 10:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            detect_softly(model, plane, progress=stop_at_tenth)
        assert calls == [(0, 1)] * 10
        again = detect_softly(model, plane)
        assert len(again)
        assert len(calls) == 10  # nobody is told any more
