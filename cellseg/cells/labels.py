"""Label images, crops and run-length encodings of cells, and how each becomes another.

A *label image* is an integer array [H, W]: 0 is background, every other value is one cell. A cell
may have holes and may consist of several pieces. A *crop* is the boolean window [h, w] of one
cell, at (row, column) `offset_rc` of the image. An *RLE* is COCO's compressed run-length encoding
`{"size": [H, W], "counts": str}`, column-major.

The cost of everything here is that of the pixels inside the cells' windows, never that of one full
bitmap per cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cellseg.arguments import NUMBERS, checked, is_numeric
from cellseg.cells.run_lengths import IntArray, Rle, runs_to_rles
from cellseg.cells.runs import Runs
from cellseg.errors import LabelError
from numpy.typing import ArrayLike, NDArray

Crop = NDArray[np.bool_]

_GREATEST_LABEL = np.iinfo(np.int64).max


def disc_diameters(areas: ArrayLike) -> NDArray[np.float64]:
    """Diameter of the disc of each area, sqrt(4 area / pi): how large a cell is, in one number.

    Args:
        areas: of cells, of any shape, such as int64 [N]; in pixels or square micrometres.

    Returns:
        float64 of the same shape, in pixels or micrometres.

    >>> disc_diameters([[0, 4], [100, 1]]).round(3).tolist()
    [[0.0, 2.257], [11.284, 1.128]]
    """
    return np.sqrt(4 * np.asarray(areas, np.float64) / np.pi)


def labels_that_occur(labels: NDArray[Any]) -> IntArray:
    """The labels of the cells in label images, ascending, int64 [N]; 0 is background.

    Args:
        labels: integers of any shape.

    >>> labels_that_occur(np.array([[7, 0], [2, 7]])).tolist()
    [2, 7]
    """
    found = np.unique(labels)
    return found[found != 0].astype(np.int64)


def check_label_image(labels: ArrayLike) -> NDArray[Any]:
    """Return `labels` as an integer array [H, W] without negative values.

    Labels of uint64 that int64 does not hold get lower numbers, which no other cell has.

    Raises:
        LabelError: not two-dimensional, not of an integer (or boolean) type, or negative.
    """
    if not is_numeric(labels):
        found = getattr(labels, "dtype", None) or type(labels).__name__
        raise LabelError(f"a label image is an array [H, W] of integers; found dtype {found}")
    array = np.asarray(labels)
    if array.ndim != 2:
        raise LabelError(f"a label image has shape [H, W]; found shape {list(array.shape)}")
    if array.dtype == bool:
        return array.view(np.uint8)
    if array.dtype.kind not in "iu":
        raise LabelError(f"a label image holds integers; found dtype {array.dtype}")
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise LabelError(f"a label image has no negative values; found {array.min()}")
    if array.dtype == np.uint64 and array.size and array.max() > _GREATEST_LABEL:
        return _with_lower_labels(array)
    return array


def _with_lower_labels(array: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Labels that no int64 holds become the next numbers above all others; int64 is used below."""
    values, places = np.unique(array, return_inverse=True)
    too_high = values > _GREATEST_LABEL
    highest = int(values[~too_high].max(initial=0))
    free = _GREATEST_LABEL - highest
    if int(too_high.sum()) > free:
        raise LabelError(f"labels up to {values.max()}; expected numbers below 2^63, as 1, 2, 3")
    lowered = values.copy()
    lowered[too_high] = highest + 1 + np.arange(int(too_high.sum()), dtype=np.uint64)
    return lowered[places.reshape(array.shape)]


def label_dtype(num_cells: int) -> type[np.uint16] | type[np.uint32]:
    """The smaller of uint16 and uint32 that holds the labels 1 to `num_cells`."""
    return np.uint16 if num_cells <= np.iinfo(np.uint16).max else np.uint32


def relabel_sequential(labels: ArrayLike) -> tuple[NDArray[Any], IntArray]:
    """Number the cells 1 to N without gaps, in ascending order of their old labels.

    Args:
        labels: label image [H, W].

    Returns:
        The renumbered label image (uint16, uint32 from 65,536 cells on) and the old labels,
        int64 [N]: new label k + 1 was `ids[k]`.

    Example:
        >>> new, ids = relabel_sequential([[0, 7, 7], [0, 0, 9]])
        >>> new.tolist(), ids.tolist()
        ([[0, 1, 1], [0, 0, 2]], [7, 9])
    """
    array = check_label_image(labels)
    values, inverse = np.unique(array, return_inverse=True)
    has_background = values.size > 0 and values[0] == 0
    ids = values[1:] if has_background else values
    new = inverse.reshape(array.shape) + (0 if has_background else 1)
    return new.astype(label_dtype(len(ids))), ids.astype(np.int64)


