"""The table of metrics, the only one: score, evaluation, tuning, report and docs read it.

A metric is an entry of `METRICS`, a `Metric` or, where the detections of all images are ranked
together as COCO does, a `RankedMetric`. A plug-in adds one with `add_metric`; from then on it is
known everywhere by its name.

Empty cases: where there is nothing to find and nothing found, a share is 1 and a count 0, per image
or over the data set (the definitions leave it open: StarDist says 0, Cellpose divides by 0). In any
other case a share of nothing is 0: precision without predictions, recall without true cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cellseg.arguments import checked, of_type
from cellseg.errors import InputValueError, LabelError
from cellseg.evaluation import coco, pixels
from cellseg.evaluation.error_kinds import KIND_SENTENCES, count_errors
from cellseg.evaluation.metric_kinds import IOU_THRESHOLDS, Measure, Metric, RankedMetric, Value
from cellseg.evaluation.ratios import (
    boundary_f1,
    column,
    count_difference,
    count_greedy_matches,
    count_matches,
    count_strict_matches,
    part_of_whole,
    ratio_of_counts,
)
from cellseg.names import find_near_names

METRICS: dict[str, Metric | RankedMetric] = {}
"""All metrics by name; `add_metric` adds one."""


@checked(metric=of_type((Metric, RankedMetric), "a Metric or a RankedMetric"))
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
        ...                   part_of_whole, lower_is_better=True))
        >>> del METRICS["error_rate"]
    """
    if metric.name in METRICS or "@" in metric.name:
        raise InputValueError(f"a metric {metric.name!r} exists, or the name has an @ in it")
    METRICS[metric.name] = metric


def find_metric(name: str) -> tuple[Metric | RankedMetric, float | None]:
    """The entry that a name such as "f1@0.50" means, and what stands behind its @.

    Raises:
        LabelError: there is no such metric (with the nearest ones), or the rest makes no sense.
    """
    key, at, text = name.partition("@")
    if key not in METRICS:
        near = find_near_names(key, METRICS, likeness=0.5)
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


_ACCURACY = ratio_of_counts(lambda tp, fp, fn, iou: (tp, tp + fp + fn))
_F1 = ratio_of_counts(lambda tp, fp, fn, iou: (2 * tp, 2 * tp + fp + fn))
_MEAN_IOU = ratio_of_counts(lambda tp, fp, fn, iou: (iou, tp))

# Each a metric pooled over images and, by another name, the mean over images.
_RATIOS: dict[str, tuple[Value, str]] = {
    "precision": (ratio_of_counts(lambda tp, fp, fn, iou: (tp, tp + fp)), "TP / (TP + FP)"),
    "recall": (ratio_of_counts(lambda tp, fp, fn, iou: (tp, tp + fn)), "TP / (TP + FN)"),
    "f1": (_F1, "2 TP / (2 TP + FP + FN)"),
    "accuracy": (_ACCURACY, "TP / (TP + FP + FN), as StarDist says"),
    "pq": (
        ratio_of_counts(lambda tp, fp, fn, iou: (2 * iou, 2 * tp + fp + fn)),
        "panoptic quality, `rq` x `sq` = sum of the pairs' IoU / (TP + FP / 2 + FN / 2) "
        "(Kirillov et al., CVPR 2019)",
    ),
    "rq": (_F1, "recognition quality, the same as `f1`"),
    "sq": (_MEAN_IOU, "segmentation quality, the same as `mean_matched_score`"),
    "mean_true_score": (
        ratio_of_counts(lambda tp, fp, fn, iou: (iou, tp + fn)),
        "sum of the pairs' IoU / true cells (StarDist)",
    ),
    "mean_matched_score": (_MEAN_IOU, "sum of the pairs' IoU / TP (StarDist)"),
}

# TP / (TP + FP + FN) of each image, under the names of those who report it.
_ACCURACIES: dict[str, tuple[Measure, str]] = {
    "ap_dsb": (
        count_matches,
        "TP / (TP + FP + FN) of each image: the Data Science Bowl 2018 (Caicedo et al., Nature "
        "Methods 2019), with IoU >= t",
    ),
    "ap_cellpose": (
        count_matches,
        "the same: Cellpose's `average_precision`, averaged over images (Stringer et al., Nature "
        "Methods 2021; NaN there for an image without cells)",
    ),
    "score_dsb2018": (
        count_strict_matches,
        "the same with IoU > t, as Kaggle wrote the rule of the "
        "[Data Science Bowl 2018](https://www.kaggle.com/c/data-science-bowl-2018)",
    ),
    "score_sartorius": (
        count_strict_matches,
        "the same rule as `score_dsb2018`: [Sartorius Cell Instance Segmentation]"
        "(https://www.kaggle.com/c/sartorius-cell-instance-segmentation)",
    ),
}
_GREEDY = "with predicted cells that choose in the order of their scores"

