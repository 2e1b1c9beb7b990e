"""The order of random numbers, the optimizer and the schedules, and a short training."""

from __future__ import annotations

import io
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
from comparison import numbers, summary
from datasets_for_parity import registered_cells
from detectron2.config import CfgNode
from detectron2.data import build_detection_train_loader
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import build_model
from detectron2.solver import WarmupCosineLR, WarmupMultiStepLR, build_lr_scheduler, build_optimizer
from detectron2.structures import BitMasks, PolygonMasks
from detectron2.utils import env
from model_scenarios import R18, R18_GN, SMALL, Options, build_cfg

FILE_TYPES = (".json", ".pth")
AUGMENTED: Options = {
    "INPUT.MIN_SIZE_TRAIN": [64, 80, 96],
    "INPUT.MAX_SIZE_TRAIN": 128,
    "INPUT.MIN_SIZE_TEST": 80,
    "INPUT.MAX_SIZE_TEST": 128,
    "INPUT.CROP.ENABLED": True,
    "INPUT.CROP.TYPE": "relative_range",
    "INPUT.CROP.SIZE": [0.6, 0.7],
    "INPUT.RANDOM_FLIP": "horizontal",
    "INPUT.MASK_FORMAT": "bitmask",
    "SOLVER.IMS_PER_BATCH": 2,
    "DATALOADER.NUM_WORKERS": 0,
}
SHORT_TRAINING: Options = {
    "SOLVER.MAX_ITER": 5,
    "SOLVER.BASE_LR": 0.01,
    "SOLVER.STEPS": [3],
    "SOLVER.WARMUP_ITERS": 2,
    "SOLVER.CLIP_GRADIENTS.ENABLED": True,
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "norm",
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 0.1,
    "SOLVER.CHECKPOINT_PERIOD": 1000,
    "TEST.EVAL_PERIOD": 5,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
}
ITERATIONS = 120
SCHEDULE: Options = {"SOLVER.MAX_ITER": ITERATIONS, "SOLVER.WARMUP_ITERS": 20}
SCHEDULES: dict[str, Options] = {
    "multi-step": {
        "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
        "SOLVER.STEPS": [60, 90],
        "SOLVER.GAMMA": 0.2,
    },
    "cosine": {"SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR", "SOLVER.BASE_LR_END": 0.0001},
    "constant warm-up": {
        "SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR",
        "SOLVER.WARMUP_METHOD": "constant",
        "SOLVER.WARMUP_FACTOR": 0.1,
    },
    "no warm-up": {"SOLVER.WARMUP_ITERS": 0, "SOLVER.STEPS": [50]},
}
GROUPS: dict[str, Options] = {
    "defaults": {},
    "norms, biases and Nesterov": {
        "SOLVER.WEIGHT_DECAY_NORM": 0.01,
        "SOLVER.BIAS_LR_FACTOR": 2.0,
        "SOLVER.WEIGHT_DECAY_BIAS": 0.003,
        "SOLVER.NESTEROV": True,
    },
}


def optimizer() -> dict[str, Any]:
    """Parameter groups by what they hold, and learning rates over whole schedules."""
    from_cfg = {
        name: partial(build_lr_scheduler, build_cfg(SCHEDULE, options))
        for name, options in SCHEDULES.items()
    }
    by_hand = {
        "WarmupMultiStepLR": partial(
            WarmupMultiStepLR, milestones=[60, 90], gamma=0.2, warmup_factor=0.1, warmup_iters=20
        ),
        "WarmupCosineLR": partial(
            WarmupCosineLR, max_iters=ITERATIONS, warmup_iters=20, warmup_method="constant"
        ),
    }
    schedules = from_cfg | by_hand
    return {
        "groups": {name: _parameter_groups(options) for name, options in GROUPS.items()},
        "learning rates": {name: _learning_rates(build) for name, build in schedules.items()},
    }


def _parameter_groups(options: Options) -> list[dict[str, Any]]:
    cfg = build_cfg(SMALL, R18_GN, options)
    model = build_model(cfg)
    names = {id(value): name for name, value in model.named_parameters()}
    return [
        {key: group[key] for key in ("lr", "weight_decay", "momentum", "nesterov")}
        | {"params": [names[id(value)] for value in group["params"]]}
        for group in build_optimizer(cfg, model).param_groups
    ]


def _learning_rates(
    build_scheduler: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler],
) -> list[float]:
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.001)
    scheduler = build_scheduler(sgd)
    rates = []
    for _ in range(ITERATIONS):
        rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        scheduler.step()
    return rates


