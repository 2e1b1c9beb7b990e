from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from cellseg.cells.labels import bitmap_to_rle
from cellseg.errors import DatasetError
from cellseg.evaluation import build_coco_evaluator
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances

NAME = "cells_for_the_coco_evaluator"
METRICS = ["AP", "AP50", "AP75", "APs", "APm", "APl"]


def grid(count: int) -> np.ndarray:
    """bool[count, H, W]: squares of 4 px in rows of 20."""
    bitmaps = np.zeros((count, 5 * (count // 20 + 1), 100), dtype=bool)
    for k, bitmap in enumerate(bitmaps):
        row, col = 5 * (k // 20), 5 * (k % 20)
        bitmap[row : row + 4, col : col + 4] = True
    return bitmaps


def boxes_xyxy(bitmaps: np.ndarray) -> list[list[int]]:
    found = [np.argwhere(bitmap) for bitmap in bitmaps]
    return [[*p.min(axis=0)[::-1].tolist(), *(p.max(axis=0)[::-1] + 1).tolist()] for p in found]


def image(image_id: str, bitmaps: np.ndarray, shape: tuple[int, int]) -> dict:
    annotations = [
        {
            "bbox": box,
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": 0,
            "segmentation": bitmap_to_rle(bitmap),
            "iscrowd": 0,
        }
        for box, bitmap in zip(boxes_xyxy(bitmaps), bitmaps)
    ]
    size = {"height": shape[0], "width": shape[1]}
    return {"file_name": f"{image_id}.png", "image_id": image_id, "annotations": annotations} | size


def output(bitmaps: np.ndarray) -> dict:
    instances = Instances(bitmaps.shape[1:])
    instances.pred_boxes = Boxes(torch.tensor(boxes_xyxy(bitmaps)).reshape(-1, 4).float())
    instances.scores = torch.linspace(0.9, 0.8, len(bitmaps))
    instances.pred_classes = torch.zeros(len(bitmaps), dtype=torch.int64)
    instances.pred_masks = torch.from_numpy(bitmaps)
    return {"instances": instances}


@pytest.fixture
def cfg() -> CfgNode:
    cfg = get_cfg()
    cfg.TEST.DETECTIONS_PER_IMAGE = 300
    cfg.MODEL.MASK_ON = True
    return cfg


@pytest.fixture
def register() -> Iterator[Callable[..., None]]:
    def add(*images: dict, classes: tuple[str, ...] = ("cell",)) -> None:
        if NAME in DatasetCatalog.list():
            DatasetCatalog.pop(NAME)
        DatasetCatalog.register(NAME, lambda: list(images))
        MetadataCatalog.get(NAME).set(thing_classes=list(classes))

    yield add
    DatasetCatalog.pop(NAME)
    MetadataCatalog.pop(NAME)


def evaluate(cfg, tmp_path, image_id, bitmaps):
    evaluator = build_coco_evaluator(cfg, NAME, tmp_path)
    evaluator.reset()
    evaluator.process([{"image_id": image_id}], [output(bitmaps)])
    return evaluator.evaluate()


def test_more_than_a_hundred_cells_are_all_counted(register, cfg, tmp_path):
    bitmaps = grid(240)
    register(image("an id with letters", bitmaps, bitmaps.shape[1:]))
    results = evaluate(cfg, tmp_path, "an id with letters", bitmaps)
    for task in ("bbox", "segm"):
        assert results[task]["AP"] == results[task]["AP50"] == pytest.approx(100)
        assert results[task]["APs"] == pytest.approx(100)
        assert math.isnan(results[task]["APl"])


def test_a_lower_limit_caps_the_recall(register, cfg, tmp_path):
    cfg.TEST.DETECTIONS_PER_IMAGE = 60
    bitmaps = grid(240)
    register(image("a", bitmaps, bitmaps.shape[1:]))
    results = evaluate(cfg, tmp_path, "a", bitmaps)
    # Recall stops at 60 / 240: 26 of COCO's 101 recall points have precision 1.
    assert results["segm"]["AP"] == pytest.approx(100 * 26 / 101)
    assert results["segm"]["AP75"] == pytest.approx(100 * 26 / 101)


@pytest.mark.parametrize("limit", [-1, 3, 10, 100])
def test_any_limit_of_detections_works(register, cfg, tmp_path, limit):
    cfg.TEST.DETECTIONS_PER_IMAGE = limit
    bitmaps = grid(3)
    register(image("a", bitmaps, bitmaps.shape[1:]))
    assert evaluate(cfg, tmp_path, "a", bitmaps)["segm"]["AP"] == pytest.approx(100)


def test_cells_that_were_all_missed_are_zero(register, cfg, tmp_path):
    """NaN only where there is nothing to find: all cells are small."""
    bitmaps = grid(3)
    register(image("a", bitmaps, bitmaps.shape[1:]))
    results = evaluate(cfg, tmp_path, "a", bitmaps[:0])
    assert list(results) == ["bbox", "segm"]
    for metrics in results.values():
        assert list(metrics) == METRICS
        assert {name for name, value in metrics.items() if value == 0} == {*METRICS[:4]}
        assert all(math.isnan(metrics[name]) for name in METRICS[4:])


def test_no_annotations_in_the_whole_dataset(register, cfg, tmp_path):
    bitmaps = grid(3)
    register(image("a", bitmaps[:0], bitmaps.shape[1:]), classes=("round", "long"))
    results = evaluate(cfg, tmp_path, "a", bitmaps)
    for task in ("bbox", "segm"):
        assert list(results[task]) == [*METRICS, "AP-round", "AP-long"]
        assert all(math.isnan(value) for value in results[task].values())


def test_no_image_came(register, cfg, tmp_path):
    register(image("a", grid(1), (5, 100)))
    evaluator = build_coco_evaluator(cfg, NAME, tmp_path)
    evaluator.reset()
    assert {task: list(metrics) for task, metrics in evaluator.evaluate().items()} == {
        "bbox": METRICS,
        "segm": METRICS,
    }


def test_metrics_per_class(register, cfg, tmp_path):
    bitmaps = grid(3)
    register(image("a", bitmaps, bitmaps.shape[1:]), classes=("round", "long"))
    results = evaluate(cfg, tmp_path, "a", bitmaps)
    assert results["segm"]["AP-round"] == pytest.approx(100)
    assert math.isnan(results["segm"]["AP-long"])


def test_boxes_alone_where_there_is_no_mask_head(register, cfg, tmp_path):
    cfg.MODEL.MASK_ON = False
    register(image("a", grid(3), (5, 100)))
    assert list(evaluate(cfg, tmp_path, "a", grid(3))) == ["bbox"]


def test_truth_is_converted_anew(register, cfg, tmp_path):
    register(image("a", grid(3), (5, 100)))
    evaluate(cfg, tmp_path / "first", "a", grid(3))
    register(image("a", grid(2), (5, 100)))
    for folder in ("first", "second"):
        results = evaluate(cfg, tmp_path / folder, "a", grid(3)[:2])
        assert results["segm"]["AP"] == pytest.approx(100)
        truth = json.loads((tmp_path / folder / f"{NAME}_coco_format.json").read_text())
        assert len(truth["annotations"]) == 2


def test_a_json_file_of_the_dataset_is_used(register, cfg, tmp_path):
    register(image("a", grid(3), (5, 100)))
    evaluate(cfg, tmp_path, "a", grid(3))
    own = tmp_path / "own.json"
    (tmp_path / f"{NAME}_coco_format.json").rename(own)
    MetadataCatalog.get(NAME).json_file = str(own)
    assert evaluate(cfg, tmp_path, "a", grid(3))["segm"]["AP"] == pytest.approx(100)
    assert MetadataCatalog.get(NAME).json_file == str(own)


def scene(rng: np.random.Generator, image_id: str) -> tuple[dict, dict]:
    """An image with crowd regions, and detections with scores of which several are the same."""
    sides = []
    for count in rng.integers(0, 12, 2):
        bitmaps = np.zeros((count, 130, 150), bool)
        for bitmap in bitmaps:
            row, col = rng.integers(0, 120, 2)
            high, wide = rng.choice([5, 12, 40, 110], 2)
            bitmap[row : row + high, col : col + wide] = True
        sides.append(bitmaps)
    near = np.roll(sides[0], rng.integers(-2, 3, 2), axis=(1, 2))
    found = np.concatenate([near[near.any(axis=(1, 2))], sides[1]])
    truth = image(image_id, sides[0], (130, 150))
    for one in truth["annotations"]:
        one |= {"category_id": int(rng.integers(0, 3)), "iscrowd": int(rng.random() < 0.2)}
    given = output(found)
    given["instances"].scores = torch.tensor(np.round(rng.random(len(found)), 1)).float()
    given["instances"].pred_classes = torch.tensor(rng.integers(0, 3, len(found)))
    boxes = given["instances"].pred_boxes.tensor
    given["instances"].pred_boxes = Boxes(boxes + torch.rand(boxes.shape) / 3)
    return truth, given


@pytest.mark.parametrize("seed", range(12))
def test_equal_to_the_evaluator_of_detectron2(register, cfg, tmp_path, seed):
    """All metrics of both tasks, also with a limit that bites and an image that never comes."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    cfg.TEST.DETECTIONS_PER_IMAGE = [300, 10][seed % 2]
    scenes = [scene(rng, name) for name in ("b", "a", "c", "d")]
    register(*(truth for truth, _ in scenes), classes=("round", "long", "flat"))
    if seed % 3 == 0:
        ids = {7: 0, 9: 1, 12: 2}
        MetadataCatalog.get(NAME).set(thing_dataset_id_to_contiguous_id=ids)
    theirs = COCOEvaluator(
        NAME,
        ("bbox", "segm"),
        output_dir=str(tmp_path / "theirs"),
        max_dets_per_image=cfg.TEST.DETECTIONS_PER_IMAGE,
    )
    found = []
    for evaluator in (build_coco_evaluator(cfg, NAME, tmp_path / "mine"), theirs):
        evaluator.reset()
        for truth, given in scenes[:3]:
            evaluator.process([{"image_id": truth["image_id"]}], [given])
        found.append(evaluator.evaluate())
    assert list(found[0]) == list(found[1]) == ["bbox", "segm"]
    for task, expected in found[1].items():
        assert list(found[0][task]) == list(expected)
        assert found[0][task] == pytest.approx(expected, abs=1e-9, nan_ok=True)
    paths = [tmp_path / who / "coco_instances_results.json" for who in ("mine", "theirs")]
    written = [
        sorted(json.loads(path.read_text()), key=lambda one: (one["image_id"], -one["score"]))
        for path in paths
    ]
    for mine, other in zip(*written, strict=True):
        assert mine.pop("bbox") == pytest.approx(other.pop("bbox"), abs=1e-4)  # theirs: float32
        assert mine == other


def test_an_image_of_another_dataset(register, cfg, tmp_path):
    register(image("a", grid(1), (5, 100)))
    with pytest.raises(DatasetError, match="no image with id 'b'"):
        evaluate(cfg, tmp_path, "b", grid(1))
