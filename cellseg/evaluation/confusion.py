"""Which type of cell is taken for which: the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cellseg.cells.labels import IntArray
from cellseg.evaluation.comparison import Comparison
from cellseg.files import write_whole
from cellseg.io.table_rows import CsvWriter
from tabulate import tabulate

MATCHED_FROM_IOU = 0.5
NO_CELL = "no cell"
MISSED = "missed"


def count_confusion(
    image: Comparison, num_classes: int, threshold: float = MATCHED_FROM_IOU
) -> IntArray:
    """Count the classes of matched and of left-over cells of one image.

    Args:
        image: the comparison; its cells are matched whatever their classes.
        num_classes: C; no cell may have a higher class.
        threshold: cells are matched one to one at mask IoU >= `threshold`, in (0, 1].

    Returns:
        int64 [C + 1, C + 1]: true classes down, predicted ones across. The last column counts true
        cells without a match (missed), the last row predicted ones (no cell) that the crowd rule
        does not forgive.

    Example:
        >>> from cellseg.evaluation.comparison import compare
        >>> image = compare(np.array([[1, 1, 0]]), np.array([[1, 1, 2]]))
        >>> count_confusion(image, 1).tolist()
        [[1, 0], [1, 0]]
    """
    matching = image.match(threshold)
    pred_classes = image.pred.classes
    partner = np.full(len(image.true), num_classes)
    partner[matching.true_index] = pred_classes[matching.pred_index]
    table = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    np.add.at(table, (image.true.classes, partner), 1)
    left_over = ~image.forgiven(threshold, matching)
    left_over[matching.pred_index] = False
    np.add.at(table[-1], pred_classes[left_over], 1)
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
        rows = CsvWriter(file)
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
