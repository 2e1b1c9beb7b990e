"""The metrics of two sides as a table, as a CSV per image, as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cellseg.cells.overlaps import Segmentation, StoredLabels
from cellseg.evaluation.comparison import compare_all
from cellseg.evaluation.scorer import split_ranked
from cellseg.evaluation.scoring import Comparisons
from cellseg.files import write_whole
from cellseg.io.table_rows import CsvWriter
from tabulate import tabulate


@dataclass(frozen=True)
class Sides:
    """What is scored.

    Attributes:
        ids: image ids.
        true: the true cells of each image, crowd regions among them.
        pred: its predicted cells; all of both sides are of one kind.
        classes: names; none where the cells of one side have no classes.
    """

    ids: list[str]
    true: list[Segmentation | StoredLabels]
    pred: list[Segmentation | StoredLabels]
    classes: tuple[str, ...] = ()

    @property
    def by_class(self) -> bool:
        """Whether there are cells of several classes, told apart."""
        return len(self.classes) > 1

    @cached_property
    def compared(self) -> Comparisons:
        """Every image compared, once."""
        return Comparisons(compare_all(self.true, self.pred), match_classes=self.by_class)


def evaluate(sides: Sides, metrics: Sequence[str], intervals: bool = False) -> dict[str, Any]:
    """Metrics by name, as a dict for JSON.

    Args:
        sides: true and predicted cells.
        metrics: names as for `score`.
        intervals: add intervals by bootstrap.

    Returns:
        images (their number), classes, metrics; with `intervals` those of all but COCO's; with
        classes, per_class and confusion (see `class_confusion`).
    """
    compared = sides.compared
    found: dict[str, Any] = {"images": len(sides.ids), "classes": list(sides.classes)}
    found["metrics"] = compared.metrics(metrics)
    if intervals:
        found["intervals"] = compared.intervals(split_ranked(metrics)[0])
    if sides.by_class:
        found["per_class"] = {
            name: compared.of_class(number).metrics(metrics)
            for number, name in enumerate(sides.classes)
        }
        found["confusion"] = compared.confusion(len(sides.classes)).tolist()
    return found


def table_lines(found: dict[str, Any]) -> list[str]:
    """Metrics down; the value, its interval and that of each class across."""
    per_class, intervals = found.get("per_class", {}), found.get("intervals")
    head = ["metric", "all", *(["95 % interval"] if intervals is not None else []), *per_class]
    rows = []
    for name, value in found["metrics"].items():
        row = [name, f"{value:.4f}"]
        if intervals is not None:
            row.append("{:.4f} to {:.4f}".format(*intervals[name]) if name in intervals else "")
        rows.append([*row, *(f"{metrics[name]:.4f}" for metrics in per_class.values())])
    align = ["left", *["right"] * (len(head) - 1)]
    table = tabulate(rows, head, "plain", disable_numparse=True, colalign=align)
    return [line.rstrip() for line in table.splitlines()]


def write_per_image(sides: Sides, metrics: Sequence[str], path: Path) -> None:
    """A CSV: one line per image, one column per metric, empty where a metric has no value."""
    columns = sides.compared.metrics_by_image(metrics).values()
    with write_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        rows = CsvWriter(stream)
        rows.writerow(["image", *metrics])
        for name, *values in zip(sides.ids, *(column.tolist() for column in columns)):
            rows.writerow([name, *("" if math.isnan(value) else value for value in values)])


def without_nan(value: Any) -> Any:
    """A copy with None, JSON's null, for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
