"""Rows of `summary.csv`, one per image, and of `plates.csv`, one per well."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from cellseg.cells.records import ImageRecord
from cellseg.cells.runs import Runs
from cellseg.cells.surroundings import Extent, extent_of, measured_cells, reaching_to
from cellseg.io.checks import check_classes
from cellseg.io.tables import Row, Value

WELL_KEYS = ("plate", "row", "column", "well", "channel", "t", "z")
"""What images of one well have in common; they differ in the site."""

_MEANS = ("mean_area_px", "mean_area_um2")
_PX_PER_MEGAPIXEL = _UM2_PER_MM2 = 10**6


def summarize_image(record: ImageRecord, classes: Sequence[str] = ("cell",)) -> dict[str, Value]:
    """Counts and areas of the cells of an image.

    Crowd regions and cells without a pixel are not counted.

    Args:
        record: the image's cells; its batches are gone through once, and come by position, each
            beginning no higher in the image than the one before.
        classes: class names, by the numbers of the cells' classes.

    Returns:
        The same columns for every image; None where there is no cell to average, or where the
        size of pixels is not known. `docs/measurements.md` defines them.

    Raises:
        DatasetError: a cell's class is not among `classes`.

    Example:
        >>> from cellseg.cells.instances import CellInstances
        >>> cells = CellInstances.from_label_image([[1, 1, 0, 0], [0, 0, 0, 2]])
        >>> row = summarize_image(ImageRecord("a", cells))
        >>> row["num_cells"], row["confluence"], row["mean_area_px"], row["cells_per_mm2"]
        (2, 0.375, 1.5, None)
    """
    height, width = record.image_hw
    areas, covered, on_border = np.zeros(0, np.int64), 0, 0
    per_class = np.zeros(len(classes), np.int64)
    earlier: list[Extent] = []
    for batch in record.batches():
        here = extent_of(batch[measured_cells(batch)])
        check_classes(record, here.cells, classes)
        per_class += np.bincount(here.cells.classes, minlength=len(classes))
        areas = np.r_[areas, here.cells.areas_px]
        at_edge = (here.boxes[:, :2] == 0) | (here.boxes[:, 2:] == (width, height))
        on_border += int(at_edge.any(axis=1).sum())
        earlier = reaching_to(here.top, earlier)
        covered += _count_pixels([*earlier, here]) - _count_pixels(earlier)
        earlier.append(here)
    tall, wide = record.place.pixel_size_um or (None, None)
    pixel_um2 = None if tall is None or wide is None else tall * wide
    mean, median = (float(areas.mean()), float(np.median(areas))) if areas.size else (None, None)
    counts = {f"num_cells_{name}": int(n) for name, n in zip(classes, per_class)}
    return {
        "height_px": height,
        "width_px": width,
        "pixel_height_um": tall,
        "pixel_width_um": wide,
        "num_cells": areas.size,
        **(counts if len(classes) > 1 else {}),
        "num_touching_border": on_border,
        **_densities(areas.size, height * width, _times(height * width, pixel_um2)),
        "confluence": covered / (height * width),
        "mean_area_px": mean,
        "median_area_px": median,
        "mean_area_um2": _times(mean, pixel_um2),
        "median_area_um2": _times(median, pixel_um2),
    }


def _count_pixels(extents: Sequence[Extent]) -> int:
    """How many pixels lie in any of these cells; those of several count once."""
    if not extents:
        return 0
    runs = [extent.cells.runs for extent in extents]
    starts, ends = (
        np.concatenate([getattr(one, side) for one in runs]) for side in Runs._fields[1:]
    )
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], ends[order]
    # Of a run, what no earlier one covers begins where the furthest of them ends.
    reached = np.r_[0, np.maximum.accumulate(ends)[:-1]] if ends.size else ends
    return int(np.maximum(ends - np.maximum(starts, reached), 0).sum())


def _times(value: float | None, factor: float | None) -> float | None:
    return None if value is None or factor is None else value * factor


def _densities(num_cells: int, area_px: int, area_um2: float | None) -> dict[str, Value]:
    return {
        "cells_per_megapixel": num_cells / area_px * _PX_PER_MEGAPIXEL,
        "cells_per_mm2": None if area_um2 is None else num_cells / area_um2 * _UM2_PER_MM2,
    }


def summarize_wells(rows: Iterable[Row]) -> list[dict[str, Value]]:
    """Counts and areas per well, over its sites; by channel, time and plane where there are any.

    Args:
        rows: of images, with the columns of `summarize_image` and those of
            `PlatePosition.columns`; rows without a well or without a count are passed over. They
            may come from several files (`read_rows`).

    Returns:
        Rows by plate, row and column of the well. Mean areas weigh each cell alike and
        confluence each pixel; what is in micrometres is None unless all images of the well have
        it.
    """
    groups: dict[tuple[Value, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row.get("well") is not None and row.get("num_cells") is not None:
            groups[tuple(row.get(key) for key in WELL_KEYS)].append(row)
    return [
        {**dict(zip(WELL_KEYS, group)), **_summarize_well(groups[group])}
        for group in sorted(groups, key=lambda group: [_sortable(value) for value in group])
    ]


def _sortable(value: Value) -> tuple[int, Any]:
    """Nothing before numbers before texts."""
    return (0, 0) if value is None else (2, value) if isinstance(value, str) else (1, value)


def _summarize_well(rows: Sequence[Row]) -> dict[str, Value]:
    names = {name: None for row in rows for name in row if name.startswith("num_")}
    counts = {name: _total(rows, name) for name in names}
    area_px = _total(rows, "height_px", "width_px")
    area_um2 = _total(rows, "height_px", "width_px", "pixel_height_um", "pixel_width_um")
    covered = _total(rows, "confluence", "height_px", "width_px")
    with_cells = [row for row in rows if row["num_cells"]]
    summed = {name: _total(with_cells, name, "num_cells") for name in _MEANS}
    num_cells = counts["num_cells"]
    return {
        "num_images": len(rows),
        **counts,
        **_densities(num_cells, area_px, area_um2),
        "confluence": None if covered is None else covered / area_px,
        **{name: area / num_cells if area and num_cells else None for name, area in summed.items()},
    }


def _total(rows: Sequence[Row], *factors: str) -> Any:
    """Sum over the rows of the product of some columns; None if a value is not known."""
    products = []
    for row in rows:
        values: list[Any] = [row.get(name) for name in factors]
        if None in values:
            return None
        products.append(math.prod(values))
    return sum(products)
