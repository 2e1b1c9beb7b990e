from __future__ import annotations

import json

import numpy as np
import pytest
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.errors import LabelError
from cellseg.io.coco_results import cells_to_coco_results, write_coco_results
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


@pytest.fixture
def cells() -> CellInstances:
    bitmaps = np.zeros((2, 12, 17), bool)
    bitmaps[0, 2:7, 3:9] = True
    bitmaps[0, 4, 5] = False
    bitmaps[1, 5:12, 8:17] = True
    return CellInstances.from_bitmaps(bitmaps, scores=[0.75, 0.5], classes=[1, 0])


def test_fields(cells):
    first, second = cells_to_coco_results("a", cells)
    assert list(first) == ["image_id", "category_id", "bbox", "score", "segmentation"]
    assert first["image_id"] == second["image_id"] == "a"
    assert (first["category_id"], second["category_id"]) == (2, 1)
    assert first["bbox"] == [3, 2, 6, 5]
    assert first["score"] == 0.75
    assert first["segmentation"]["size"] == [12, 17]
    bitmap = coco_mask.decode(first["segmentation"])
    np.testing.assert_array_equal(bitmap, cells.to_bitmaps()[0])


def test_category_ids_of_the_annotation_file(cells):
    results = cells_to_coco_results(7, cells, category_ids=[20, 5])
    assert [result["category_id"] for result in results] == [5, 20]
    with pytest.raises(LabelError, match=r"image 7 .*class 1.*\[20\]"):
        cells_to_coco_results(7, cells, category_ids=[20])


def test_written_file_evaluates_in_coco_itself(cells, tmp_path):
    truth = {
        "info": {},
        "images": [{"id": k, "height": 12, "width": 17} for k in ("1", "2")],
        "categories": [{"id": k, "name": str(k)} for k in (1, 2)],
        "annotations": [
            result | {"id": k, "iscrowd": 0, "area": 50}
            for k, result in enumerate(cells_to_coco_results("1", cells), 1)
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    path = tmp_path / "new" / "results.json"
    records = (ImageRecord(k, found) for k, found in [("1", cells), ("2", cells[:0])])
    write_coco_results(records, path, ["a", "b"])
    coco = COCO(str(tmp_path / "truth.json"))
    evaluation = COCOeval(coco, coco.loadRes(str(path)), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)


def test_no_images_give_an_empty_list(tmp_path):
    write_coco_results([], tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text()) == []


def test_a_detection_without_pixels_is_written(tmp_path):
    cells = CellInstances.from_crops(
        [np.zeros((0, 0), bool)], [(0, 0)], (4, 5), boxes_xyxy=[[1.5, 1, 3, 2]]
    )
    (result,) = cells_to_coco_results("a", cells)
    assert result["bbox"] == [1.5, 1, 1.5, 1]
    assert coco_mask.area(result["segmentation"]) == 0
