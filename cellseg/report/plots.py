"""The charts of a report: of one data set, and of the course of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from cellseg.cells.selection import DetectionThresholds
from cellseg.evaluation.metric_kinds import IOU_THRESHOLDS
from cellseg.evaluation.scoring import Comparisons
from cellseg.report import measures
from cellseg.report.charts import Chart, Series, draw_chart
from cellseg.report.page import render_missing, typeset
from cellseg.report.results import DatasetResult
from markupsafe import Markup

_MOST_DOTS = 3000
_UNIT = (0.0, 1.0)
_TEST_SCORES = ("cell_iou/f1@0.50", "cell_iou/ap_dsb", "cell_iou/ap_dsb@0.50")


def draw_charts(result: DatasetResult, kept: Comparisons, selection: DetectionThresholds) -> Markup:
    """All charts of one dataset.

    Args:
        result: true and predicted cells of the images.
        kept: their comparisons with the detections that count as cells.
        selection: which these are, in words.
    """
    charts = [
        _chart_over_iou(kept),
        _chart_precision_recall(kept, result.compared, selection),
        *_charts_of_scores(result.compared),
        _chart_sizes(kept),
        _chart_counts(result, kept),
    ]
    return _side_by_side([draw_chart(chart) for chart in charts])


def _side_by_side(parts: Sequence[Markup]) -> Markup:
    return Markup('<div class="charts">{}</div>').format(Markup("").join(parts))


def _chart_over_iou(kept: Comparisons) -> Chart:
    names = {"f1": "F1", "precision": "precision", "recall": "recall", "ap_dsb": "AP (ap_dsb)"}
    values = measures.metrics_over_iou(kept, list(names))
    x = list(IOU_THRESHOLDS)
    series = [
        Series(text, x, values[name], "markers" if name in ("f1", "ap_dsb") else "line", colour)
        for colour, (name, text) in enumerate(names.items())
    ]
    return Chart(
        "How exact are the outlines?",
        "mask IoU that counts as found",
        "value",
        series,
        y_range=_UNIT,
        note="Curves that fall late mean exact outlines.",
        table=True,
    )


def _chart_precision_recall(
    kept: Comparisons,
    everything: Comparisons,
    selection: DetectionThresholds,
) -> Chart:
    series = []
    for colour, iou in enumerate((0.5, 0.75, 0.9)):
        recall, precision = measures.precision_over_recall(everything, iou)
        reached = precision > 0
        x, y = recall[reached].tolist(), precision[reached].tolist()
        series.append(Series(f"IoU ≥ {iou:g}", x, y, "line", colour))
    at = measures.recall_and_precision(kept, 0.5)
    used = f"at {typeset(selection.describe())}, IoU ≥ 0.5"
    series.append(Series(used, [at[0]], [at[1]], "dots", 5))
    return Chart(
        "Precision and recall at every score",
        "recall (share of true cells found)",
        "precision (share of detections right)",
        series,
        _UNIT,
        _UNIT,
        note="Mean over classes as COCO computes it; a line ends at the highest recall reached. "
        "The dot is the score threshold in use.",
    )


def _charts_of_scores(everything: Comparisons) -> list[Chart]:
    scores, right = measures.judge_detections(everything)
    found = measures.calibrate(scores, right)
    middles = [(k + 0.5) / measures.BINS for k in range(measures.BINS)]
    error = f"Mean distance from the line: {found.error:.3f}. " if len(scores) else ""
    return [
        Chart(
            "Can scores be trusted?",
            "score",
            "share of detections that are right",
            [Series("", found.mean_score.tolist(), found.share_correct.tolist(), "markers")],
            _UNIT,
            _UNIT,
            note=error + "Below the line the model is too sure of itself.",
            diagonal="score = share that is right",
            table=True,
        ),
        Chart(
            "Scores of all detections",
            "score",
            "detections",
            [Series("", middles, found.detections.tolist(), "bars")],
            _UNIT,
            table=True,
        ),
    ]


def _chart_sizes(kept: Comparisons) -> Chart:
    diameters = measures.diameters_of_matches(kept)
    count = len(diameters)
    note = "Diameter of the circle of the same area, for cells found at IoU ≥ 0.5."
    if count:
        change = float(np.median(diameters[:, 1] / diameters[:, 0])) - 1
        words = f"{abs(change):.1%} {'wider' if change > 0 else 'narrower'} than"
        note += f" Predicted cells are {words if abs(change) >= 0.0005 else 'as wide as'} true"
        note += " ones (median)."
    if count > _MOST_DOTS:
        chosen = np.random.default_rng(0).choice(count, _MOST_DOTS, replace=False)
        diameters = diameters[np.sort(chosen)]
        note += f" {_MOST_DOTS:,} of {count:,} cells are drawn."
    return Chart(
        "Sizes",
        "true diameter, px",
        "predicted diameter, px",
        [Series("", diameters[:, 0].tolist(), diameters[:, 1].tolist(), "dots")],
        log=True,
        diagonal="equal",
        note=note,
    )


def _chart_counts(result: DatasetResult, kept: Comparisons) -> Chart:
    true = [len(image.true) for image in kept.images]
    pred = [len(image.counted.pred) for image in kept.images]
    names = [image.name for image in result.images]
    return Chart(
        "Counts",
        "true cells per image",
        "predicted cells per image",
        [Series("", true, pred, "dots", 0, names)],
        (0, None),
        (0, None),
        diagonal="equal",
        note="A dot is an image; above the line too many cells are predicted, below too few.",
    )


def draw_training(history: Mapping[str, Sequence[tuple[int, float]]]) -> Markup:
    """Learning curves from metrics.json."""
    if not history:
        return render_missing(
            "There are no learning curves: the run has no metrics.json, or nothing is in it. "
            "train_net.py writes it while it trains."
        )
    losses = [name for name in history if name == "total_loss" or name.startswith("loss_")]
    losses.sort(key=lambda name: (name != "total_loss", name))
    scores = [name for name in history if name.endswith(_TEST_SCORES)]
    charts = [
        _chart_curves("Loss", "loss", history, losses[:6], "line", (0, None)),
        _chart_curves("Score on test images", "score", history, scores[:6], "markers", _UNIT),
        _chart_curves("Learning rate", "learning rate", history, ["lr"], "line", (0, None)),
    ]
    drawn = [draw_chart(chart) for chart in charts if chart.series]
    if not scores:
        drawn.append(render_missing("No evaluation during training is in metrics.json."))
    return _side_by_side(drawn)


def _chart_curves(
    title: str,
    label: str,
    history: Mapping[str, Sequence[tuple[int, float]]],
    names: Sequence[str],
    style: str,
    y_range: tuple[float, float | None],
) -> Chart:
    known = [name for name in names if name in history]
    series = [
        Series(name, [x for x, _ in history[name]], [y for _, y in history[name]], style, colour)
        for colour, name in enumerate(known)
    ]
    return Chart(title, "iteration", label, series, (0, None), y_range)
