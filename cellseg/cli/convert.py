r"""Convert a split of a dataset from one format to another.

    python tools/convert_dataset.py --from instance_masks --input dsb2018 --split train \
        --classes nucleus --to coco_json --output dsb2018_coco

Images are copied as they are. What was written is read again and compared, cell by cell. What the
new format cannot hold is said; with --strict nothing is written then. datasets/README.md describes
the formats and their options.
Exit status: 0 all went well, 1 nothing was written or it cannot be relied on.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import cellseg  # noqa: F401  before detectron2: it makes `import detectron2` work
import yaml
from cellseg.errors import CellsegError, DatasetError
from cellseg.io import FORMATS
from cellseg.io.conversion import Conversion, SplitPlace, convert_split
from detectron2.utils.logger import setup_logger

logger = logging.getLogger("cellseg.convert")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    parser.add_argument("--to", dest="target", required=True, choices=writable)
    parser.add_argument("--output", required=True, metavar="ROOT", help="made if needed")
    parser.add_argument("--output-split", metavar="NAME", help="default: that of the input")
    parser.add_argument("--output-option", help="options of the format that is written", **option)
    parser.add_argument("--strict", action="store_true", help="refuse where something is lost")
    return parser.parse_args(arguments)


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
        return yaml.safe_load(text)
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
    setup_logger(name="cellseg")
    source, target = find_places(args)
    conversion = convert_split(source, target, args.classes, strict=args.strict)
    for loss in conversion.losses:
        logger.warning("Lost: %s", loss)
    logger.info(
        "%d images with %d cells written to %s and read again: the same. To declare them:\n%s",
        conversion.num_images,
        conversion.num_cells,
        target.root / target.split,
        declaration_of(target, conversion),
    )
    return 0


def main(arguments: list[str] | None = None) -> int | str:
    """Exit status, or the text of an error that the user can mend."""
    try:
        return run(parse(arguments))
    except CellsegError as error:
        return f"{type(error).__name__}: {error}"
