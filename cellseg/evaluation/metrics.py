"""The table of metrics, the only one: score, evaluation, tuning, report and docs read it.

A metric is an entry of `METRICS`, a `Metric` or, where the detections of all images are ranked
together as COCO does, a `RankedMetric`. A plug-in adds one with `add_metric`; from then on it is
known everywhere by its name.

Empty cases: where there is nothing to find and nothing found, a share is 1 and a count 0, per image
or over the data set (the definitions leave it open: StarDist says 0, Cellpose divides by 0). In any
other case a share of nothing is 0: precision without predictions, recall without true cells.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from cellseg.errors import LabelError
from cellseg.evaluation import coco, pixels
from cellseg.evaluation.error_kinds import KIND_SENTENCES, count_errors
from cellseg.evaluation.metric_kinds import IOU_THRESHOLDS, Metric, RankedMetric, Value
from cellseg.evaluation.ratios import (
    accuracy,
    boundary_f1,
    column,
    count_greedy_matches,
    count_matches,
    count_strict_matches,
    dice,
    difference,
    f1,
    jaccard,
    mean_matched_score,
    mean_true_score,
    panoptic_quality,
    part_of_whole,
    precision,
    recall,
    seg,
)

METRICS: dict[str, Metric | RankedMetric] = {}
"""All metrics by name; `add_metric` adds one."""


def add_metric(metric: Metric | RankedMetric) -> None:
    """Make a metric known to scoring, evaluation, tuning and report.

    Args:
        metric: the entry; none of its name may exist.

    Raises:
        ValueError: the name is taken or has an "@" in it.

    Example:
        The share of all cells that are wrong, of which less is better:

        >>> def count_wrong(image, threshold):
        ...     tp, fp, fn, _ = image.count(threshold)
        ...     return fp + fn, tp + fp + fn
        >>> add_metric(Metric("error_rate", "(FP + FN) / (TP + FP + FN).", count_wrong,
        ...                   ratios.part_of_whole, lower_is_better=True))
        >>> del METRICS["error_rate"]
    """
    if metric.name in METRICS or "@" in metric.name:
        raise ValueError(f"a metric {metric.name!r} exists, or the name has an @ in it")
    METRICS[metric.name] = metric


def find_metric(name: str) -> tuple[Metric | RankedMetric, float | None]:
    """The entry that a name such as "f1@0.50" means, and what stands behind its @.

    Raises:
        LabelError: there is no such metric (with the nearest ones), or the rest makes no sense.
    """
    key, at, text = name.partition("@")
    if key not in METRICS:
        near = difflib.get_close_matches(key, METRICS, n=3, cutoff=0.5)
        every = ", ".join(sorted(METRICS))
        hint = f"did you mean {', '.join(near)}?" if near else f"there are {every}"
        raise LabelError(f"no metric {name!r}; {hint}")
    return METRICS[key], METRICS[key].parse_at(text) if at else None


def name_at(name: str, threshold: float) -> str:
    """The name of a metric at an IoU threshold: "f1" and 0.5 make "f1@0.50"."""
    text = f"{threshold:.2f}"
    return f"{name}@{text if float(text) == threshold else f'{threshold:g}'}"


CELL_IOU_METRICS = ("ap_dsb", "precision", "recall", "f1", "pq", "mean_iou", "tp", "fp", "fn")
"""The metrics that every evaluation gives, at each IoU threshold."""


def cell_iou_names(thresholds: Sequence[float] = IOU_THRESHOLDS) -> list[str]:
    """The names under "cell_iou" in an evaluation's results, before any class."""
    return ["ap_dsb", *(name_at(name, t) for name in CELL_IOU_METRICS for t in thresholds)]


