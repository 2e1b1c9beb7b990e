"""Time the scoring of crowded images against pycocotools, StarDist and Cellpose if installed.

    python benchmarks/evaluation.py --images 20 --repeats 3

Each image is 1024 x 1024 with 2,000 true cells, elliptic and touching, and as many predicted ones:
moved, some lost, some spurious. All take turns in one process; medians are printed. Peak memory is
that of a process of its own, above what it holds once the images are read.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import relabel_sequential
from cellseg.evaluation import IOU_THRESHOLDS, METRICS, iou_matrix, score
from numpy.typing import NDArray

Labels = NDArray[np.uint16]
ALL = list(METRICS)
ENCODED = 100


def make_pair(seed: int, side: int, num_cells: int) -> tuple[Labels, Labels]:
    """True and predicted label image [side, side]."""
    rng = np.random.default_rng(seed)
    across = int(np.ceil(np.sqrt(num_cells)))
    step = side / across
    grid = np.stack(np.divmod(rng.permutation(across**2)[:num_cells], across), axis=1)
    centres = (grid + 0.5) * step + rng.uniform(-0.2, 0.2, (num_cells, 2)) * step
    axes = rng.uniform(0.4, 0.62, (num_cells, 2)) * step
    moved = centres + rng.normal(0, 0.07 * step, centres.shape)
    moved[: num_cells // 50] = rng.uniform(0, side, (num_cells // 50, 2))
    sizes = axes * rng.normal(1, 0.07, axes.shape).clip(0.7, 1.3)
    return draw(centres, axes, side), draw(moved, sizes, side)


def draw(centres: NDArray[Any], axes: NDArray[Any], side: int) -> Labels:
    """Ellipses, the later ones in front."""
    labels = np.zeros((side, side), np.uint16)
    for number, (centre, axis) in enumerate(zip(centres, axes), 1):
        low = np.maximum(np.floor(centre - axis), 0).astype(int)
        high = np.minimum(np.ceil(centre + axis) + 1, side).astype(int)
        rows, cols = np.ogrid[low[0] : high[0], low[1] : high[1]]
        inside = ((rows - centre[0]) / axis[0]) ** 2 + ((cols - centre[1]) / axis[1]) ** 2 <= 1
        labels[low[0] : high[0], low[1] : high[1]][inside] = number
    return relabel_sequential(labels)[0].astype(np.uint16)


def with_scores(labels: Labels, seed: int) -> CellInstances:
    ids = len(np.unique(labels)) - 1
    scores = np.random.default_rng(seed).random(ids).round(3)
    return CellInstances.from_label_image(labels, scores=scores)


def coco_eval(pairs: list[tuple[CellInstances, CellInstances]]) -> float:
    """Mask AP at 2,000 detections by pycocotools, areas of every size only."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    sides: list[list[dict[str, Any]]] = [[], []]
    for image_id, pair in enumerate(pairs, 1):
        for entries, cells in zip(sides, pair):
            for rle, score_, area in zip(cells.to_rles(), cells.scores, cells.areas_px):
                one = {"image_id": image_id, "category_id": 1, "segmentation": rle, "iscrowd": 0}
                one |= {"id": len(entries) + 1, "area": int(area), "score": float(score_)}
                entries.append(one)
    truth = COCO()
    height, width = pairs[0][0].image_hw
    images = [{"id": n, "height": height, "width": width} for n in range(1, len(pairs) + 1)]
    truth.dataset = {"info": {}, "images": images, "categories": [{"id": 1, "name": "cell"}]}
    truth.dataset["annotations"] = sides[0]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(sides[1]), "segm")
        evaluation.params.maxDets = [1, 100, 2000]
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return float(evaluation.eval["precision"][..., -1].mean())


