"""How cells are linked over time: the options of commands that do it."""

from __future__ import annotations

import argparse

from cellseg.cli._parser import CommandParser
from cellseg.tracking.linking import METRICS, LinkRules


def add_link_options(parser: CommandParser) -> None:
    """How cells are linked; `read_link_rules` reads the values."""
    parser.add_argument(
        "--max-distance",
        type=float,
        metavar="PX",
        help="a cell's centre moves by less than this from frame to frame, pixels (default: "
        "the median diameter of the cells)",
    )
    parser.add_argument(
        "--max-gap",
        type=int,
        default=LinkRules.max_gap_frames,
        metavar="N",
        help="a cell may be missing in so many frames in a row (default: %(default)s)",
    )
    parser.add_argument("--no-divisions", action="store_true", help="cells do not divide")
    parser.add_argument(
        "--link-by",
        choices=METRICS,
        default=LinkRules.metric,
        help="overlap of the cells, or distance of their centres alone, for cells that move "
        "further than their size (default: %(default)s)",
    )
    parser.add_argument(
        "--ctc", action="store_true", help="also write the Cell Tracking Challenge's layout"
    )


def read_link_rules(args: argparse.Namespace) -> LinkRules:
    return LinkRules(args.max_distance, args.max_gap, not args.no_divisions, args.link_by)
