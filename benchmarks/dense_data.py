"""Time one training image of many cells: CellDatasetMapper against Detectron2's DatasetMapper.

    python benchmarks/dense_data.py

Both read the same PNG and run lengths of synthetic cells and apply the same augmentations, those of
configs/base_mask_rcnn_R_50_FPN.yaml, drawn from the same seeds, in turns. Memory is that of a
process each. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG = REPOSITORY / "configs" / "base_mask_rcnn_R_50_FPN.yaml"
CASES = ((520, 704, 100), (520, 704, 700), (1024, 1024, 2000))
PROPOSALS = 128
MASK_SIDE = 28
MAPPERS = ("DatasetMapper", "CellDatasetMapper")
MIB = 2**20


def make_entry(height: int, width: int, num_cells: int, folder: Path) -> dict[str, Any]:
    """A dataset entry with elliptic cells, 12 to 28 px across, that may overlap a little."""
    import cellseg  # noqa: F401  (finds the engine)
    import cv2
    import pycocotools.mask as coco_mask
    from detectron2.structures import BoxMode

    rng = np.random.default_rng(num_cells)
    image = rng.integers(0, 60, (height, width)).astype(np.uint8)
    side = int(np.ceil(np.sqrt(num_cells * width / height)))
    step_yx = height / np.ceil(num_cells / side), width / side
    annotations = []
    for number in range(num_cells):
        centre_yx = (np.array(divmod(number, side)) + rng.uniform(0.3, 0.7, 2)) * step_yx
        y, x = (int(at) for at in centre_yx)
        axes = tuple(int(axis) for axis in rng.integers(6, 15, 2))
        mask = np.zeros((height, width), np.uint8)
        cv2.ellipse(mask, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        image[mask > 0] += 80
        rle = coco_mask.encode(np.asfortranarray(mask))
        x0, y0, wide, high = coco_mask.toBbox(rle).tolist()
        annotations.append(
            {
                "bbox": [x0, y0, x0 + wide, y0 + high],
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": 0,
                "segmentation": {"size": [height, width], "counts": rle["counts"].decode()},
                "iscrowd": 0,
            }
        )
    path = folder / f"{num_cells}.png"
    cv2.imwrite(str(path), image)
    return {
        "file_name": str(path),
        "height": height,
        "width": width,
        "image_id": path.stem,
        "annotations": annotations,
    }


def build_mapper(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """One of MAPPERS, from the base config."""
    from cellseg.engine.setup import load_config
    from cellseg.training_data.mapper import CellDatasetMapper
    from detectron2.data import DatasetMapper

    cfg = load_config(CONFIG)
    if name == "DatasetMapper":
        return DatasetMapper(cfg, is_train=True)
    return CellDatasetMapper(cfg, is_train=True)


def mask_bytes(masks: Any) -> int:
    """Bytes that the masks of an image hold."""
    names = ("planes", "labels", "layers") if hasattr(masks, "planes") else ("tensor",)
    tensors = [getattr(masks, name) for name in names]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def time_turns(runs: list[Callable[[], Any]], repeats: list[int]) -> list[float]:
    """Median seconds of each, in turns; the first turn warms up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for turn in range(max(repeats) + 1):
        for index, run in enumerate(runs):
            if turn > repeats[index]:
                continue
            start = time.perf_counter()
            run()
            if turn:
                seconds[index].append(time.perf_counter() - start)
    return [statistics.median(each) for each in seconds]


def map_with(mapper: Callable[[dict[str, Any]], Any], entry: dict[str, Any], seed: int = 0) -> Any:
    """The instances of an entry, with augmentations drawn from a seed."""
    np.random.seed(seed)  # noqa: NPY002  (what Detectron2's augmentations draw from)
    return mapper(entry)["instances"]


