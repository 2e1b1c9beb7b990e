r"""Rank images, and tiles of large ones, by what a model would learn from their annotation.

    cellseg suggest IMAGES...
    cellseg suggest IMAGES... --model output/quick_start -o next.csv --json next.json
    cellseg suggest plate_1 'day_*/*.czi' @list.txt --views 4 --top 20

Without --model it is `nuclei`, a model that comes with cellseg. IMAGES are those of `cellseg
predict`; each plane of a stack or time-lapse is an image, and nothing has to be annotated. On top
are images of which the model is unsure (scores near the threshold, cells that a mirrored view does
not show, cells of odd sizes), one of each kind before more of the same. The first ones are shown
with the reason; -o writes the whole table, --json the same for programs. docs/suggest.md describes
it all.

Exit status: 0 all went well, 1 something failed (the rest was ranked), 2 no input was found.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cellseg.cli._inputs import add_diameter, add_scene, log_inputs
from cellseg.cli._model import log_engine_and_device, model_config_of
from cellseg.cli._outputs import SUGGESTIONS, Output, add_overwrite, check_outputs, describe_own
from cellseg.cli._parser import CommandParser, at_least, number_in
from cellseg.files import write_whole
from cellseg.inference.assessing import (
    DEFAULT_TILE_PX,
    DEFAULT_VIEWS,
    MOST_VIEWS,
    Assessor,
    Failure,
    assess_files,
)
from cellseg.inference.inputs import find_inputs
from cellseg.inference.model import CellModel
from cellseg.inference.predictor import CellPredictor
from cellseg.inference.suggestions import COLUMNS, Suggestion, rank_places
from cellseg.io.table_rows import CsvWriter
from cellseg.names import printable
from cellseg.rules import number
from cellseg.shipped import DEFAULT_MODEL
from detectron2.utils.logger import setup_logger
from tabulate import tabulate

logger = logging.getLogger("cellseg.suggest")


def add_arguments(parser: CommandParser) -> None:
    parser.add_inputs_and_overrides("image files, folders, patterns, lists")
    parser.add_model_options()
    parser.add_argument("-o", "--output", metavar="FILE", help="CSV table to write, of all images")
    parser.add_argument("--json", metavar="FILE", help="the same as JSON, with what failed")
    add_overwrite(parser)
    parser.add_argument(
        "--top",
        type=at_least(0),
        default=10,
        metavar="N",
        help="how many are shown (default: %(default)s)",
    )
    parser.add_argument(
        "--tile",
        type=at_least(64),
        default=DEFAULT_TILE_PX,
        metavar="PX",
        help="larger images are ranked in tiles of so many pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--views",
        type=number_in(number(1, MOST_VIEWS, whole=True), whole=True),
        default=DEFAULT_VIEWS,
        metavar="N",
        help="how many views of each image are compared, mirrored and turned, 1 to "
        f"{MOST_VIEWS}; each takes as long as a prediction (default: %(default)s)",
    )
    parser.add_argument(
        "--spread",
        type=number_in(number(0, 1)),
        default=1.0,
        metavar="W",
        help="from 0, by doubt alone, to 1, as unlike each other as can be (default: %(default)s)",
    )
    add_scene(parser)
    add_diameter(parser)


def run(args: argparse.Namespace) -> int:
    setup_logger(name="cellseg")
    table, content = (Path(path) if path else None for path in (args.output, args.json))
    outputs = [
        None if table is None else Output("--output", table, (".csv",), describe_own(COLUMNS)),
        None if content is None else Output("--json", content, (".json",), SUGGESTIONS),
    ]
    check_outputs(outputs, args.inputs, overwrite=args.overwrite)
    if args.diameter is not None:
        args.opts += ["CELLSEG.TEST.DIAMETER", args.diameter]
    cfg = model_config_of(args, DEFAULT_MODEL)
    log_engine_and_device(logger, cfg)
    found = find_inputs(args.inputs)
    log_inputs(logger, found)
    if not found.files:
        return 2
    assessor = Assessor(CellModel(CellPredictor(cfg), args.scene), args.tile, args.views)
    for sentence in assessor.describe_losses():
        logger.info("%s", sentence)
    failed: list[Failure] = []
    suggestions = rank_places(list(assess_files(assessor, found.files, failed.append)), args.spread)
    for failure in failed:
        logger.error("%s", failure.reason)
    if table:
        write_table(table, suggestions)
    if content:
        write_json(content, suggestions, failed)
    print(*table_lines(suggestions[: args.top]), sep="\n")
    return 1 if failed or found.missing else 0


def table_lines(suggestions: Sequence[Suggestion]) -> list[str]:
    """The first suggestions for a person to read; tiles with their first row and column."""
    rows = []
    for one in suggestions:
        where = f" [{one.window.top}, {one.window.left}]" if one.is_tile else ""
        rows.append([one.rank, f"{printable(one.image_id)}{where}", one.score, one.reason])
    head = ["rank", "image", "score", "reason"]
    table = tabulate(rows, head, "plain", disable_numparse=[1, 3], floatfmt=".2f")
    return [line.rstrip() for line in table.splitlines()]


def write_table(path: Path, suggestions: Sequence[Suggestion]) -> None:
    """A CSV with a line per suggestion; numbers that are not known are empty."""
    with write_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        rows = CsvWriter(stream)
        rows.writerow(COLUMNS)
        rows.writerows(one.to_row().values() for one in suggestions)


def write_json(path: Path, suggestions: Sequence[Suggestion], failed: Sequence[Failure]) -> None:
    """The columns of the table by name, and what failed; numbers not known are null."""
    content: dict[str, Any] = {
        "suggestions": [one.to_row() for one in suggestions],
        "failed": [failure._asdict() for failure in failed],
    }
    with write_whole(path) as partial:
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
