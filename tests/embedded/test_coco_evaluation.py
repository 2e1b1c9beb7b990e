"""COCO's figures on cases small enough to be computed by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import (
    COCOevalMaxDets,
    _evaluate_predictions_on_coco,
    instances_to_coco_json,
)
from detectron2.evaluation.fast_eval_api import COCOeval_opt
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils import comm
from pycocotools.coco import COCO

HW = (100, 100)
FIGURES = ["AP", "AP50", "AP75", "APs", "APm", "APl"]


def square_mask(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    mask = np.zeros(HW, bool)
    mask[int(y0) : int(y1), int(x0) : int(x1)] = True
    return mask


def predictions(boxes, scores, classes=None, *, masks: bool = False) -> dict[str, Instances]:
    instances = Instances(HW)
    instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.scores = torch.tensor(scores, dtype=torch.float32)
    instances.pred_classes = torch.tensor(classes or [0] * len(boxes), dtype=torch.int64)
    if masks:
        bitmaps = np.stack([square_mask(*box) for box in boxes]) if boxes else np.zeros((0, *HW))
        instances.pred_masks = torch.from_numpy(bitmaps.astype(bool))
    return {"instances": instances}


def ground_truth(image_id: int, boxes, classes=None) -> dict:
    return {
        "file_name": f"{image_id}.png",
        "image_id": image_id,
        "height": HW[0],
        "width": HW[1],
        "annotations": [
            {
                "bbox": list(box),
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": category,
                "segmentation": mask_util.encode(np.asfortranarray(square_mask(*box), np.uint8)),
            }
            for box, category in zip(boxes, classes or [0] * len(boxes))
        ],
    }


@pytest.fixture
def register(request) -> Iterator:
    """Registers a dataset of records under a new name."""
    names: list[str] = []

    def add(records: list[dict], classes: tuple[str, ...] = ("cell",)) -> str:
        name = f"{request.node.name}_{len(names)}"
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(thing_classes=list(classes))
        names.append(name)
        return name

    yield add
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def evaluate(evaluator: COCOEvaluator, *batches: tuple[int, dict], **options) -> dict:
    evaluator.reset()
    for image_id, output in batches:
        evaluator.process([{"image_id": image_id}], [output])
    return evaluator.evaluate(**options)


TRUE = [(10, 10, 20, 20), (40, 40, 80, 80)]  # one small (100 px), one medium (1600 px)


def test_perfect_predictions(register, tmp_path):
    name = register([ground_truth(1, TRUE)])
    results = evaluate(
        COCOEvaluator(name, output_dir=str(tmp_path)),
        (1, predictions(TRUE, [0.9, 0.8], masks=True)),
    )
    assert list(results) == ["bbox", "segm"]
    for figures in results.values():
        assert list(figures) == FIGURES
        found = [figures[name] for name in ("AP", "AP50", "APs", "APm")]
        assert found == pytest.approx([100.0] * 4)
        assert math.isnan(figures["APl"])


def test_one_of_two_found_behind_a_false_alarm(register, tmp_path):
    """Precision 1/2 up to recall 0.5, i.e. at 51 of the 101 points: AP = 51 / 101 / 2."""
    name = register([ground_truth(1, TRUE)])
    output = predictions([(60, 0, 70, 10), TRUE[0]], [0.9, 0.8])
    results = evaluate(COCOEvaluator(name, output_dir=str(tmp_path)), (1, output))
    assert list(results) == ["bbox"]
    assert results["bbox"]["AP"] == pytest.approx(100 * 51 / 101 / 2)
    assert results["bbox"]["APs"] == pytest.approx(50.0)  # 1 of 1 at precision 1/2
    assert results["bbox"]["APm"] == 0.0


def test_overlap_decides_by_threshold(register, tmp_path):
    """IoU 0.8: right at 0.5, 0.55, ..., 0.8, that is at 7 of the 10 thresholds."""
    name = register([ground_truth(1, [(0, 0, 10, 10)])])
    output = predictions([(0, 0, 10, 8)], [0.5], masks=True)
    figures = evaluate(COCOEvaluator(name, output_dir=str(tmp_path)), (1, output))["segm"]
    assert figures["AP"] == pytest.approx(70.0)
    assert (figures["AP50"], figures["AP75"]) == pytest.approx((100.0, 100.0))


def test_masks_count_and_not_boxes(register, tmp_path):
    """The box is right, the mask covers half of it; sizes go by the mask as well."""
    name = register([ground_truth(1, [(0, 0, 40, 40)])])
    output = predictions([(0, 0, 40, 40)], [0.5], masks=True)
    output["instances"].pred_masks = torch.from_numpy(square_mask(0, 0, 40, 16))[None]
    results = evaluate(COCOEvaluator(name, output_dir=str(tmp_path)), (1, output))
    assert results["bbox"]["AP"] == pytest.approx(100.0)
    assert results["segm"]["AP"] == 0.0


def test_figures_per_class(register, tmp_path):
    records = [ground_truth(1, TRUE, [0, 1])]
    name = register(records, classes=("round", "long"))
    output = predictions([TRUE[0], (0, 0, 5, 5)], [0.9, 0.8], [0, 1])
    figures = evaluate(COCOEvaluator(name, output_dir=str(tmp_path)), (1, output))["bbox"]
    assert figures["AP-round"] == pytest.approx(100.0)
    assert figures["AP-long"] == 0.0
    assert figures["AP"] == pytest.approx(50.0)


def test_class_without_truth_has_no_figure(register, tmp_path):
    name = register([ground_truth(1, TRUE)], classes=("round", "long"))
    output = predictions(TRUE, [0.9, 0.8])
    figures = evaluate(COCOEvaluator(name, output_dir=str(tmp_path)), (1, output))["bbox"]
    assert (figures["AP"], figures["AP-round"]) == pytest.approx((100.0, 100.0))
    assert math.isnan(figures["AP-long"])


def grid(count: int) -> list[tuple[int, int, int, int]]:
    return [(x, y, x + 5, y + 5) for y in range(0, 98, 7) for x in range(0, 98, 7)][:count]


@pytest.mark.parametrize(
    ("limit", "reached"), [(None, 100), (100, 100), (150, 150), (1000, 160), (50, 50)]
)
def test_detections_beyond_the_limit_do_not_count(register, tmp_path, limit, reached):
    """160 cells, all found; the limit says how many count. Recall r: AP = (floor(100 r) + 1) / 101.

    By default that is 100, however many the model may return.
    """
    cells = grid(160)
    name = register([ground_truth(1, cells)])
    scores = np.linspace(0.9, 0.5, len(cells)).tolist()
    evaluator = COCOEvaluator(name, output_dir=str(tmp_path), max_dets_per_image=limit)
    figures = evaluate(evaluator, (1, predictions(cells, scores, masks=True)))
    points = math.floor(100 * reached / 160) + 1
    assert figures["segm"]["AP"] == pytest.approx(100 * points / 101)
    assert figures["bbox"]["AP50"] == pytest.approx(100 * points / 101)


def test_nothing_detected_gives_nan(register, tmp_path):
    name = register([ground_truth(1, TRUE)], classes=("a", "b"))
    evaluator = COCOEvaluator(name, ["bbox", "segm"], output_dir=str(tmp_path))
    results = evaluate(evaluator, (1, predictions([], [], masks=True)))
    for task in ("bbox", "segm"):
        assert list(results[task]) == FIGURES
        assert all(math.isnan(value) for value in results[task].values())
    assert json.loads((tmp_path / "coco_instances_results.json").read_text()) == []


def test_no_image_processed_gives_nothing(register, tmp_path, caplog):
    name = register([ground_truth(1, TRUE)])
    with caplog.at_level("WARNING"):
        assert evaluate(COCOEvaluator(name, output_dir=str(tmp_path))) == {}
    assert "predictions" in caplog.text


def test_detections_in_an_image_without_truth_are_false_alarms(register, tmp_path):
    """Ranked 0.9 (wrong), 0.8 (right): precision 1/2 at every recall."""
    name = register([ground_truth(1, TRUE[:1]), ground_truth(2, [])])
    outputs = [
        (1, predictions(TRUE[:1], [0.8])),
        (2, predictions([(0, 0, 9, 9)], [0.9])),
    ]
    evaluator = COCOEvaluator(name, output_dir=str(tmp_path))
    assert evaluate(evaluator, *outputs)["bbox"]["AP"] == pytest.approx(50.0)
    assert evaluate(evaluator, *outputs, img_ids=[1])["bbox"]["AP"] == pytest.approx(100.0)


@pytest.fixture
def coco_file(tmp_path: Path) -> Iterator[str]:
    """A dataset from a COCO file, with category ids 7 and 3."""
    content = {
        "images": [{"id": 5, "height": 100, "width": 100, "file_name": "a.png"}],
        "categories": [{"id": 7, "name": "seven"}, {"id": 3, "name": "three"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 5,
                "category_id": 7,
                "bbox": [10, 10, 10, 10],
                "area": 100,
                "iscrowd": 0,
            }
        ],
    }
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    name = f"coco_file_{tmp_path.name}"
    MetadataCatalog.get(name).set(
        json_file=str(path),
        thing_classes=["three", "seven"],
        thing_dataset_id_to_contiguous_id={3: 0, 7: 1},
    )
    yield name
    MetadataCatalog.remove(name)


def test_category_ids_are_those_of_the_dataset(coco_file, tmp_path):
    evaluator = COCOEvaluator(coco_file, output_dir=str(tmp_path / "out"))
    output = predictions([(10, 10, 20, 20)], [0.9], [1])
    assert evaluate(evaluator, (5, output))["bbox"]["AP-seven"] == pytest.approx(100.0)
    (written,) = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert written["category_id"] == 7
    assert written["bbox"] == [10, 10, 10, 10]
    (raw,) = torch.load(tmp_path / "out" / "instances_predictions.pth", weights_only=True)
    assert raw["image_id"] == 5


def test_class_that_the_dataset_has_not_is_an_error(coco_file):
    evaluator = COCOEvaluator(coco_file)
    with pytest.raises((ValueError, AssertionError), match="2"):
        evaluate(evaluator, (5, predictions([(10, 10, 20, 20)], [0.9], [2])))


@pytest.mark.embedded_only
def test_evaluating_twice_gives_the_same(coco_file):
    evaluator = COCOEvaluator(coco_file)
    evaluate(evaluator, (5, predictions([(10, 10, 20, 20)], [0.9], [1])))
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100.0)


def test_dataset_without_annotations_is_only_written(coco_file, tmp_path):
    path = Path(MetadataCatalog.get(coco_file).json_file)
    content = json.loads(path.read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    evaluator = COCOEvaluator(coco_file, output_dir=str(tmp_path / "out"))
    assert evaluate(evaluator, (5, predictions([(10, 10, 20, 20)], [0.9], [1]))) == {}
    assert len(json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())) == 1


def test_dataset_without_file_needs_a_folder(register):
    with pytest.raises(ValueError, match="output_dir"):
        COCOEvaluator(register([ground_truth(1, TRUE)]))


def test_config_in_place_of_the_tasks_is_ignored(coco_file):
    assert evaluate(
        COCOEvaluator(coco_file, get_cfg()), (5, predictions([(10, 10, 20, 20)], [0.9], [1]))
    )["bbox"]["AP"]


@pytest.mark.embedded_only
def test_what_is_left_out_is_refused(coco_file):
    with pytest.raises(ValueError, match="keypoints"):
        COCOEvaluator(coco_file, ["bbox", "keypoints"])
    with pytest.raises(ValueError, match="proposals"):
        COCOEvaluator(coco_file).process([{"image_id": 5}], [{"proposals": None}])
    with pytest.raises(RuntimeError, match="accumulate"):
        COCOevalMaxDets(iouType="bbox").summarize()


def test_main_process_gathers_and_the_others_return_nothing(coco_file, monkeypatch):
    evaluator = COCOEvaluator(coco_file)
    of_other = [{"image_id": 5, "instances": []}]
    monkeypatch.setattr(comm, "gather", lambda data, dst: [of_other, data])
    batch = (5, predictions([(10, 10, 20, 20)], [0.9], [1]))
    assert evaluate(evaluator, batch)["bbox"]["AP"] == pytest.approx(100.0)
    monkeypatch.setattr(comm, "gather", lambda data, dst: [])
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert evaluate(evaluator, batch) == {}
    alone = COCOEvaluator(coco_file, distributed=False)
    assert evaluate(alone, batch)["bbox"]["AP"] == pytest.approx(100.0)


def test_instances_in_coco_format():
    output = predictions([(1, 2, 4, 8), (0, 0, 5, 5)], [0.5, 0.25], [3, 0], masks=True)
    first, second = instances_to_coco_json(output["instances"], "image 1")
    assert first["bbox"] == [1.0, 2.0, 3.0, 6.0]
    assert (first["image_id"], first["category_id"], first["score"]) == ("image 1", 3, 0.5)
    assert isinstance(first["segmentation"]["counts"], str)
    assert np.array_equal(mask_util.decode(second["segmentation"]), square_mask(0, 0, 5, 5))
    assert output["instances"].pred_boxes.tensor[0].tolist() == [1, 2, 4, 8]  # untouched
    json.dumps([first, second])
    assert instances_to_coco_json(predictions([], [])["instances"], 1) == []
    (boxes_only,) = instances_to_coco_json(predictions([(0, 0, 1, 1)], [1.0])["instances"], 1)
    assert "segmentation" not in boxes_only


def coco_of(truths: list[dict], tmp_path: Path) -> COCO:
    """pycocotools' view of records that were made by `ground_truth`."""
    content: dict = {"images": [], "annotations": [], "categories": [{"id": 0, "name": "cell"}]}
    for record in truths:
        content["images"].append({k: record[k] for k in ("file_name", "height", "width")})
        content["images"][-1]["id"] = record["image_id"]
        for annotation in record["annotations"]:
            x0, y0, x1, y1 = annotation["bbox"]
            rle = annotation["segmentation"]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": record["image_id"],
                    "category_id": annotation["category_id"],
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                    "segmentation": {**rle, "counts": rle["counts"].decode()},
                }
            )
    (tmp_path / "truth.json").write_text(json.dumps(content))
    return COCO(str(tmp_path / "truth.json"))


