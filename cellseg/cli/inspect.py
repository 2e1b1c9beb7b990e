r"""Look at a dataset before training: tables, findings, plots, contact sheets.

    cellseg inspect synthetic --output output/inspect
    cellseg inspect path/to/my_cells.yaml --output DIR --fix CLEANED --suggest
    cellseg inspect stained.yaml CELLSEG.INPUT.CHANNELS "['DAPI', 1]"

Images are read as a training with the same config and keys would read them.
Exit status: 0 nothing wrong, 1 errors were found (or the dataset cannot be used), 2 bad usage.
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import cellseg
from cellseg.cli._outputs import PICTURE, Output, add_overwrite, check_outputs, describe_own
from cellseg.cli._parser import CommandParser, at_least
from cellseg.errors import ConfigError
from cellseg.files import is_inside, write_whole
from cellseg.images import ImageInput
from cellseg.inspection.checks import TINY_PX
from cellseg.inspection.fix import Fixes, write_fixed
from cellseg.inspection.report import PLOTS_FILE, Inspection, inspect_splits
from cellseg.inspection.sources import Split, find_datasets, find_folders, read_split
from cellseg.inspection.suggestions import suggest_config
from cellseg.names import printable, printable_lines
from cellseg.shipped import shipped_folder

SUGGESTED_FILE = "suggested.yaml"
_SUGGESTED = re.compile(rb"\A# Suggested from ")
_OF_IMAGE = ("split", "image_id")
BASE_CONFIG = shipped_folder("configs") / "base_mask_rcnn_R_50_FPN.yaml"


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "dataset", metavar="NAME_OR_YAML", help="a dataset, one split of it, or a declaration"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for tables, plots and contact sheets; made if needed",
    )
    parser.add_argument(
        "--tiny",
        type=at_least(0),
        default=TINY_PX,
        metavar="PX",
        help="report cells of fewer pixels than this as tiny (default: %(default)s)",
    )
    parser.add_argument(
        "--pages",
        type=at_least(0),
        default=3,
        metavar="N",
        help="write at most this many contact sheets of 20 images (default: %(default)s)",
    )
    parser.add_argument(
        "--fix", type=Path, metavar="DIR", help="write a cleaned copy there; DIR is new or empty"
    )
    parser.add_argument(
        "--split-pieces",
        action="store_true",
        help="with --fix: make each piece of a cell a cell of its own",
    )
    parser.add_argument("--fill-holes", action="store_true", help="with --fix: fill holes in cells")
    parser.add_argument(
        "--suggest", action="store_true", help="print settings that suit the cells, as YAML"
    )
    parser.add_argument(
        "--config-file",
        type=Path,
        metavar="F",
        help="config of the training, which says how images are read, and which the settings of "
        "--suggest extend (default: the base config)",
    )
    add_overwrite(parser)
    parser.add_overrides()


def read_image_input(args: argparse.Namespace) -> ImageInput:
    """How the training reads images; torch is loaded only where something says so."""
    if not args.config_file and not args.opts and not args.suggest:
        return ImageInput()
    return ImageInput.from_config(cellseg.load_config(args.config_file or BASE_CONFIG, args.opts))


def check_places(args: argparse.Namespace, splits: Sequence[Split], folder: str) -> None:
    """Refuse folders in the data that are looked at, and files of somebody else's.

    Raises:
        ConfigError: one of them; nothing was written.
    """
    given = [(name, path) for name in ("output", "fix") if (path := getattr(args, name))]
    for (name, path), data in itertools.product(given, find_folders(splits)):
        if is_inside(path / folder, data):
            raise ConfigError(
                f"--{name} {path}: lies in {data}, which belongs to the data, and would be taken "
                "for a part of it; choose another folder"
            )
    if args.output:
        check_outputs(outputs_in(args.output / folder, args.pages), (), overwrite=args.overwrite)


def outputs_in(folder: Path, pages: int) -> list[Output]:
    """What is written to the folder of `--output`."""
    tables = {"findings": ("severity", "kind"), **dict.fromkeys(("images", "cells"), _OF_IMAGE)}
    pictures = [PLOTS_FILE, *(f"contact_sheet_{page + 1}.png" for page in range(pages))]
    outputs = [
        Output("--output", folder / f"{name}.csv", (".csv",), describe_own(columns))
        for name, columns in tables.items()
    ]
    outputs += [Output("--output", folder / name, (".png",), PICTURE) for name in pictures]
    return [*outputs, Output("--output", folder / SUGGESTED_FILE, (".yaml",), _SUGGESTED)]


def run(args: argparse.Namespace) -> int:
    groups = find_datasets(args.dataset)
    has_errors, image_input = False, read_image_input(args)
    for dataset, names in groups.items():
        several = len(groups) > 1
        splits = [read_split(name) for name in names]
        check_places(args, splits, dataset if several else "")
        inspection = inspect_splits(splits, tiny_px=args.tiny, image_input=image_input)
        has_errors |= inspection.has_errors
        print(printable_lines(f"{dataset}\n\n{inspection.to_text()}\n"))
        act(args, dataset, inspection, dataset if several else "")
    return int(has_errors)


def act(args: argparse.Namespace, dataset: str, inspection: Inspection, folder: str) -> None:
    """Write what was asked for; `folder` is below the folders that were given."""
    if args.output:
        inspection.write(args.output / folder, max_pages=args.pages)
        print(f"Tables, plots and contact sheets: {printable(str(args.output / folder))}\n")
    if args.fix:
        fixes = Fixes(args.tiny, split_pieces=args.split_pieces, fill_holes=args.fill_holes)
        changes = write_fixed(inspection, dataset, args.fix / folder, fixes)
        print(f"Cleaned copy, {len(changes)} changes: {printable(str(args.fix / folder))}\n")
    if args.suggest:
        text = suggest_config(inspection, args.config_file or BASE_CONFIG)
        print(text)
        if args.output:
            with write_whole(args.output / folder / SUGGESTED_FILE) as partial:
                partial.write_text(text, "utf-8")