def time_turns(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each, in turns; the first turn warms up if there are more."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}


def find_peer(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def print_table(title: str, seconds: dict[str, float], images: int) -> None:
    """Milliseconds per image, and times the first line's."""
    first = next(iter(seconds.values()))
    for name, each in seconds.items():
        print(f"| {title} | {name} | {1e3 * each / images:.1f} | {each / first:.1f} |", flush=True)


def compare_iou(pairs: list[tuple[Labels, Labels]], cells: list[Any], repeats: int) -> None:
    import pycocotools.mask as coco_mask

    rles = [[side.to_rles() for side in pair] for pair in cells]
    some = bitmaps_of(pairs[0][0], ENCODED)
    runs: dict[str, Callable[[], Any]] = {
        "cellseg, label images": lambda: [iou_matrix(*pair) for pair in pairs],
        "cellseg, instances": lambda: [iou_matrix(*pair) for pair in cells],
        "pycocotools iou, RLE given": lambda: [
            coco_mask.iou(true, pred, [0] * len(pred)) for true, pred in rles
        ],
    }
    stardist, cellpose = find_peer("stardist.matching"), find_peer("cellpose.metrics")
    if stardist:
        runs["stardist"] = lambda: [
            stardist.intersection_over_union(stardist.label_overlap(*pair)) for pair in pairs
        ]
    if cellpose:
        runs["cellpose"] = lambda: [cellpose._intersection_over_union(*pair) for pair in pairs]
    seconds = time_turns(runs, repeats)
    encoding = time_turns({"some": lambda: coco_mask.encode(some)}, repeats)["some"] / ENCODED
    encoding *= sum(len(side) for pair in cells for side in pair)
    given = seconds["pycocotools iou, RLE given"]
    seconds["pycocotools encode (of 100 cells, scaled up) and iou"] = given + encoding
    print_table("IoU matrix", seconds, len(pairs))


def bitmaps_of(labels: Labels, count: int) -> NDArray[np.uint8]:
    """The first cells as uint8 [H, W, count] in column order, which pycocotools encodes."""
    stack = labels[..., None] == np.arange(1, count + 1, dtype=labels.dtype)
    return np.asfortranarray(stack, np.uint8)


def compare_sets(pairs: list[tuple[Labels, Labels]], cells: list[Any], repeats: int) -> None:
    true, pred = map(list, zip(*pairs))
    true_cells, pred_cells = map(list, zip(*cells))
    runs: dict[str, Callable[[], Any]] = {
        "cellseg, ap_dsb": lambda: score(true, pred, ["ap_dsb"]),
        f"cellseg, all {len(ALL)}, label images": lambda: score(true, pred, ALL),
        f"cellseg, all {len(ALL)}, instances": lambda: score(true_cells, pred_cells, ALL),
    }
    stardist, cellpose = find_peer("stardist.matching"), find_peer("cellpose.metrics")
    if stardist:
        runs["stardist, matching"] = lambda: stardist.matching_dataset(
            true, pred, thresh=IOU_THRESHOLDS, show_progress=False
        )
    if cellpose:
        thresholds = list(IOU_THRESHOLDS)
        runs["cellpose, average_precision"] = lambda: cellpose.average_precision(
            true, pred, threshold=thresholds
        )
    print_table("ten thresholds", time_turns(runs, repeats), len(pairs))


def compare_coco(cells: list[Any], repeats: int) -> None:
    true, pred = map(list, zip(*cells))
    runs: dict[str, Callable[[], Any]] = {"cellseg": lambda: score(true, pred, ["ap_coco_mask"])}
    seconds = time_turns(runs, repeats)
    start = time.perf_counter()
    theirs = coco_eval(cells[:1])
    seconds["pycocotools COCOeval"] = (time.perf_counter() - start) * len(cells)
    print_table("COCO mask AP, 2,000 detections", seconds, len(cells))
    ours = score(true[:1], pred[:1], ["ap_coco_mask"])["ap_coco_mask"]
    print(f"\nAP of the first image: {ours:.12f}, pycocotools {theirs:.12f}")


def peak_mib(path: Path, what: str) -> float:
    command = [sys.executable, __file__, "--peak", what, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def print_peak(what: str, path: Path) -> None:
    """Be the process that is measured."""
    with np.load(path) as stored:
        true, pred = list(stored["true"]), list(stored["pred"])
    start = memory_mib("VmRSS")
    score(true, pred, ALL if what == "all" else ["ap_dsb"])
    print(memory_mib("VmHWM") - start)


def memory_mib(entry: str) -> float:
    """Of this process, from Linux: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{entry}:"))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--side", type=int, default=1024, help="height and width, px")
    parser.add_argument("--repeats", type=int, default=3, help="counted runs")
    parser.add_argument("--no-coco", action="store_true", help="leave COCOeval out, the slowest")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    args = parse_args()
    if args.peak:
        print_peak(args.peak[0], Path(args.peak[1]))
        return
    pairs = [make_pair(seed, args.side, args.cells) for seed in range(args.images)]
    cells = [tuple(with_scores(labels, seed) for labels in pair) for seed, pair in enumerate(pairs)]
    print(f"{os.cpu_count()} CPU cores, Python {platform.python_version()}, NumPy {np.__version__}")
    print(f"{args.images} images, {args.cells} cells; {len(cells[0][0])} visible in the first\n")
    print("| what | who | ms per image | times the first |\n| --- | --- | --- | --- |")
    compare_iou(pairs, cells, args.repeats)
    compare_sets(pairs, cells, args.repeats)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.npz"
        np.savez(path, true=[true for true, _ in pairs], pred=[pred for _, pred in pairs])
        for what in ("ap_dsb", "all"):
            label = f"peak memory above the images', {what}"
            print(f"| {label} | cellseg | {peak_mib(path, what):.0f} MiB | |", flush=True)
    if not args.no_coco:
        compare_coco(cells, args.repeats)


if __name__ == "__main__":
    main()
