"""Category ids of declared data sets: in the metadata, and in what evaluators write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
import yaml
from cell_records import make_record
from cellseg.config import add_cellseg_config
from cellseg.datasets.ground_truth import GroundTruth
from cellseg.datasets.registration import category_ids_of, register_declarations
from cellseg.engine.loading import find_classes
from cellseg.evaluation.coco_evaluator import DenseCOCOEvaluator
from cellseg.io import FORMATS
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances

HW = (40, 60)
MASKS = np.array([builders.rectangle(HW, x, 5, x + 12, 20) for x in (5, 30, 45)])


@pytest.fixture
def declare(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Declare a COCO data set of three cells, A B B, with these category ids."""
    names = []

    def make(ids: dict[str, int], format_name: str = "coco_json") -> str:
        name = f"ids_{len(names)}_{abs(hash(request.node.name))}"
        record = make_record(
            "1", builders.write_png(tmp_path / "1.png", MASKS[0] * 1), MASKS, classes=[0, 1, 1]
        )
        write = FORMATS[format_name].write
        assert write is not None
        write([record], tmp_path / name, "val", ("A", "B"), {})
        if format_name == "coco_json":
            file = tmp_path / name / "val/annotations.json"
            content = json.loads(file.read_text())
            order = ["A", "B"]
            content["categories"] = [{"id": ids[one], "name": one} for one in ids]
            for one in content["annotations"]:
                one["category_id"] = ids[order[one["category_id"] - 1]]
            file.write_text(json.dumps(content))
        declared = {"format": format_name, "root": name, "splits": ["val"], "classes": ["A", "B"]}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({name: declared}))
        names.extend(register_declarations([tmp_path / f"{name}.yaml"], tmp_path))
        return names[-1]

    yield make
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def perfect() -> list[dict[str, Instances]]:
    boxes = [[5, 5, 17, 20], [30, 5, 42, 20], [45, 5, 57, 20]]
    found = Instances(HW)
    found.pred_boxes = Boxes(torch.tensor(boxes).float())
    found.scores = torch.tensor([0.9, 0.8, 0.7])
    found.pred_classes = torch.tensor([0, 1, 1])
    found.pred_masks = torch.tensor(MASKS)
    return [{"instances": found}]


@pytest.mark.parametrize(
    "ids", [{"A": 1, "B": 2}, {"A": 2, "B": 1}, {"B": 1, "A": 2}, {"A": 3, "B": 9}]
)
@pytest.mark.parametrize("engine", ["cellseg", "detectron2"])
def test_evaluators_write_the_ids_of_the_dataset(
    declare: Any, tmp_path: Path, ids: dict[str, int], engine: str
) -> None:
    name, out = declare(ids), tmp_path / "out"
    if engine == "cellseg":
        evaluator = DenseCOCOEvaluator(name, ["bbox", "segm"], out)
    else:
        evaluator = COCOEvaluator(name, ("bbox", "segm"), output_dir=str(out))
    evaluator.reset()
    evaluator.process([{"image_id": "1"}], perfect())
    found = evaluator.evaluate()
    assert found["segm"]["AP"] == pytest.approx(100)
    assert [found["segm"][f"AP-{one}"] for one in "AB"] == pytest.approx([100, 100])
    path = out / "coco_instances_results.json"
    written = json.loads(path.read_text())
    assert [one["category_id"] for one in written] == [ids["A"], ids["B"], ids["B"]]
    truth = json.loads((out / f"{name}_coco_format.json").read_text())
    assert {one["name"]: one["id"] for one in truth["categories"]} == ids
    assert path.with_suffix(".categories.json").is_file() == (engine == "cellseg")
    cells = GroundTruth.load(name).read_predictions(path, "dataset")["1"]
    assert cells.classes.tolist() == [0, 1, 1]


def test_metrics_of_a_class_have_its_name(declare: Any, tmp_path: Path) -> None:
    """COCO sorts categories by their ids, here B before A; a cell of B is missed."""
    evaluator = DenseCOCOEvaluator(declare({"A": 2, "B": 1}), ["segm"], tmp_path / "out")
    evaluator.process([{"image_id": "1"}], [{"instances": perfect()[0]["instances"][:2]}])
    found = evaluator.evaluate()["segm"]
    assert found["AP-A"] == pytest.approx(100)
    assert found["AP-B"] == pytest.approx(100 * 51 / 101)


def test_a_dataset_without_ids_counts_from_1(declare: Any) -> None:
    name = declare({}, "label_images")
    metadata = MetadataCatalog.get(name)
    assert metadata.thing_dataset_id_to_contiguous_id == {1: 0, 2: 1}
    assert category_ids_of(name) == {1: 0, 2: 1}


def test_ids_are_known_before_and_after_the_files_are_read(declare: Any, tmp_path: Path) -> None:
    name = declare({"A": 3, "B": 9})
    assert MetadataCatalog.get(name).get("thing_dataset_id_to_contiguous_id") is None
    assert [one["category_id"] for one in DatasetCatalog.get(name)[0]["annotations"]] == [0, 1, 1]
    assert MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id == {3: 0, 9: 1}
    cfg = get_cfg()
    add_cellseg_config(cfg)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    assert find_classes(cfg) == (["class_1", "class_2"], [1, 2])
    cfg.DATASETS.TEST = (declare({"A": 8, "B": 5}),)
    assert find_classes(cfg) == (["A", "B"], [8, 5])
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    assert find_classes(cfg) == (["cell"], [1])


def test_files_that_are_not_on_this_machine(declare: Any, tmp_path: Path) -> None:
    name = declare({"A": 3, "B": 9})
    (tmp_path / name.removesuffix("_val") / "val/annotations.json").unlink()
    assert category_ids_of(name) == {1: 0, 2: 1}


def test_a_dataset_of_other_code_has_detectron2s_ids() -> None:
    MetadataCatalog.get("ids_of_other_code").thing_classes = ["A", "B"]
    assert category_ids_of("ids_of_other_code") == {0: 0, 1: 1}
    MetadataCatalog.remove("ids_of_other_code")
