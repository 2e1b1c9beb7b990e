"""Time what follows when a slider of the widget Find cells is moved: choosing, drawing, showing.

    python benchmarks/sliders.py
    python benchmarks/sliders.py --cells 500 2000 8000

Detections of synthetic cells (soft masks of 28 x 28, as many faint ones beside the good ones, that
overlap them) in an image of 2048 x 2048. Prints a Markdown table of medians and of the slowest, in
milliseconds; "layer" is what napari does to take in the new labels and their features, where it is
installed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from cellseg.cells.label_canvas import LabelCanvas
from cellseg.cells.selection import DetectionThresholds
from cellseg.inference.adjustable import AdjustableDetections, Chosen
from cellseg.inference.detections import SoftDetections

SIDE_PX, MASK_SIDE = 2048, 28
CLASSES = ("round", "long")
START = DetectionThresholds(score=0.5, mask_nms=0.5)
SLIDERS: dict[str, Callable[[float], DetectionThresholds]] = {
    "score": lambda share: replace(START, score=0.1 + 0.85 * share),
    "score, small steps": lambda share: replace(START, score=0.5 + 0.05 * share),
    "area": lambda share: replace(START, min_area_px=600 * share),
    "overlap": lambda share: replace(START, score=0.1, mask_nms=0.05 + 0.9 * share),
    "one cell per pixel, score": lambda share: replace(
        START, score=0.1 + 0.85 * share, exclusive=True
    ),
    "mask": lambda share: replace(START, mask=0.2 + 0.6 * share),
}


def make_detections(num_cells: int) -> SoftDetections:
    """`num_cells` good detections on a grid, and as many faint ones that lie half over them."""
    rng = np.random.default_rng(0)
    across = int(np.ceil(np.sqrt(num_cells)))
    step = SIDE_PX / across
    centres = (np.array([divmod(k, across) for k in range(num_cells)]) + 0.5) * step
    centres = np.concatenate([centres, centres + rng.normal(0, step / 4, centres.shape)])
    sides = rng.uniform(0.5, 0.95, (2 * num_cells, 2)) * step
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)[:, [1, 0, 3, 2]]
    scores = np.concatenate([rng.uniform(0.4, 1, num_cells), rng.uniform(0.05, 0.6, num_cells)])
    y, x = np.mgrid[-1 : 1 : MASK_SIDE * 1j, -1 : 1 : MASK_SIDE * 1j]
    soft = 1 / (1 + np.exp(8 * (np.hypot(y, x) - 0.9)))
    order = np.argsort(-scores, kind="stable")
    return SoftDetections(
        (SIDE_PX, SIDE_PX),
        torch.tensor(boxes[order].clip(0, SIDE_PX), dtype=torch.float32),
        torch.tensor(soft, dtype=torch.float32).expand(2 * num_cells, -1, -1).contiguous(),
        torch.tensor(scores[order], dtype=torch.float32),
        torch.tensor(rng.integers(0, 2, 2 * num_cells)),
    )


class Layer:
    """A Labels layer that shows what was chosen; nothing where napari is missing."""

    def __init__(self, canvas: LabelCanvas) -> None:
        try:
            from napari.components import ViewerModel
        except ImportError:
            self.show: Callable[[Chosen], None] = lambda chosen: None
            return
        from cellseg.napari.layers import cells_to_features

        layer: Any = ViewerModel().add_labels(canvas.labels)

        def show(chosen: Chosen) -> None:
            layer.features = cells_to_features(chosen.cells, CLASSES, ids=chosen.ids)
            layer.refresh()

        self.show = show


def measure(num_cells: int, slider: str, repeats: int) -> list[list[float]]:
    """Milliseconds of choosing, drawing, showing and of all three, at each place of a slider."""
    detections = AdjustableDetections(make_detections(num_cells))
    canvas = LabelCanvas((SIDE_PX, SIDE_PX), len(detections))
    layer = Layer(canvas)
    places = np.random.default_rng(1).random(repeats)
    taken = []
    for share in [0.5, 0.6, *places.tolist()]:
        start = time.perf_counter()
        chosen = detections.choose(SLIDERS[slider](share))
        chose = time.perf_counter()
        canvas.show(chosen.cells, chosen.ids)
        drew = time.perf_counter()
        layer.show(chosen)
        end = time.perf_counter()
        taken.append([1e3 * s for s in (chose - start, drew - chose, end - drew, end - start)])
    return taken[2:]  # the first ones warm up


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[2000])
    parser.add_argument("--repeats", type=int, default=21)
    args = parser.parse_args(words)
    print("| cells | slider | choose | draw | layer | all [ms] | slowest [ms] |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for num_cells in args.cells:
        for slider in SLIDERS:
            columns = list(zip(*measure(num_cells, slider, args.repeats)))
            medians = " | ".join(f"{statistics.median(column):.1f}" for column in columns)
            print(f"| {num_cells} | {slider} | {medians} | {max(columns[-1]):.1f} |", flush=True)


if __name__ == "__main__":
    main()
