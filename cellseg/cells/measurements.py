"""Measurements of each cell of an image: a table whose rows are cells.

A table is a dict of columns, arrays of one length, in a fixed order; `docs/measurements.md` defines
every column. Cells are measured by their own masks, so cells that overlap both count the pixels
that they share, which a label image gives to one of them.

The cells of an image come in pieces (`ImageRecord.batches`), and of its pixels only the rectangle
that some cells cover is read at a time. So an image may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cellseg.arguments import NAMES, checked
from cellseg.cells.instances import CellInstances
from cellseg.cells.intensities import (
    STATISTICS,
    ReadChannels,
    Ring,
    measure_backgrounds,
    measure_intensities,
)
from cellseg.cells.labels import disc_diameters
from cellseg.cells.records import ImageRecord
from cellseg.cells.run_lengths import IntArray
from cellseg.cells.runs import runs_to_boxes, runs_to_crops
from cellseg.cells.shapes import (
    SQUARE,
    Spacing,
    measure_axes,
    measure_hulls,
    measure_moments,
    measure_perimeters,
)
from cellseg.cells.surroundings import (
    Centroids,
    Extent,
    measured_cells,
    occupied_pixels,
    with_surroundings,
)
from cellseg.cells.windows import window_around
from cellseg.errors import LabelError
from cellseg.rules import Rule
from numpy.typing import NDArray

Table = dict[str, NDArray[Any]]

PIXELS_AT_ONCE = 1 << 23
"""How many pixels of one channel are read at once, if no single cell covers more."""


@dataclass(frozen=True)
class MeasurementSettings:
    """What measurements depend on beside the cells and the image.

    Attributes:
        neighbour_distance_px: a cell is a neighbour if its centroid is at most this far from the
            other one's; pixels.
        ring_gap_px: the background ring of a cell begins this far from its pixels, since light
            spreads beyond a cell's edge.
        ring_width_px: and is this wide.

    Raises:
        LabelError: a negative distance, or a ring without width.
    """

    neighbour_distance_px: float = 50.0
    ring_gap_px: float = 2.0
    ring_width_px: float = 5.0

    def __post_init__(self) -> None:
        if min(self.neighbour_distance_px, self.ring_gap_px) < 0 or self.ring_width_px <= 0:
            raise LabelError(f"distances are positive numbers of pixels; found {self}")

    @property
    def ring(self) -> Ring:
        """Where the background is looked for."""
        return Ring(self.ring_gap_px, self.ring_gap_px + self.ring_width_px)


DEFAULTS = MeasurementSettings()


@checked(
    record=Rule("an ImageRecord", lambda value: hasattr(value, "batches")),
    classes=NAMES,
    channel_names=NAMES,
)
def measure_cells(
    record: ImageRecord,
    classes: Sequence[str] = ("cell",),
    read_channels: ReadChannels | None = None,
    channel_names: Sequence[str] = (),
    settings: MeasurementSettings = DEFAULTS,
) -> Iterator[Table]:
    """Measure the cells of an image, piece by piece.

    Cell k of the record has label k + 1. Crowd regions and cells without a pixel have no row; the
    pixels of crowd regions are no background.

    Args:
        record: the image's cells; its batches are gone through twice and come by position, each
            beginning no higher in the image than the one before. `place.pixel_size_um` decides
            whether there are columns in micrometres.
        classes: class names, by the numbers of the cells' classes.
        read_channels: (rows, columns) -> the raw pixels of that window, [C, h, w]; None for
            measurements without brightness.
        channel_names: of all C channels; where there are not C different ones, channels are
            called `channel_0`, `channel_1`, ...
        settings: distances.

    Yields:
        A table for each batch that has a cell to measure, in the order of the record; one without
        rows where no batch has. All have the same columns.

    Raises:
        LabelError: a cell's class is not among `classes`.

    Example:
        >>> cells = CellInstances.from_label_image([[1, 1, 0], [0, 0, 2]])
        >>> (table,) = measure_cells(ImageRecord("a", cells))
        >>> table["label"].tolist(), table["area_px"].tolist(), table["centroid_x_px"].tolist()
        ([1, 2], [2, 1], [0.5, 2.0])
    """
    image = _Image(read_channels, tuple(channel_names), record.place.pixel_size_um, settings)
    centroids = Centroids(record.batches(), [spacing for _, spacing in image.units])
    first_label, is_empty = 1, True
    for batch, nearby in with_surroundings(record.batches(), image.margin_px):
        rows = measured_cells(batch)
        if rows.size:
            is_empty = False
            yield _measure_batch(batch, rows, first_label, classes) | _in_parts(
                batch[rows], image, centroids, nearby
            )
        first_label += len(batch)
    if is_empty:
        nothing = CellInstances.empty(record.image_hw)
        table = _measure_batch(nothing, measured_cells(nothing), 1, classes)
        yield table | _measure_part(nothing, image, centroids, [])


def _measure_batch(
    batch: CellInstances, rows: IntArray, first_label: int, classes: Sequence[str]
) -> Table:
    """What needs no measuring."""
    numbers = batch.classes[rows]
    if numbers.size and numbers.max() >= len(classes):
        raise LabelError(
            f"a cell of class {numbers.max()} (from 0); there are {len(classes)}: "
            f"{', '.join(classes)}"
        )
    return {
        "label": rows + first_label,
        "class": np.array(classes)[numbers],
        # 0.9 is meant to be written as 0.9, and not as the double nearest to its single.
        "score": batch.scores[rows].astype(str).astype(np.float64),
    }


@dataclass(frozen=True)
class _Image:
    read_channels: ReadChannels | None
    channel_names: tuple[str, ...]
    pixel_size_um: Spacing | None
    settings: MeasurementSettings

    @property
    def units(self) -> list[tuple[str, Spacing]]:
        """Name of each unit of length, and (height, width) of a pixel in it."""
        known = [] if self.pixel_size_um is None else [("um", self.pixel_size_um)]
        return [("px", SQUARE), *known]

    @property
    def margin_px(self) -> int:
        """How far around a cell its background may lie."""
        return int(np.ceil(self.settings.ring.reach_px))


def _in_parts(
    cells: CellInstances, image: _Image, centroids: Centroids, nearby: list[Extent]
) -> Table:
    """Measure cells that each have a pixel, as many at once as the limit of pixels allows."""
    boxes = runs_to_boxes(cells.runs, len(cells), cells.image_hw[0])
    order = np.argsort(boxes[:, 1], kind="stable")
    parts = [order[part] for part in _split(boxes[order], image.margin_px)]
    tables = [_measure_part(cells[part], image, centroids, nearby) for part in parts]
    back = np.argsort(np.concatenate(parts), kind="stable")
    return {name: np.concatenate([each[name] for each in tables])[back] for name in tables[0]}


def _split(boxes_xyxy: IntArray, margin: int) -> Iterator[slice]:
    """Cut a list of cells where the window around them becomes too large.

    Args:
        boxes_xyxy: int64 [N, 4] from top to bottom, N at least 1.
        margin: pixels that a window has on each side.
    """
    first, sides = 0, boxes_xyxy[0].tolist()
    for k, (x0, y0, x1, y1) in enumerate(boxes_xyxy.tolist()):
        grown = [min(sides[0], x0), min(sides[1], y0), max(sides[2], x1), max(sides[3], y1)]
        size = (grown[2] - grown[0] + 2 * margin) * (grown[3] - grown[1] + 2 * margin)
        if size > PIXELS_AT_ONCE and k > first:
            yield slice(first, k)
            first, grown = k, [x0, y0, x1, y1]
        sides = grown
    yield slice(first, len(boxes_xyxy))


def _measure_part(
    cells: CellInstances, image: _Image, centroids: Centroids, nearby: list[Extent]
) -> Table:
    boxes = runs_to_boxes(cells.runs, len(cells), cells.image_hw[0])
    table = _measure_shapes(cells, boxes, image.units)
    centres = np.stack([table["centroid_y_px"], table["centroid_x_px"]], axis=1)
    height, width = cells.image_hw
    table["touches_border"] = (boxes[:, :2] == 0).any(axis=1) | (boxes[:, 2] == width)
    table["touches_border"] |= boxes[:, 3] == height
    table["neighbours"] = centroids.count_within(centres, image.settings.neighbour_distance_px)
    for (unit, _), distances in zip(image.units, centroids.nearest_distances(centres)):
        table[f"nearest_distance_{unit}"] = distances
    if image.read_channels is not None:
        table |= _measure_channels(cells, boxes, image, image.read_channels, nearby)
    return table


def _measure_shapes(
    cells: CellInstances, boxes: IntArray, units: list[tuple[str, Spacing]]
) -> Table:
    """Size and shape; what has no unit is that of the cell, not of its picture in oblong pixels."""
    runs, height = cells.runs, cells.image_hw[0]
    moments = measure_moments(runs, boxes, height)
    hulls = measure_hulls(runs, len(cells), height, [spacing for _, spacing in units])
    perimeters = measure_perimeters(runs, boxes, height, [spacing for _, spacing in units])
    areas = [moments.areas * (tall * wide) for _, (tall, wide) in units]
    table = {"area_px": moments.areas} | ({"area_um2": areas[1]} if len(areas) > 1 else {})
    for unit, (tall, wide) in units:
        table[f"centroid_y_{unit}"] = moments.rows * tall
        table[f"centroid_x_{unit}"] = moments.columns * wide
    for name, side in zip(("x0", "y0", "x1", "y1"), boxes.T):
        table[f"box_{name}_px"] = side
    for k, (unit, spacing) in enumerate(units):
        axes = measure_axes(moments, spacing)
        table[f"equivalent_diameter_{unit}"] = disc_diameters(areas[k])
        table[f"major_axis_{unit}"] = axes.major
        table[f"minor_axis_{unit}"] = axes.minor
        table[f"feret_max_{unit}"] = hulls.feret_max[k]
        table[f"feret_min_{unit}"] = hulls.feret_min[k]
        table[f"perimeter_{unit}"] = perimeters[k]
    table["eccentricity"] = axes.eccentricity
    table["orientation_deg"] = axes.orientation_deg
    table["solidity"] = moments.areas / hulls.areas
    return table


def _measure_channels(
    cells: CellInstances,
    boxes: IntArray,
    image: _Image,
    read_channels: ReadChannels,
    nearby: list[Extent],
) -> Table:
    """Brightness of the cells in each channel, and of the background around them."""
    if not len(cells):
        count = len(read_channels(slice(0, 1), slice(0, 1)))
        names = _name_channels(image.channel_names, count)
        return {f"{name}_{what}": np.zeros(0) for name in names for what in STATISTICS}
    height = cells.image_hw[0]
    window = window_around(boxes, image.margin_px, cells.image_hw)
    channels = np.asarray(read_channels(window.rows, window.columns))
    found = measure_intensities(channels, window, cells.runs, len(cells), height)
    backgrounds = measure_backgrounds(
        channels,
        window,
        occupied_pixels(nearby, window),
        runs_to_crops(cells.runs, boxes, height),
        image.settings.ring,
    )
    names = _name_channels(image.channel_names, len(channels))
    return {
        f"{name}_{what}": column
        for name, columns, background in zip(names, found, backgrounds)
        for what, column in (*columns.items(), ("background", background))
    }


def _name_channels(names: Sequence[str], count: int) -> Sequence[str]:
    is_usable = len(names) == count == len(set(names)) and all(names)
    return names if is_usable else [f"channel_{number}" for number in range(count)]
