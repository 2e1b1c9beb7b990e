"""tools/tune_thresholds.py: from a run's predictions to a config, and what it refuses."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from builders import rectangle, scene_of_masks, write_classes, write_label_images
from cellseg import load_config
from cellseg.cells.instances import CellInstances
from cellseg.cells.selection import DetectionThresholds, select_cells
from cellseg.evaluation import CellIoUEvaluator
from cellseg.evaluation.tuning import Tuning
from cellseg.inference.predictor import CellPredictor
from cellseg.io import ImageRecord, write_predictions
from cellseg.io.category_ids import companion_of
from cellseg.io.coco_results import write_coco_results
from commands import REPOSITORY, Command, run_program
from detectron2.modeling import build_model

TOOL = REPOSITORY / "tools" / "tune_thresholds.py"
HW = (40, 60)
IMAGES = 8


@pytest.fixture(autouse=True)
def _log_without_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave what is logged to `caplog`."""
    for name in ("tune", "predict"):
        monkeypatch.setattr(f"cellseg.cli.{name}.setup_logger", lambda name: None)


@pytest.fixture(scope="module")
def tool() -> Command:
    return Command("tune")


def masks(k: int) -> list[np.ndarray]:
    """One cell of each class, and a wrong one."""
    places = ((2 + k, 2, 14 + k, 14), (30, 2 + k, 42, 14 + k), (20, 24, 32, 36))
    return [rectangle(HW, *place) for place in places]


