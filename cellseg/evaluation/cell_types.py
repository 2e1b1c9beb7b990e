"""Which type of cell is taken for which: the confusion matrix."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import IntArray
from cellseg.cells.matching import Matching, match_overlaps
from cellseg.cells.overlaps import find_overlaps
from cellseg.evaluation.metrics import largest_cover
from cellseg.files import write_whole
from tabulate import tabulate

MATCHED_FROM_IOU = 0.5
NO_CELL = "no cell"
MISSED = "missed"


def count_confusion(
    true_classes: IntArray, pred_classes: IntArray, matching: Matching, num_classes: int
) -> IntArray:
    """Count the classes of matched and of left-over cells of one image.

    Args:
        true_classes, pred_classes: int64 [N] and [M], 0-based.
        matching: pairs of cells, made without regard to classes.
        num_classes: C.

    Returns:
        int64 [C + 1, C + 1]: true classes down, predicted ones across. The last column counts true
        cells without a match (missed), the last row predicted ones (no cell).
    """
    table = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    partner = np.full(len(true_classes), num_classes)
    partner[matching.true_index] = pred_classes[matching.pred_index]
    np.add.at(table, (true_classes, partner), 1)
    np.add.at(table[-1], np.delete(pred_classes, matching.pred_index), 1)
    return table


def cell_type_confusion(
    true: CellInstances,
    pred: CellInstances,
    num_classes: int,
    *,
    threshold: float = MATCHED_FROM_IOU,
    crowd: CellInstances | None = None,
) -> IntArray:
    """`count_confusion` of one image; cells are matched one to one at mask IoU >= `threshold`.

    Args:
        true, pred: cells of the same image; either may be empty.
        num_classes: C.
        threshold: in (0, 1].
        crowd: regions of uncounted cells. A predicted cell that is left over and lies in one of
            them by at least this fraction is no false one.

    Example:
        >>> none = CellInstances.empty((4, 6))
        >>> int(cell_type_confusion(none, none, 2).sum())
        0
    """
    matching = match_overlaps(find_overlaps(true, pred), threshold)
    table = count_confusion(true.classes, pred.classes, matching, num_classes)
    if crowd is not None and len(crowd):
        forgiven = largest_cover(crowd, pred) >= threshold
        forgiven[matching.pred_index] = False
        np.subtract.at(table[-1], pred.classes[forgiven], 1)
    return table


def confusion_table(table: IntArray, classes: Sequence[str]) -> str:
    """The matrix in words, with the share of the matched cells of each type that keep it."""
    rows = []
    for name, counts, right in zip([*classes, NO_CELL], table, table.diagonal()):
        matched = counts[:-1].sum()
        share = f"{right / matched:.1%}" if name != NO_CELL and matched else ""
        rows.append([name, *counts.tolist(), share])
    rows[-1][len(classes) + 1] = ""  # no cell and yet missed: there is no such thing
    return tabulate(rows, ["true type", *classes, MISSED, "right"], tablefmt="pipe")


def write_confusion(path: Path, table: IntArray, classes: Sequence[str]) -> None:
    """Write the matrix as a CSV table, replaced only when complete."""
    with write_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["true type", *classes, MISSED])
        rows.writerows([name, *counts] for name, counts in zip([*classes, NO_CELL], table.tolist()))


def draw_confusion(path: Path, table: IntArray, classes: Sequence[str]) -> None:
    """Draw the matrix as a PNG; colours are shares of the row, numbers are cells."""
    from matplotlib.figure import Figure  # takes a second, and only pictures need it

    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = 1.6 + 0.75 * len(table)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(table):
        if row < len(classes) or column < len(classes):
            shade = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=shade)
    places = range(len(table))
    axes.set_xticks(places, [*classes, MISSED], rotation=45, ha="right")
    axes.set_yticks(places, [*classes, NO_CELL])
    axes.set_xlabel("predicted type")
    axes.set_ylabel("true type")
    with write_whole(path) as partial:
        figure.savefig(partial, dpi=120)
