"""CELLSEG.TRAIN in real trainings: a whole one with everything on, and one with everything off."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from cellseg import load_config
from cellseg.engine import CellTrainer
from cellseg.engine.hooks import ProgressBar, RunRecord, ValidationLoss, cell_hooks
from cellseg.engine.hooks.run_record import describe_dataset, hash_config
from cellseg.engine.hooks.samples import draw_sample, find_indexed
from cellseg.engine.hooks.validation import average_losses
from cellseg.engine.setup import check_config
from cellseg.errors import ConfigError
from cellseg.training_data.uncounted_regions import UncountedRegions
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase, SimpleTrainer
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch.utils.data import DataLoader, IterableDataset

REPOSITORY = Path(__file__).resolve().parents[2]
DECLARATION = """
hooked:
  format: synthetic
  image_hw: [64, 64]
  splits: {train: {images: 4, seed: 1}, val: {images: 2, seed: 2}, other: {images: 2, seed: 3}}
  classes: [cell]
"""
OPTIONS = {
    "DATASETS.TRAIN": "('hooked_train',)",
    "DATASETS.TEST": "('hooked_val', 'hooked_other')",
    "INPUT.MIN_SIZE_TRAIN": "(64,)",
    "INPUT.MIN_SIZE_TEST": "64",
    "MODEL.BACKBONE.FREEZE_AT": "5",
    "MODEL.FPN.NORM": "BN",
    "SOLVER.MAX_ITER": "3",
    "SOLVER.STEPS": "()",
    "SOLVER.WARMUP_ITERS": "1",
    "SOLVER.CHECKPOINT_PERIOD": "2",
    "TEST.EVAL_PERIOD": "2",
    "TEST.DETECTIONS_PER_IMAGE": "10",
    "MODEL.RPN.POST_NMS_TOPK_TEST": "20",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": "40",
    "CELLSEG.TEST.PICTURES": "0",
}
OFF = {"CELLSEG.TRAIN.SAMPLE_PICTURES": "0", "CELLSEG.TRAIN.PROGRESS_BAR": "False"}
ON = {
    "CELLSEG.TRAIN.VALIDATION_LOSS": "True",
    "CELLSEG.TRAIN.BEST_METRIC": "hooked_other/validation_loss",
    "CELLSEG.TRAIN.BEST_MODE": "min",
    "CELLSEG.TRAIN.EMA_DECAY": "0.9",
    "CELLSEG.TRAIN.SAMPLE_PICTURES": "2",
}


@dataclass
class Trainings:
    folder: Path
    words: list[str]

    def config(self, name: str, *options: dict[str, str]) -> CfgNode:
        merged = {**OPTIONS, "OUTPUT_DIR": str(self.folder / name)}
        for each in options:
            merged |= each
        pairs = [word for pair in merged.items() for word in pair]
        return load_config(REPOSITORY / "configs/quick_start.yaml", [*self.words, *pairs])

    def train(self, cfg: CfgNode, *, resume: bool = False) -> dict[str, Any]:
        Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True)
        seed_all_rng(1)
        trainer = CellTrainer(cfg)
        trainer.resume_or_load(resume=resume)
        return trainer.train()


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory, tiny_model: list[str]) -> Trainings:
    folder = tmp_path_factory.mktemp("trainings")
    (folder / "hooked.yaml").write_text(DECLARATION)
    declared = ["CELLSEG.DATASETS.DECLARATIONS", f"['{folder / 'hooked.yaml'}']"]
    return Trainings(folder, [*tiny_model, *declared])


@pytest.fixture(scope="module")
def with_all(trainings: Trainings) -> Path:
    trainings.train(trainings.config("on", ON))
    return trainings.folder / "on"


@pytest.fixture
def cfg(trainings: Trainings) -> CfgNode:
    return trainings.config("unused")


def load(path: Path) -> dict[str, Any]:
    return dict(torch.load(path, weights_only=True))


def figures(run: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    return {key: value for line in lines for key, value in line.items()}


def test_training_is_the_same_with_and_without_hooks(trainings: Trainings, with_all: Path) -> None:
    trainings.train(trainings.config("off", OFF))
    plain = load(trainings.folder / "off/model_final.pth")
    hooked = load(with_all / "model_final.pth")
    outside = hooked["trainer"]["hooks"]["WeightAverage"]["outside_of_model"]
    trained = hooked["model"] | outside
    assert any("running_mean" in name for name in trained)
    assert trained.keys() == plain["model"].keys()
    for name, value in plain["model"].items():
        assert torch.equal(value, trained[name]), name
    assert not all(torch.equal(hooked["model"][name], outside[name]) for name in outside)


def test_validation_loss_is_stored_for_each_test_set(with_all: Path) -> None:
    found = figures(with_all)
    for name in ("hooked_val", "hooked_other"):
        parts = {
            key: value for key, value in found.items() if key.startswith(f"{name}/validation/")
        }
        assert {key.split("/")[-1] for key in parts} == {
            *("cls", "box_reg", "mask", "rpn_cls", "rpn_loc")
        }
        assert found[f"{name}/validation_loss"] == pytest.approx(sum(parts.values()))
    assert found["hooked_val/validation_loss"] != found["hooked_other/validation_loss"]


def test_best_and_final_weights_are_averages(with_all: Path) -> None:
    best, final = load(with_all / "model_best.pth"), load(with_all / "model_final.pth")
    assert best["metric"] == "hooked_other/validation_loss"
    evaluations = json.loads((with_all / "best.json").read_text())["evaluations"]
    assert [entry["iteration"] for entry in evaluations] == [1, 2]
    assert best["value"] == min(entry["value"] for entry in evaluations)
    first = load(with_all / "model_0000001.pth")
    same = first if best["iteration"] == 1 else final
    for name, value in same["model"].items():
        assert torch.equal(best["model"][name], value), name


def test_sample_pictures_are_there(with_all: Path) -> None:
    pictures = sorted((with_all / "samples").glob("*.png"))
    assert [picture.name.split("_")[0] for picture in pictures] == ["0", "2"]
    assert cv2.imread(str(pictures[0])).shape == (512, 512, 3)


def test_the_files_of_the_page_are_there(with_all: Path) -> None:
    text = (REPOSITORY / "docs/training.md").read_text("utf-8")
    table = text.split("## Which file to use")[1].split("##")[0]
    names = re.findall(r"^\| `([a-z_]+(?:\.\w+)?)[`/]", table, flags=re.MULTILINE)
    assert {"model_best.pth", "run.json", "samples"} <= set(names)
    assert [name for name in names if not (with_all / name).exists()] == []


def test_the_run_is_recorded_and_resumed_runs_are_added(
    trainings: Trainings, with_all: Path
) -> None:
    results = trainings.train(
        trainings.config(
            "on",
            ON,
            {
                "SOLVER.MAX_ITER": "12",
                "CELLSEG.TRAIN.BEST_METRIC": "hooked_val/cell_iou/tp@0.95",  # 0 all the time
                "CELLSEG.TRAIN.PATIENCE": "1",
            },
        ),
        resume=True,
    )
    first, second = json.loads((with_all / "run.json").read_text())["runs"]
    assert [first["status"], first["start_iteration"], first["end_iteration"]] == ["finished", 0, 3]
    assert first["datasets"]["hooked_train"]["images"] == 4
    assert first["datasets"] == second["datasets"]
    assert first["config_sha256"] != second["config_sha256"]
    assert first["config"]["SOLVER"]["MAX_ITER"] == 3
    assert "torch" in first["engine"]
    assert first["figures"]["hooked_val/cell_iou/tp@0.95"] == 0
    assert first["start_time"] <= first["end_time"] <= second["start_time"]
    # evaluations after iterations 3 and 5: the second is no better
    assert second["status"] == "stopped early"
    assert second["reason"].startswith("1 evaluations without a better value")
    assert [second["start_iteration"], second["end_iteration"]] == [3, 6]
    assert set(results) == {"hooked_val", "hooked_other"}
    assert load(with_all / "model_final.pth")["iteration"] == 5


def test_hooks_stand_in_an_order_that_works(trainings: Trainings) -> None:
    cfg = trainings.config("order", ON, {"CELLSEG.TRAIN.PATIENCE": "2"})
    trainer = CellTrainer(cfg)
    names = [type(hook).__name__ for hook in trainer._hooks]
    wanted = [
        *("LRScheduler", "WeightAverage", "PeriodicCheckpointer", "EvalHook", "ValidationLoss"),
        *("BestCheckpoint", "EarlyStopping", "RestoreWeights", "RunRecord", "SamplePictures"),
        *("ProgressBar", "PeriodicWriter"),
    ]
    assert [name for name in names if name in wanted] == wanted


def test_only_the_main_process_draws_and_records(
    trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    trainer = type("Trainer", (), {"cfg": trainings.config("rank", ON)})()
    kinds = [type(hook).__name__ for hook in cell_hooks(trainer, [None])]
    assert kinds == [
        *("WeightAverage", "RunState", "ValidationLoss", "BestCheckpoint", "RestoreWeights")
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"PATIENCE": -1}, "PATIENCE is -1; expected a whole number"),
        ({"EMA_DECAY": 1.0}, "EMA_DECAY is 1.0; expected 0"),
        ({"BEST_MODE": "most"}, "'max' or 'min'"),
        ({"PATIENCE": 3}, "BEST_METRIC to name a metric"),
        ({"BEST_METRIC": "cell_iou/ap_dsb"}, "hooked_val/cell_iou/ap_dsb"),
        ({"BEST_METRIC": "hooked_val/cell_iou/ap_dbs"}, "did you mean cell_iou/ap_dsb"),
        ({"BEST_METRIC": "hooked_val/cel_iou/ap_dsb"}, "did you mean cell_iou/ap_dsb"),
        ({"BEST_METRIC": "hooked_val/cell_iou/aji"}, "among CELLSEG.TEST.METRICS"),
        ({"BEST_METRIC": "hooked_val/segm/AP5"}, "segm/AP50"),
        ({"BEST_METRIC": "hooked_val/validation_loss"}, "VALIDATION_LOSS True"),
        ({"BEST_METRIC": "hooked_val/validation/mask", "VALIDATION_LOSS": True}, "BEST_MODE 'min'"),
    ],
)
def test_a_setting_that_cannot_work_is_an_error(
    cfg: CfgNode, options: dict[str, Any], message: str
) -> None:
    cfg.CELLSEG.TRAIN.update(options)
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        check_config(cfg)


def test_what_the_test_sets_allow(cfg: CfgNode) -> None:
    cfg.DATASETS.TEST = ("hooked_val",)
    for metric in ("cell_iou/pq@0.75", "cell_iou/ap_dsb/cell", "segm/AP-cell", "mine/figure"):
        cfg.CELLSEG.TRAIN.BEST_METRIC = metric
        check_config(cfg)
    cfg.CELLSEG.TRAIN.BEST_METRIC = "hooked_val/cell_iou/ap_dsb"
    with pytest.raises(ConfigError, match="without it: cell_iou/ap_dsb"):
        check_config(cfg)
    cfg.DATASETS.TEST = ()
    with pytest.raises(ConfigError, match=r"expected a set in DATASETS\.TEST to compute"):
        check_config(cfg)
    cfg.CELLSEG.TRAIN.VALIDATION_LOSS = True
    with pytest.raises(ConfigError, match="VALIDATION_LOSS is True"):
        check_config(cfg)


class TwoLosses(torch.nn.Module):
    """The batch's number as one loss, and its square; a random number would show."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(1)
        self.dropout = torch.nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, batch: list[dict[str, float]]) -> dict[str, torch.Tensor]:
        modes = [self.training, self.norm.training, self.dropout.training]
        assert modes == [True, False, False]
        self.calls += 1
        value = torch.tensor(sum(image["x"] for image in batch) / len(batch))
        return {"loss_a": value, "loss_b": value**2}