def random_order() -> dict[str, Any]:
    """Which images come, how they are flipped, resized and cropped, for a seed."""
    variants: dict[str, Options] = {
        "training sampler": {},
        "two workers": {"DATALOADER.NUM_WORKERS": 2, "SEED": 5},
        "repeat factors": {
            "DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler",
            "DATALOADER.REPEAT_THRESHOLD": 0.7,
        },
        "absolute crops, vertical flips, resized freely": {
            "INPUT.CROP.TYPE": "absolute",
            "INPUT.CROP.SIZE": [50, 60],
            "INPUT.RANDOM_FLIP": "vertical",
            "INPUT.MIN_SIZE_TRAIN": [64, 96],
            "INPUT.MIN_SIZE_TRAIN_SAMPLING": "range",
            "DATALOADER.ASPECT_RATIO_GROUPING": False,
        },
        "polygons, not cropped": {"INPUT.MASK_FORMAT": "polygon", "INPUT.CROP.ENABLED": False},
    }
    return {name: _batches(options) for name, options in variants.items()}


def _batches(options: Options) -> list[list[dict[str, Any]]]:
    polygons = options.get("INPUT.MASK_FORMAT") == "polygon"
    with registered_cells(polygons=polygons) as dataset:
        cfg = build_cfg(AUGMENTED, {"DATASETS.TRAIN": [dataset]}, options)
        env.seed_all_rng(7)
        loader = iter(build_detection_train_loader(cfg))
        return [[_sample(sample) for sample in next(loader)] for _ in range(5)]


def _sample(sample: dict[str, Any]) -> dict[str, Any]:
    image, cells = sample["image"].double(), sample["instances"]
    ramp = torch.arange(1.0, image[0].numel() + 1, dtype=torch.float64).reshape(image[0].shape)
    return {
        "file": Path(sample["file_name"]).name,
        "shape": list(image.shape),
        "mean": numbers(image.mean()),
        "centre": numbers((image * ramp).mean() / image.mean()),
        "boxes": numbers(cells.gt_boxes.tensor),
        "classes": cells.gt_classes.tolist(),
        "areas": numbers(_areas(cells.gt_masks)),
    }


def _areas(masks: BitMasks | PolygonMasks) -> Any:
    return masks.area() if isinstance(masks, PolygonMasks) else masks.tensor.sum((1, 2))


def five_steps() -> dict[str, Any]:
    """Five steps of a trainer from its own initial weights, with evaluation at the end."""
    with registered_cells() as dataset, tempfile.TemporaryDirectory() as folder, _quiet():
        names = {"DATASETS.TRAIN": [dataset], "DATASETS.TEST": [dataset], "OUTPUT_DIR": folder}
        cfg = build_cfg(R18, SMALL, AUGMENTED, SHORT_TRAINING, names)
        env.seed_all_rng(11)
        trainer = _Trainer(cfg)
        start = {name: v.detach().clone() for name, v in trainer.model.named_parameters()}
        trainer.resume_or_load(resume=False)
        trainer.train()
        lines = [json.loads(line) for line in Path(folder, "metrics.json").read_text().splitlines()]
        files = sorted(path.name for path in Path(folder).iterdir() if path.suffix in FILE_TYPES)
    end = dict(trainer.model.named_parameters())
    return {
        "weights": {"before": _summaries(start), "after": _summaries(end)},
        # Five steps change little of most weights, so the change is compared for itself.
        "movement": {name: numbers((end[name] - start[name]).norm()) for name in start},
        "steps": trainer.steps,
        "events": sorted(trainer.storage.histories()),
        "metrics.json": [sorted(line) for line in lines],
        "files": files,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep a trainer from printing, and from setting up logging where nothing did before."""
    logger = logging.getLogger("detectron2")
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


class _Trainer(DefaultTrainer):
    """Evaluates with COCO, and keeps the losses and rates of every step."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__(cfg)
        self.steps: list[dict[str, float]] = []

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> COCOEvaluator:
        return COCOEvaluator(dataset_name, output_dir=cfg.OUTPUT_DIR, use_fast_impl=False)

    def after_step(self) -> None:
        super().after_step()
        latest = self.storage.latest()
        names = sorted(name for name in latest if "loss" in name or name == "lr")
        self.steps.append({name: numbers(latest[name][0]) for name in names})


def _summaries(values: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: summary(value, count=4) for name, value in values.items()}
