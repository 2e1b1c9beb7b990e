"""CellTrainer's own parts: optimizer, safe checkpoints, what it says on resuming."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from cellseg import load_config
from cellseg.engine import AtomicWrites, CellTrainer
from cellseg.errors import CheckpointError
from cellseg.evaluation.coco_evaluator import DenseCOCOEvaluator
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluators

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def cfg(tiny_training: list[str]) -> CfgNode:
    return load_config(REPOSITORY / "configs/quick_start.yaml", tiny_training)


class OneLayer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
        self.norm = torch.nn.GroupNorm(1, 1)


@pytest.mark.parametrize("name", ["SGD", "ADAMW"])
def test_optimizer_is_the_one_that_is_named(cfg: CfgNode, name: str) -> None:
    cfg.CELLSEG.SOLVER.OPTIMIZER = name
    cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.WEIGHT_DECAY_NORM = 0.25, 0.0
    model = OneLayer()
    optimizer = CellTrainer.build_optimizer(cfg, model)
    assert isinstance(optimizer, {"SGD": torch.optim.SGD, "ADAMW": torch.optim.AdamW}[name])
    decays = {
        id(parameter): group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert decays[id(model.linear.weight)] == 0.25
    assert decays[id(model.norm.weight)] == 0.0
    assert all(group["lr"] == cfg.SOLVER.BASE_LR for group in optimizer.param_groups)


def test_gradients_are_clipped_before_a_step(cfg: CfgNode) -> None:
    cfg.CELLSEG.SOLVER.OPTIMIZER = "ADAMW"
    model = OneLayer()
    optimizer = CellTrainer.build_optimizer(cfg, model)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    optimizer.step()
    norms = [parameter.grad.norm().item() for parameter in model.parameters()]
    assert norms == pytest.approx([cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE] * len(norms))


def test_checkpoints_of_the_hooks_are_written_whole(cfg: CfgNode) -> None:
    trainer = CellTrainer(cfg)
    assert isinstance(trainer.checkpointer.path_manager, AtomicWrites)


def test_resuming_says_where_it_starts(cfg: CfgNode, caplog: pytest.LogCaptureFixture) -> None:
    trainer = CellTrainer(cfg)
    with caplog.at_level(logging.WARNING, "cellseg"):
        trainer.resume_or_load(resume=True)
    assert "holds no checkpoint" in caplog.text
    cfg.MODEL.WEIGHTS = "nowhere.pth"
    with pytest.raises(CheckpointError, match=r"nowhere\.pth: no such checkpoint file"):
        CellTrainer(cfg).resume_or_load(resume=False)


def test_evaluators_stand_side_by_side(cfg: CfgNode) -> None:
    kinds: Any = [
        type(one).__name__ for one in CellTrainer.build_evaluator(cfg, "synthetic_val")._evaluators
    ]
    assert kinds == ["DenseCOCOEvaluator", "CellIoUEvaluator", "PictureEvaluator"]
    cfg.CELLSEG.TEST.PICTURES = 0
    without = CellTrainer.build_evaluator(cfg, "synthetic_val")
    assert isinstance(without, DatasetEvaluators)
    assert len(without._evaluators) == 2
    coco = without._evaluators[0]
    assert isinstance(coco, DenseCOCOEvaluator)
    assert coco.max_detections == cfg.TEST.DETECTIONS_PER_IMAGE