def test_losses_are_averaged_over_the_images_of_all_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = TwoLosses().eval()
    loader = [[{"x": 1.0}, {"x": 3.0}], [{"x": 8.0}]]
    assert average_losses(model, loader) == {"loss_a": 4.0, "loss_b": 24.0}
    assert not any(module.training for module in model.modules())
    assert model.calls == 0
    others = ({"loss_a": 8.0, "loss_b": 8.0}, 1)
    monkeypatch.setattr(comm, "all_gather", lambda own: [own, others, ({}, 0)])
    assert average_losses(model, loader) == {"loss_a": 5.0, "loss_b": 20.0}
    monkeypatch.setattr(comm, "all_gather", lambda own: [own])
    assert average_losses(model, []) == {}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class OneLoss(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, x: float) -> dict[str, torch.Tensor]:
        return {"loss": self.weight * x}


class Talker(HookBase):
    def after_step(self) -> None:
        logging.getLogger("cellseg.test").info("line %d", self.trainer.iter)


def small_trainer(*hooks: HookBase) -> SimpleTrainer:
    def endless() -> Iterator[float]:
        while True:
            yield 1.0

    model = OneLoss()
    trainer = SimpleTrainer(model, endless(), torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.register_hooks(list(hooks))
    return trainer


def test_the_bar_is_on_the_error_stream_and_the_log_stays_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal, out = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", out)
    log = logging.getLogger("cellseg")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("[%(levelname)s] %(message)s"))
    log.handlers, log.propagate, log.level = [handler], False, logging.INFO
    small_trainer(ProgressBar(), Talker()).train(1, 4)
    lines = [line for line in out.getvalue().splitlines() if "INFO" in line]
    assert lines == ["[INFO] line 1", "[INFO] line 2", "[INFO] line 3"]
    assert "4/4" in terminal.getvalue()
    assert "loss 0.8" in terminal.getvalue()
    assert log.handlers == [handler]


