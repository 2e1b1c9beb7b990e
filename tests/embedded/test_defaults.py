"""The standard trainer, predictor, command line and set-up, with a model of one weight."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import (
    DefaultPredictor,
    DefaultTrainer,
    create_ddp_model,
    default_argument_parser,
    default_setup,
    default_writers,
    hooks,
)
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import BoxMode
from PIL import Image
from torch import nn


class OneWeight(nn.Module):
    """Loss w * (mean of the images); predicts w and the size it is asked for."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))
        self.pixel_mean = nn.Buffer(torch.zeros(1)) if hasattr(nn, "Buffer") else None

    def forward(self, batch: list[dict]) -> object:
        if not self.training:
            return [
                {"w": self.w.item(), "hw": (item["height"], item["width"]), **item}
                for item in batch
            ]
        return {"loss": sum(self.w.sum() * item["image"].float().mean() for item in batch)}


@pytest.fixture(scope="module", autouse=True)
def _registered_model() -> Iterator[None]:
    if "OneWeight" not in META_ARCH_REGISTRY:
        META_ARCH_REGISTRY.register(OneWeight)
    return


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[str]:
    """Two grey images of 4x6 pixels, value 10, with one box each."""
    name = f"tiny_{tmp_path.name}"
    records = []
    for number in range(2):
        path = tmp_path / f"image{number}.png"
        Image.fromarray(np.full((4, 6, 3), 10, np.uint8)).save(path)
        box = {"bbox": [1, 1, 4, 3], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
        records.append(
            {
                "file_name": str(path),
                "height": 4,
                "width": 6,
                "image_id": number,
                "annotations": [box],
            }
        )
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(thing_classes=["cell"])
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.fixture
def cfg(tmp_path: Path, dataset: str) -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "OneWeight"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (dataset,)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.INPUT.MIN_SIZE_TRAIN = (4,)
    cfg.INPUT.MIN_SIZE_TEST = 8
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.SOLVER.BASE_LR = 0.001
    cfg.SOLVER.MOMENTUM = 0.0
    cfg.SOLVER.WEIGHT_DECAY = 0.0
    cfg.SOLVER.WARMUP_ITERS = 0
    cfg.SOLVER.STEPS = (2,)
    cfg.SOLVER.GAMMA = 0.5
    cfg.SOLVER.MAX_ITER = 3
    cfg.SOLVER.CHECKPOINT_PERIOD = 2
    return cfg


class CountImages(DatasetEvaluator):
    def reset(self) -> None:
        self.seen: list[float] = []

    def process(self, inputs, outputs) -> None:
        self.seen += [output["w"] for output in outputs]

    def evaluate(self) -> dict:
        return {"task": {"images": len(self.seen), "w": self.seen[0]}}


class TinyTrainer(DefaultTrainer):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return CountImages()


def metrics(cfg: CfgNode) -> list[dict]:
    with open(os.path.join(cfg.OUTPUT_DIR, "metrics.json")) as file:
        return [json.loads(line) for line in file]


def test_training_by_hand_with_checkpoints_metrics_and_evaluation(cfg):
    cfg.TEST.EVAL_PERIOD = 2
    os.makedirs(cfg.OUTPUT_DIR)
    trainer = TinyTrainer(cfg)
    assert trainer.model is trainer._trainer.model
    trainer.resume_or_load(resume=False)
    assert trainer.train() is None
    # The gradient is 2 images * 10: 1 - 0.02 - 0.02, then half the rate.
    assert trainer.model.w.item() == pytest.approx(0.95)
    files = {name for name in os.listdir(cfg.OUTPUT_DIR) if not name.startswith("events")}
    assert files == {"last_checkpoint", "metrics.json", "model_0000001.pth", "model_final.pth"}
    lines = {line["iteration"]: line for line in metrics(cfg)}
    assert sorted(lines) == [1, 2, 3]
    assert lines[1]["task/w"] == pytest.approx(0.96)
    assert lines[2]["lr"] == pytest.approx(0.0005)
    assert lines[3]["task/w"] == pytest.approx(0.95)
    assert lines[3]["task/images"] == 2


def test_resumed_training_ends_where_an_uninterrupted_one_does(cfg):
    os.makedirs(cfg.OUTPUT_DIR)
    interrupted = TinyTrainer(cfg)
    interrupted.register_hooks(
        [hooks.CallbackHook(before_step=lambda t: 1 / (2 - t.iter))]  # fails in iteration 2
    )
    interrupted.resume_or_load(resume=True)
    with pytest.raises(ZeroDivisionError):
        interrupted.train()

    resumed = TinyTrainer(cfg)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 2
    assert resumed.model.w.item() == pytest.approx(0.96)
    resumed.train()
    assert resumed.model.w.item() == pytest.approx(0.95)
    assert resumed.scheduler.last_epoch == 3


def test_weights_of_the_config_start_a_new_training(cfg, tmp_path):
    model = OneWeight(cfg)
    nn.init.constant_(model.w, 5.0)
    DetectionCheckpointer(model, str(tmp_path)).save("start", iteration=77)
    cfg.MODEL.WEIGHTS = str(tmp_path / "start.pth")
    trainer = TinyTrainer(cfg)
    trainer.resume_or_load(resume=True)  # nothing to resume from
    assert trainer.start_iter == 0
    assert trainer.model.w.item() == 5.0


def test_state_is_laid_out_as_checkpoints_expect(cfg):
    state = TinyTrainer(cfg).state_dict()
    assert sorted(state) == ["_trainer", "hooks", "iteration"]
    assert sorted(state["_trainer"]) == ["iteration", "optimizer"]
    assert list(state["hooks"]) == ["LRScheduler"]


def test_attributes_of_the_inner_trainer_can_be_replaced(cfg):
    trainer = TinyTrainer(cfg)
    other = OneWeight(cfg)
    trainer.model = other
    assert trainer._trainer.model is other
    assert trainer.optimizer is trainer._trainer.optimizer
    assert trainer.data_loader is trainer._trainer.data_loader


def test_subclass_may_replace_checkpointer_and_hooks(cfg, tmp_path):
    order: list[str] = []

    class Renaming(DetectionCheckpointer):
        def save(self, name: str, **kwargs: object) -> None:
            order.append(f"save {name}")

    class Other(TinyTrainer):
        def build_hooks(self):
            self.checkpointer = Renaming(self.model, str(tmp_path))
            return [
                *super().build_hooks(),
                hooks.CallbackHook(after_train=lambda t: order.append("x")),
            ]

        def build_writers(self):
            return []

    Other(cfg).train()
    assert order == ["save model_0000001", "save model_final", "x"]


def test_order_of_the_standard_hooks(cfg):
    names = [type(hook).__name__ for hook in TinyTrainer(cfg)._hooks]
    assert names == [
        "IterationTimer",
        "LRScheduler",
        "PeriodicCheckpointer",
        "EvalHook",
        "PeriodicWriter",
    ]


def test_batch_norm_statistics_are_computed_before_the_checkpoint(cfg):
    class WithNorm(TinyTrainer):
        @classmethod
        def build_model(cls, cfg):
            model = super().build_model(cfg)
            model.norm = nn.BatchNorm1d(1)
            return model

    cfg.TEST.PRECISE_BN.ENABLED = True
    names = [type(hook).__name__ for hook in WithNorm(cfg)._hooks]
    assert names[1:4] == ["LRScheduler", "PreciseBN", "PeriodicCheckpointer"]


def test_mixed_precision_is_chosen_by_the_config(cfg):
    cfg.SOLVER.AMP.ENABLED = True
    assert type(TinyTrainer(cfg)._trainer).__name__ == "AMPTrainer"


def test_expected_results_are_verified_and_returned(cfg):
    cfg.TEST.EXPECTED_RESULTS = [["task", "w", 0.95, 0.001], ["task", "images", 2, 0]]
    os.makedirs(cfg.OUTPUT_DIR)
    assert TinyTrainer(cfg).train()["task"]["images"] == 2
    cfg.TEST.EXPECTED_RESULTS = [["task", "w", 0.9, 0.001]]
    with pytest.raises(SystemExit):
        TinyTrainer(cfg).train()


def test_expected_results_without_evaluation_are_an_error(cfg):
    class Silent(TinyTrainer):
        def build_hooks(self):
            return []

    cfg.TEST.EXPECTED_RESULTS = [["task", "w", 0.95, 0.001]]
    with pytest.raises((RuntimeError, AssertionError), match="evaluat"):
        Silent(cfg).train()


def test_evaluator_must_return_a_dict(cfg):
    class Wrong(CountImages):
        def evaluate(self):
            return [1.0]

    with pytest.raises((ValueError, AssertionError), match=r"1\.0"):
        DefaultTrainer.test(cfg, OneWeight(cfg), Wrong())


def test_test_takes_evaluators_or_builds_them(cfg, dataset, caplog):
    model = OneWeight(cfg)
    assert TinyTrainer.test(cfg, model)["task"] == {"images": 2, "w": 1.0}
    assert DefaultTrainer.test(cfg, model, CountImages())["task"]["images"] == 2
    assert DefaultTrainer.test(cfg, model, [CountImages()])["task"]["images"] == 2
    logging.getLogger("detectron2").propagate = True
    assert DefaultTrainer.test(cfg, model) == {}  # no evaluator: a warning only
    cfg.DATASETS.TEST = (dataset, dataset)
    with pytest.raises((ValueError, AssertionError), match="2"):
        DefaultTrainer.test(cfg, model, [CountImages()])


def test_several_datasets_are_reported_by_name(cfg, dataset):
    DatasetCatalog.register(dataset + "_2", lambda: DatasetCatalog.get(dataset)[:1])
    cfg.DATASETS.TEST = (dataset, dataset + "_2")
    results = TinyTrainer.test(cfg, OneWeight(cfg))
    assert {name: result["task"]["images"] for name, result in results.items()} == {
        dataset: 2,
        dataset + "_2": 1,
    }
    DatasetCatalog.remove(dataset + "_2")


def test_config_is_scaled_to_the_number_of_processes():
    cfg = get_cfg()
    cfg.SOLVER.REFERENCE_WORLD_SIZE = 2
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR = 4, 0.1
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS = 1000, 100
    cfg.SOLVER.STEPS, cfg.SOLVER.CHECKPOINT_PERIOD = (500, 900), 50
    cfg.TEST.EVAL_PERIOD = 25
    cfg.freeze()
    scaled = DefaultTrainer.auto_scale_workers(cfg, 4)
    solver = scaled.SOLVER
    assert (solver.IMS_PER_BATCH, solver.REFERENCE_WORLD_SIZE) == (8, 4)
    assert pytest.approx(0.2) == solver.BASE_LR
    assert (solver.MAX_ITER, solver.WARMUP_ITERS, solver.STEPS) == (500, 50, (250, 450))
    assert (solver.CHECKPOINT_PERIOD, scaled.TEST.EVAL_PERIOD) == (25, 12)
    assert scaled.is_frozen()
    assert cfg.SOLVER.IMS_PER_BATCH == 4
    assert DefaultTrainer.auto_scale_workers(cfg, 2) is cfg


def test_config_that_cannot_be_scaled_is_refused():
    cfg = get_cfg()
    cfg.SOLVER.REFERENCE_WORLD_SIZE, cfg.SOLVER.IMS_PER_BATCH = 3, 16
    with pytest.raises((ValueError, AssertionError), match="REFERENCE_WORLD_SIZE"):
        DefaultTrainer.auto_scale_workers(cfg, 6)


def test_predictor_resizes_and_swaps_channels(cfg, tmp_path):
    model = OneWeight(cfg)
    nn.init.constant_(model.w, 3.0)
    DetectionCheckpointer(model, str(tmp_path)).save("weights")
    cfg.MODEL.WEIGHTS = str(tmp_path / "weights.pth")
    image = np.zeros((4, 6, 3), np.uint8)
    image[..., 0] = 200  # blue
    for input_format, channel in (("BGR", 0), ("RGB", 2)):
        cfg.INPUT.FORMAT = input_format
        predictor = DefaultPredictor(cfg)
        assert predictor.metadata.thing_classes == ["cell"]
        prediction = predictor(image)
        assert prediction["w"] == 3.0
        assert prediction["hw"] == (4, 6)
        assert prediction["image"].shape == (3, 8, 12)
        assert prediction["image"].dtype == torch.float32
        assert prediction["image"].amax(dim=(1, 2)).tolist() == [
            200.0 if index == channel else 0.0 for index in range(3)
        ]
    cfg.INPUT.FORMAT = "YUV-BT.601"
    with pytest.raises((ValueError, AssertionError), match="YUV"):
        DefaultPredictor(cfg)


def test_command_line():
    parser = default_argument_parser()
    args = parser.parse_args(
        ["--config-file", "a.yaml", "--num-gpus", "2", "--resume", "SEED", "3", "OUTPUT_DIR", "x"]
    )
    assert (args.config_file, args.num_gpus, args.resume, args.eval_only) == (
        "a.yaml",
        2,
        True,
        False,
    )
    assert args.opts == ["SEED", "3", "OUTPUT_DIR", "x"]
    assert (args.num_machines, args.machine_rank) == (1, 0)
    port = int(args.dist_url.removeprefix("tcp://127.0.0.1:"))
    assert 49152 <= port < 65536
    assert parser.parse_args([]).dist_url == args.dist_url
    assert "wisdom" in default_argument_parser(epilog="wisdom").format_help()
    assert "--config-file" in parser.format_help()


def test_setup_writes_log_and_config_and_seeds(tmp_path):
    cfg = get_cfg()
    cfg.OUTPUT_DIR, cfg.SEED, cfg.FLOAT32_PRECISION = str(tmp_path / "out"), 5, "highest"
    (tmp_path / "given.yaml").write_text("SEED: 5\n")
    args = argparse.Namespace(config_file=str(tmp_path / "given.yaml"), eval_only=True)
    numbers = []
    for _ in range(2):
        default_setup(cfg, args)
        numbers.append((torch.rand(1).item(), float(np.random.rand())))  # noqa: NPY002
    assert numbers[0] == numbers[1]
    with open(tmp_path / "out" / "config.yaml") as file:
        assert CfgNode.load_cfg(file).SEED == 5
    log = (tmp_path / "out" / "log.txt").read_text()
    assert "given.yaml" in log
    assert "SEED" in log
    for name in ("detectron2", "fvcore"):
        for handler in logging.getLogger(name).handlers:
            handler.close()
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def test_setup_with_a_benchmark_of_convolutions(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    cfg = get_cfg()
    cfg.OUTPUT_DIR, cfg.CUDNN_BENCHMARK = str(tmp_path), True
    default_setup(cfg, argparse.Namespace(eval_only=True))
    assert not torch.backends.cudnn.benchmark
    default_setup(cfg, {})
    assert torch.backends.cudnn.benchmark


@pytest.mark.parametrize(("precision", "tf32"), [("high", True), ("highest", False)])
def test_setup_trades_digits_for_speed_where_there_is_a_gpu(tmp_path, monkeypatch, precision, tf32):
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", asked.append)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", not tf32)
    # The report on the machine would ask the GPU.
    monkeypatch.setitem(default_setup.__globals__, "collect_env_info", lambda: "")
    cfg = get_cfg()
    cfg.OUTPUT_DIR, cfg.FLOAT32_PRECISION = str(tmp_path), precision
    default_setup(cfg, {})
    assert asked == [precision]
    assert torch.backends.cudnn.allow_tf32 == tf32


def test_writers(tmp_path):
    names = [type(writer).__name__ for writer in default_writers(str(tmp_path / "new"), 10)]
    assert names[:2] == ["CommonMetricPrinter", "JSONWriter"]
    assert (tmp_path / "new").is_dir()


@pytest.mark.embedded_only
def test_tensorboard_is_used_where_it_is_installed(tmp_path, monkeypatch):
    for found, count in ((object(), 3), (None, 2)):
        monkeypatch.setattr("importlib.util.find_spec", lambda name, found=found: found)
        assert len(default_writers(str(tmp_path))) == count


def test_single_process_needs_no_parallel_model():
    model = nn.Linear(1, 1)
    assert create_ddp_model(model, broadcast_buffers=False) is model
