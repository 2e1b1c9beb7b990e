"""The figures of two sides as a table, as a CSV per image, as JSON."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellseg.evaluation.comparison import Segmentation
from cellseg.evaluation.error_kinds import class_confusion
from cellseg.evaluation.scoring import cells_of_class, confidence_intervals, is_ranked, score
from cellseg.files import write_whole


@dataclass(frozen=True)
class Sides:
    """What is scored.

    Attributes:
        ids: image ids.
        true, pred: of each image, all of one kind.
        classes: names; none where the cells of one side have no classes.
    """

    ids: list[str]
    true: list[Segmentation]
    pred: list[Segmentation]
    classes: tuple[str, ...] = ()

    @property
    def by_class(self) -> bool:
        """Cells of several classes, told apart."""
        return len(self.classes) > 1

    def of_class(self, number: int) -> Sides:
        """The cells of one class only."""
        true, pred = (
            [cells_of_class(each, number) for each in side] for side in (self.true, self.pred)
        )
        return Sides(self.ids, [*true], [*pred])


def evaluate(sides: Sides, metrics: Sequence[str], intervals: bool = False) -> dict[str, Any]:
    """Figures by name.

    Returns:
        images (their number), classes, metrics; with `intervals` those of all but COCO's; with
        classes, per_class and confusion (see `class_confusion`).
    """
    pairs, by_class = (sides.true, sides.pred), sides.by_class
    found: dict[str, Any] = {"images": len(sides.ids), "classes": list(sides.classes)}
    found["metrics"] = score(*pairs, metrics, match_classes=by_class)
    if intervals:
        names = [name for name in metrics if not is_ranked(name)]
        found["intervals"] = confidence_intervals(*pairs, names, match_classes=by_class)
    if by_class:
        apart = {name: sides.of_class(k) for k, name in enumerate(sides.classes)}
        found["per_class"] = {k: score(one.true, one.pred, metrics) for k, one in apart.items()}
        table = class_confusion(*pairs, num_classes=len(sides.classes))
        found["confusion"] = table.tolist()
    return found


def table_lines(found: dict[str, Any]) -> list[str]:
    """Metrics down; the figure, its interval and that of each class across."""
    per_class, intervals = found.get("per_class", {}), found.get("intervals")
    rows = [["metric", "all", *(["95 % interval"] if intervals is not None else []), *per_class]]
    for name, value in found["metrics"].items():
        row = [name, f"{value:.4f}"]
        if intervals is not None:
            row.append("{:.4f} to {:.4f}".format(*intervals[name]) if name in intervals else "")
        rows.append([*row, *(f"{figures[name]:.4f}" for figures in per_class.values())])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def write_per_image(sides: Sides, metrics: Sequence[str], path: Path) -> None:
    """A CSV: one line per image, one column per metric, empty where there is no figure."""
    with write_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["image", *metrics])
        for name, true, pred in zip(sides.ids, sides.true, sides.pred):
            figures = score([true], [pred], metrics, match_classes=sides.by_class)
            rows.writerow([name, *("" if math.isnan(v) else v for v in figures.values())])


def without_nan(value: Any) -> Any:
    """A copy with None, JSON's null, for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
