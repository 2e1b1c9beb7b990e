"""COCO's run-length encoding, for all cells of an image at once.

A run is a stretch of cell pixels, [start, end), in column-major order of the whole image. A worked
example, an image of 3 rows and 2 columns with one cell (#) of three pixels:

    . #
    # .        column by column the pixels are  . # #  # . .
    # .

Pixels are numbered 0 to 5 in that order, so the cell is one run, [1, 4). COCO counts the pixels
between the borders, beginning with background: 1 without the cell, 3 with it, 2 without it. Each
count becomes one or more characters (`_pack_counts`), here the text "132".
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
_GROUP_BITS = 5  # bits of the number in each group; the sixth says whether more groups follow
_MORE_FOLLOW = 0x20
_SIGN_BIT = 0x10  # of a number's last group
_MOST_GROUPS = 12  # of one number in a text that is read: 60 bits
_EXPECTED = 'an RLE is {"size": [height, width], "counts": str, bytes or list of run lengths}'


def runs_to_rles(
    cells: IntArray,
    starts: IntArray,
    ends: IntArray,
    num_cells: int,
    image_hw: tuple[int, ...],
) -> list[Rle]:
    """Compress runs that are sorted by cell, then by position.

    Args:
        cells: number of the cell that each run belongs to, from 0, int64 [R].
        starts: first column-major pixel of each run, int64 [R].
        ends: pixel behind each run, int64 [R]; no run of a cell begins where another ends.
        num_cells: number of RLEs to write; a cell without a run becomes an RLE without a pixel.
        image_hw: (height, width) of the image, pixels.

    Returns:
        One compressed RLE per cell, its `counts` a str.

    Example:
        >>> [rle["counts"] for rle in runs_to_rles(*np.array([[0], [1], [4]]), 2, (3, 2))]
        ['132', '6']
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
    """COCO's text of run lengths, and how many characters each became.

    From a cell's fourth run length on, the difference to the one before the last is written: cells
    are about as long in one column as in the next, so the differences are small numbers. Of six
    pixels `. # . # # .` the run lengths are 1 1 1 2 1; what is written is 1 1 1 (2 - 1) (1 - 1):

        >>> _pack_counts(np.array([1, 1, 1, 2, 1]), np.arange(5))[0]
        '11110'

    A number is cut into groups of five bits, the low ones first, and each becomes a character from
    "0" on; a sixth bit says that more groups follow, and the highest bit of the last one is the
    sign. So 16 takes two characters: 10000, with the sixth bit 110000 (character 48 + 48), then
    00000 ("0"), without which it would be read as -16:

        >>> _pack_counts(np.array([16]), np.array([0]))[0]
        '`0'

    Args:
        counts: run lengths of all cells, one cell after the other, int64 [C].
        place: number of each run length within its cell, from 0, int64 [C].

    Returns:
        The text, and the number of characters of each run length, int64 [C].
    """
    values = counts.copy()
    values[2:] -= np.where(place[2:] > 2, counts[:-2], 0)
    # A number of b bits and its sign take b // 5 + 1 groups of five; ~v has the bits of -v - 1.
    bits = np.frexp(np.where(values < 0, ~values, values).astype(np.float64))[1]
    lengths = bits.astype(np.int64) // _GROUP_BITS + 1
    ends = np.cumsum(lengths)
    group = np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
    codes = (np.repeat(values, lengths) >> (_GROUP_BITS * group)) & (_MORE_FOLLOW - 1)
    codes |= _MORE_FOLLOW
    codes[ends - 1] -= _MORE_FOLLOW
    return (codes + _CHARACTER_OFFSET).astype(np.uint8).tobytes().decode("ascii"), lengths


