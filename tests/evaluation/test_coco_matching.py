from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from cell_scenes import random_bitmaps, shift_some
from cellseg.cells.instances import CellInstances
from cellseg.evaluation.coco_matching import sparse_coco_matching
from cellseg.io.coco_results import cells_to_coco_results
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def random_scene(rng: np.random.Generator) -> tuple[COCO, list[dict]]:
    """Annotations with crowds, in two classes, and detections, some of equal score."""
    images, annotations, results = [], [], []
    for image_id in ("a", "b", "c"):
        true = random_bitmaps(rng, int(rng.integers(0, 12)), (40, 50))
        pred = [shift_some(rng, true), random_bitmaps(rng, int(rng.integers(0, 4)), (40, 50))]
        pred = np.concatenate([pred[0], *pred])
        cells, found = (
            CellInstances.from_bitmaps(
                bitmaps,
                scores=rng.integers(1, 8, len(bitmaps)) / 8,
                classes=rng.integers(0, 2, len(bitmaps)),
            )
            for bitmaps in (true, pred)
        )
        images.append({"id": image_id, "height": 40, "width": 50})
        for cell, area in zip(cells_to_coco_results(image_id, cells), cells.areas_px.tolist()):
            others = {"area": area * 40, "iscrowd": int(rng.random() < 0.2)}
            annotations.append(cell | others | {"id": len(annotations) + 1})
        results += cells_to_coco_results(image_id, found)
    truth = COCO()
    categories = [{"id": 1, "name": "round"}, {"id": 2, "name": "long"}]
    truth.dataset = {"images": images, "annotations": annotations, "categories": categories}
    truth.createIndex()
    return truth, results


def evaluate(truth: COCO, results: list[dict], task: str, max_dets: int) -> COCOeval:
    evaluation = COCOeval(truth, truth.loadRes([dict(result) for result in results]), task)
    evaluation.params.maxDets = [1, 3, max_dets]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


@pytest.mark.parametrize("seed", range(25))
def test_same_outcome_as_pycocotools(seed):
    rng = np.random.default_rng(seed)
    task, max_dets = ("segm", "bbox")[seed % 2], int(rng.choice([5, 100]))
    with contextlib.redirect_stdout(io.StringIO()):
        truth, results = random_scene(rng)
        if not results:
            pytest.skip("this scene has no detections")
        expected = evaluate(truth, results, task, max_dets)
        with sparse_coco_matching():
            found = evaluate(truth, results, task, max_dets)
    for name in ("precision", "recall", "scores"):
        np.testing.assert_array_equal(found.eval[name], expected.eval[name])
    assert len(found.evalImgs) == len(expected.evalImgs)
    for one, other in zip(found.evalImgs, expected.evalImgs):
        assert (one is None) == (other is None)
        for key in other or {}:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def test_original_is_put_back_after_an_error():
    original = COCOeval.evaluateImg

    def fail_inside() -> None:
        with sparse_coco_matching():
            assert COCOeval.evaluateImg is not original
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail_inside()
    assert COCOeval.evaluateImg is original
