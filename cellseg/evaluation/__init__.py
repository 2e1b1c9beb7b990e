"""Scoring of cells: comparison and metrics (no torch), and Detectron2 evaluators around them.

The evaluators need torch and detectron2 and are loaded on first use, so that files written by
any other tool can be scored without either.
"""

from __future__ import annotations

import importlib
from typing import Any

from cellseg.cells.matching import Matching, match_cells, match_greedily, match_overlaps
from cellseg.cells.overlaps import Overlaps, Segmentation, find_overlaps
from cellseg.evaluation.comparison import Comparison, compare, iou_matrix
from cellseg.evaluation.metric_kinds import IOU_THRESHOLDS, Metric, RankedMetric
from cellseg.evaluation.metrics import METRICS, add_metric
from cellseg.evaluation.scoring import (
    DEFAULT_METRICS,
    Comparisons,
    class_confusion,
    confidence_intervals,
    score,
)

_LAZY = {
    "EVALUATOR_REGISTRY": "cellseg.evaluation.registry",
    "CellIoUEvaluator": "cellseg.evaluation.iou_evaluator",
    "PictureEvaluator": "cellseg.evaluation.pictures",
    "build_coco_evaluator": "cellseg.evaluation.coco_evaluator",
}

__all__ = [
    "DEFAULT_METRICS",
    "EVALUATOR_REGISTRY",
    "IOU_THRESHOLDS",
    "METRICS",
    "CellIoUEvaluator",
    "Comparison",
    "Comparisons",
    "Matching",
    "Metric",
    "Overlaps",
    "PictureEvaluator",
    "RankedMetric",
    "Segmentation",
    "add_metric",
    "build_coco_evaluator",
    "class_confusion",
    "compare",
    "confidence_intervals",
    "find_overlaps",
    "iou_matrix",
    "match_cells",
    "match_greedily",
    "match_overlaps",
    "score",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'cellseg.evaluation' has no attribute {name!r}")