def rle_to_runs(rle: Rle) -> tuple[IntArray, IntArray, int, int]:
    """The runs of one cell, and the size of its image.

    Args:
        rle: COCO's RLE, compressed (str or bytes) or not (list of run lengths).

    Returns:
        First pixel and pixel behind each run, int64 [R] each, none empty; height and width.

    Raises:
        LabelError: not an RLE, or its run lengths do not add up to its size.

    Example:
        >>> starts, ends, height, width = rle_to_runs({"size": [3, 2], "counts": "132"})
        >>> starts.tolist(), ends.tolist(), height, width
        ([1], [4], 3, 2)
    """
    try:
        height, width = (int(length) for length in rle["size"])
        counts, sizes = _read_counts([rle["counts"]])
        _check_run_lengths(counts, sizes, height * width)
    except (KeyError, TypeError, ValueError, IndexError, UnicodeEncodeError) as error:
        raise LabelError(f"{error}; {_EXPECTED}; found {str(rle)[:200]}") from error
    borders = np.cumsum(counts)
    starts, ends = borders[:-1:2], borders[1::2]
    nonempty = ends > starts
    return starts[nonempty], ends[nonempty], height, width


def rles_to_runs(
    rles: Sequence[Rle], image_hw: tuple[int, int]
) -> tuple[IntArray, IntArray, IntArray]:
    """The runs of all cells of one image, parsed at once.

    All run lengths are laid end to end and summed up once. Each cell's add up to the number of
    pixels of the image, so that number times the cell's number is subtracted from the sums. Two
    cells in an image of 6 pixels:

        run lengths       1  3  2 | 0  2  4      cell 0 | cell 1
        summed up         1  4  6 | 6  8 12
        less 6 per cell   1  4  6 | 0  2  6
        runs              [1, 4)  | [0, 2)       from an even sum of the cell to the next one

    Args:
        rles: one RLE per cell; compressed (str or bytes) or not (list of run lengths).
        image_hw: (height, width) of the image, pixels, which is the size of every RLE.

    Returns:
        Number of the cell (ascending), first pixel and pixel behind each run, int64 [R] each; no
        run is empty.

    Raises:
        LabelError: names the first cell whose RLE is of another size or is no RLE.

    Example:
        >>> rles = [{"size": [3, 2], "counts": "132"}, {"size": [3, 2], "counts": [0, 2, 4]}]
        >>> [numbers.tolist() for numbers in rles_to_runs(rles, (3, 2))]
        [[0, 1], [1, 0], [4, 2]]
    """
    if not rles:
        return (np.zeros(0, np.int64),) * 3
    area = int(image_hw[0]) * int(image_hw[1])
    try:
        if not all(tuple(rle["size"]) == tuple(image_hw) for rle in rles):
            raise ValueError("sizes differ")
        counts, sizes = _read_counts([rle["counts"] for rle in rles])
        _check_run_lengths(counts, sizes, area)
    except (KeyError, TypeError, ValueError, IndexError, UnicodeEncodeError) as error:
        raise _error_of_first_bad_rle(rles, image_hw) from error
    owner = np.repeat(np.arange(len(rles)), sizes)
    borders = np.cumsum(counts) - owner * area
    first = np.cumsum(sizes) - sizes
    is_cell = (np.arange(counts.size) - first[owner]) % 2 == 1
    is_cell &= counts > 0
    at = np.flatnonzero(is_cell)
    return owner[at], borders[at - 1], borders[at]


def _error_of_first_bad_rle(rles: Sequence[Rle], image_hw: tuple[int, int]) -> LabelError:
    for number, rle in enumerate(rles):
        try:
            *_, height, width = rle_to_runs(rle)
        except LabelError as error:
            return LabelError(f"cell {number}: {error}")
        if (height, width) != tuple(image_hw):
            return LabelError(
                f"cell {number}: RLE of size {[height, width]} in an image of {list(image_hw)}"
            )
    raise AssertionError("every RLE is sound by itself")


