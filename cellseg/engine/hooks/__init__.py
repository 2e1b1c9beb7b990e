"""What a training has beside its steps: best checkpoint, early stopping, validation loss, averages.

All are hooks as Detectron2 has them, chosen by the keys below CELLSEG.TRAIN (docs/training.md) and
CELLSEG.SOLVER.MAX_MINUTES.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cellseg.bootstrap import engine_info
from cellseg.engine.hooks.average import RestoreWeights, WeightAverage
from cellseg.engine.hooks.best import BestCheckpoint, EarlyStopping
from cellseg.engine.hooks.progress import ProgressBar
from cellseg.engine.hooks.run_record import RunRecord
from cellseg.engine.hooks.samples import FOLDER, SamplePictures
from cellseg.engine.hooks.schedule import TrainingStopped
from cellseg.engine.hooks.state import EndOfIteration, EvaluationLines, RunState
from cellseg.engine.hooks.time_limit import TimeLimit, build_time_limit
from cellseg.engine.hooks.validation import ValidationLoss, build_validation_loaders
from cellseg.engine.metrics_file import MetricsFile
from detectron2.engine import HookBase
from detectron2.engine.hooks import EvalHook, LRScheduler, PeriodicCheckpointer, PeriodicWriter
from detectron2.utils import comm

__all__ = [
    "BestCheckpoint",
    "EarlyStopping",
    "EndOfIteration",
    "EvaluationLines",
    "ProgressBar",
    "RestoreWeights",
    "RunRecord",
    "RunState",
    "SamplePictures",
    "TimeLimit",
    "TrainingStopped",
    "ValidationLoss",
    "WeightAverage",
    "cell_hooks",
]


def cell_hooks(
    trainer: Any,
    engine_hooks: Sequence[HookBase | None],
    metrics_file: MetricsFile | None = None,
) -> list[HookBase]:
    """Detectron2's hooks with those that the keys below CELLSEG.TRAIN ask for, and a limit of time.

    The order is: what prepares the model, with the limit of time behind the learning rate, as it
    makes an iteration the last one for all that follow; the average of the weights, put into the
    model for checkpoint, evaluation, validation loss and best checkpoint, which follow in this
    order; the decision to stop; the record of the run; and last, so that all metrics are written,
    Detectron2's writers.

    Args:
        trainer: a `DefaultTrainer`, whose `cfg` says which hooks there are to be.
        engine_hooks: what `DefaultTrainer.build_hooks` gave, in its order.
        metrics_file: one of the writers in it, which lies in the main process.
    """
    cfg = trainer.cfg
    present = [hook for hook in engine_hooks if hook is not None]
    saving = (PeriodicCheckpointer, EvalHook)
    writers = [hook for hook in present if isinstance(hook, PeriodicWriter)]
    others = [hook for hook in present if not isinstance(hook, PeriodicWriter)]
    limit = build_time_limit(cfg, present)
    if limit is not None:
        rates = [k for k, hook in enumerate(others) if isinstance(hook, LRScheduler)]
        others.insert(max(rates, default=-1) + 1, limit)
    first = next((k for k, hook in enumerate(others) if isinstance(hook, saving)), len(others))
    periods = cfg.SOLVER.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD
    before: list[HookBase] = []
    after = _build_after_evaluation(cfg)
    if cfg.CELLSEG.TRAIN.EMA_DECAY > 0:
        average = WeightAverage(cfg.CELLSEG.TRAIN.EMA_DECAY, periods)
        before.append(average)
        after.append(RestoreWeights(average))
    before.append(RunState(cfg.SEED, periods, metrics_file))
    if comm.is_main_process():
        after += _build_for_main_process(cfg, limit)
    if metrics_file is not None:
        after.append(EvaluationLines(cfg.TEST.EVAL_PERIOD, metrics_file))
    return [*others[:first], *before, *others[first:], *after, *writers]


def _build_after_evaluation(cfg: Any) -> list[HookBase]:
    node, period = cfg.CELLSEG.TRAIN, cfg.TEST.EVAL_PERIOD
    built: list[HookBase] = []
    if node.VALIDATION_LOSS:
        built.append(ValidationLoss(period, build_validation_loaders(cfg)))
    if node.BEST_METRIC:
        best = BestCheckpoint(period, node.BEST_METRIC, node.BEST_MODE)
        built.append(best)
        if node.PATIENCE:
            built.append(EarlyStopping(best, node.PATIENCE))
    return built


def _build_for_main_process(cfg: Any, limit: TimeLimit | None) -> list[HookBase]:
    node = cfg.CELLSEG.TRAIN
    built: list[HookBase] = [RunRecord(cfg, str(engine_info()))]
    if node.SAMPLE_PICTURES:
        folder = Path(cfg.OUTPUT_DIR) / FOLDER
        built.append(SamplePictures(node.SAMPLE_PICTURES, folder, cfg.INPUT.FORMAT))
    if node.PROGRESS_BAR:
        built.append(ProgressBar(limit))
    return built
