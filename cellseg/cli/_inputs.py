"""How the commands that look for cells are told in which images, and how large the cells are."""

from __future__ import annotations

import argparse
import logging
import math

from cellseg.cli._parser import CommandParser
from cellseg.images.listing import describe_passed_over
from cellseg.inference.inputs import FoundInputs
from cellseg.inference.magnification import AUTO


def add_scene(parser: CommandParser) -> None:
    """`--scene`: a list of numbers and names."""
    parser.add_argument(
        "--scene",
        action="append",
        default=[],
        type=_number_or_name,
        metavar="S",
        help="number (from 0) or name of a scene, series or position of files that have several; "
        "may be repeated (default: all)",
    )


def add_diameter(parser: CommandParser) -> None:
    """`--diameter`, which stands for CELLSEG.TEST.DIAMETER."""
    parser.add_argument(
        "--diameter",
        type=_parse_diameter,
        metavar="PX|auto",
        help="diameter of the cells in the images, in pixels: they are looked at so large that it "
        "becomes what the model knows; auto: measured in each image (default: as the model says, "
        "CELLSEG.TEST.DIAMETER)",
    )


def _number_or_name(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _parse_diameter(text: str) -> float | str:
    try:
        diameter = float(text)
    except ValueError:
        diameter = 0.0
    if text == AUTO or 0 < diameter < math.inf:
        return text if text == AUTO else diameter
    raise argparse.ArgumentTypeError(f"{text!r}: expected a number of pixels such as 30, or auto")


def log_inputs(logger: logging.Logger, found: FoundInputs) -> None:
    """Say what gave no image and what was passed over."""
    for name in found.missing:
        logger.error("%s: no image found", name)
    if found.passed_over:
        logger.warning("%s", describe_passed_over(found.passed_over))