def describe_metrics(metrics: Iterable[Metric | RankedMetric]) -> list[str]:
    """The lines of a table in Markdown, as docs/metrics.md has it."""
    lines = ["| name | what | over images | `@` | better |", "| --- | --- | --- | --- | --- |"]
    for each in metrics:
        better = "lower" if each.lower_is_better else "higher"
        if isinstance(each, Metric):
            over, at = "pooled" if each.pooled else "mean", "IoU" if each.at_threshold else ""
        else:
            over, at = "ranked", "IoU" if each.at_threshold else "detections"
        lines.append(f"| `{each.name}` | {each.sentence} | {over} | {at} | {better} |")
    return lines


RATIOS: dict[str, tuple[Value, str]] = {
    "precision": (precision, "TP / (TP + FP)"),
    "recall": (recall, "TP / (TP + FN)"),
    "f1": (f1, "2 TP / (2 TP + FP + FN)"),
    "accuracy": (accuracy, "TP / (TP + FP + FN), as StarDist says"),
    "pq": (
        panoptic_quality,
        "panoptic quality, `rq` x `sq` = sum of the pairs' IoU / (TP + FP / 2 + FN / 2) "
        "(Kirillov et al., CVPR 2019)",
    ),
    "rq": (f1, "recognition quality, the same as `f1`"),
    "sq": (mean_matched_score, "segmentation quality, the same as `mean_matched_score`"),
    "mean_true_score": (mean_true_score, "sum of the pairs' IoU / true cells (StarDist)"),
    "mean_matched_score": (mean_matched_score, "sum of the pairs' IoU / TP (StarDist)"),
}
"""Ratios of counts at an IoU threshold, each a metric pooled and, by another name, by image."""

COUNTED = [
    *(Metric(name, sentence, count_matches, ratio) for name, (ratio, sentence) in RATIOS.items()),
    *(
        Metric(
            f"{name}_by_image",
            f"`{name}` of each image (StarDist with `by_image=True`)",
            count_matches,
            ratio,
            pooled=False,
        )
        for name, (ratio, _) in RATIOS.items()
    ),
    Metric(
        "ap_dsb",
        "TP / (TP + FP + FN) of each image: the Data Science Bowl 2018 (Caicedo et al., Nature "
        "Methods 2019), with IoU >= t",
        count_matches,
        accuracy,
        pooled=False,
    ),
    Metric(
        "ap_cellpose",
        "the same: Cellpose's `average_precision`, averaged over images (Stringer et al., Nature "
        "Methods 2021; NaN there for an image without cells)",
        count_matches,
        accuracy,
        pooled=False,
    ),
    Metric(
        "ap_dsb_greedy",
        "`ap_dsb` with predicted cells that choose in the order of their scores (notebooks of "
        "Kaggle)",
        count_greedy_matches,
        accuracy,
        pooled=False,
        needs_scores=True,
    ),
    Metric("f1_greedy", "`f1`, likewise", count_greedy_matches, f1, needs_scores=True),
    Metric(
        "score_dsb2018",
        "`ap_dsb` with IoU > t, as Kaggle wrote the rule of the "
        "[Data Science Bowl 2018](https://www.kaggle.com/c/data-science-bowl-2018)",
        count_strict_matches,
        accuracy,
        pooled=False,
    ),
    Metric(
        "score_sartorius",
        "the same rule: [Sartorius Cell Instance Segmentation]"
        "(https://www.kaggle.com/c/sartorius-cell-instance-segmentation)",
        count_strict_matches,
        accuracy,
        pooled=False,
    ),
    Metric("tp", "pairs (true positives)", count_matches),
    Metric("fp", "predicted cells left over (false positives)", count_matches, column(1),
           lower_is_better=True),
    Metric("fn", "true cells left over (false negatives)", count_matches, column(2),
           lower_is_better=True),
    Metric("mean_iou", "the same as `mean_matched_score`", count_matches, mean_matched_score),
]  # fmt: skip
"""Metrics of the counts at an IoU threshold."""

