"""A metric that a plug-in adds is known at every door; the table knows what is better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from cell_scenes import bars
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import bitmap_to_rle
from cellseg.cells.selection import DetectionThresholds
from cellseg.evaluation import (
    METRICS,
    CellIoUEvaluator,
    Comparison,
    Metric,
    add_metric,
    compare,
    confidence_intervals,
    score,
)
from cellseg.evaluation.metrics import describe_metrics, find_metric
from cellseg.evaluation.ratios import part_of_whole
from cellseg.evaluation.tables import Sides, evaluate
from cellseg.evaluation.tuning import tune_thresholds
from cellseg.report.results import DatasetResult, ImageResult
from cellseg.report.summary import summarize
from detectron2.data import DatasetCatalog, MetadataCatalog

LOWER = {
    *("fp", "fn", "count_error", "afnr_livecell"),
    *(f"errors_{kind}" for kind in ("missed", "spurious", "split", "merge", "catastrophe")),
}


def count_wrong(image: Comparison, threshold: float) -> Sequence[float]:
    tp, fp, fn, _ = image.count(threshold)
    return fp + fn, tp + fp + fn


@pytest.fixture
def error_rate() -> Iterator[str]:
    add_metric(
        Metric("error_rate", "wrong <cells>", count_wrong, part_of_whole, lower_is_better=True)
    )
    yield "error_rate"
    del METRICS["error_rate"]


def noisy() -> tuple[CellInstances, CellInstances]:
    """One cell found at 0.9, one at 0.4; a spurious detection at 0.6."""
    true = bars((0, 10), (20, 30))
    return true, bars((0, 10), (20, 30), (40, 50)).replace(scores=[0.9, 0.4, 0.6])


def test_score_command_and_intervals_know_it(error_rate: str) -> None:
    true, found = noisy()
    names = ["error_rate@0.50", "error_rate"]
    expected = dict.fromkeys(names, pytest.approx(1 / 3))
    assert score([true], [found], names) == expected
    sides = Sides(["a"], [true], [found])
    assert evaluate(sides, names)["metrics"] == expected
    low, high = confidence_intervals([true], [found], names, samples=3)["error_rate"]
    assert low == high == pytest.approx(1 / 3)


def test_tuning_makes_an_error_rate_small(error_rate: str) -> None:
    """In 0.1 whatever it had no rule for was made large."""
    true, found = noisy()
    start = DetectionThresholds(score=0.5)
    tuning = tune_thresholds([true] * 4, [found] * 4, "error_rate@0.50", start=start)
    assert tuning.before == pytest.approx(2 / 3)  # one found, one missed, one spurious
    assert tuning.after == pytest.approx(1 / 3)  # with all of them
    assert tuning.gain == tuning.held_out_gain == pytest.approx(1 / 3)


def test_evaluator_and_config_know_it(error_rate: str) -> None:
    true, found = noisy()
    annotations = [
        {"segmentation": bitmap_to_rle(mask), "category_id": 0} for mask in true.to_bitmaps()
    ]
    image = {"file_name": "a.png", "image_id": "a", "height": 1, "width": 60}
    name = "for_the_table_of_metrics"
    DatasetCatalog.register(name, lambda: [image | {"annotations": annotations}])
    MetadataCatalog.get(name).thing_classes = ["cell"]
    try:
        evaluator = CellIoUEvaluator(name, metrics=["error_rate@0.50"])
        evaluator.add_image("a", found)
        metrics = evaluator.evaluate()["cell_iou"]
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    assert metrics["error_rate@0.50"] == pytest.approx(1 / 3)


def test_report_shows_it_with_its_sentence(error_rate: str, tmp_path) -> None:
    true, found = noisy()
    result = DatasetResult("d", ("cell",), (ImageResult("a", tmp_path, true, found),))
    selection = DetectionThresholds(score=0)
    kept = result.compared.keep(selection)
    html = summarize(result, kept, selection, ["error_rate@0.50"])
    assert "wrong &lt;cells&gt;" in html
    assert "0.333" in html


def test_directions() -> None:
    assert {name for name, metric in METRICS.items() if metric.lower_is_better} == LOWER
    perfect, empty = noisy()[0], CellInstances.empty((1, 60))
    for name, metric in METRICS.items():
        at = "@0.50" if metric.at_threshold else ""
        best, worst = (score([perfect], [p], [name + at])[name + at] for p in (perfect, empty))
        if np.isfinite(best) and best != worst:
            assert (best < worst) == metric.lower_is_better, name


def test_names_are_not_taken_twice(error_rate: str) -> None:
    for name in ("error_rate", "f1", "f1@0.50"):
        with pytest.raises(ValueError, match="exists, or the name has an @"):
            add_metric(Metric(name, "", count_wrong))


def test_needs_scores() -> None:
    assert METRICS["f1_greedy"].needs_scores
    assert METRICS["ap_coco_box"].needs_scores
    assert not METRICS["f1"].needs_scores


def test_lines_of_the_table() -> None:
    lines = describe_metrics([METRICS["fp"], METRICS["aji"], METRICS["ar_coco_mask"]])
    assert [line.split(" | ")[2:] for line in lines[2:]] == [
        ["pooled", "IoU", "lower |"],
        ["mean", "", "higher |"],
        ["ranked", "detections", "higher |"],
    ]


def test_metrics_without_threshold_do_not_see_forgiven_detections() -> None:
    """A plug-in's metric of the cells alone follows the crowd rule by itself."""
    add_metric(Metric("predicted", "cells", lambda image, _: [len(image.pred)], at_threshold=False))
    try:
        true = bars((0, 10), (20, 40)).replace(is_crowd=[False, True])
        assert score([true], [bars((0, 10), (22, 30))], ["predicted"]) == {"predicted": 1}
    finally:
        del METRICS["predicted"]
    assert find_metric("f1@0.50")[1] == 0.5
    assert compare(true, true).count(0.5).fp == 0
