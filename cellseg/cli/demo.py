"""Find the nuclei of three real images that come with cellseg.

    cellseg demo
    cellseg demo -o DIR --show

Predicts them with the model `nuclei`, which comes with cellseg too, as `cellseg predict` does, and
says where the pictures are. Nothing is downloaded; it takes seconds. Exit status: 0 all went well,
1 something failed.
"""

from __future__ import annotations

import argparse
import logging
import webbrowser
from pathlib import Path

from cellseg.cli import predict
from cellseg.cli._parser import CommandParser
from cellseg.inference.saving import OVERLAY_SUFFIX
from cellseg.shipped import sample_images

logger = logging.getLogger("cellseg.demo")


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        default="cellseg_demo",
        metavar="DIR",
        help="folder for results; made if needed (default: %(default)s)",
    )
    parser.add_argument(
        "--show", action="store_true", help="open the pictures, with the system's viewer"
    )


def run(args: argparse.Namespace) -> int:
    images = sample_images()
    words = [*map(str, images), "-o", args.output, "--save", "labels,overlay,table"]
    parser = CommandParser(description="", prog=None)
    predict.add_arguments(parser)
    status = predict.run(parser.parse(words))
    pictures = [Path(args.output, f"{image.stem}{OVERLAY_SUFFIX}").resolve() for image in images]
    for picture in filter(Path.is_file, pictures):
        logger.info("Picture: %s", picture)
        if args.show:
            webbrowser.open(picture.as_uri())
    logger.info("Your own images: cellseg predict IMAGES -o DIR")
    return status