def detections(k: int) -> CellInstances:
    """Class 0 is right from 0.3 on; class 1 from 0.8 on, wrong at 0.7; a fragment at 0.9."""
    right, other, wrong = masks(k)
    fragment = np.zeros(HW, bool)
    fragment[36:38, 50:52] = True
    return CellInstances.from_bitmaps(
        [right, other, wrong, fragment], [0.3 + 0.01 * k, 0.9, 0.7, 0.9], [0, 1, 1, 1]
    )


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as `train_net.py --eval-only` leaves it, without a model."""
    folder = tmp_path_factory.mktemp("tuning")
    scenes = {f"image_{k}": scene_of_masks(masks(k)[:2], HW) for k in range(IMAGES)}
    root = write_label_images(folder / "cells", "val", scenes)
    for name in scenes:
        write_classes(root, "val", name, ["round", "long"])
    declared = folder / "cells.yaml"
    content = {"format": "label_images", "root": str(root), "splits": ["val"]}
    declared.write_text(yaml.safe_dump({"tuned": content | {"classes": ["round", "long"]}}))
    run = folder / "run"
    results = run / "inference" / "tuned_val" / "coco_instances_results.json"
    records = [ImageRecord(f"image_{k}", detections(k)) for k in range(IMAGES)]
    for path, ids in ((results, [0, 1]), (folder / "other.json", [1, 2])):
        write_coco_results(records, path, ["round", "long"], ids)
        companion_of(path).unlink()  # as older versions wrote them
    cfg = load_config(
        REPOSITORY / "configs" / "quick_start.yaml",
        [
            *("CELLSEG.DATASETS.DECLARATIONS", [str(declared)], "MODEL.ROI_HEADS.NUM_CLASSES", 2),
            *("DATASETS.TRAIN", ("tuned_val",), "DATASETS.TEST", ("tuned_val",)),
        ],
    )
    (run / "config.yaml").write_text(cfg.dump())
    return run


def test_as_a_command_and_the_config_gives_what_it_promised(run_dir: Path) -> None:
    done = run_program(str(TOOL), str(run_dir), "--folds", "4")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ap_dsb of 8 images: 0.2500 as it was" in done.stdout  # TP 1, FP 2, FN 1
    assert "on held-out images (4 folds): 1.0000, gain +0.7500, 95 % interval" in done.stdout
    assert "(optimistic): 1.0000, gain +0.7500" in done.stdout
    assert "only 8 images" in done.stdout
    path = run_dir / "thresholds.yaml"
    text = path.read_text()
    assert "# on held-out images (4 folds): 1.0000" in text
    assert yaml.safe_load(text)["_BASE_"] == "config.yaml"
    cfg = load_config(path)
    thresholds = DetectionThresholds.from_config(cfg)
    score_0, score_1 = thresholds.score
    assert score_0 <= 0.3
    assert 0.7 < score_1 <= 0.9
    assert thresholds.min_area_px[1] > 4
    assert thresholds.mask_nms == (1, 1)
    evaluator = CellIoUEvaluator("tuned_val", distributed=False)
    for k in range(IMAGES):
        evaluator.add_image(f"image_{k}", select_cells(detections(k), thresholds))
    assert evaluator.evaluate()["cell_iou"]["ap_dsb"] == 1


def test_predict_takes_the_thresholds_and_writes_a_submission(
    run_dir: Path, tiny_model: list[str], tmp_path: Path
) -> None:
    weights = tmp_path / "model.pth"
    options = [*tiny_model, "MODEL.WEIGHTS", str(weights), "MODEL.DEVICE", "cpu"]
    torch.manual_seed(0)
    model = build_model(load_config(run_dir / "config.yaml", options))
    torch.save({"model": model.state_dict()}, weights)
    keys = {"SCORE_THRESHOLD": [0.0, 0.34], "MASK_THRESHOLD": [0.4, 0.45], "MASK_NMS": 0.3}
    keys["MAX_COVERED"] = [0.9, 1.0]
    fragment = {"_BASE_": str(run_dir / "config.yaml"), "CELLSEG": {"TEST": keys}}
    fragment["CELLSEG"]["TEST"]["MIN_AREA"] = [20, 0]
    path = tmp_path / "thresholds.yaml"
    path.write_text(yaml.safe_dump(fragment))
    images = run_dir.parent / "cells" / "val" / "images"
    given = ["--config-file", str(path), "--input", str(images / "image_[01].png")]
    given += ["--output", str(tmp_path / "out"), "--format", "sartorius", "--opts", *options]
    assert Command("predict").main(given) == 0

    plain = load_config(run_dir / "config.yaml", [*options, "CELLSEG.TEST.MAX_COVERED", "1.0"])
    predictor = CellPredictor(plain, score_threshold=0, mask_threshold=[0.4, 0.45])
    everything = [predictor.predict_file(images / f"image_{k}.png") for k in range(2)]
    thresholds = DetectionThresholds.from_config(load_config(path))
    chosen = [select_cells(cells, thresholds).sort_by_position() for cells in everything]
    assert 0 < sum(map(len, chosen)) < sum(map(len, everything))
    results = json.loads((tmp_path / "out" / "coco_results.json").read_text())
    assert [result["score"] for result in results] == [
        pytest.approx(float(score)) for cells in chosen for score in cells.scores
    ]
    expected = tmp_path / "expected" / "submission.csv"
    records = [ImageRecord(f"image_{k}", cells) for k, cells in enumerate(chosen)]
    write_predictions(records, expected.parent, "sartorius_table")
    assert (tmp_path / "out" / "submission.csv").read_text() == expected.read_text()


def test_other_results_metric_and_place(
    tool: Command, run_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    results, config = run_dir.parent / "other.json", run_dir / "config.yaml"
    out = tmp_path / "deep" / "mine.yaml"
    given = [str(results), "--config-file", str(config), "--dataset", "tuned_val"]
    given += ["--metric", "fp@0.50", "--output", str(out)]
    refused = tool.main([*given, "--category-ids", "from-0"])
    assert refused.startswith(f"DatasetError: {results}: category_id 2 is none of [0, 1]")
    assert not out.exists()
    assert tool.main(given) == 0  # what `predict` of 0.1 wrote, which it refused
    with caplog.at_level(logging.INFO):
        assert tool.main([*given, "--category-ids", "1", "2"]) == 0
    assert "fp@0.50 of 8 images: 16.0000 as it was" in caplog.text
    assert load_config(out).DATASETS.TEST == ("tuned_val",)
    one = tool.main([*given, "--category-ids", "1"])
    assert one == "DatasetError: --category-ids has 1 ids; there are 2 classes: round, long"


def test_where_nothing_is_gained_it_says_so(
    tool: Command, run_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nothing = tmp_path / "nothing.json"
    entry = json.loads((run_dir.parent / "other.json").read_text())[0]
    height, width = entry["segmentation"]["size"]
    entry["segmentation"]["counts"] = [0, 1, height * width - 1]  # one pixel, no cell's
    nothing.write_text(json.dumps([entry]))
    keys = ["--config-file", str(run_dir / "config.yaml"), "--output", str(tmp_path / "t.yaml")]
    keys += ["--category-ids", "dataset"]
    with caplog.at_level(logging.INFO):
        assert tool.main([str(nothing), *keys]) == 0
    assert "gain +0.0000" in caplog.text
    assert "no gain is shown on held-out images: better keep the thresholds" in caplog.text
    values = yaml.safe_load((tmp_path / "t.yaml").read_text())["CELLSEG"]["TEST"]
    numbers = {"SCORE_THRESHOLD": 0.5, "MASK_NMS": 1.0, "MAX_COVERED": 0.5, "MIN_AREA": 0.0}
    assert values == {key: [number] * 2 for key, number in numbers.items()}


def test_without_a_detection_nothing_is_written(
    tool: Command, run_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "nothing.json").write_text("[]")
    keys = ["--config-file", str(run_dir / "config.yaml"), "--output", str(tmp_path / "t.yaml")]
    refused = tool.main([str(tmp_path / "nothing.json"), *keys])
    assert "nothing.json: no detection in any of 8 images" in refused
    assert not (tmp_path / "t.yaml").exists()


def test_a_gain_that_may_be_chance_is_called_so(tool: Command) -> None:
    found = DetectionThresholds([0.4], 0.5, [1.0], [12])
    for low, is_chance in ((-0.01, True), (0.01, False)):
        tuning = Tuning("f1", found, 30, 0.5, 0.6, 0.55, (low, 0.1), (found, found))
        lines = tool.describe(tuning, ["cell"])
        assert ("the gain may be chance: its interval includes 0" in lines) == is_chance
        assert lines[-1] == "cell: score >= 0.4, mask NMS 1, covered <= 1, minimum area 12 px"
        assert not any("only 30 images" in line for line in lines)
    alone = Tuning("f1", found, 1, 0.5, 0.6, None, None, ())
    assert "no gain is shown on held-out images" in " ".join(tool.describe(alone, ["cell"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as COCO results"),
        ("[{}]", "result 0: expected image_id, category_id, score and segmentation"),
        ('{"annotations": []}', "expected a list of detections"),
    ],
)
def test_files_that_are_no_results(
    tool: Command, run_dir: Path, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    says = tool.main([str(path), "--config-file", str(run_dir / "config.yaml")])
    assert says.startswith(f"DatasetError: {path}: ")
    assert message in says


def test_results_of_other_images(tool: Command, run_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_coco_results([ImageRecord("elsewhere", detections(0))], path, ["round", "long"])
    says = tool.main([str(path), "--config-file", str(run_dir / "config.yaml")])
    assert "results of images that the data set does not have" in says
    assert "elsewhere" in says
    small = json.loads((run_dir / "inference/tuned_val/coco_instances_results.json").read_text())
    for result in small:
        result["segmentation"]["size"] = [60, 40]
    path.write_text(json.dumps(small))
    companion_of(path).unlink()
    says = tool.main([str(path), "--config-file", str(run_dir / "config.yaml")])
    assert says.startswith(
        f"DatasetError: {path}: result 0 (image 'image_0'): run lengths of size [60,"
    )


def test_runs_that_lack_something(tool: Command, run_dir: Path, tmp_path: Path) -> None:
    assert "no config.yaml in it or above it" in tool.main([str(tmp_path)])
    (tmp_path / "config.yaml").write_text((run_dir / "config.yaml").read_text())
    says = tool.main([str(tmp_path)])
    assert "coco_instances_results.json: no such file; `cellseg train --eval-only`" in says
    cfg = yaml.safe_load((run_dir / "config.yaml").read_text())
    cfg["DATASETS"]["TEST"] = []
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(cfg))
    assert "DATASETS.TEST names 0 datasets (); choose one with --dataset" in tool.main(
        [str(tmp_path)]
    )
    assert "no metric 'f2'" in tool.main([str(run_dir), "--metric", "f2"])
