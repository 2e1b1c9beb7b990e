"""Time the measuring of cells against scikit-image's `regionprops_table`.

    python benchmarks/measurements.py --cells 100 2000 --repeats 5

Ellipses of about 20 px that do not touch, 16-bit noise in two channels. Both give area, centroid,
box, perimeter, axes, eccentricity, solidity, orientation, greatest Feret diameter and mean,
standard deviation, minimum and maximum of each channel; cellseg also gives the least Feret
diameter, sums, neighbours, and the background around each cell. They take turns in one process;
medians are printed, and the largest difference between what both give.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.measurements import Table, measure_cells
from cellseg.cells.records import ImageRecord
from numpy.typing import NDArray
from skimage.measure import regionprops_table

STEP = 22
SAME = {
    "area_px": "area",
    "perimeter_px": "perimeter",
    "major_axis_px": "axis_major_length",
    "minor_axis_px": "axis_minor_length",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
    "feret_max_px": "feret_diameter_max",
}
OTHERS = ("label", "centroid", "bbox", "orientation", "equivalent_diameter_area")
INTENSITIES = ("intensity_mean", "intensity_std", "intensity_min", "intensity_max")


def make_scene(num_cells: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """A label image, and an image of two channels [2, H, W]."""
    rng = np.random.default_rng(0)
    across = int(np.ceil(np.sqrt(num_cells)))
    labels = np.zeros((across * STEP + 2, across * STEP + 2), np.int32)
    for number in range(num_cells):
        row, column = divmod(number, across)
        centre = (column * STEP + STEP // 2, row * STEP + STEP // 2)
        axes = (int(rng.integers(8, 11)), int(rng.integers(6, 10)))
        cv2.ellipse(labels, centre, axes, int(rng.integers(180)), 0, 360, number + 1, -1)
    return labels, rng.integers(0, 60_000, (2, *labels.shape)).astype(np.uint16)


def ours(labels: NDArray[Any], image: NDArray[Any]) -> Table:
    record = ImageRecord("a", CellInstances.from_label_image(labels))
    (table,) = measure_cells(record, read_channels=lambda rows, columns: image[:, rows, columns])
    return table


def theirs(labels: NDArray[Any], image: NDArray[Any]) -> dict[str, Any]:
    properties = (*OTHERS, *SAME.values(), *INTENSITIES)
    return regionprops_table(labels, image.transpose(1, 2, 0), properties=properties)


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[100, 2000])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print("| cells | image | cellseg [ms] | regionprops_table [ms] | ratio | largest difference |")
    print("| --- | --- | --- | --- | --- | --- |")
    for num_cells in args.cells:
        scene = make_scene(num_cells)
        found, expected = ours(*scene), theirs(*scene)
        difference = max(np.abs(found[a] - expected[b]).max() for a, b in SAME.items())
        turns = [(seconds(ours, *scene), seconds(theirs, *scene)) for _ in range(args.repeats)]
        one, other = (1e3 * statistics.median(times) for times in zip(*turns))
        size = " x ".join(map(str, scene[0].shape))
        print(
            f"| {num_cells} | {size} | {one:.1f} | {other:.1f} | {other / one:.1f} "
            f"| {difference:.1e} |"
        )


if __name__ == "__main__":
    main()