def propose(instances: Any) -> tuple[Any, Any]:
    """Cells drawn with repetition, and a box near each: what the mask head is trained on."""
    import torch

    generator = torch.Generator().manual_seed(0)
    which = torch.randint(len(instances), (PROPOSALS,), generator=generator)
    boxes = instances.gt_boxes.tensor[which]
    size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return which, boxes + 0.15 * size * torch.randn(boxes.shape, generator=generator)


def peak_mib(name: str, case: tuple[int, int, int]) -> float:
    """Peak resident memory of a process that maps one image, MiB."""
    command = [sys.executable, __file__, "--peak", name, *map(str, case)]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def print_peak(name: str, case: tuple[int, int, int]) -> None:
    """Be that process; `none` maps nothing: what the libraries and the entry take."""
    with tempfile.TemporaryDirectory() as folder:
        entry = make_entry(*case, Path(folder))
        mapper = build_mapper("CellDatasetMapper" if name == "none" else name)
        kept = None if name == "none" else map_with(mapper, entry)
        print(own_peak_mib())
        del kept


def own_peak_mib() -> float:
    """Of this program alone; `ru_maxrss` would start at the peak of the process that began it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = next(each for each in status.read_text().splitlines() if each.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def compare(case: tuple[int, int, int], repeats: int, slow_repeats: int) -> list[tuple[Any, ...]]:
    """Lines of the table for one case."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        entry = make_entry(*case, Path(folder))
        mappers = [build_mapper(name) for name in MAPPERS]
        dense = case[2] > 500
        counts = [slow_repeats if dense else repeats, repeats]
        seconds = time_turns([lambda m=m: map_with(m, entry) for m in mappers], counts)
        found = [map_with(mapper, entry) for mapper in mappers]
    held = [mask_bytes(instances.gt_masks) / MIB for instances in found]
    which, boxes = propose(found[0])
    crops = [lambda i=i: i.gt_masks[which].crop_and_resize(boxes, MASK_SIDE) for i in found]
    same = all(
        torch.equal(*pair)
        for pair in (
            [instances.gt_boxes.tensor for instances in found],
            [crop() for crop in crops],
        )
    )
    crop_seconds = time_turns(crops, [repeats, repeats])
    del found, crops
    base = peak_mib("none", case)
    peaks = [peak_mib(name, case) - base for name in MAPPERS]
    label = f"{case[0]}x{case[1]}, {case[2]} cells"
    lines = [
        ("one image [ms]", [1e3 * value for value in seconds]),
        ("masks [MiB]", held),
        ("peak memory above the libraries' [MiB]", peaks),
        (f"crop_and_resize, {PROPOSALS} proposals [ms]", [1e3 * value for value in crop_seconds]),
    ]
    note = "" if same else " (results differ)"
    return [
        (label, what, f"{a:.1f}", f"{b:.2f}", f"{a / max(b, 1e-9):.0f}{note}")
        for what, (a, b) in lines
    ]


def table_line(cells: Iterable[Any]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7, help="counted runs")
    parser.add_argument(
        "--slow-repeats", type=int, default=2, help="of DatasetMapper, from 500 cells on"
    )
    parser.add_argument(
        "--cases", type=int, nargs="+", default=[0, 1, 2], help="which of the three"
    )
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    args = parse_args()
    if args.peak:
        height, width, num_cells = map(int, args.peak[1:])
        print_peak(args.peak[0], (height, width, num_cells))
        return
    import cellseg
    import torch

    engine = cellseg.engine_info().name
    print(
        f"Engine: {engine}; {os.cpu_count()} CPU cores, {torch.get_num_threads()} threads; "
        f"torch {torch.__version__}, Python {platform.python_version()}\n"
    )
    print(table_line(("image", "what", *MAPPERS, "ratio")))
    print(table_line("---" for _ in range(5)), flush=True)
    for index in args.cases:
        for line in compare(CASES[index], args.repeats, args.slow_repeats):
            print(table_line(line), flush=True)


if __name__ == "__main__":
    main()
