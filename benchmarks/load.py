"""Many images, large ones and crowded ones: memory, open files and time per image on the way.

    python benchmarks/load.py predict [--images 2000] [--model MODEL]
    python benchmarks/load.py evaluate [--images 1000] [--cells 500]
    python benchmarks/load.py large [--side 8000] [--model MODEL]
    python benchmarks/load.py crowded [--cells 5000]

Each part makes its images up, runs commands of cellseg as a user would, and looks at the process
from outside, twice a second: resident memory, open files, and how far it has come. `predict` and
`evaluate` print a row for each tenth of the work, so that what grows is seen; `large` and `crowded`
the peak and the time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile
from cellseg.cells.synthetic import make_cells

PERIOD_S = 0.5
KEPT = 40  # different images; more are copies of these


@dataclass(frozen=True)
class Sample:
    """A look at a running process: seconds since its start, MiB, open files, what is done."""

    seconds: float
    mebibytes: float
    files: int
    done: float


def watch(words: Sequence[str], count: Callable[[], float]) -> list[Sample]:
    """Run `cellseg WORDS` and look at it until it ends.

    Args:
        words: of the command.
        count: how much of the work is done.

    Raises:
        RuntimeError: the command failed.
    """
    start, samples = time.monotonic(), []
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "cellseg", *words], stdout=said, stderr=said
        )
        while process.poll() is None:
            try:
                pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
                files = len(os.listdir(f"/proc/{process.pid}/fd"))
            except (OSError, IndexError):  # it has just ended
                break
            mebibytes = pages * os.sysconf("SC_PAGESIZE") / 2**20
            samples.append(Sample(time.monotonic() - start, mebibytes, files, count()))
            time.sleep(PERIOD_S)
        if process.wait():
            said.seek(0)
            raise RuntimeError(f"cellseg {' '.join(words)}\n{said.read()[-3000:]}")
    return [*samples, Sample(time.monotonic() - start, 0, 0, count())]


def print_tenths(samples: Sequence[Sample], total: float) -> None:
    """A row for each tenth of the work: time per image in it, memory and files at its end."""
    print("| done | ms per image | resident [MiB] | open files |\n| --: | --: | --: | --: |")
    before = next((one for one in samples if one.done > 0), samples[0])
    for tenth in range(1, 11):
        reached = [one for one in samples if one.mebibytes and one.done >= total * tenth / 10]
        at = reached[0] if reached else samples[-2]
        if at.done > before.done:
            each = (at.seconds - before.seconds) / (at.done - before.done) * 1000
            print(f"| {at.done:.0f} | {each:.1f} | {at.mebibytes:.0f} | {at.files} |")
            before = at
    print(f"\n{samples[-1].seconds:.0f} s, peak {max(one.mebibytes for one in samples):.0f} MiB")


def load_predict(args: argparse.Namespace, folder: Path) -> None:
    images = folder / "images"
    images.mkdir()
    drawn = [make_cells(seed, (96, 96)).image for seed in range(KEPT)]
    for number in range(args.images):
        cv2.imwrite(str(images / f"cells_{number:05d}.png"), drawn[number % KEPT])
    out = folder / "out"
    words = ["predict", str(images), "-o", str(out), "--model", args.model, "--save", "labels"]

    def count() -> float:
        return sum(1 for one in out.glob("cells_*.tif"))

    print_tenths(watch(words, count), args.images)


def load_evaluate(args: argparse.Namespace, folder: Path) -> None:
    side = int(np.sqrt(args.cells * 550))
    drawn = [make_cells(seed, (side, side), num_cells=args.cells).labels for seed in range(8)]
    print(f"{args.images} images of {side} x {side} px, {int(drawn[0].max())} cells in the first\n")
    paths = []
    for name, shift in (("truth", 0), ("found", 1)):
        (folder / name).mkdir()
        for number in range(args.images):
            path = folder / name / f"cells_{number:05d}.tif"
            paths.append(path)
            shifted = np.roll(drawn[number % len(drawn)], shift, axis=1).astype(np.uint16)
            tifffile.imwrite(path, shifted, compression="zlib")
    words = ["evaluate", "--ground-truth", str(folder / "truth")]
    words += ["--predictions", str(folder / "found")]
    mark = time.time()
    os.utime(folder, (mark, mark))

    def count() -> float:
        """Files that were read since the start; where times of access are not kept, none."""
        return sum(path.stat().st_atime > mark + 1 for path in paths) / 2

    time.sleep(1.5)
    print_tenths(watch(words, count), args.images)


def load_large(args: argparse.Namespace, folder: Path) -> None:
    block = make_cells(0, (1000, 1000)).image
    image = np.tile(block, (args.side // 1000 + 1,) * 2)[: args.side, : args.side]
    tifffile.imwrite(folder / "large.tif", image, tile=(512, 512), compression="zlib")
    out = folder / "out"
    words = ["predict", str(folder / "large.tif"), "-o", str(out), "--model", args.model]
    samples = watch([*words, "--save", "labels"], lambda: 0)
    labels = tifffile.imread(next(out.glob("large*.tif")))
    cells = len(np.unique(labels)) - 1
    print(f"{args.side} x {args.side} px, {cells} cells: {samples[-1].seconds:.0f} s, ", end="")
    print(f"peak {max(one.mebibytes for one in samples):.0f} MiB")


def load_crowded(args: argparse.Namespace, folder: Path) -> None:
    from cellseg.cells.instances import CellInstances
    from cellseg.cells.selection import DetectionThresholds, select_cells

    side = int(np.sqrt(args.cells * 250))
    labels = make_cells(0, (side, side), num_cells=args.cells).labels
    bitmaps = CellInstances.from_label_image(labels)
    # Two detections of each cell, the second a pixel beside it and less certain.
    both = CellInstances.concatenate([bitmaps, bitmaps], (side, side))
    scores = np.r_[np.linspace(0.9, 0.6, len(bitmaps)), np.linspace(0.5, 0.3, len(bitmaps))]
    detections = both.replace(scores=scores)
    thresholds = DetectionThresholds(score=0.1, mask_nms=0.5, max_covered=0.5)
    start = time.perf_counter()
    kept = select_cells(detections, thresholds)
    print(
        f"{len(detections)} detections in {side} x {side} px: {len(kept)} cells in "
        f"{time.perf_counter() - start:.2f} s"
    )


PARTS = {
    "predict": load_predict,
    "evaluate": load_evaluate,
    "large": load_large,
    "crowded": load_crowded,
}


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--images", type=int, help="default: 2000, of evaluate 1000")
    parser.add_argument("--cells", type=int, help="in an image (default: 500, of crowded 5000)")
    parser.add_argument("--side", type=int, default=8000, help="px (default: %(default)s)")
    parser.add_argument("--model", default="nuclei", help="default: %(default)s")
    args = parser.parse_args()
    args.images = args.images or (2000 if args.part == "predict" else 1000)
    args.cells = args.cells or (5000 if args.part == "crowded" else 500)
    with tempfile.TemporaryDirectory() as folder:
        PARTS[args.part](args, Path(folder))


if __name__ == "__main__":
    main()
