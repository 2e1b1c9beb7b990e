"""Keys below CELLSEG.TRAIN, and what they may hold."""

from __future__ import annotations

import difflib
import math
from typing import Any

from cellseg.errors import ConfigError
from cellseg.evaluation.metrics import METRICS, cell_iou_names
from detectron2.config import CfgNode

PREFIX = "CELLSEG.TRAIN"
_VALIDATION = ("validation_loss", "validation")
_COCO_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def add_training_config(node: CfgNode) -> None:
    """Add every key with its default to `node`, which becomes CELLSEG.TRAIN."""
    # Metric by which model_best.pth is chosen, by its name in metrics.json: "cell_iou/ap_dsb",
    # "segm/AP", "validation_loss"; with several test sets "<dataset>/cell_iou/ap_dsb". "": none.
    node.BEST_METRIC = ""
    # Which of two values is better: the "max" or the "min" (of a loss).
    node.BEST_MODE = "max"
    # Training ends after so many evaluations in a row without a better BEST_METRIC; 0: never.
    node.PATIENCE = 0
    # Compute the training's losses on the test sets at every evaluation.
    node.VALIDATION_LOSS = False
    # On how many images of each test set, the first ones; 0: all.
    node.VALIDATION_IMAGES = 0
    # Average the weights over iterations, w = decay * w + (1 - decay) * new, and evaluate and save
    # the average; such as 0.999. 0: off.
    node.EMA_DECAY = 0.0
    # A bar with the time left, below the log; on terminals only.
    node.PROGRESS_BAR = True
    # How many training images are drawn to OUTPUT_DIR/samples as the network gets them.
    node.SAMPLE_PICTURES = 4


def check_training_config(cfg: CfgNode) -> None:
    """Check the keys below CELLSEG.TRAIN, and that BEST_METRIC can be a metric of this run.

    Names that only an evaluator of your own knows are left to the first evaluation.

    Raises:
        ConfigError: naming the key, what was found and what was expected.
    """
    node = cfg.CELLSEG.TRAIN
    for key in ("PATIENCE", "VALIDATION_IMAGES", "SAMPLE_PICTURES"):
        _check(key, node[key], _is_count(node[key]), "a whole number, 0 or more")
    _check("EMA_DECAY", node.EMA_DECAY, _is_decay(node.EMA_DECAY), "0 (off) or more, below 1")
    _check("BEST_MODE", node.BEST_MODE, node.BEST_MODE in ("max", "min"), "'max' or 'min'")
    if node.VALIDATION_LOSS and not cfg.DATASETS.TEST:
        raise ConfigError(f"{PREFIX}.VALIDATION_LOSS is True; expected a set in DATASETS.TEST")
    if node.PATIENCE and not (node.BEST_METRIC and cfg.TEST.EVAL_PERIOD > 0):
        raise ConfigError(
            f"{PREFIX}.PATIENCE is {node.PATIENCE}; expected {PREFIX}.BEST_METRIC to name a metric "
            f"and TEST.EVAL_PERIOD to be more than 0, found {node.BEST_METRIC!r} and "
            f"{cfg.TEST.EVAL_PERIOD}"
        )
    if node.BEST_METRIC:
        _check_metric(cfg, node.BEST_METRIC)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_decay(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and 0 <= value < 1


def _check(key: str, value: Any, is_right: bool, expected: str) -> None:
    if not is_right:
        raise ConfigError(f"{PREFIX}.{key} is {value!r}; expected {expected}")


def _check_metric(cfg: CfgNode, metric: str) -> None:
    problem = _find_problem(cfg, metric)
    if problem:
        raise ConfigError(f"{PREFIX}.BEST_METRIC is {metric!r}; {problem}")


def _find_problem(cfg: CfgNode, metric: str) -> str:
    """What is wrong with a metric, "" where nothing is known to be."""
    test_sets = list(cfg.DATASETS.TEST)
    if not test_sets:
        return "expected a set in DATASETS.TEST to compute it on"
    first, _, rest = metric.partition("/")
    if len(test_sets) > 1:
        if first not in test_sets:
            names = ", ".join(f"{name}/{metric}" for name in test_sets)
            return f"with several test sets, expected one of them in front, such as {names}"
        first, _, rest = rest.partition("/")
    elif first in test_sets:
        return f"with one test set, expected the name without it: {rest}"
    if first in _VALIDATION:
        node = cfg.CELLSEG.TRAIN
        as_needed = node.VALIDATION_LOSS and node.BEST_MODE == "min"
        expected = f"{PREFIX}.VALIDATION_LOSS True and {PREFIX}.BEST_MODE 'min'"
        return "" if as_needed else f"expected {expected} with it"
    return _find_typing_error(cfg, first, rest)


def _find_typing_error(cfg: CfgNode, task: str, metric: str) -> str:
    """Whether a metric of one of the built-in evaluators is only nearly one."""
    tasks = {"cell_iou": {*cell_iou_names(), *cfg.CELLSEG.TEST.METRICS}, "bbox": set(_COCO_METRICS)}
    if cfg.MODEL.MASK_ON:
        tasks["segm"] = tasks["bbox"]
    if task not in tasks:
        near = difflib.get_close_matches(task, tasks, n=1)
        return f"did you mean {near[0]}/{metric}?" if near else ""
    name = metric.split("/")[0]
    if name in tasks[task] or name.startswith("AP-"):
        return ""
    if task == "cell_iou" and name.split("@")[0] in METRICS:
        return f"expected {name!r} among CELLSEG.TEST.METRICS, which adds it to the evaluation"
    near = difflib.get_close_matches(name, tasks[task], n=3)
    return f"did you mean {' or '.join(f'{task}/{each}' for each in near)}?" if near else ""
