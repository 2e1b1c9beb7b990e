r"""Write what a run has reached as one HTML file that opens from disk, without a network.

    cellseg report output/my_run
    cellseg report output/my_run --output my_run.html --max-images 200
    cellseg report output/my_run --predictions other_model.json

Exit status: 0 written, 1 it could not be written, 2 bad usage.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from cellseg.cli._outputs import REPORT, Output, add_overwrite, check_outputs
from cellseg.cli._parser import CommandParser, add_category_ids
from cellseg.config.runs import find_run_config
from cellseg.engine.setup import load_config
from cellseg.errors import ConfigError
from cellseg.io.category_ids import parse_category_ids
from cellseg.names import printable
from cellseg.report.build import MAX_IMAGES, write_report
from detectron2.config import CfgNode


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="OUTPUT_DIR of a run")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: RUN_DIR/report.html")
    parser.add_argument(
        "--predictions",
        action="append",
        default=[],
        metavar="[DATASET=]FILE",
        help="predictions in COCO's results format instead of the run's own; DATASET= where the "
        "run has several test sets; may be repeated",
    )
    add_category_ids(parser)
    parser.add_argument(
        "--score-threshold",
        type=float,
        metavar="S",
        help="count detections of this score or more as cells (default: the run's "
        "CELLSEG.TEST.SCORE_THRESHOLD)",
    )
    parser.add_argument(
        "--max-images", type=_count, default=MAX_IMAGES, metavar="N",
        help="images in the gallery of each test set, the worst first (default: %(default)s)",
    )  # fmt: skip
    add_overwrite(parser)
    parser.add_overrides()


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number}: expected 0 or more")
    return number


def name_predictions(cfg: CfgNode, given: list[str]) -> dict[str, Path]:
    """Files by dataset.

    Raises:
        ConfigError: a file without DATASET= in a run of several test sets.
    """
    named = {}
    for text in given:
        dataset, equals, path = text.partition("=")
        if equals and dataset in cfg.DATASETS.TEST:
            named[dataset] = Path(path)
        elif len(cfg.DATASETS.TEST) == 1:
            named[cfg.DATASETS.TEST[0]] = Path(text)
        else:
            raise ConfigError(
                f"--predictions {text}: expected DATASET=FILE with a DATASET of "
                f"{', '.join(cfg.DATASETS.TEST)}"
            )
    return named


def run(args: argparse.Namespace) -> int:
    start = time.perf_counter()
    config = find_run_config(args.run_dir)
    cfg = load_config(config, args.opts, plugins=args.plugin)
    predictions = name_predictions(cfg, args.predictions)
    path = args.output or args.run_dir / "report.html"
    page = Output("--output", path, (".html", ".htm"), REPORT)
    check_outputs([page], [config, *predictions.values()], overwrite=args.overwrite)
    output = write_report(
        cfg,
        args.run_dir,
        path,
        predictions=predictions,
        category_ids=parse_category_ids(args.category_ids),
        score_threshold=args.score_threshold,
        max_images=args.max_images,
    )
    size_mb, seconds = output.stat().st_size / 1e6, time.perf_counter() - start
    print(f"{printable(str(output))}: {size_mb:.1f} MB, written in {seconds:.0f} s")
    return 0
