r"""Convert a split of a dataset from one format to another.

    cellseg convert --from instance_masks --input dsb2018 --split train \
        --classes nucleus --to coco_json --output dsb2018_coco
    cellseg convert --from coco_results --input OUT --split coco_results.json \
        --to geojson --output for_qupath --output-split predicted

Images are copied as they are. What was written is read again and compared, cell by cell. What the
new format cannot hold is said; with --strict nothing is written then. datasets/README.md describes
the formats and their options. Predictions (coco_results) are converted with the images in the
folder `images` of ROOT if there is one, else without images.
Exit status: 0 all went well, 1 nothing was written or it cannot be relied on.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml
from cellseg.cli._parser import CommandParser
from cellseg.errors import DatasetError
from cellseg.io import FORMATS
from cellseg.io.conversion import Conversion, SplitPlace, convert_split
from cellseg.names import printable
from cellseg.yaml_text import parse_yaml


def add_arguments(parser: CommandParser) -> None:
    writable = sorted(name for name, one in FORMATS.items() if one.write)
    option: dict[str, Any] = {"nargs": "+", "default": [], "metavar": "KEY=VALUE"}
    parser.add_argument("--from", dest="source", required=True, choices=sorted(FORMATS))
    parser.add_argument("--input", required=True, metavar="ROOT", help="the dataset's folder")
    parser.add_argument(
        "--split", required=True, help="as in a declaration: a folder, for some formats a file"
    )
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="default: as in the files, else cell"
    )
    parser.add_argument("--option", help="options of the format that is read", **option)
    parser.add_argument(
        "--connected-components",
        action="store_true",
        help="every piece is a cell: for binary masks, which have one number for all cells",
    )
    parser.add_argument("--to", dest="target", required=True, choices=writable)
    parser.add_argument("--output", required=True, metavar="ROOT", help="made if needed")
    parser.add_argument("--output-split", metavar="NAME", help="default: that of the input")
    parser.add_argument("--output-option", help="options of the format that is written", **option)
    parser.add_argument("--strict", action="store_true", help="refuse where something is lost")


def read_options(pairs: list[str]) -> dict[str, Any]:
    """Options from KEY=VALUE, with values as in YAML."""
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise DatasetError(f"option {pair!r}: expected KEY=VALUE")
        options[key] = read_value(value)
    return options


def read_value(text: str) -> Any:
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        raise DatasetError(f"{text!r} cannot be read as YAML: {error}") from error


def find_places(args: argparse.Namespace) -> tuple[SplitPlace, SplitPlace]:
    takes_names = FORMATS[args.source].has_files
    split = args.split if takes_names else read_value(args.split)
    if not (args.output_split or takes_names):
        raise DatasetError("--output-split: missing; the input's split has no name")
    source = SplitPlace(args.source, Path(args.input), split, read_options(args.option))
    new_split = args.output_split or Path(args.split).with_suffix("").name
    options = read_options(args.output_option)
    return source, SplitPlace(args.target, Path(args.output), new_split, options)


def declaration_of(place: SplitPlace, conversion: Conversion) -> str:
    content = {
        "format": place.format_name,
        "root": str(place.root.absolute()),
        "splits": [place.split],
        "classes": list(conversion.classes),
        **place.options,
    }
    return yaml.safe_dump({place.root.name or "cells": content}, sort_keys=False)


def run(args: argparse.Namespace) -> int:
    source, target = find_places(args)
    conversion = convert_split(
        source,
        target,
        args.classes,
        strict=args.strict,
        connected_components=args.connected_components,
    )
    for loss in conversion.losses:
        print(f"Lost: {printable(loss)}", file=sys.stderr)
    if not conversion.with_images:
        print(
            f"{conversion.num_images} images with {conversion.num_cells} cells written to "
            f"{printable(str(target.root / target.split))}, without the images, which are not known"
        )
        return 0
    print(
        f"{conversion.num_images} images with {conversion.num_cells} cells written to "
        f"{printable(str(target.root / target.split))} and read again: the same. To declare them:\n"
        f"{declaration_of(target, conversion)}"
    )
    return 0
