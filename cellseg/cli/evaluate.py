r"""Score predicted cells, of any program, against true ones.

    cellseg evaluate --predictions DIR --ground-truth DIR --metrics ap_dsb f1@0.50 aji

A side is a folder of label images (<id>.tif or .png, also <id>_labels.tif, <id>_masks.png), the
coco_results.json of `cellseg predict`, or a dataset: then name its format and --split. Images
belong together by their ids, with or without the folders before them. docs/metrics.md defines the
metrics. No model and no torch is needed.
Exit status: 0 scored, 1 something cannot be read, 2 the two sides are not of the same images.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from cellseg.cli._outputs import (
    JSON_OF_METRICS,
    TABLE_OF_METRICS,
    Output,
    add_overwrite,
    check_outputs,
)
from cellseg.cli._parser import CommandParser, add_category_ids
from cellseg.errors import DatasetError
from cellseg.evaluation import DEFAULT_METRICS, METRICS
from cellseg.evaluation.scorer import split_ranked
from cellseg.evaluation.tables import Sides, evaluate, table_lines, without_nan, write_per_image
from cellseg.files import write_whole
from cellseg.io.base import ANY_CLASS
from cellseg.io.category_ids import parse_category_ids
from cellseg.io.segmentations import (
    SOURCES,
    MismatchError,
    find_category_ids,
    find_classes,
    guess_format,
    pair_up,
    read_segmentations,
)
from cellseg.names import printable


def add_arguments(parser: CommandParser) -> None:
    source: dict[str, Any] = {"choices": SOURCES, "metavar": "FORMAT"}
    path: dict[str, Any] = {"required": True, "type": Path, "metavar": "PATH"}
    parser.add_argument("--predictions", help="folder or file of the predicted cells", **path)
    parser.add_argument("--ground-truth", help="folder or file of the true cells", **path)
    formats = "(default: labels for a folder, coco_results for a file)"
    parser.add_argument(
        "--format-predictions", help=f"one of {', '.join(SOURCES)} {formats}", **source
    )
    parser.add_argument("--format-ground-truth", help=f"likewise {formats}", **source)
    parser.add_argument("--split", help="split to read where a side is a dataset")
    parser.add_argument(
        "--split-predictions", metavar="SPLIT", help="split of the predictions where it differs"
    )
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="class names (default: as in the files)"
    )
    add_category_ids(parser)
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=list(DEFAULT_METRICS),
        metavar="NAME",
        help="names of docs/metrics.md, or all",
    )
    parser.add_argument(
        "--per-image", type=Path, metavar="CSV", help="write the metrics of each image there"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    parser.add_argument(
        "--intervals", action="store_true", help="add 95 %% intervals, by bootstrap over images"
    )
    parser.add_argument(
        "--ignore-missing",
        action="store_true",
        help="take an image without a prediction as one without predicted cells",
    )
    add_overwrite(parser)


def read_sides(args: argparse.Namespace) -> Sides:
    formats = [
        args.format_ground_truth or guess_format(args.ground_truth),
        args.format_predictions or guess_format(args.predictions),
    ]
    classes = args.classes or find_classes(args.ground_truth, formats[0], args.split) or ANY_CLASS
    own_ids = find_category_ids(args.ground_truth, formats[0], args.split, classes)
    category_ids = parse_category_ids(args.category_ids)
    splits = [args.split, args.split_predictions or args.split]
    truth, predictions = (
        read_segmentations(
            path, name, split, tuple(classes), own_ids=own_ids, category_ids=category_ids
        )
        for path, name, split in zip((args.ground_truth, args.predictions), formats, splits)
    )
    paired = pair_up(truth, predictions, ignore_missing=args.ignore_missing)
    absent = len(paired[0]) - len(predictions.by_id)
    if absent:
        note(f"{absent} of {len(paired[0])} images have no prediction: no cells in them")
    if truth.crowd_regions:
        note(f"{truth.crowd_regions} regions of uncounted cells: cells there are not false")
    return Sides(*paired, tuple(classes) if truth.has_classes and predictions.has_classes else ())


def tell_nonsense(args: argparse.Namespace, sides: Sides) -> None:
    """Say what makes the figures mean little."""
    if os.path.realpath(args.predictions) == os.path.realpath(args.ground_truth):
        note(f"{args.predictions}: the truth is compared with itself")
    images = sides.compared.images
    counts = {
        "true": sum(len(one.true.classes) for one in images),
        "predicted": sum(len(one.pred.classes) for one in images),
    }
    empty = [name for name, count in counts.items() if not count]
    if empty:
        note(f"not one {' and not one '.join(empty)} cell in any image: the figures say no more")


def note(text: str) -> None:
    print(text, file=sys.stderr)


def run(args: argparse.Namespace) -> int:
    metrics = list(dict.fromkeys(args.metrics))
    if metrics == ["all"]:
        metrics = list(METRICS)
    split_ranked(metrics)  # wrong names are told before anything is read
    json_file = args.json and Output("--json", args.json, (".json",), JSON_OF_METRICS)
    table = args.per_image and Output("--per-image", args.per_image, (".csv",), TABLE_OF_METRICS)
    inputs = (args.predictions, args.ground_truth)
    check_outputs((json_file, table), inputs, overwrite=args.overwrite)
    try:
        sides = read_sides(args)
    except MismatchError as error:
        note(f"{type(error).__name__}: {error}")
        return 2
    if not sides.ids:
        raise DatasetError(f"{args.ground_truth}: no image in it")
    found = evaluate(sides, metrics, args.intervals)
    tell_nonsense(args, sides)
    print(f"{len(sides.ids)} images")
    print(*map(printable, table_lines(found)), sep="\n")
    if args.per_image:
        write_per_image(sides, metrics, args.per_image)
    if args.json:
        with write_whole(args.json) as partial:
            partial.write_text(json.dumps(without_nan(found), indent=1, allow_nan=False), "utf-8")
    return 0
