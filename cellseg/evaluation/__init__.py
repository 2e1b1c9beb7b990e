"""Scoring of cells: matching and figures (numpy only), and Detectron2 evaluators around them.

The evaluators need torch and detectron2 and are loaded on first use, so that files written by
any other tool can be scored without either.
"""

from __future__ import annotations

import importlib
from typing import Any

from cellseg.cells.matching import Matching, match_cells, match_overlaps
from cellseg.cells.overlaps import Overlaps, find_overlaps
from cellseg.evaluation.comparison import iou_matrix
from cellseg.evaluation.error_kinds import class_confusion
from cellseg.evaluation.metrics import IOU_THRESHOLDS, MatchCounts, count_matches, summarize_counts
from cellseg.evaluation.scoring import DEFAULT_METRICS, confidence_intervals, score

iou_matrix_labels = iou_matrix  # its name before it took both kinds

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
    "CellIoUEvaluator",
    "MatchCounts",
    "Matching",
    "Overlaps",
    "PictureEvaluator",
    "build_coco_evaluator",
    "class_confusion",
    "confidence_intervals",
    "count_matches",
    "find_overlaps",
    "iou_matrix",
    "iou_matrix_labels",
    "match_cells",
    "match_overlaps",
    "score",
    "summarize_counts",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'cellseg.evaluation' has no attribute {name!r}")
