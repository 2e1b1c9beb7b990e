"""The same cells at every door: what predictions hold is what is scored, tuned and drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cell_scenes import random_bitmaps
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import bitmap_to_rle
from cellseg.cells.selection import DetectionThresholds, select_cells
from cellseg.datasets.ground_truth import GroundTruth
from cellseg.evaluation import CellIoUEvaluator, comparison
from cellseg.evaluation.coco_evaluator import DenseCOCOEvaluator
from cellseg.evaluation.comparison import compare, compare_all
from cellseg.evaluation.pictures import PictureEvaluator
from cellseg.evaluation.scoring import Comparisons, score
from cellseg.evaluation.trials import prepare_images
from cellseg.evaluation.tuning import _Search, tune_thresholds
from cellseg.io.coco_results import EVALUATED_NAME
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances

HW = (30, 40)
NAME = "cells_at_every_door"
METRICS = ("ap_dsb", "f1@0.50", "tp@0.50", "fp@0.50", "aji", "dice_foreground", "ap_coco_mask")
STEPS = {
    "component": {"largest_component": True},
    "holes": {"fill_holes": [True, False]},
    "areas": {"min_area_px": [0, 8], "max_area_px": 45},
    "border": {"border": ["drop", "keep"]},
    "exclusive": {"exclusive": True},
    "one class exclusive": {"exclusive": [True, False], "min_area_px": 4},
    "all": {
        "largest_component": [True, False],
        "fill_holes": True,
        "min_area_px": 5,
        "max_area_px": [0, 50],
        "mask_nms": 0.6,
        "max_covered": 0.7,
        "border": ["keep", "drop"],
        "exclusive": True,
        "vote": "image",
    },
}
each_step = pytest.mark.parametrize("step", STEPS)


def thresholds_of(step: str) -> DetectionThresholds:
    return DetectionThresholds(0.25, **STEPS[step])


def images() -> tuple[list[CellInstances], list[CellInstances]]:
    """True cells, and detections: these with specks and holes, and others."""
    rng = np.random.default_rng(3)
    true, pred = [], []
    for _ in range(4):
        cells = random_bitmaps(rng, 8, HW)
        cells = cells[cells.any(axis=(1, 2))]
        found = np.concatenate([cells, random_bitmaps(rng, 8, HW)])
        for bitmap in found:
            bitmap[tuple(rng.integers(0, HW))] ^= True
        classes = rng.integers(0, 2, len(found))
        true.append(CellInstances.from_bitmaps(cells, classes=classes[: len(cells)]))
        pred.append(
            CellInstances.from_bitmaps(found, rng.integers(2, 10, len(found)) / 10, classes)
        )
    return true, pred


TRUE, PRED = images()


def shown(step: str) -> list[CellInstances]:
    """What a prediction holds."""
    return [select_cells(cells, thresholds_of(step)) for cells in PRED]


def assert_same(found: CellInstances, expected: CellInstances) -> None:
    assert np.array_equal(found.to_bitmaps(), expected.to_bitmaps())
    for name in ("boxes_xyxy", "classes", "scores"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))


@pytest.fixture
def dataset() -> Iterator[str]:
    dicts = [
        {"file_name": f"{k}.png", "height": HW[0], "width": HW[1], "image_id": k, "annotations": [
            {"segmentation": bitmap_to_rle(bitmap), "category_id": int(number), "iscrowd": 0,
             "bbox": [0, 0, 1, 1], "bbox_mode": 0}
            for bitmap, number in zip(cells.to_bitmaps(), cells.classes)
        ]}
        for k, cells in enumerate(TRUE)
    ]  # fmt: skip
    DatasetCatalog.register(NAME, lambda: dicts)
    MetadataCatalog.get(NAME).set(thing_classes=["round", "long"])
    yield NAME
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def outputs() -> list[dict[str, Instances]]:
    """The detections as a model returns them in evaluation."""
    return [
        {
            "instances": Instances(
                HW,
                pred_boxes=Boxes(torch.from_numpy(cells.boxes_xyxy)),
                scores=torch.from_numpy(cells.scores),
                pred_classes=torch.from_numpy(cells.classes),
                pred_masks=torch.from_numpy(cells.to_bitmaps()),
            )
        }
        for cells in PRED
    ]


INPUTS = [{"image_id": k, "file_name": f"{k}.png"} for k in range(len(PRED))]


@each_step
def test_every_step_changes_something_here(step: str) -> None:
    plain = [select_cells(cells, DetectionThresholds(0.25)) for cells in PRED]
    same = [one.equals(other) for one, other in zip(plain, shown(step))]
    assert not all(same)


@each_step
def test_comparison_and_report(step: str) -> None:
    """The report draws and measures `Comparisons.keep`."""
    kept = Comparisons(compare_all(TRUE, PRED)).keep(thresholds_of(step))
    for image, true, expected in zip(kept.images, TRUE, shown(step)):
        assert_same(image.pred.cells, expected)
        fresh = compare(true, expected)
        for name in ("true_index", "pred_index", "intersection_px", "iou"):
            assert np.array_equal(getattr(image.pairs, name), getattr(fresh.pairs, name))
        assert np.array_equal(image.pred.areas_px, expected.areas_px)
    assert kept.metrics(METRICS) == score(TRUE, shown(step), METRICS)


def test_only_cells_with_other_pixels_are_compared_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = compare_all(TRUE, PRED)
    sizes: list[int] = []
    original = comparison.renew_overlaps

    def counting(pairs: object, true: object, pred: object, is_changed: np.ndarray) -> object:
        sizes.append(int(is_changed.sum()))
        return original(pairs, true, pred, is_changed)

    monkeypatch.setattr(comparison, "renew_overlaps", counting)
    for image, cells in zip(compared, PRED):
        kept = image.keep(DetectionThresholds(0.25, largest_component=True))
        before = cells[cells.scores >= 0.25].to_bitmaps()
        changed = (before != kept.pred.cells.to_bitmaps()).any(axis=(1, 2)).sum()
        assert sizes.pop() == changed < len(kept.pred)
        image.keep(DetectionThresholds(0.25))
    assert sizes == []


@each_step
def test_evaluator(step: str, dataset: str) -> None:
    figures = []
    for from_model in (True, False):
        evaluator = CellIoUEvaluator(dataset, selection=thresholds_of(step), metrics=["aji"])
        if from_model:
            evaluator.process(INPUTS, outputs())
        else:
            for key, cells in enumerate(shown(step)):
                evaluator.add_image(key, cells)
        figures.append(evaluator.evaluate()["cell_iou"])
    assert figures[0] == pytest.approx(figures[1], nan_ok=True)
    assert figures[0]["tp@0.50"] + figures[0]["fp@0.50"] == sum(map(len, shown(step)))


@each_step
def test_pictures(step: str, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[CellInstances] = []
    monkeypatch.setattr(
        "cellseg.evaluation.pictures.draw_comparison",
        lambda image, true, pred: drawn.append(pred) or image,
    )
    picture = np.zeros((*HW, 3), np.uint8)
    evaluator = PictureEvaluator(
        dataset, tmp_path, selection=thresholds_of(step), read=lambda _: picture
    )
    evaluator.process(INPUTS, outputs())
    for cells, expected in zip(drawn, shown(step), strict=True):
        by_score = expected.sort_by_score()
        assert np.array_equal(cells.to_label_image(), by_score.to_label_image())


@each_step
@pytest.mark.parametrize("metric", METRICS)
def test_trials_of_tuning(step: str, metric: str) -> None:
    search = _Search(prepare_images(TRUE, PRED), metric, 2, 0.0)
    numbers = np.arange(len(PRED))
    for changes in ({}, {"score": (0.5, 0.3)}, {"min_area_px": (9, 0)}, {"mask_nms": 0.2}, {}):
        trial = DetectionThresholds(**{"score": 0.25, **STEPS[step], **changes})
        expected = score(TRUE, [select_cells(cells, trial) for cells in PRED], [metric])[metric]
        assert search.at(numbers, trial) == pytest.approx(expected, abs=1e-12)


def test_tuning_keeps_what_it_does_not_tune_and_its_figures_are_those_of_predictions() -> None:
    start = thresholds_of("all")
    found = tune_thresholds(TRUE, PRED, start=start, folds=2)
    for name in ("largest_component", "fill_holes", "max_area_px", "border", "exclusive", "vote"):
        assert getattr(found.thresholds, name) == getattr(start, name)
    found.thresholds.check_classes(2)
    for thresholds, value in ((start, found.before), (found.thresholds, found.after)):
        cells = [select_cells(one, thresholds) for one in PRED]
        assert value == pytest.approx(score(TRUE, cells)["ap_dsb"], abs=1e-12)


def test_no_minimum_area_above_the_maximum_is_tried() -> None:
    images = prepare_images(TRUE, PRED)
    free = _Search(images, "ap_dsb", 2, 0.0)
    bound = _Search(images, "ap_dsb", 2, 0.0, (6, 0))
    numbers = np.arange(len(PRED))
    assert max(free._grid("min_area_px", 0, numbers)) > 6
    assert max(bound._grid("min_area_px", 0, numbers)) <= 6
    grids = [search._grid("min_area_px", 1, numbers) for search in (free, bound)]
    assert grids[0] == grids[1]


def test_the_results_file_of_coco_holds_all_detections_and_gives_the_same_cells(
    dataset: str, tmp_path: Path
) -> None:
    """COCO's AP ranks what the model gives; tuning and the report select from its file."""
    evaluator = DenseCOCOEvaluator(dataset, ("bbox", "segm"), tmp_path)
    evaluator.process(INPUTS, outputs())
    evaluator.evaluate()
    path = tmp_path / EVALUATED_NAME
    assert len(json.loads(path.read_text())) == sum(map(len, PRED))
    read = GroundTruth.load(dataset).read_predictions(path)
    for step in STEPS:
        for key, expected in enumerate(shown(step)):
            cells = select_cells(read[key], thresholds_of(step)).sort_by_position()
            expected = expected.sort_by_position()
            assert np.array_equal(cells.to_bitmaps(), expected.to_bitmaps())
            assert np.array_equal(cells.classes, expected.classes)