MEASURED = [
    Metric(
        "aji",
        "aggregated Jaccard index of each image: every true cell takes the predicted one of most "
        "IoU, several may take the same (Kumar et al., IEEE TMI 2017)",
        pixels.aggregated_jaccard,
        part_of_whole,
        pooled=False,
        at_threshold=False,
    ),
    Metric(
        "aji_plus",
        "the same with one-to-one pairs of the most IoU (Graham et al., Medical Image Analysis "
        "2019)",
        pixels.aggregated_jaccard_plus,
        part_of_whole,
        pooled=False,
        at_threshold=False,
    ),
    Metric("dice_foreground", "Dice (1945) of the pixels in any cell", pixels.foreground_px, dice,
           at_threshold=False),
    Metric("jaccard_foreground", "Jaccard index (1912) of the pixels in any cell",
           pixels.foreground_px, jaccard, at_threshold=False),
    Metric(
        "seg_ctc",
        "mean over true cells of the IoU with the predicted cell that covers more than half of "
        "it: SEG of the Cell Tracking Challenge (Maška et al., Bioinformatics 2014)",
        pixels.seg_sums,
        seg,
        at_threshold=False,
    ),
    Metric(
        "boundary_f1",
        "F1 of boundary pixels that lie within 2 px of one of the other side (after Csurka et "
        "al., BMVC 2013)",
        pixels.boundary_counts,
        boundary_f1,
        at_threshold=False,
    ),
    Metric(
        "count_error",
        "difference between the numbers of true and predicted cells of each image",
        difference,
        pooled=False,
        at_threshold=False,
        lower_is_better=True,
    ),
    *(
        Metric(
            f"errors_{kind}",
            f"{sentence} (`deepcell_toolbox`; Caicedo et al., Cytometry A 2019)",
            count_errors,
            column(number),
            at_threshold=False,
            lower_is_better=kind != "correct",
        )
        for number, (kind, sentence) in enumerate(KIND_SENTENCES.items())
    ),
]  # fmt: skip
"""Metrics without an IoU threshold: of pixels, numbers of cells, kinds of errors."""

_SIZES = {
    "": (coco.EVERY_SIZE, ""),
    "_small": (coco.COCO_SIZES["small"], ", of cells up to 32² px"),
    "_medium": (coco.COCO_SIZES["medium"], ", of cells of 32² to 96² px"),
    "_large": (coco.COCO_SIZES["large"], ", of cells from 96² px on"),
    "_small_livecell": (coco.LIVECELL_SIZES["small"], ", of cells up to 18² px (LIVECell)"),
    "_medium_livecell": (coco.LIVECELL_SIZES["medium"], ", of cells of 18² to 31² px (LIVECell)"),
    "_large_livecell": (coco.LIVECELL_SIZES["large"], ", of cells from 31² px on (LIVECell)"),
}

RANKED = [
    *(
        RankedMetric(f"ap_coco_{kind}{size}", f"COCO's average precision of {kind}{es}{of_size}",
                     coco.average_precision, kind, sizes_px)
        for kind, es in (("mask", "s"), ("box", "es"))
        for size, (sizes_px, of_size) in _SIZES.items()
    ),
    *(
        RankedMetric(f"ar_coco_{kind}{size}", f"COCO's average recall of {kind}{es}{of_size}",
                     coco.average_recall, kind, sizes_px, at_threshold=False)
        for kind, es in (("mask", "s"), ("box", "es"))
        for size, (sizes_px, of_size) in _SIZES.items()
    ),
    RankedMetric(
        "afnr_livecell",
        "average false negative rate, 1 - `ar_coco_mask` (LIVECell: Edlund et al., Nature Methods "
        "2021)",
        coco.false_negative_rate,
        at_threshold=False,
        lower_is_better=True,
    ),
]  # fmt: skip
"""COCO's metrics (Lin et al., ECCV 2014), at 2,000 detections per image."""

_ENTRIES: list[Metric | RankedMetric] = [*COUNTED, *MEASURED, *RANKED]
for _entry in _ENTRIES:
    add_metric(_entry)
