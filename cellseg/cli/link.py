r"""Link the cells of time-lapses to tracks, from label images of any program.

    cellseg link predictions --output tracks
    cellseg link movie_labels.tif --output tracks --max-distance 40 --ctc

Frames are the pages of a stack, or files whose names differ in the number of the frame
(frame_000.tif, A1_t12.tif). Per time-lapse: <name>_tracks.tif, a stack of label images in which a
cell keeps its number; <name>_tracks.csv, a row per track with its parent; <name>_track_points.csv,
a row per cell and frame; with --ctc the folder <name>_RES of the Cell Tracking Challenge.
Exit status: 0 all went well, 1 something cannot be used, 2 no time-lapse was found.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cellseg.cli._parser import CommandParser
from cellseg.io.segmentations import find_label_files
from cellseg.tracking.linking import METRICS, LinkRules
from cellseg.tracking.results import link_label_files


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "labels", nargs="+", type=Path, metavar="LABELS", help="label images, stacks, folders"
    )
    parser.add_argument(
        "--output", "-o", type=Path, metavar="DIR", help="default: where the label images lie"
    )
    add_link_options(parser)


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


def run(args: argparse.Namespace) -> int:
    rules = read_link_rules(args)
    found = [find_label_files(path) if path.is_dir() else [path] for path in args.labels]
    files = [path for paths in found for path in paths]
    linked = link_label_files(files, args.output, rules=rules, ctc=args.ctc)
    for one in linked:
        print(
            f"{one.time_lapse.name}: {len(one.time_lapse)} frames, {len(one.tracks)} tracks, "
            f"{one.tracks.divisions} divisions: {one.files[0]}"
        )
    if not linked:
        print("No time-lapse among the label images: each has one frame", file=sys.stderr)
    return 0 if linked else 2
