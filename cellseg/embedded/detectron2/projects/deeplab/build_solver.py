"""The learning rate schedule that a config names, DeepLab's included."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRScheduler
from detectron2.solver import build_lr_scheduler as build_engine_schedule

from .lr_scheduler import WarmupPolyLR

__all__ = ["build_lr_scheduler"]


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """`detectron2.solver.build_lr_scheduler`, which knows "WarmupPolyLR" as well.

    Raises:
        ValueError: SOLVER.LR_SCHEDULER_NAME is none of these.
    """
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME != "WarmupPolyLR":
        return build_engine_schedule(cfg, optimizer)
    return WarmupPolyLR(
        optimizer,
        solver.MAX_ITER,
        solver.WARMUP_FACTOR,
        solver.WARMUP_ITERS,
        solver.WARMUP_METHOD,
        power=solver.POLY_LR_POWER,
        constant_ending=solver.POLY_LR_CONSTANT_ENDING,
    )
