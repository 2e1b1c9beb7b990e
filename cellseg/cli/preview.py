"""Draw what augmentations do to an image and the outlines of its cells.

    cellseg preview --output augmentations.png
    cellseg preview --output mine.png --config-file FILE [KEY VALUE ...]

The first shows every augmentation on made-up cells, the second what a config enables on an image
of its training set. Exit status: 0 written, 1 there is nothing to show.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cellseg.cells.drawing import write_picture
from cellseg.cli._model import load_given_config
from cellseg.cli._outputs import PICTURE, Output, add_overwrite, check_outputs
from cellseg.cli._parser import CommandParser, at_least
from cellseg.training_data.augmentations.preview import draw_preview


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument("--output", required=True, metavar="PNG", help="file to write")
    parser.add_config_option(required=False)
    parser.add_argument("--image", type=at_least(0), default=0, help="number in the training set")
    parser.add_argument(
        "--seed", type=at_least(0), default=0, help="of all that is drawn by chance"
    )
    add_overwrite(parser)
    parser.add_overrides()


def run(args: argparse.Namespace) -> int:
    picture = Output("--output", Path(args.output), (".png",), PICTURE)
    check_outputs([picture], args.config_file or (), overwrite=args.overwrite)
    cfg = load_given_config(args) if args.config_file else None
    write_picture(args.output, draw_preview(cfg, args.image, args.seed))
    return 0
