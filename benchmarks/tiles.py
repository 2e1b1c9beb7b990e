"""Time tiled prediction without a network: sorting, stitching and writing of a made-up slide.

    python benchmarks/tiles.py [--side 20000 --cells 200000]

In place of the network stands what a perfect one would do: it gives, for each window, the cells of
the slide that it shows, with masks cut off at the window's edge. Cells are ellipses and overlap
here and there, some detections are below the score, and some are nearly covered by others. Then
the cells are stitched, kept on disk, and written as a label image. At the end everything is
compared with the selection over all cells of the slide at once: cells, their order, and every pixel
of the file.
Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from cellseg.cells.instances import CellInstances
from cellseg.cells.selection import DetectionThresholds, select_cells
from cellseg.inference.tile_grid import Tile, TileGrid
from cellseg.inference.tiles import TiledCells, TileWork, predict_tiled
from cellseg.io.label_images import write_label_image
from numpy.typing import NDArray

THRESHOLDS = DetectionThresholds(score=0.1, mask_nms=0.5, max_covered=0.5, min_area_px=30)
EXTRA_SHARE = 0.05  # detections that lie on another cell
NUM_SHAPES = 64


class MadeUpSlide:
    """Cells on a grid, moved at random, each a copy of one of a few shapes.

    Args:
        side: of the slide, pixels.
        num_cells: how many detections there are.
        seed: of the random numbers.
    """

    def __init__(self, side: int, num_cells: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.image_hw = (side, side)
        per_row = int(np.ceil(np.sqrt(num_cells / (1 + EXTRA_SHARE))))
        pitch = side / per_row
        places = np.arange(per_row**2)[: int(num_cells / (1 + EXTRA_SHARE))]
        centres = np.stack(np.divmod(places, per_row), axis=1) * pitch + pitch / 2
        extra = rng.choice(len(centres), num_cells - len(centres))
        centres = np.concatenate([centres, centres[extra]])
        centres += rng.uniform(-0.3, 0.3, centres.shape) * pitch
        self.shapes = [draw_ellipse(rng, pitch) for _ in range(NUM_SHAPES)]
        sizes = np.array([shape.shape for shape in self.shapes])
        shape_of = rng.integers(0, NUM_SHAPES, num_cells)
        offsets = np.clip((centres - sizes[shape_of] / 2).astype(int), 0, side - sizes[shape_of])
        order = np.argsort(offsets[:, 0], kind="stable")
        self.offsets_rc, self.shape_of = offsets[order], shape_of[order]
        self.ends_rc = self.offsets_rc + sizes[self.shape_of]
        self.scores = rng.permutation(num_cells) / num_cells
        self.highest = int(sizes[:, 0].max())

    def cells(self) -> CellInstances:
        """All detections."""
        crops = [self.shapes[k] for k in self.shape_of.tolist()]
        return CellInstances.from_crops(crops, self.offsets_rc, self.image_hw, scores=self.scores)


def draw_ellipse(rng: np.random.Generator, pitch: float) -> NDArray[np.bool_]:
    """A tight window."""
    radii = rng.uniform(0.25, 0.55, 2) * pitch
    height, width = np.maximum(np.round(2 * radii), 3).astype(int)
    rows, columns = np.mgrid[:height, :width] + 0.5
    return (2 * rows / height - 1) ** 2 + (2 * columns / width - 1) ** 2 <= 1


@dataclass
class PerfectNetwork:
    """Gives the cells of a window; `seconds` is what that took."""

    slide: MadeUpSlide
    seconds: float = 0.0

    def __call__(self, pixels: Any, tile: Tile) -> CellInstances:
        begin = time.perf_counter()
        slide, window = self.slide, tile.window
        tops = slide.offsets_rc[:, 0]
        first, last = np.searchsorted(tops, [window.top - slide.highest, window.bottom])
        near = np.arange(first, last)
        starts, ends = slide.offsets_rc[near], slide.ends_rc[near]
        seen = (ends[:, 0] > window.top) & (starts[:, 1] < window.right)
        near = near[seen & (ends[:, 1] > window.left)]
        starts = slide.offsets_rc[near] - window[:2]
        inner = np.maximum(-starts, 0)
        sizes = np.minimum(slide.ends_rc[near] - window[:2], window.hw) - starts
        crops = [
            slide.shapes[shape][top:bottom, left:right]
            for shape, (top, left), (bottom, right) in zip(
                slide.shape_of[near].tolist(), inner.tolist(), sizes.tolist()
            )
        ]
        cells = CellInstances.from_crops(
            crops, starts + inner, window.hw, scores=slide.scores[near]
        )
        self.seconds += time.perf_counter() - begin
        return cells


def read_nothing(rows: slice, columns: slice) -> NDArray[Any]:
    """The stub does not look at pixels."""
    return np.zeros((0, 0))


def peak_gb() -> float:
    """Highest memory of this process so far; Linux counts in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def paint_bands(cells: CellInstances, rows: int) -> Iterator[NDArray[Any]]:
    """The label image of all cells, cell by cell, the plain way."""
    tops = cells.offsets_rc[:, 0]
    bottoms = tops + [crop.shape[0] for crop in cells.crops]
    by_score = np.argsort(cells.scores, kind="stable")
    for top in range(0, cells.image_hw[0], rows):
        band = np.zeros((min(rows, cells.image_hw[0] - top), cells.image_hw[1]), np.uint32)
        here = (tops[by_score] < top + len(band)) & (bottoms[by_score] > top)
        for k in by_score[here].tolist():
            row, column = cells.offsets_rc[k].tolist()
            crop = cells.crops[k][max(top - row, 0) : top + len(band) - row]
            row = max(row - top, 0)
            target = band[row : row + crop.shape[0], column : column + crop.shape[1]]
            target[crop] = k + 1
        yield band