def test_no_bar_where_the_error_stream_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    small_trainer(ProgressBar()).train(0, 2)
    assert stream.getvalue() == ""


def test_a_failed_run_is_recorded_as_such(
    cfg: CfgNode, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class FailError(Exception):
        pass

    class Failing(HookBase):
        def after_step(self) -> None:
            raise FailError("no reason")

    cfg.OUTPUT_DIR = str(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(FailError):
        small_trainer(RunRecord(cfg, "engine"), Failing()).train(2, 5)
    (entry,) = json.loads((tmp_path / "run.json").read_text())["runs"]
    assert (entry["status"], entry["end_iteration"]) == ("failed", 2)
    assert entry["reason"] == "FailError: no reason"
    assert "begun anew" in caplog.text


def test_the_config_hash_does_not_depend_on_the_output_folder(cfg: CfgNode) -> None:
    other = cfg.clone()
    other.OUTPUT_DIR = "elsewhere"
    cfg.freeze()
    assert hash_config(cfg) == hash_config(other)
    other.SEED = 7
    assert hash_config(cfg) != hash_config(other)


@pytest.fixture
def invented() -> Iterator[list[dict[str, Any]]]:
    cell = {
        "bbox": [0, 0, 2, 2],
        "category_id": 0,
        "segmentation": {"size": [4, 4], "counts": b"a"},
    }
    other = {"bbox": [0, 0, 2, 2], "category_id": 0, "segmentation": np.ones((4, 4), bool)}
    images = [
        {"file_name": "/a/1.png", "image_id": 1, "height": 4, "width": 4, "annotations": [cell]},
        {"file_name": "/a/2.png", "image_id": 2, "height": 8, "width": 6, "annotations": [other]},
    ]
    DatasetCatalog.register("invented", lambda: images)
    MetadataCatalog.get("invented").thing_classes = ["cell"]
    yield images
    DatasetCatalog.remove("invented")
    MetadataCatalog.remove("invented")


def test_the_fingerprint_of_a_dataset_is_that_of_its_content(
    invented: list[dict[str, Any]],
) -> None:
    first = describe_dataset("invented")
    assert (first["images"], first["cells"], first["classes"]) == (2, 2, ["cell"])
    assert (first["smallest_hw"], first["largest_hw"]) == ([4, 4], [8, 6])
    invented[0]["file_name"] = "/b/1.png"
    invented[0]["annotations"][0]["segmentation"]["counts"] = "a"
    assert describe_dataset("invented")["sha256"] == first["sha256"]
    invented[1]["annotations"][0]["segmentation"][0, 0] = False
    assert describe_dataset("invented")["sha256"] != first["sha256"]
    invented.clear()
    assert describe_dataset("invented")["largest_hw"] is None


def sample(masks: Any) -> dict[str, Any]:
    instances = Instances((40, 50), gt_boxes=Boxes([[10.0, 10.0, 30.0, 30.0]]))
    if masks is not None:
        instances.gt_masks = masks
    return {"image": torch.zeros(3, 40, 50, dtype=torch.uint8), "instances": instances}


def test_polygons_are_drawn_and_boxes_where_there_is_no_mask() -> None:
    square = [np.array([15.0, 15.0, 25.0, 15.0, 25.0, 25.0, 15.0, 25.0])]
    with_mask = draw_sample(sample(PolygonMasks([square])))
    without = draw_sample(sample(None))
    scale = 8  # the most that small images are enlarged
    assert with_mask.shape == without.shape == (40 * scale, 50 * scale, 3)
    assert (without[10 * scale, 15 * scale] == 235).all()
    assert (without[15 * scale, 20 * scale] == 0).all()
    assert with_mask[15 * scale : 16 * scale, 20 * scale].any()


def test_a_veil_lies_over_uncounted_regions() -> None:
    given = sample(None)
    mask = torch.zeros(40, 50, dtype=torch.bool)
    mask[:5, 40:] = True
    given["instances"].uncounted = UncountedRegions.of_cells(mask, 1)
    veil = (draw_sample(given) == 64).all(axis=2)
    assert np.array_equal(veil, mask.numpy().repeat(8, 0).repeat(8, 1))


def test_a_loader_without_numbers_is_recognized() -> None:
    class Stream(IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Iterator[int]:
            return iter(range(3))

        def __len__(self) -> int:
            return 3

    assert find_indexed(DataLoader(Stream())) is None
    assert find_indexed(DataLoader([5, 6, 7]))[1] == 6
    assert isinstance(ValidationLoss(2, {}), HookBase)
