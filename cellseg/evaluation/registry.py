"""Evaluators of plug-ins, by name."""

from __future__ import annotations

from cellseg.errors import ConfigError, LabelError, collect_problems
from cellseg.evaluation.scorer import split_ranked
from cellseg.names import describe_unknown_names
from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils.registry import Registry

EVALUATORS_KEY = "CELLSEG.TEST.EVALUATORS"

EVALUATOR_REGISTRY = Registry("EVALUATOR")
"""Evaluators for CELLSEG.TEST.EVALUATORS.

What is registered, a class or a function, is called `f(cfg, dataset_name, output_folder)` and gives
a `detectron2.evaluation.DatasetEvaluator`. Its `evaluate` returns `{task: {metric: value}}` under a
task of its own, and on several GPUs gathers what the ranks found.
"""


def build_extra_evaluators(
    cfg: CfgNode, dataset_name: str, output_folder: str
) -> list[DatasetEvaluator]:
    """Build what CELLSEG.TEST.EVALUATORS names, in its order.

    Args:
        cfg: the whole config.
        dataset_name: the test set.
        output_folder: where evaluators write files; it may not exist yet.

    Raises:
        ConfigError: a name is not registered, or gives something that is no evaluator.
    """
    check_evaluator_names(cfg)
    return [_build(name, cfg, dataset_name, output_folder) for name in cfg.CELLSEG.TEST.EVALUATORS]


def _build(name: str, cfg: CfgNode, dataset_name: str, output_folder: str) -> DatasetEvaluator:
    built = EVALUATOR_REGISTRY.get(name)(cfg, dataset_name, output_folder)
    if not isinstance(built, DatasetEvaluator):
        raise ConfigError(
            f"{EVALUATORS_KEY} names {name!r}, which gave a {type(built).__name__}; expected a "
            "detectron2.evaluation.DatasetEvaluator"
        )
    return built


def check_evaluator_names(cfg: CfgNode) -> None:
    """Check the names of CELLSEG.TEST.EVALUATORS.

    Raises:
        ConfigError: lists every name that is not registered or comes twice, and the nearest names.
    """
    names = cfg.CELLSEG.TEST.EVALUATORS
    problems = list(describe_unknown_names(EVALUATORS_KEY, names, EVALUATOR_REGISTRY))
    twice = sorted({name for name in names if names.count(name) > 1})
    problems += [f"{EVALUATORS_KEY} names {name!r} twice; once is enough" for name in twice]
    if problems:
        raise ConfigError(
            collect_problems(
                "evaluators that cannot be used",
                problems,
                "Code that registers a name has to be listed in CELLSEG.PLUGINS.",
            )
        )


def check_metric_names(cfg: CfgNode) -> None:
    """Check the names of CELLSEG.TEST.METRICS.

    Args:
        cfg: the whole config.

    Raises:
        ConfigError: a name is no metric; the nearest ones are named.
    """
    try:
        split_ranked(cfg.CELLSEG.TEST.METRICS)
    except LabelError as error:
        raise ConfigError(f"CELLSEG.TEST.METRICS: {error} (docs/metrics.md)") from error
