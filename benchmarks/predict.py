"""Time CellPredictor on a dense field: masks for candidates alone, against masks for everything.

    python benchmarks/predict.py [--config-file FILE --weights FILE]

Both ways go through the same predictor in turns, the one with what it has, the other with
`masks_of_candidates_only` put out of action, as in version 0.1. Without weights the model is an
untrained one, which finds cells everywhere; the score threshold is set between its detections, so
that a given share of them passes. With weights the threshold is the config's. Prints a Markdown
table of medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import cellseg  # noqa: F401  (finds the engine)
import numpy as np
import torch
from cellseg.cells.instances import CellInstances
from cellseg.cells.synthetic import make_cells
from cellseg.engine.setup import load_config
from cellseg.inference import predictor as predictor_module
from cellseg.inference.predictor import CellPredictor
from detectron2.modeling import build_model
from numpy.typing import NDArray

CONFIG = "base_mask_rcnn_R_50_FPN.yaml"
IMAGE_HW = (512, 640)
SHARES = (0.1, 0.3, 1.0)


def build_predictor(config: str, weights: str, options: list[str]) -> CellPredictor:
    """Sees the image in its own size."""
    sizes = [word for key in ("MIN", "MAX") for word in (f"INPUT.{key}_SIZE_TEST", "640")]
    sizes[1] = "512"
    none = ["DATASETS.TRAIN", "()", "DATASETS.TEST", "()", "MODEL.DEVICE", "cpu"]
    cfg = load_config(config, [*none, *sizes, "MODEL.WEIGHTS", weights, *options])
    if weights:
        return CellPredictor(cfg)
    torch.manual_seed(0)
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save({"model": build_model(cfg).state_dict()}, file)
        file.flush()
        cfg.MODEL.WEIGHTS = file.name
        return CellPredictor(cfg)


def scores_of_detections(predictor: CellPredictor, image: NDArray[Any]) -> NDArray[np.float32]:
    """Of everything above SCORE_THRESH_TEST, descending."""
    pixels = torch.from_numpy(np.stack([image] * 3))
    with torch.inference_mode():
        (found,) = predictor.model.inference([{"image": pixels}], do_postprocess=False)
    return np.sort(found.scores.numpy())[::-1]


@contextmanager
def masks_of_everything() -> Iterator[None]:
    """Put `masks_of_candidates_only` out of action."""
    original = predictor_module.masks_of_candidates_only
    predictor_module.masks_of_candidates_only = lambda *_: nullcontext()
    try:
        yield
    finally:
        predictor_module.masks_of_candidates_only = original


def is_same(one: CellInstances, other: CellInstances) -> bool:
    names = ("boxes_xyxy", "scores", "classes", "offsets_rc")
    return all(np.array_equal(getattr(one, n), getattr(other, n)) for n in names) and all(
        map(np.array_equal, one.crops, other.crops)
    )


def compare(predictor: CellPredictor, image: NDArray[Any], repeats: int) -> tuple[Any, ...]:
    """Median seconds with masks of everything and of candidates, cells, whether they are equal."""
    seconds: tuple[list[float], list[float]] = ([], [])
    cells: list[CellInstances] = []
    for number in range(repeats + 1):
        cells = []
        for times, way in zip(seconds, (masks_of_everything, nullcontext)):
            with way():
                start = time.perf_counter()
                cells.append(predictor(image))
                times.append(time.perf_counter() - start)
        if number == 0:  # warms up
            seconds = ([], [])
    everything, candidates = map(statistics.median, seconds)
    return everything, candidates, len(cells[0]), is_same(*cells)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", default=CONFIG, help="default: %(default)s")
    parser.add_argument("--weights", default="", help="of that config")
    parser.add_argument("--cells", type=int, default=400, help="in the image")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("options", nargs="*", metavar="KEY VALUE", help="config overrides")
    args = parser.parse_args(arguments)
    image = make_cells(1, IMAGE_HW, num_cells=args.cells, touching=0.5).image
    predictor = build_predictor(args.config_file, args.weights, args.options)
    scores = scores_of_detections(predictor, image)
    lowest = [predictor.thresholds.lowest_score]
    if not args.weights:
        lowest = [float(scores[int(share * len(scores)) - 1]) for share in SHARES]
    print("| detections | above the threshold | cells | all masks [s] | candidates' [s] | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    for threshold in lowest:
        predictor.thresholds = replace(predictor.thresholds, score=threshold)
        everything, candidates, cells, same = compare(predictor, image, args.repeats)
        passed = int((scores >= np.float32(threshold)).sum())
        ratio = f"{everything / candidates:.2f}" + ("" if same else ", OTHER CELLS")
        row = (len(scores), passed, cells, f"{everything:.2f}", f"{candidates:.2f}", ratio)
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