def _check_run_lengths(counts: IntArray, sizes: IntArray, area: int) -> None:
    """Raise ValueError if an RLE has no run length, a negative one, or other than `area` pixels."""
    if not sizes.all():
        raise ValueError("an RLE without run lengths")
    totals = np.add.reduceat(counts, np.cumsum(sizes) - sizes)
    if counts.min() < 0 or (totals != area).any():
        wrong = totals[totals != area]
        found = f"add up to {wrong[0]}" if wrong.size else "are negative"
        raise ValueError(f"an RLE of {area} pixels has runs that {found}")


def _read_counts(
    encoded: Sequence[str | bytes | Sequence[int]],
) -> tuple[IntArray, IntArray]:
    """Run lengths of several RLEs, one after the other, and how many each has."""
    is_text = [isinstance(one, (str, bytes)) for one in encoded]
    if all(is_text):
        return _parse_counts(encoded)  # type: ignore[arg-type]
    parts = [
        _parse_counts([one])[0]  # type: ignore[list-item]
        if text
        else _whole_numbers(one)
        for one, text in zip(encoded, is_text)
    ]
    return np.concatenate(parts), np.array([part.size for part in parts])


def _whole_numbers(counts: str | Sequence[int]) -> IntArray:
    """Run lengths of a list.

    Raises:
        ValueError: they are no whole numbers, or beyond 64 bits.
    """
    found = np.asarray(counts)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        whole = found.ndim == 1 and found.dtype.kind == "f" and (found == np.rint(found)).all()
        if not whole or (found.size and np.abs(found).max() >= 2**53):
            raise ValueError("counts are no list of whole numbers")
    return found.astype(np.int64)


def _parse_counts(encoded: Sequence[str | bytes]) -> tuple[IntArray, IntArray]:
    """Run lengths of several of COCO's texts, and how many each text has.

    What `_pack_counts` writes, read back:

        >>> _parse_counts(["11110", "`0"])[0].tolist()
        [1, 1, 1, 2, 1, 16]
    """
    try:
        texts = [one.encode("ascii") if isinstance(one, str) else one for one in encoded]
    except UnicodeEncodeError as error:
        raise ValueError(f"no run lengths begin with {error.object[error.start]!r}") from error
    groups = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - _CHARACTER_OFFSET
    is_last = (groups & _MORE_FOLLOW) == 0
    last = np.flatnonzero(is_last)
    first = np.r_[0, last[:-1] + 1][: last.size]
    lengths = last - first + 1
    text_ends = np.cumsum([len(text) for text in texts])
    whole = is_last[text_ends[text_ends > 0] - 1].all() if groups.size else True
    if not whole or lengths.max(initial=0) > _MOST_GROUPS:
        raise ValueError("the string ends in the middle of a number")
    places = np.arange(groups.size) - np.repeat(first, lengths)
    shifted = (groups & (_MORE_FOLLOW - 1)) << (_GROUP_BITS * places)
    values = np.add.reduceat(shifted, first) if first.size else shifted
    values -= np.where(groups[last] & _SIGN_BIT, 1 << (_GROUP_BITS * lengths), 0)
    ends = np.searchsorted(last, text_ends)
    sizes = np.diff(ends, prepend=0)
    place = np.arange(values.size) - np.repeat(ends - sizes, sizes)
    # Differences to the number before the last: in each text the numbers at odd places are one
    # chain of sums, those at even places from 2 on another.
    for chain, begin in (((place % 2 == 1), 1), (((place % 2 == 0) & (place > 0)), 2)):
        at = np.flatnonzero(chain)
        values[at] = _sum_along(values[at], place[at] == begin)
    return values, sizes


def _sum_along(values: IntArray, begins: NDArray[np.bool_]) -> IntArray:
    """Cumulative sums that start anew where `begins` is True, as its first element is."""
    sums = np.cumsum(values)
    at = np.flatnonzero(begins)
    before = (sums - values)[at]
    return sums - np.repeat(before, np.diff(at, append=values.size))