_COUNTED = [
    *(Metric(name, sentence, count_matches, value) for name, (value, sentence) in _RATIOS.items()),
    *(
        Metric(f"{name}_by_image", f"`{name}` of each image (StarDist with `by_image=True`)",
               count_matches, value, pooled=False)
        for name, (value, _) in _RATIOS.items()
    ),
    *(
        Metric(name, sentence, measure, _ACCURACY, pooled=False)
        for name, (measure, sentence) in _ACCURACIES.items()
    ),
    Metric("ap_dsb_greedy", f"`ap_dsb` {_GREEDY} (notebooks of Kaggle)", count_greedy_matches,
           _ACCURACY, pooled=False, needs_scores=True),
    Metric("f1_greedy", f"`f1` {_GREEDY}", count_greedy_matches, _F1, needs_scores=True),
    Metric("mean_iou", "the same as `mean_matched_score`", count_matches, _MEAN_IOU),
    Metric("tp", "pairs (true positives)", count_matches),
    Metric("fp", "predicted cells left over (false positives)", count_matches, column(1),
           lower_is_better=True),
    Metric("fn", "true cells left over (false negatives)", count_matches, column(2),
           lower_is_better=True),
]  # fmt: skip

# Metrics without an IoU threshold: how they are measured, their value, whether they are pooled.
_MEASURED: dict[str, tuple[Measure, Value, bool, str]] = {
    "aji": (
        pixels.aggregated_jaccard,
        part_of_whole,
        False,
        "aggregated Jaccard index of each image: every true cell takes the predicted one of most "
        "IoU, several may take the same (Kumar et al., IEEE TMI 2017)",
    ),
    "aji_plus": (
        pixels.aggregated_jaccard_plus,
        part_of_whole,
        False,
        "the same with one-to-one pairs of the most IoU (Graham et al., Medical Image Analysis "
        "2019)",
    ),
    "dice_foreground": (pixels.dice_px, part_of_whole, True, "Dice of the pixels in any cell"),
    "jaccard_foreground": (
        pixels.jaccard_px, part_of_whole, True, "Jaccard index of the pixels in any cell"
    ),
    "seg_ctc": (
        pixels.seg_sums,
        part_of_whole,
        True,
        "mean over true cells of the IoU with the predicted cell that covers more than half of "
        "it: SEG of the Cell Tracking Challenge (Maška et al., Bioinformatics 2014)",
    ),
    "boundary_f1": (
        pixels.boundary_counts,
        boundary_f1,
        True,
        "F1 of boundary pixels that lie within 2 px of one of the other side (after Csurka et "
        "al., BMVC 2013)",
    ),
}  # fmt: skip

_WITHOUT_THRESHOLD = [
    *(
        Metric(name, sentence, measure, value, pooled, at_threshold=False)
        for name, (measure, value, pooled, sentence) in _MEASURED.items()
    ),
    Metric("count_error", "difference between the numbers of cells of each image",
           count_difference, pooled=False, at_threshold=False, lower_is_better=True),
    *(
        Metric(f"errors_{kind}", f"{sentence} (`deepcell_toolbox`; Caicedo et al., Cytometry A "
               "2019)", count_errors, column(number), at_threshold=False,
               lower_is_better=kind != "correct")
        for number, (kind, sentence) in enumerate(KIND_SENTENCES.items())
    ),
]  # fmt: skip

_SIZES = {
    "": (coco.EVERY_SIZE, ""),
    "_small": (coco.COCO_SIZES["small"], ", of cells up to 32² px"),
    "_medium": (coco.COCO_SIZES["medium"], ", of cells of 32² to 96² px"),
    "_large": (coco.COCO_SIZES["large"], ", of cells from 96² px on"),
    "_small_livecell": (coco.LIVECELL_SIZES["small"], ", of cells up to 18² px (LIVECell)"),
    "_medium_livecell": (coco.LIVECELL_SIZES["medium"], ", of cells of 18² to 31² px (LIVECell)"),
    "_large_livecell": (coco.LIVECELL_SIZES["large"], ", of cells from 31² px on (LIVECell)"),
}

# COCO's metrics (Lin et al., ECCV 2014), at 2,000 detections per image.
_RANKED = [
    *(
        RankedMetric(f"{what}_coco_{kind}{size}", f"{sentence} of {kinds}{of_size}", read, kind,
                     sizes_px, at_threshold=what == "ap")
        for what, sentence, read in (
            ("ap", "COCO's average precision", coco.average_precision),
            ("ar", "COCO's average recall", coco.average_recall),
        )
        for kind, kinds in (("mask", "masks"), ("box", "boxes"))
        for size, (sizes_px, of_size) in _SIZES.items()
    ),
    RankedMetric("afnr_livecell", "average false negative rate, 1 - `ar_coco_mask` (LIVECell: "
                 "Edlund et al., Nature Methods 2021)", coco.false_negative_rate,
                 at_threshold=False, lower_is_better=True),
]  # fmt: skip

_ENTRIES: list[Metric | RankedMetric] = [*_COUNTED, *_WITHOUT_THRESHOLD, *_RANKED]
for _entry in _ENTRIES:
    add_metric(_entry)
