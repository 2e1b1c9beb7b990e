"""The table `label,class,score` beside a label image, with a row per label."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from cellseg.cells.labels import IntArray
from cellseg.errors import DatasetError
from cellseg.io.outlines import score_to_text
from cellseg.io.table_rows import CsvWriter
from cellseg.io.tables import read_text_rows
from numpy.typing import NDArray

ANY_CLASS = ("cell",)
_COLUMNS = ("label", "class", "score")
_HEAD_BYTES = 4096


class LabelTable(NamedTuple):
    """What such a table says of N labels.

    Attributes:
        classes: names of the classes.
        numbers: class of each label, 0-based, int64 [N].
        scores: of each label, float32 [N].
    """

    classes: tuple[str, ...]
    numbers: IntArray
    scores: NDArray[np.float32]


def read_label_table(labels_path: Path, ids: IntArray) -> LabelTable:
    """Class and score of each label; where there is no table or no row: the first class, score 1.

    Args:
        labels_path: the label image; the table has its name with the ending .csv.
        ids: the labels, [N].

    Raises:
        DatasetError: a label or a score is no number.
    """
    path = labels_path.with_suffix(".csv")
    by_label: dict[int, tuple[str, float]] = {}
    if path.is_file():
        rows = read_text_rows(path, ("label", "class"))
        try:
            for row in rows:
                by_label[int(row["label"])] = row["class"], float(row.get("score") or 1)
        except ValueError as error:
            raise DatasetError(f"{path}: {error}; expected numbers as label and score") from error
    classes = tuple(sorted({name for name, _ in by_label.values()})) or ANY_CLASS
    known = [by_label.get(label, (classes[0], 1.0)) for label in ids.tolist()]
    numbers = np.array([classes.index(name) for name, _ in known], np.int64)
    return LabelTable(classes, numbers, np.array([score for _, score in known], np.float32))


def write_label_table(path: Path, ids: Iterable[int], table: LabelTable) -> None:
    """Write such a table.

    Args:
        path: the CSV file; its folder is there.
        ids: the labels, [N].
        table: what is known of them.
    """
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = CsvWriter(stream)
        writer.writerow(_COLUMNS)
        for label, number, score in zip(ids, table.numbers.tolist(), table.scores):
            writer.writerow((label, table.classes[number], score_to_text(score)))


def check_own_table(table: Path) -> None:
    """Refuse to replace a table of somebody else: a dialog asks about the label image only.

    Raises:
        DatasetError: the table that is there is none of labels.
    """
    if not table.is_file():
        return
    with table.open("rb") as stream:
        head = stream.readline(_HEAD_BYTES).decode("utf-8", errors="replace").strip()
    if head != ",".join(_COLUMNS):
        raise DatasetError(
            f"{table}: is there and is no table of labels; expected {','.join(_COLUMNS)} as its "
            "first line. Nothing is written: choose another name for the label image"
        )
