"""The head of a report: one sentence, metrics, errors by kind, confusion of classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from cellseg.cells.selection import DetectionThresholds
from cellseg.evaluation.scoring import confidence_intervals, score
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


def summarize(result: DatasetResult, selection: DetectionThresholds) -> Markup:
    """What a reader should take home, in one sentence, and tables of metrics and errors."""
    pairs = result.counted_pairs(selection)
    true, pred = measures.split_sides(pairs)
    names = ["tp@0.50", "fp@0.50", "recall@0.50", "precision@0.50"]
    found, wrong, recall, precision = score(true, pred, names).values()
    return render(
        "results", cells=sum(map(len, true)), predicted=sum(map(len, pred)), images=len(pairs),
        found=found, wrong=wrong, recall=recall, precision=precision,
        selection=typeset(selection.describe()),
        metrics=_metric_rows(result, pairs), errors=_error_rows(result, pairs),
        classes=result.classes, confusion=_confusion_rows(result, pairs),
    )  # fmt: skip


def _metric_rows(result: DatasetResult, pairs: Sequence[measures.Pair]) -> list[list[str]]:
    """Head and rows of the table of metrics; with several classes a column for each."""
    names = [name for name in _EXPLAINED if name != "ap_coco_mask"]
    everything = result.all_pairs()
    intervals = confidence_intervals(
        *measures.split_sides(pairs), names, samples=_BOOTSTRAP_SAMPLES
    )
    several = result.classes if len(result.classes) > 1 else ()
    columns = [_scores(pairs, everything, names)]
    for number in range(len(several)):
        columns.append(_scores(_of_class(pairs, number), _of_class(everything, number), names))
    rows = [["metric", "all" if several else "value", "95 % interval", *several, "what it says"]]
    for name, explanation in _EXPLAINED.items():
        interval = " – ".join(map(_format, intervals[name])) if name in intervals else ""
        value, *by_class = [_format(column[name]) for column in columns]
        rows.append([name, value, interval, *by_class, explanation])
    return rows


def _format(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "–"


def _of_class(pairs: Sequence[measures.Pair], number: int) -> list[measures.Pair]:
    return [(t[t.classes == number], p[p.classes == number]) for t, p in pairs]


def _scores(
    pairs: Sequence[measures.Pair], everything: Sequence[measures.Pair], names: Sequence[str]
) -> dict[str, float]:
    return score(*measures.split_sides(pairs), names) | score(
        *measures.split_sides(everything), ["ap_coco_mask"]
    )


def _error_rows(result: DatasetResult, pairs: Sequence[measures.Pair]) -> Iterator[list[str]]:
    found = [measures.find_kinds(true, pred).counts for true, pred in pairs]
    for kind in shown_kinds(result.classes):
        counts = [image[kind] for image in found]
        images = sum(count > 0 for count in counts)
        yield [WORDS[kind], f"{sum(counts):,}", f"{images:,}", KIND_MEANING[kind]]


def _confusion_rows(
    result: DatasetResult, pairs: Sequence[measures.Pair]
) -> list[tuple[str, list[tuple[int, float]]]]:
    """(true class, [(cells, share of the row) by predicted class]); none where there is one class.

    The last row has predicted cells without a true one; what it has no cell for, missed ones, is
    left out.
    """
    classes = result.classes
    if len(classes) < 2:
        return []
    counts = measures.confusion_matrix(pairs, len(classes))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    rows = [list(zip(*row)) for row in zip(counts.tolist(), shares.tolist())]
    rows[-1].pop()
    return list(zip([*classes, "no true cell"], rows))
