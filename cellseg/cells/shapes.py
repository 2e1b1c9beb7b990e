"""Size and shape of many cells at once, each by its own mask.

Area, moments, axes, eccentricity, orientation, solidity, perimeter and greatest Feret diameter are
defined as in scikit-image's `regionprops` (`docs/measurements.md` lists them all).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from cellseg.cells.convex_hulls import columns_of_cells, feret_diameters, pixels_in_hulls
from cellseg.cells.instances import CellInstances
from cellseg.cells.run_lengths import IntArray
from cellseg.cells.runs import Runs, cut_at_line_ends, runs_to_boxes
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Spacing = tuple[float, float]
SQUARE = (1.0, 1.0)


class Moments(NamedTuple):
    """Area, centre and spread of cells, in pixels; those of a cell without a pixel are not numbers.

    Attributes:
        areas: number of pixels, int64 [N].
        rows, columns: mean row and column of the pixels' centres, [N].
        row_variances, column_variances, covariances: of the pixels' rows and columns, [N].
    """

    areas: IntArray
    rows: FloatArray
    columns: FloatArray
    row_variances: FloatArray
    column_variances: FloatArray
    covariances: FloatArray


def measure_moments(runs: Runs, boxes_xyxy: IntArray, height: int) -> Moments:
    """Moments of cells from the ends of their runs, in whole numbers up to the last division.

    A run of the rows a to b - 1 in one column has n = b - a pixels; its rows sum to
    n (a + b - 1) / 2, and their squares to s(b) - s(a) with s(m) = (m - 1) m (2m - 1) / 6.

    Args:
        runs: column-major runs, sorted by cell and position.
        boxes_xyxy: int64 [N, 4], tight boxes; sums are taken from their corners, so that they stay
            small.
        height: height of the image, pixels.

    Example:
        >>> runs = Runs(np.array([0]), np.array([2]), np.array([5]))
        >>> found = measure_moments(runs, np.array([[0, 2, 1, 5]]), 9)
        >>> found.areas.tolist(), found.rows.tolist(), found.row_variances.round(4).tolist()
        ([3], [3.0], [0.6667])
    """
    cells, starts, ends = cut_at_line_ends(runs, height) if runs.cells.size else runs
    column = starts // max(height, 1)
    x = column - boxes_xyxy[cells, 0]
    begin = starts - column * height - boxes_xyxy[cells, 1]
    end = begin + ends - starts
    n = end - begin
    sum_y = n * (begin + end - 1) // 2
    sum_yy = _sum_of_squares(end) - _sum_of_squares(begin)
    bounds = np.searchsorted(cells, np.arange(len(boxes_xyxy) + 1))
    area, y, xx, yy, xy, x_ = (
        np.diff(np.r_[0, np.cumsum(each)][bounds])
        for each in (n, sum_y, n * x * x, sum_yy, x * sum_y, n * x)
    )
    with np.errstate(invalid="ignore"):
        mean_y, mean_x = y / area, x_ / area
        return Moments(
            area,
            mean_y + boxes_xyxy[:, 1],
            mean_x + boxes_xyxy[:, 0],
            yy / area - mean_y**2,
            xx / area - mean_x**2,
            xy / area - mean_y * mean_x,
        )


def _sum_of_squares(end: IntArray) -> IntArray:
    """0 + 1 + 4 + ... + (end - 1) ** 2."""
    return (end - 1) * end * (2 * end - 1) // 6


def find_centroids(cells: CellInstances) -> FloatArray:
    """Mean (row, column) of each cell's pixels, float64 [N, 2]; nan for one without a pixel.

    Example:
        >>> find_centroids(CellInstances.from_label_image([[0, 1, 1], [2, 0, 0]])).tolist()
        [[0.0, 1.5], [1.0, 0.0]]
    """
    height = cells.image_hw[0]
    moments = measure_moments(cells.runs, runs_to_boxes(cells.runs, len(cells), height), height)
    return np.stack([moments.rows, moments.columns], axis=1)


class Axes(NamedTuple):
    """The ellipse that has the same second moments as a cell.

    Attributes:
        major, minor: lengths of its axes, in units of the spacing.
        eccentricity: 0 for a circle, 1 for a line.
        orientation_deg: angle of the major axis to the vertical, -90 to 90 degrees,
            counter-clockwise positive, as scikit-image's `orientation`.
    """

    major: FloatArray
    minor: FloatArray
    eccentricity: FloatArray
    orientation_deg: FloatArray


def measure_axes(moments: Moments, spacing: Spacing = SQUARE) -> Axes:
    """Axes of cells from their moments.

    Args:
        moments: in pixels.
        spacing: (height, width) of a pixel.
    """
    yy = moments.row_variances * spacing[0] ** 2
    xx = moments.column_variances * spacing[1] ** 2
    xy = moments.covariances * (spacing[0] * spacing[1])
    middle, spread = (yy + xx) / 2, np.hypot((yy - xx) / 2, xy)
    greater, less = middle + spread, np.maximum(middle - spread, 0)
    share = np.divide(less, greater, out=np.ones_like(less), where=greater > 0)
    diagonal = np.where(xy > 0, np.pi / 4, -np.pi / 4)
    angle = np.where(yy == xx, diagonal, 0.5 * np.arctan2(2 * xy, yy - xx))
    no_cell = np.isnan(middle)
    share[no_cell], angle[no_cell] = np.nan, np.nan
    return Axes(4 * np.sqrt(greater), 4 * np.sqrt(less), np.sqrt(1 - share), np.degrees(angle))


class Hulls(NamedTuple):
    """Measures of convex hulls.

    Attributes:
        areas: number of pixels in the hull, int64 [N].
        feret_max, feret_min: greatest and least Feret diameter per spacing, [N].
    """

    areas: IntArray
    feret_max: list[FloatArray]
    feret_min: list[FloatArray]


def measure_hulls(runs: Runs, num_cells: int, height: int, spacings: list[Spacing]) -> Hulls:
    """Area and Feret diameters of cells' convex hulls; see `cellseg.cells.convex_hulls`.

    Args:
        runs: column-major runs, sorted by cell and position.
        num_cells: N.
        height: height of the image, pixels.
        spacings: (height, width) of a pixel in each unit that Feret diameters are wanted in.
    """
    hulls = pixels_in_hulls(columns_of_cells(runs, height))
    heights = hulls.bottoms - hulls.tops + 1
    areas = np.bincount(hulls.cells, heights, minlength=num_cells).astype(np.int64)
    found = [feret_diameters(hulls, num_cells, spacing) for spacing in spacings]
    return Hulls(areas, [one[0] for one in found], [one[1] for one in found])


def measure_perimeters(
    runs: Runs, boxes_xyxy: IntArray, height: int, spacings: list[Spacing]
) -> list[FloatArray]:
    """Lengths of cells' outlines, holes included, by the estimator of Benkrid and Crookes.

    It is scikit-image's `perimeter` with `neighborhood=4`: a line through the centres of the
    border pixels (those with a side on the outside), of which each adds 1, the square root of 2,
    or their mean, by which of its eight neighbours are border pixels too. Where pixels are not
    square, the 1 is the mean length of its steps up, down and across, and the root that of a
    diagonal step. (K. Benkrid, D. Crookes: Design and FPGA Implementation of a Perimeter
    Estimator, Queen's University of Belfast, 2000.)

    Args:
        runs: column-major runs, sorted by cell and position.
        boxes_xyxy: int64 [N, 4], tight boxes.
        height: height of the image, pixels.
        spacings: (height, width) of a pixel in each unit that perimeters are wanted in.

    Returns:
        Perimeters per spacing, float64 [N]; 0 for cells of one or two pixels.

    Example:
        A square of three pixels has eight border pixels around one: four corners and four sides,
        each 1.

        >>> runs = Runs(np.zeros(3, int), np.array([0, 5, 10]), np.array([3, 8, 13]))
        >>> measure_perimeters(runs, np.array([[0, 0, 3, 3]]), 5, [(1, 1), (2, 1)])
        [array([8.]), array([12.])]
    """
    pixels, owner, line, size = _lay_out(runs, boxes_xyxy, height)
    canvas = np.zeros(size, np.uint8)
    canvas[pixels] = 1
    step = line[owner]
    inside = canvas[pixels - 1] & canvas[pixels + 1]
    inside &= canvas[pixels - step] & canvas[pixels + step]
    border = np.flatnonzero(inside == 0)
    pixels, owner, step = pixels[border], owner[border], step[border]
    canvas[:] = 0
    canvas[pixels] = 1
    left, right = pixels - step, pixels + step
    along, across = canvas[pixels - 1] + canvas[pixels + 1], canvas[left] + canvas[right]
    diagonal = canvas[left - 1] + canvas[left + 1] + canvas[right - 1] + canvas[right + 1]
    kind = along + 3 * across + 9 * diagonal
    num_cells = len(boxes_xyxy)
    return [
        np.bincount(owner, _lengths_by_kind(spacing)[kind], num_cells).astype(np.float64)
        for spacing in spacings
    ]


def _lay_out(
    runs: Runs, boxes_xyxy: IntArray, height: int
) -> tuple[IntArray, IntArray, IntArray, int]:
    """Each cell in a window of its own with a frame of background, all of them end to end.

    Windows are laid down column by column, so that a pixel's neighbours are one place, and one
    column of its window, away.

    Returns:
        Place and cell of every pixel, length of a column of each cell's window, number of places.
    """
    cells, starts, ends = cut_at_line_ends(runs, height) if runs.cells.size else runs
    x0, y0, x1, y1 = boxes_xyxy.T
    line = y1 - y0 + 2
    sizes = line * (x1 - x0 + 2)
    first = np.cumsum(sizes) - sizes
    column = starts // max(height, 1)
    begin = first[cells] + (column - x0[cells] + 1) * line[cells] + 1
    begin += starts - column * height - y0[cells]
    lengths = ends - starts
    shifts = np.repeat(begin - np.cumsum(lengths) + lengths, lengths)
    pixels = np.arange(shifts.size) + shifts
    return pixels, np.repeat(cells, lengths), line, int(sizes.sum())


def _lengths_by_kind(spacing: Spacing) -> FloatArray:
    """Length that a border pixel adds, by its neighbours: along + 3 * across + 9 * diagonal."""
    tall, wide = spacing
    slant = float(np.hypot(tall, wide))
    lengths = np.zeros(45)
    for kind in range(45):
        diagonal, rest = divmod(kind, 9)
        across, along = divmod(rest, 3)
        straight = (tall * along + wide * across) / max(along + across, 1)
        if (along + across, diagonal) in ((2, 0), (3, 0), (2, 1), (3, 1), (2, 2), (3, 2)):
            lengths[kind] = straight
        elif (along + across, diagonal) in ((0, 2), (1, 3)):
            lengths[kind] = slant
        elif (along + across, diagonal) in ((1, 1), (1, 2)):
            lengths[kind] = (straight + slant) / 2
    return lengths
