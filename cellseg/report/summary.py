"""The head of a report: one sentence, figures, errors by kind, confusion of classes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from cellseg.cells.selection import DetectionThresholds
from cellseg.evaluation.scoring import confidence_intervals, score
from cellseg.report import measures
from cellseg.report.gallery import KIND_MEANING, WORDS
from cellseg.report.page import render_table
from cellseg.report.results import DatasetResult

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


def summarize(result: DatasetResult, selection: DetectionThresholds) -> str:
    """What a reader should take home, in one sentence, and tables of figures and errors."""
    pairs = result.counted_pairs(selection)
    true, pred = [t for t, _ in pairs], [p for _, p in pairs]
    figures = score(true, pred, ["tp@0.50", "fp@0.50", "fn@0.50", "recall@0.50", "precision@0.50"])
    cells, predicted = sum(map(len, true)), sum(map(len, pred))
    lead = (
        f"Of {cells:,} true cells in {len(true):,} images, {int(figures['tp@0.50']):,} were found "
        f"({figures['recall@0.50']:.0%}). Of {predicted:,} predicted cells, "
        f"{int(figures['fp@0.50']):,} are not true cells ({1 - figures['precision@0.50']:.0%})."
    )
    return (
        f'<p class="lead">{lead}</p><p class="note">Found means a mask IoU of 0.5 or more with a '
        f"predicted cell of the same class. Detections count as cells with "
        f"{escape(selection.describe())}.</p><h3>Figures</h3>"
        + _figure_table(result, selection)
        + "<h3>Errors by kind</h3>"
        + _error_table(result, selection)
        + _confusion(result, selection)
    )


def _figure_table(result: DatasetResult, selection: DetectionThresholds) -> str:
    names = [name for name in _EXPLAINED if name != "ap_coco_mask"]
    pairs, everything = result.counted_pairs(selection), result.all_pairs()
    columns = [_scores(pairs, everything, names)]
    intervals = confidence_intervals(
        *measures.split_sides(pairs), names, samples=_BOOTSTRAP_SAMPLES
    )
    several = result.classes if len(result.classes) > 1 else ()
    for number in range(len(several)):
        columns.append(_scores(_of_class(pairs, number), _of_class(everything, number), names))
    rows = []
    for name, explanation in _EXPLAINED.items():
        low, high = intervals.get(name, (float("nan"), float("nan")))
        interval = f"{_format(low)} – {_format(high)}" if low == low else ""
        values = [_format(column[name]) for column in columns]
        rows.append([name, values[0], interval, *values[1:], explanation])
    head = ["figure", "all" if several else "value", "95 % interval", *several, "what it says"]
    note = (
        '<p class="note">The interval is by bootstrap over images: how far the figure would vary '
        "with other images of the same kind.</p>"
    )
    return render_table(head, rows) + note


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


def _error_table(result: DatasetResult, selection: DetectionThresholds) -> str:
    counts = dict.fromkeys(measures.ERROR_KINDS, 0)
    images = dict.fromkeys(measures.ERROR_KINDS, 0)
    for true, pred in result.counted_pairs(selection):
        for kind, count in measures.find_kinds(true, pred).counts.items():
            counts[kind] += count
            images[kind] += count > 0
    kinds = [k for k in measures.ERROR_KINDS if k != measures.CONFUSED or len(result.classes) > 1]
    rows = [[WORDS[k], f"{counts[k]:,}", f"{images[k]:,}", KIND_MEANING[k]] for k in kinds]
    note = (
        '<p class="note">Here, and in the images below, a cell is correct at an IoU above 0.6, as '
        "DeepCell counts; a cell that was found but badly outlined is missed and spurious at "
        "once.</p>"
    )
    return render_table(["kind", "errors", "images with it", "what it is"], rows) + note


def _confusion(result: DatasetResult, selection: DetectionThresholds) -> str:
    """Which class is taken for which; nothing where there is one class."""
    if len(result.classes) < 2:
        return ""
    counts = measures.confusion_matrix(result.counted_pairs(selection), len(result.classes))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    head = "".join(
        f'<th scope="col" class="number">{escape(name)}</th>'
        for name in (*result.classes, "missed")
    )
    rows = []
    for row, name in enumerate((*result.classes, "no true cell")):
        cells = "".join(
            f'<td class="heat" style="--share:{share:.3f}">{count:,}'
            f'<br><span class="soft">{share:.0%}</span></td>'
            if row < len(result.classes) or column < len(result.classes)
            else "<td></td>"
            for column, (count, share) in enumerate(zip(counts[row].tolist(), shares[row].tolist()))
        )
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    return (
        "<h3>Confusion of classes</h3>"
        '<div class="scroll"><table class="confusion"><thead><tr><th scope="col">true ↓ predicted →'
        f"</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="note">Cells paired by mask IoU ≥ 0.5 whatever their class; percentages are of '
        "their row.</p>"
    )
