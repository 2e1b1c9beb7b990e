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

from cellseg.cli._linking import add_link_options, read_link_rules
from cellseg.cli._outputs import add_overwrite
from cellseg.cli._parser import CommandParser
from cellseg.io.segmentations import find_label_files
from cellseg.names import printable
from cellseg.tracking.results import STACK_SUFFIX, link_label_files


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "labels", nargs="+", type=Path, metavar="LABELS", help="label images, stacks, folders"
    )
    parser.add_argument(
        "--output", "-o", type=Path, metavar="DIR", help="default: where the label images lie"
    )
    add_link_options(parser)
    add_overwrite(parser)


def find_frames(path: Path) -> list[Path]:
    """A file, or the label images of a folder but for the results of an earlier call."""
    if not path.is_dir():
        return [path]
    return [file for file in find_label_files(path) if not file.name.endswith(STACK_SUFFIX)]


def run(args: argparse.Namespace) -> int:
    rules = read_link_rules(args)
    files = [file for path in args.labels for file in find_frames(path)]
    how = {"ctc": args.ctc, "overwrite": args.overwrite}
    linked = link_label_files(files, args.output, rules=rules, **how)
    for one in linked:
        print(
            f"{printable(one.time_lapse.name)}: {len(one.time_lapse)} frames, "
            f"{len(one.tracks)} tracks, "
            f"{one.tracks.divisions} divisions: {printable(str(one.files[0]))}"
        )
    if not linked:
        print(
            "No time-lapse: no two of the label images differ in the number of the frame alone, "
            "such as frame_1.tif and frame_2.tif, or a_t1.tif and a_t2.tif",
            file=sys.stderr,
        )
    return 0 if linked else 2
