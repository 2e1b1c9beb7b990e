"""COCO's run-length encoding, for all cells of an image at once.

A run is a stretch of cell pixels, [start, end), in column-major order of the whole image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cellseg.errors import LabelError
from numpy.typing import NDArray

Rle = dict[str, Any]
IntArray = NDArray[np.int64]

_CHARACTER_OFFSET = 48  # COCO writes six-bit groups as the characters from "0" on
_GROUP_BITS = 5
_MORE = 0x20
_SIGN = 0x10


def runs_to_rles(
    cells: IntArray,
    starts: IntArray,
    ends: IntArray,
    num_cells: int,
    image_hw: tuple[int, ...],
) -> list[Rle]:
    """Compress runs that are sorted by cell, then by position.

    Args:
        cells: number of the cell that each run belongs to, from 0.
        starts: first pixel of each run.
        ends: pixel behind each run; no run of a cell begins where another ends.
        num_cells: cells without a run become RLEs without a pixel.
        image_hw: (height, width), pixels.
    """
    height, width = int(image_hw[0]), int(image_hw[1])
    runs_per_cell = np.bincount(cells, minlength=num_cells)
    # Per cell: 0, start, end, ..., start, end, number of pixels. The differences are the counts.
    sizes = 2 * runs_per_cell + 2
    first = np.cumsum(sizes) - sizes
    borders = np.zeros(int(sizes.sum()), np.int64)
    at = 2 * np.arange(cells.size) + 2 * cells + 1
    borders[at], borders[at + 1] = starts, ends
    borders[first + sizes - 1] = height * width
    counts = np.diff(borders, prepend=0)
    place = np.arange(counts.size) - np.repeat(first, sizes) - 1
    at_end = np.repeat(sizes, sizes) - 2 == place
    keep = (place >= 0) & ~(at_end & (counts == 0) & (place > 0))
    packed, lengths = _pack_counts(counts[keep], place[keep])
    owner = np.repeat(np.arange(num_cells), sizes)[keep]
    bounds = np.cumsum(np.bincount(owner, weights=lengths, minlength=num_cells)).astype(int)
    return [
        {"size": [height, width], "counts": packed[begin:end]}
        for begin, end in zip([0, *bounds[:-1].tolist()], bounds.tolist())
    ]


def _pack_counts(counts: IntArray, place: IntArray) -> tuple[str, IntArray]:
    """COCO's string of run lengths, and how many characters each became.

    Args:
        counts: run lengths of all cells, one cell after the other.
        place: number of each run length within its cell, from 0.
    """
    values = counts.copy()
    values[2:] -= np.where(place[2:] > 2, counts[:-2], 0)
    limits = 1 << (_GROUP_BITS * np.arange(1, 8) - 1)
    beyond = (values[:, None] >= limits) | (values[:, None] < -limits)
    lengths = 1 + beyond.sum(axis=1)
    ends = np.cumsum(lengths)
    group = np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
    codes = (np.repeat(values, lengths) >> (_GROUP_BITS * group)) & (_MORE - 1)
    codes |= _MORE
    codes[ends - 1] -= _MORE
    return (codes + _CHARACTER_OFFSET).astype(np.uint8).tobytes().decode("ascii"), lengths


def rle_to_runs(rle: Rle) -> tuple[IntArray, IntArray, int, int]:
    """Starts and exclusive ends of the runs of 1 (none empty), and the image's height and width."""
    try:
        height, width = (int(length) for length in rle["size"])
        counts = _read_counts(rle["counts"])
    except (KeyError, TypeError, ValueError, IndexError, UnicodeEncodeError) as error:
        raise LabelError(
            'an RLE is {"size": [height, width], "counts": str, bytes or list of run lengths}; '
            f"found {str(rle)[:200]}"
        ) from error
    borders = np.cumsum(counts)
    if counts.size == 0 or (counts < 0).any() or borders[-1] != height * width:
        total = int(borders[-1]) if borders.size else 0
        raise LabelError(f"an RLE of {height} x {width} pixels has runs that add up to {total}")
    starts, ends = borders[:-1:2], borders[1::2]
    nonempty = ends > starts
    return starts[nonempty], ends[nonempty], height, width


def _read_counts(counts: str | bytes | Sequence[int]) -> IntArray:
    """Run lengths from COCO's string.

    Each character holds five bits, low ones first, and a sixth that says that more follow. From the
    fourth run on, the number is the difference to the run before the last.
    """
    if not isinstance(counts, (str, bytes)):
        return np.asarray(counts, np.int64).reshape(-1)
    text = counts.encode("ascii") if isinstance(counts, str) else counts
    groups = np.frombuffer(text, np.uint8).astype(np.int64) - _CHARACTER_OFFSET
    last = np.flatnonzero((groups & _MORE) == 0)
    first = np.r_[0, last[:-1] + 1]
    lengths = last - first + 1
    if lengths.sum() != groups.size or lengths.max(initial=0) > 12:
        raise ValueError("the string ends in the middle of a number")
    places = np.arange(groups.size) - np.repeat(first, lengths)
    values = np.add.reduceat((groups & (_MORE - 1)) << (_GROUP_BITS * places), first)
    values -= np.where(groups[last] & _SIGN, 1 << (_GROUP_BITS * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