def test_figures_of_results_as_other_evaluators_ask_for_them(tmp_path):
    true = coco_of([ground_truth(1, TRUE), ground_truth(2, TRUE)], tmp_path)
    found = predictions(TRUE, [0.9, 0.8], masks=True)["instances"]
    results = instances_to_coco_json(found, 1)
    before = json.dumps(results)
    for task in ("bbox", "segm"):
        scores = _evaluate_predictions_on_coco(true, results, task)
        # half of all cells at full precision: 51 of the 101 points of recall
        assert scores.stats[0] == pytest.approx(51 / 101)
        first = _evaluate_predictions_on_coco(true, results, task, img_ids=[1])
        assert first.stats[0] == pytest.approx(1.0)
    assert json.dumps(results) == before
    few = _evaluate_predictions_on_coco(
        true, results, "segm", cocoeval_fn=COCOeval_opt, img_ids=[1], max_dets_per_image=[1, 1, 1]
    )
    assert few.stats[0] == pytest.approx(51 / 101)
    for strange in ({"max_dets_per_image": [1, 10]}, {"coco_results": []}):
        with pytest.raises((ValueError, AssertionError)):
            _evaluate_predictions_on_coco(
                **{"coco_gt": true, "coco_results": results, "iou_type": "segm"} | strange
            )


def test_keypoints_with_tolerances_of_ones_own(tmp_path):
    points = [10, 10, 2, 20, 20, 2]
    image = {"id": 1, "file_name": "a.png", "height": 50, "width": 50}
    common = {"image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20], "keypoints": points}
    true = {**common, "id": 1, "area": 2500, "iscrowd": 0, "num_keypoints": 2}
    content = {"images": [image], "annotations": [true], "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    api = COCO(str(tmp_path / "truth.json"))
    results = [{**common, "score": 0.5}]
    scores = _evaluate_predictions_on_coco(api, results, "keypoints", [0.1, 0.1])
    assert scores.stats[0] == pytest.approx(1.0)
    with pytest.raises((ValueError, AssertionError), match="17"):
        _evaluate_predictions_on_coco(api, results, "keypoints")
