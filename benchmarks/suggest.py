r"""Whether the images on top of `cellseg suggest` are those that the model is wrong about.

    python benchmarks/suggest.py --sets dsb2018_fluo_devtest dsb2018_other_devtest --longest 700

The images of declared sets, below $DETECTRON2_DATASETS, are ranked without a look at their true
cells, by doubt alone (no spread). Then they are predicted and scored. For each sign, and for the
doubt that they make together, three figures say how well the ranking knows the error, 1 - ap_dsb of
each image: Spearman's correlation; which share of the worst fifth of the images is in the fifth on
top, where chance has a fifth; and the mean ap_dsb of the fifth on top, beside that of all.

Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from pathlib import Path

import cellseg
import numpy as np
from cellseg.evaluation import compare
from cellseg.evaluation.scoring import Comparisons
from cellseg.inference.model import CellModel
from cellseg.inference.suggestions import SIGNS, Suggestion, suggest_images
from nuclei import Labels, read_split
from numpy.typing import NDArray
from scipy.stats import spearmanr

METRIC = "ap_dsb"
PART = 5

Numbers = NDArray[np.float64]


def read_images(sets: Sequence[str], longest_px: int) -> dict[Path, Labels]:
    """True label image by path, of images whose longer side is no longer."""
    splits = [read_split(name) for name in sets]
    pairs = [pair for split in splits for pair in zip(split.paths, split.true)]
    return {path: true for path, true in pairs if max(true.shape) <= longest_px}


def measure_errors(model: CellModel, images: dict[Path, Labels]) -> dict[Path, float]:
    """1 - ap_dsb of each image."""
    found = [model.predict(path).to_label_image() for path in images]
    compared = [compare(true, pred) for true, pred in zip(images.values(), found)]
    errors = 1 - Comparisons(compared).metrics_by_image([METRIC])[METRIC]
    return dict(zip(images, errors.tolist()))


def values_of(suggestions: Sequence[Suggestion]) -> dict[str, Numbers]:
    """What is ranked by: each sign, 0 where it is not known, and the doubt; float64 [N]."""
    signs = {
        name: np.nan_to_num([getattr(one.doubts, name) for one in suggestions]) for name in SIGNS
    }
    return {**signs, "doubt": np.array([one.doubt for one in suggestions])}


def judge(values: Numbers, errors: Numbers) -> tuple[float, float, float]:
    """Correlation, share of the worst that are on top, and the mean metric of those on top.

    >>> values, errors = np.array([5.0, 4, 3, 2, 1]), np.array([0.9, 0.5, 0.1, 0.2, 0.3])
    >>> [round(float(one), 3) for one in judge(values, errors)]
    [0.5, 1.0, 0.1]
    """
    count = max(len(values) // PART, 1)
    top = np.argsort(-values, kind="stable")[:count]
    worst = np.argsort(-errors, kind="stable")[:count]
    known = float(spearmanr(values, errors)[0]) if np.ptp(values) else float("nan")
    return known, len(np.intersect1d(top, worst)) / count, 1 - float(errors[top].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else "")
    parser.add_argument("--model", default="nuclei", help="as of cellseg.load")
    parser.add_argument("--sets", nargs="+", default=["dsb2018_fluo_devtest"], metavar="NAME")
    parser.add_argument("--longest", type=int, default=10_000, metavar="PX", help="of an image")
    parser.add_argument("--views", type=int, default=2, help="as of cellseg suggest")
    parser.add_argument("--output", type=Path, help="CSV of what was measured of each image")
    args = parser.parse_args()
    model, images = cellseg.load(args.model), read_images(args.sets, args.longest)
    start = time.perf_counter()
    suggestions = suggest_images(model, list(images), num_views=args.views, spread=0)
    middle = time.perf_counter()
    by_path = measure_errors(model, images)
    end = time.perf_counter()
    errors = np.array([by_path[one.path] for one in suggestions])
    print(
        f"{len(errors)} images, {METRIC} {1 - errors.mean():.3f} in the mean; "
        f"{(middle - start) / len(errors):.1f} s per image to suggest, "
        f"{(end - middle) / len(errors):.1f} s to predict\n"
    )
    print(f"| ranked by | correlation | worst fifth on top | {METRIC} of the fifth on top |")
    print("| --- | --- | --- | --- |")
    for name, values in values_of(suggestions).items():
        known, share, mean = judge(values, errors)
        print(f"| {name} | {known:.2f} | {100 * share:.0f} % | {mean:.3f} |")
    if args.output:
        with args.output.open("w", newline="") as stream:
            rows = csv.writer(stream)
            rows.writerow(["error", *suggestions[0].to_row()])
            rows.writerows(
                [error, *one.to_row().values()] for error, one in zip(errors, suggestions)
            )


if __name__ == "__main__":
    main()
