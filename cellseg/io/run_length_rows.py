"""Run lengths as text, `start length start length ...` with starts from 1."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.run_lengths import IntArray
from cellseg.cells.runs import Runs, merge_touching, transpose_runs
from numpy.typing import NDArray

_ZERO, _NINE, _SPACE, _NEW_LINE = b"09 \n"


def rows_to_runs(
    rows: Sequence[str], image_hw: tuple[int, int], *, row_major: bool
) -> tuple[Runs, dict[int, str]]:
    """Parse the cells of one image.

    Args:
        rows: one text per cell, none empty.
        image_hw: (height, width), pixels.
        row_major: pixels count row by row; else column by column.

    Returns:
        Column-major runs, merged, and what is wrong with which rows; without runs where anything
        is.
    """
    height, width = image_hw
    numbers, per_row, problems = _parse(rows)
    if problems:
        return Runs(numbers, numbers, numbers), problems
    cells = np.repeat(np.arange(len(rows)), per_row // 2)
    starts, lengths = numbers[0::2] - 1, numbers[1::2]
    problems = _problems_of(cells, starts, lengths, height * width)
    runs = merge_touching(Runs(cells, starts, starts + lengths))
    return transpose_runs(runs, height, width) if row_major and not problems else runs, problems


def _parse(rows: Sequence[str]) -> tuple[IntArray, IntArray, dict[int, str]]:
    """All numbers, how many there are in each row, and rows that are no pairs of numbers."""
    codes = np.frombuffer("\n".join(rows).encode("ascii", "replace"), np.uint8)
    is_digit = (codes >= _ZERO) & (codes <= _NINE)
    is_break = codes == _NEW_LINE
    if (
        np.count_nonzero(is_break) >= max(len(rows), 1)
        or not (is_digit | is_break | (codes == _SPACE)).all()
    ):
        wrong = {k: text for k, text in enumerate(rows) if not re.fullmatch("[0-9 ]*", text)}
        texts = {k: f"{text[:40]!r} is not `start length ...`" for k, text in wrong.items()}
        return np.zeros(0, np.int64), np.zeros(0, np.int64), texts
    begins = is_digit & np.r_[True, ~is_digit[:-1]][: codes.size]
    per_row = np.bincount(np.cumsum(is_break)[begins], minlength=len(rows))
    numbers = np.fromstring(codes.tobytes().decode("ascii"), np.int64, sep=" ")
    odd = np.flatnonzero(per_row % 2).tolist()
    texts = {k: f"{per_row[k]} numbers; expected pairs of start and length" for k in odd}
    return numbers, per_row, texts


def _problems_of(
    cells: IntArray, starts: IntArray, lengths: IntArray, num_pixels: int
) -> dict[int, str]:
    too_low = (starts < 0) | (lengths < 1)
    # Before the sum is looked at: it could pass the largest integer.
    too_high = (starts > num_pixels) | (lengths > num_pixels) | (starts + lengths > num_pixels)
    unsorted = np.zeros(cells.size, bool)
    unsorted[1:] = (starts[1:] < starts[:-1] + lengths[:-1]) & (cells[1:] == cells[:-1])
    checks: list[tuple[NDArray[np.bool_], str]] = [
        (unsorted, "overlaps the run before it or stands in the wrong order"),
        (too_high, f"goes beyond the last pixel, {num_pixels}"),
        (too_low, "starts before pixel 1 or has no length"),
    ]
    problems = {}
    for wrong, text in checks:
        at_first = np.flatnonzero(wrong)
        for at in at_first[np.unique(cells[at_first], return_index=True)[1]].tolist():
            problems[int(cells[at])] = f"run `{starts[at] + 1} {lengths[at]}` {text}"
    return dict(sorted(problems.items()))


def cells_to_rows(cells: CellInstances, *, row_major: bool) -> list[str]:
    """The inverse of `rows_to_runs`: one text per cell, "" for a cell without a pixel."""
    height, width = cells.image_hw
    runs = transpose_runs(cells.runs, width, height) if row_major else cells.runs
    pairs = np.stack([runs.starts + 1, runs.ends - runs.starts], axis=1).ravel()
    bounds = 2 * np.searchsorted(runs.cells, np.arange(len(cells) + 1))
    texts = list(map(str, pairs.tolist()))
    return [" ".join(texts[low:high]) for low, high in pairwise(bounds.tolist())]