def crops_to_label_image(
    crops: Sequence[Crop],
    offsets_rc: ArrayLike,
    image_hw: tuple[int, int],
    order: ArrayLike | None = None,
) -> NDArray[Any]:
    """Draw cells into one label image; cell k gets label k + 1.

    Args:
        crops: one window per cell, bool [h, w]; may be empty (0 x 0).
        offsets_rc: (row, column) of each crop's first pixel, [N, 2].
        image_hw: (height, width) of the label image, pixels.
        order: cell numbers by precedence: where cells overlap, the one that comes first keeps
            the pixel. By default the lower number does.

    Returns:
        Label image [H, W], uint16 (uint32 from 65,536 cells on).

    Raises:
        LabelError: a crop reaches beyond the image.
    """
    offsets = np.asarray(offsets_rc, np.int64).reshape(-1, 2)
    check_crops_inside(crops, offsets, image_hw)
    labels = np.zeros(image_hw, label_dtype(len(crops)))
    precedence = range(len(crops)) if order is None else np.asarray(order).tolist()
    for k in reversed(precedence):
        (row, col), crop = offsets[k], crops[k]
        labels[row : row + crop.shape[0], col : col + crop.shape[1]][crop] = k + 1
    return labels


def check_crops_inside(
    crops: Sequence[Crop], offsets_rc: IntArray, image_hw: tuple[int, int]
) -> None:
    """Check that there is an offset for every crop and that all crops lie inside the image.

    Args:
        crops: one window per cell, bool [h, w].
        offsets_rc: (row, column) of each crop's first pixel, int64 [N, 2].
        image_hw: (height, width) of the image, pixels.

    Raises:
        LabelError: the numbers differ, or a crop reaches beyond the image.
    """
    if len(crops) != len(offsets_rc):
        raise LabelError(f"{len(crops)} crops but {len(offsets_rc)} offsets")
    sizes_hw = np.array([crop.shape for crop in crops], np.int64).reshape(-1, 2)
    outside = (offsets_rc < 0).any(axis=1) | (offsets_rc + sizes_hw > image_hw).any(axis=1)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise LabelError(
            f"cell {first}: crop of {sizes_hw[first].tolist()} (rows, columns) at "
            f"{offsets_rc[first].tolist()} reaches beyond the image of {list(image_hw)}"
        )


def label_image_to_runs(labels: ArrayLike) -> tuple[IntArray, Runs]:
    """Find the runs of every cell of a label image, all in one pass.

    Args:
        labels: label image [H, W].

    Returns:
        ids: labels, ascending, int64 [N].
        runs: column-major runs of the N cells, merged.

    Example:
        >>> ids, runs = label_image_to_runs([[0, 7], [7, 0], [7, 9]])
        >>> ids.tolist(), [numbers.tolist() for numbers in runs]
        ([7, 9], [[0, 1], [1, 5], [4, 6]])
    """
    array = check_label_image(labels)
    flat = array.ravel(order="F")
    borders = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, ends = np.r_[0, borders], np.r_[borders, flat.size]
    values = flat[starts[: flat.size]]
    order = np.argsort(values, kind="stable")[np.count_nonzero(values == 0) :]
    ids, cells = np.unique(values[order], return_inverse=True)
    return ids.astype(np.int64), Runs(cells, starts[order], ends[order])


def label_image_to_rles(labels: ArrayLike) -> tuple[IntArray, list[Rle]]:
    """Encode every cell of a label image, all in one pass.

    Args:
        labels: label image [H, W].

    Returns:
        ids: labels, ascending, int64 [N].
        rles: one compressed RLE per label, equal to that of the cell's full bitmap.
    """
    ids, runs = label_image_to_runs(labels)
    height, width = np.shape(labels)
    return ids, runs_to_rles(*runs, len(ids), (height, width))


def crops_to_rles(
    crops: Sequence[Crop], offsets_rc: ArrayLike, image_hw: tuple[int, int]
) -> list[Rle]:
    """Encode cells from their crops; the RLEs are those of the full bitmaps.

    Args:
        crops: one window per cell, bool [h, w]; need not be tight, may be empty.
        offsets_rc: (row, column) of each crop's first pixel, [N, 2].
        image_hw: (height, width) of the image, pixels.

    Returns:
        One compressed RLE of size `image_hw` per cell.

    Raises:
        LabelError: a crop reaches beyond the image.
    """
    return runs_to_rles(*crops_to_runs(crops, offsets_rc, image_hw), len(crops), image_hw)


