"""The head of a report: one sentence, metrics, errors by kind, confusion of classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from cellseg.cells.selection import DetectionThresholds
from cellseg.evaluation.confusion import MISSED, NO_CELL
from cellseg.evaluation.metrics import find_metric
from cellseg.evaluation.scorer import split_ranked
from cellseg.evaluation.scoring import Comparisons
from cellseg.report import measures
from cellseg.report.gallery import KIND_MEANING, WORDS, shown_kinds
from cellseg.report.page import render, typeset
from cellseg.report.results import DatasetResult
from markupsafe import Markup

_EXPLAINED = {
    "f1@0.50": "F1: balance of precision and recall, at mask IoU ≥ 0.5",
    "precision@0.50": "share of predicted cells that are cells, at IoU ≥ 0.5",
    "recall@0.50": "share of true cells that were found, at IoU ≥ 0.5",
    "pq@0.50": "panoptic quality: F1 times the mean IoU of the cells found",
    "ap_dsb@0.50": "TP / (TP + FP + FN) at IoU ≥ 0.5, mean over images",
    "ap_dsb": "the same, mean over IoU 0.50, 0.55, ..., 0.95 (Data Science Bowl 2018, StarDist)",
    "aji": "aggregated Jaccard index, mean over images",
    "seg_ctc": "SEG of the Cell Tracking Challenge",
    "dice_foreground": "overlap of all cells together with all true cells",
    "count_error": "mean difference between true and predicted number of cells per image",
    "ap_coco_mask": "COCO's average precision of all detections, whatever their score",
}
_BOOTSTRAP_SAMPLES = 500


def summarize(
    result: DatasetResult,
    kept: Comparisons,
    selection: DetectionThresholds,
    metrics: Sequence[str] = (),
) -> Markup:
    """What a reader should take home, in one sentence, and tables of metrics and errors.

    Args:
        result: true and predicted cells of the images.
        kept: their comparisons with the detections that count as cells.
        selection: which these are, in words.
        metrics: further metrics for the table.
    """
    names = ["tp@0.50", "fp@0.50", "recall@0.50", "precision@0.50"]
    found, wrong, recall, precision = kept.metrics(names).values()
    counted = [image.counted for image in kept.images]
    return render(
        "results", cells=sum(len(image.true) for image in counted),
        predicted=sum(len(image.pred) for image in counted), images=len(kept),
        found=found, wrong=wrong, recall=recall, precision=precision,
        selection=typeset(selection.describe()),
        metrics=_metric_rows(result, kept, metrics), errors=_error_rows(result, kept),
        columns=[*result.classes, MISSED], confusion=_confusion_rows(result, kept),
    )  # fmt: skip


def _metric_rows(
    result: DatasetResult, kept: Comparisons, metrics: Sequence[str]
) -> list[list[str]]:
    """Head and rows of the table of metrics; with several classes a column for each."""
    own = {name: find_metric(name)[0].sentence for name in metrics if name not in _EXPLAINED}
    sentences = _EXPLAINED | own
    names, ranked = split_ranked(list(sentences))
    intervals = kept.intervals(names, samples=_BOOTSTRAP_SAMPLES)
    several = result.classes if len(result.classes) > 1 else ()
    sides = [(kept, result.compared)]
    sides += [(kept.of_class(k), result.compared.of_class(k)) for k in range(len(several))]
    columns = [shown.metrics(names) | everything.metrics(ranked) for shown, everything in sides]
    rows = [["metric", "all" if several else "value", "95 % interval", *several, "what it says"]]
    for name, sentence in sentences.items():
        interval = " – ".join(map(_format_metric, intervals[name])) if name in intervals else ""
        value, *by_class = [_format_metric(column[name]) for column in columns]
        lower = "; lower is better" if find_metric(name)[0].lower_is_better else ""
        rows.append([name, value, interval, *by_class, sentence + lower])
    return rows


def _format_metric(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "–"


def _error_rows(result: DatasetResult, kept: Comparisons) -> Iterator[list[str]]:
    found = [measures.find_kinds(image.counted).counts for image in kept.images]
    for kind in shown_kinds(result.classes):
        counts = [image[kind] for image in found]
        images = sum(count > 0 for count in counts)
        yield [WORDS[kind], f"{sum(counts):,}", f"{images:,}", KIND_MEANING[kind]]


def _confusion_rows(
    result: DatasetResult, kept: Comparisons
) -> list[tuple[str, list[tuple[int, float]]]]:
    """(true class, [(cells, share of the row) by predicted class]); none where there is one class.

    The last row has predicted cells without a true one; what it has no cell for, missed ones, is
    left out.
    """
    classes = result.classes
    if len(classes) < 2:
        return []
    counts = kept.confusion(len(classes))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows = [list(zip(*row)) for row in zip(counts.tolist(), shares.tolist())]
    rows[-1].pop()
    return list(zip([*classes, NO_CELL], rows))
