r"""Accuracy on real nuclei: models of cellseg, StarDist, and Otsu's threshold with a watershed.

    python benchmarks/nuclei.py --models nuclei --split devtest
    python benchmarks/nuclei.py --models output/a output/b --opts CELLSEG.TEST.SCORE_THRESHOLD 0.4
    python benchmarks/nuclei.py --stardist MODEL --stardist-python PATH --otsu --bounds

All are scored by the same code on the same label images of the sets in `datasets/dsb2018.yaml` and
`nuclei.yaml`, below $DETECTRON2_DATASETS. StarDist is what `stardist_nuclei.py` has trained; it
predicts in a Python of its own. The watershed's settings are those that are best on the val images
of the same set. `--bounds` adds true cells whose outlines were redrawn by a pixel or half of one,
scored against the true cells, and fields that were annotated twice: where a model comes near
those, the annotation is the limit.

Prints two Markdown tables: the metrics with the time per image, reading it included, and `ap_dsb`
at each IoU threshold.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import cellseg
import tifffile
import torch
from cellseg.cells.records import ImageRecord
from cellseg.datasets.declarations import (
    builtin_declarations,
    read_declarations,
    read_declared_records,
)
from cellseg.datasets.registration import datasets_root
from cellseg.evaluation import IOU_THRESHOLDS, score
from imageio.v3 import imread
from nuclei_bounds import OUTLINES, TWICE, cut_shared, redraw_outlines
from nuclei_watershed import choose_settings, find_nuclei
from peers import environment_of_peer

HERE = Path(__file__).resolve().parent
DECLARATIONS = (HERE / "nuclei.yaml", *builtin_declarations())
STARDIST = HERE / "stardist_nuclei.py"
SETS = ("dsb2018_fluo", "bbbc039", "aitslab")
FIGURES = ("ap_dsb@0.50", "ap_dsb", "pq@0.50", "count_error")
AT_EACH = [f"ap_dsb@{threshold:.2f}" for threshold in IOU_THRESHOLDS]
MEASURED = [*FIGURES, *AT_EACH[1:]]

Labels = Any  # integers [H, W], 0 is background
Find = Callable[[Path], Labels]


@dataclass(frozen=True)
class Images:
    """The images of one split.

    Attributes:
        name: of set and split.
        paths: of the image files.
        true: their true label images.
    """

    name: str
    paths: list[Path]
    true: list[Labels]


@dataclass(frozen=True)
class Found:
    """The label images that something found, and the seconds per image: by the clock, of CPU."""

    labels: list[Labels]
    seconds: float
    cpu_seconds: float


Way = Callable[[Images], Found]


def read_split(name: str, limit: int = 0) -> Images:
    """The images of a declared split, evenly picked ones where there is a limit.

    Args:
        name: such as "bbbc039_val".
        limit: how many at most; 0 for all.
    """
    declared = [one for path in DECLARATIONS for one in read_declarations(path)]
    found = next(one for one in declared if one.name == name)
    records = pick_evenly(read_declared_records(found, datasets_root()), limit)
    labels = [record.cells.to_label_image() for record in records]
    return Images(name, [path_of(record) for record in records], labels)


def pick_evenly(records: Sequence[Any], limit: int) -> list[Any]:
    """At most `limit` of them, from the first on; all where it is 0.

    >>> pick_evenly("abcdefg", 3)
    ['a', 'c', 'e']
    """
    if not 0 < limit < len(records):
        return list(records)
    return [records[number * len(records) // limit] for number in range(limit)]


def path_of(record: ImageRecord) -> Path:
    assert record.image_path is not None
    return record.image_path


def time_each(images: Images, find: Find) -> Found:
    """Look at image after image in this process; the first one twice, to warm up."""
    find(images.paths[0])
    start, cpu_start = time.perf_counter(), time.process_time()
    labels = [find(path) for path in images.paths]
    number = len(labels)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return Found(labels, seconds / number, cpu_seconds / number)


def way_of_cellseg(model: str, opts: Sequence[str], config_file: Sequence[str]) -> Way:
    loaded = cellseg.load(model, opts, config_file=config_file)

    def find(path: Path) -> Labels:
        return loaded.predict(path).to_label_image()

    return lambda images: time_each(images, find)


def way_of_stardist(python: str, model: str, threads: int) -> Way:
    def run(images: Images) -> Found:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            listed = folder / "images.txt"
            listed.write_text("\n".join(map(str, images.paths)))
            command = [python, STARDIST, "--threads", threads, "predict", model]
            command += ["--list", listed, "--output", folder]
            environment = environment_of_peer(threads)
            log = subprocess.run(
                [*map(str, command)], env=environment, capture_output=True, text=True
            )
            if log.returncode:
                raise SystemExit(f"StarDist failed:\n{log.stderr[-2000:]}")
            times = json.loads((folder / "times.json").read_text())
            labels = [tifffile.imread(folder / f"{path.stem}.tif") for path in images.paths]
        return Found(
            labels,
            fmean(one["seconds"] for one in times),
            fmean(one["cpu_seconds"] for one in times),
        )

    return run


def read_grey(path: Path) -> Any:
    """The pixels of an image, [H, W]; the mean of its colours."""
    pixels = imread(path)
    return pixels if pixels.ndim == 2 else pixels[..., :3].mean(axis=-1)


def way_of_watershed(limit: int) -> Way:
    def run(images: Images) -> Found:
        val = read_split(f"{images.name.rpartition('_')[0]}_val", limit)
        settings = choose_settings([read_grey(path) for path in val.paths], val.true)
        print(f"watershed, {images.name}: {settings}", flush=True)
        return time_each(images, lambda path: find_nuclei(read_grey(path), settings))

    return run


def build_ways(args: argparse.Namespace) -> dict[str, Way]:
    ways = {
        model: way_of_cellseg(model, args.opts, args.config_file or ()) for model in args.models
    }
    if args.stardist:
        ways["StarDist"] = way_of_stardist(args.stardist_python, args.stardist, args.threads)
    if args.otsu:
        ways["Otsu, watershed"] = way_of_watershed(args.limit)
    return ways


@dataclass(frozen=True)
class Row:
    """One line of both tables; no time where nothing was looked at."""

    images: str
    number: int
    what: str
    figures: dict[str, float]
    times: tuple[float, ...] = ()


def rows_of(images: Images, ways: dict[str, Way], bounds: bool) -> Iterator[Row]:
    for what, way in ways.items():
        found = way(images)
        figures = score(images.true, found.labels, MEASURED)
        times = (found.seconds, found.cpu_seconds)
        yield Row(images.name, len(images.true), what, figures, times)
    if bounds:
        yield from bounds_of(images)


def bounds_of(images: Images) -> Iterator[Row]:
    """True cells against true cells: redrawn ones, and those of fields that are there twice."""
    for what in OUTLINES:
        pairs = [redraw_outlines(labels, what) for labels in images.true]
        yield row_of_pairs(images.name, f"truth, {what}", pairs)
    labels = {path.stem: true for path, true in zip(images.paths, images.true)}
    twice = [
        cut_shared(labels[first], labels[second], corner)
        for (first, second), corner in TWICE.items()
        if first in labels and second in labels
    ]
    if twice:
        yield row_of_pairs(images.name, "truth, a field annotated twice", twice)


def row_of_pairs(name: str, what: str, pairs: Sequence[tuple[Labels, Labels]]) -> Row:
    true, other = (list(side) for side in zip(*pairs))
    return Row(name, len(pairs), what, score(true, other, MEASURED))


def tables_of(rows: Sequence[Row]) -> str:
    """Both tables in Markdown."""
    first = [["set", "images", "what", *FIGURES, "seconds per image", "CPU seconds per image"]]
    second = [["`ap_dsb` at IoU", "what", *(name.partition("@")[2] for name in AT_EACH)]]
    for row in rows:
        times = [f"{each:.2f}" for each in row.times] or ["", ""]
        figures = [f"{row.figures[name]:.3f}" for name in FIGURES]
        first.append([row.images, str(row.number), row.what, *figures, *times])
        second.append([row.images, row.what, *(f"{row.figures[name]:.3f}" for name in AT_EACH)])
    return "\n\n".join("\n".join(lines_of(table)) for table in (first, second))


def lines_of(table: Sequence[Sequence[str]]) -> Iterator[str]:
    for number, cells in enumerate(table):
        yield f"| {' | '.join(cells)} |"
        if number == 0:
            yield "| --- " * len(cells) + "|"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="*", default=[], help="what cellseg.load takes")
    parser.add_argument("--config-file", nargs="*", help="configs over the models' own")
    parser.add_argument("--stardist", default="", metavar="MODEL", help="of stardist_nuclei.py")
    parser.add_argument("--stardist-python", default="", help="a Python that has StarDist")
    parser.add_argument("--otsu", action="store_true", help="threshold and watershed as well")
    parser.add_argument("--bounds", action="store_true", help="redrawn outlines as well")
    parser.add_argument("--sets", nargs="+", default=SETS, help="default: %(default)s")
    parser.add_argument("--split", default="val", choices=("train", "val", "devtest"))
    parser.add_argument("--limit", type=int, default=0, help="so many images of each set at most")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], help="KEY VALUE of models")
    args = parser.parse_args(arguments)
    if args.stardist and not args.stardist_python:
        parser.error("--stardist needs --stardist-python")
    torch.set_num_threads(args.threads)
    ways = build_ways(args)
    rows: list[Row] = []
    for name in args.sets:
        rows += rows_of(read_split(f"{name}_{args.split}", args.limit), ways, args.bounds)
    print(f"\nload {os.getloadavg()[0]:.1f}, {args.threads} threads\n\n{tables_of(rows)}")


if __name__ == "__main__":
    main()
