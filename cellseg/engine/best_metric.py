"""Whether the metric that chooses the best checkpoint is one of a run's."""

from __future__ import annotations

from cellseg.errors import ConfigError
from cellseg.evaluation.metrics import METRICS, cell_iou_names
from cellseg.names import did_you_mean, find_near_names
from detectron2.config import CfgNode

_VALIDATION = ("validation_loss", "validation")
_COCO_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def check_best_metric(cfg: CfgNode) -> None:
    """Check that CELLSEG.TRAIN.BEST_METRIC can be a metric of this run.

    Names that only an evaluator of your own knows are left to the first evaluation.

    Args:
        cfg: the whole config.

    Raises:
        ConfigError: naming the metric and what was expected.
    """
    metric = cfg.CELLSEG.TRAIN.BEST_METRIC
    problem = _find_problem(cfg, metric) if metric else ""
    if problem:
        raise ConfigError(f"CELLSEG.TRAIN.BEST_METRIC is {metric!r}; {problem}")


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
        expected = "CELLSEG.TRAIN.VALIDATION_LOSS True and CELLSEG.TRAIN.BEST_MODE 'min'"
        return "" if as_needed else f"expected {expected} with it"
    return _find_typing_error(cfg, first, rest)


def _find_typing_error(cfg: CfgNode, task: str, metric: str) -> str:
    """Whether a metric of one of the built-in evaluators is only nearly one."""
    tasks = {"cell_iou": {*cell_iou_names(), *cfg.CELLSEG.TEST.METRICS}, "bbox": set(_COCO_METRICS)}
    if cfg.MODEL.MASK_ON:
        tasks["segm"] = tasks["bbox"]
    if task not in tasks:
        near = find_near_names(task, tasks, 1)
        return f"did you mean {near[0]}/{metric}?" if near else ""
    name = metric.split("/")[0]
    if name in tasks[task] or name.startswith("AP-"):
        return ""
    if task == "cell_iou" and name.split("@")[0] in METRICS:
        return f"expected {name!r} among CELLSEG.TEST.METRICS, which adds it to the evaluation"
    return did_you_mean(f"{task}/{name}", [f"{task}/{each}" for each in tasks[task]])