def compare(tiled: TiledCells, path: Path, slide: MadeUpSlide) -> str:
    """In words, whether cells and pixels are those of the whole slide."""
    expected = select_cells(slide.cells(), THRESHOLDS).sort_by_position()
    same = ["cells equal" if tiled.record.cells.equals(expected) else "CELLS DIFFER"]
    labels = tifffile.imread(path)
    row, equal = 0, labels.shape == slide.image_hw
    for band in paint_bands(expected, 1000):
        equal &= bool(np.array_equal(labels[row : row + len(band)], band))
        row += len(band)
    same.append("labels equal" if equal else "LABELS DIFFER")
    return f"{len(expected)} of {len(slide.scores)} detections: " + ", ".join(same)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=20_000, help="of the slide, pixels")
    parser.add_argument("--cells", type=int, default=200_000, help="detections in it")
    parser.add_argument("--tile", type=int, default=1024, help="side of a tile's core, pixels")
    parser.add_argument("--overlap", type=int, default=64, help="pixels")
    parser.add_argument("--context", type=int, default=64, help="pixels")
    parser.add_argument("--no-check", action="store_true", help="do not compare with the whole")
    args = parser.parse_args(arguments)
    slide = MadeUpSlide(args.side, args.cells)
    network = PerfectNetwork(slide)
    grid = TileGrid(slide.image_hw, args.tile, args.overlap, args.context)
    start_gb = peak_gb()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "slide_labels.tif")
        begin, cpu = time.perf_counter(), time.process_time()
        tiled = predict_tiled(TileWork(grid, THRESHOLDS, read_nothing, network), folder)
        stitched = time.perf_counter() - begin - network.seconds
        write_label_image(tiled.record, path)
        seconds = time.perf_counter() - begin - network.seconds
        cpu = time.process_time() - cpu - network.seconds
        peak, megabytes = peak_gb(), path.stat().st_size / 1e6
        checked = "not compared" if args.no_check else compare(tiled, path, slide)
        tiled.record.close()
    megapixels = args.side**2 / 1e6
    rows = {
        "megapixels, tiles": f"{megapixels:.0f}, {len(grid)}",
        "stitching [s]": f"{stitched:.1f}",
        "writing labels [s]": f"{seconds - stitched:.1f}",
        "both [megapixels/s]": f"{megapixels / seconds:.1f}",
        "both, processor time [s]": f"{cpu:.1f}",
        "stand-in for the network, not counted [s]": f"{network.seconds:.1f}",
        "peak memory, of it before the start [GB]": f"{peak:.2f}, {start_gb:.2f}",
        "label image [MB]": f"{megabytes:.1f}",
        "against the whole": checked,
        "seams": tiled.seams.describe(),
        "load of the machine, processors": f"{os.getloadavg()[0]:.1f}, {os.cpu_count()}",
    }
    print("| what | |\n| --- | --- |")
    for name, value in rows.items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