def crops_to_first_pixels(
    crops: Sequence[Crop], offsets_rc: IntArray, image_hw: tuple[int, int]
) -> IntArray:
    """The first pixel of each cell when the image is read row by row.

    Args:
        crops: one window per cell, bool [h, w]; need not be tight, may be empty.
        offsets_rc: (row, column) of each crop's first pixel, int64 [N, 2].
        image_hw: (height, width) of the image, pixels.

    Returns:
        Row-major numbers of the pixels, int64 [N]; height * width for a cell without pixels.

    Example:
        >>> crop = np.array([[False, True], [True, True]])
        >>> crops_to_first_pixels([crop], np.array([[1, 0]]), (4, 2))
        array([3])
    """
    # argmax stops at the first True and numbers the pixels row by row.
    places = [int(crop.argmax()) if crop.size else 0 for crop in crops]
    found = [bool(crop.size and crop.item(place)) for crop, place in zip(crops, places)]
    widths = np.array([max(1, crop.shape[1]) for crop in crops], np.int64)
    rows, columns = np.divmod(np.array(places, np.int64), widths)
    pixels = (rows + offsets_rc[:, 0]) * image_hw[1] + columns + offsets_rc[:, 1]
    return np.where(np.array(found, bool), pixels, image_hw[0] * image_hw[1])


def crops_to_runs(
    crops: Sequence[Crop], offsets_rc: ArrayLike, image_hw: tuple[int, int]
) -> tuple[IntArray, IntArray, IntArray]:
    """Find the runs of many cells, all in one pass.

    The crops are laid end to end, column by column with a zero behind each column, and cut where a
    pixel differs from the one before. The crop `. # / # #` at row 1 of an image of 4 rows:

        crop, column by column   . # 0 # # 0        runs [1, 2) and [3, 5)
        pixels of the image      rows 2 and 1 to 2 of columns 0 and 1: [2, 3) and [5, 7)

    Args:
        crops: one window per cell, bool [h, w]; need not be tight, may be empty.
        offsets_rc: (row, column) of each crop's first pixel, [N, 2].
        image_hw: (height, width) of the image, pixels.

    Returns:
        Number of the cell, first pixel and pixel behind each run, int64 [R] each: column-major
        pixels of the image, sorted by cell and position, merged.

    Raises:
        LabelError: a crop reaches beyond the image.

    Example:
        >>> crop = np.array([[False, True], [True, True]])
        >>> [numbers.tolist() for numbers in crops_to_runs([crop], [(1, 0)], (4, 2))]
        [[0, 0], [2, 5], [3, 7]]
    """
    offsets = np.asarray(offsets_rc, np.int64).reshape(-1, 2)
    check_crops_inside(crops, offsets, image_hw)
    if not crops:
        return (np.zeros(0, np.int64),) * 3
    height = int(image_hw[0])
    first = np.cumsum([0, *((crop.shape[0] + 1) * crop.shape[1] for crop in crops)])
    framed = np.zeros(int(first[-1]), np.bool_)
    for crop, begin in zip(crops, first.tolist()):
        rows, cols = crop.shape
        framed[begin : begin + (rows + 1) * cols].reshape(cols, rows + 1)[:, :rows] = crop.T
    # Every run has a zero behind it, so the changes are a start and an end in turns.
    changes = np.flatnonzero(np.diff(framed, prepend=False, append=False))
    starts, ends = changes[::2], changes[1::2]
    cells = np.searchsorted(first, starts, side="right") - 1
    strides = np.array([crop.shape[0] + 1 for crop in crops], np.int64)[cells]
    rows, cols = offsets[cells].T
    starts, ends = (
        (cols + at // strides) * height + rows + at % strides
        for at in (starts - first[cells], ends - first[cells])
    )
    # A cell that fills columns from the image's upper to its lower edge: its runs meet.
    meet = (starts[1:] == ends[:-1]) & (cells[1:] == cells[:-1])
    begins, finishes = np.r_[True, ~meet][: cells.size], np.r_[~meet, True][: cells.size]
    return cells[begins], starts[begins], ends[finishes]


def crop_bitmap(bitmap: Crop) -> tuple[Crop, tuple[int, int]]:
    """The tight window of the cell in a bitmap.

    Args:
        bitmap: bool [H, W].

    Returns:
        The window, bool [h, w], and (row, column) of its first pixel; a 0 x 0 window at (0, 0) if
        the bitmap has no pixel.
    """
    rows, cols = np.flatnonzero(bitmap.any(axis=1)), np.flatnonzero(bitmap.any(axis=0))
    if not rows.size:
        return np.zeros((0, 0), bool), (0, 0)
    window = bitmap[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    return window.copy(), (int(rows[0]), int(cols[0]))


@checked(mask=NUMBERS)
def bitmap_to_rle(mask: ArrayLike) -> Rle:
    """Encode one bitmap [H, W] (nonzero is cell) as a compressed RLE."""
    bitmap = np.asarray(mask) != 0
    if bitmap.ndim != 2:
        raise LabelError(f"a bitmap has shape [H, W]; found shape {list(bitmap.shape)}")
    return crops_to_rles([bitmap], [(0, 0)], (bitmap.shape[0], bitmap.shape[1]))[0]
