"""Find a learning rate for a config, by a short training with a growing rate.

    cellseg find-lr --config-file FILE [--iterations 100] [KEY VALUE ...]

It starts from MODEL.WEIGHTS and stays in memory: no weights are written. The curve goes to
OUTPUT_DIR/learning_rate/ as rates.csv and rates.png. docs/optimizer.md says more.
Exit status: 0 all went well, 1 the sweep could not be made.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from cellseg.cli._model import load_model_config, log_engine_and_device
from cellseg.cli._outputs import PICTURE, Output, add_overwrite, check_outputs, describe_own
from cellseg.cli._parser import CommandParser
from cellseg.engine.lr_finder import HIGHEST, build_sweep_step, describe_sweep, find_learning_rate
from cellseg.errors import ConfigError
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger

logger = logging.getLogger("cellseg.find_lr")


def add_arguments(parser: CommandParser) -> None:
    parser.add_config_option()
    parser.add_argument(
        "--lowest",
        type=float,
        default=1e-6,
        metavar="RATE",
        help="of the first iteration (default: %(default)s)",
    )
    parser.add_argument(
        "--highest",
        type=float,
        default=1.0,
        metavar="RATE",
        help="of the last iteration (default: %(default)s)",
    )
    parser.add_argument(
        "--iterations", type=int, default=100, metavar="N", help="how many (default: %(default)s)"
    )
    add_overwrite(parser)
    parser.add_overrides()


def run(args: argparse.Namespace) -> int:
    if not 0 < args.lowest < args.highest <= HIGHEST or args.iterations < 2:
        raise ConfigError(
            f"expected 0 < --lowest < --highest <= {HIGHEST:g} and --iterations of 2 or more; "
            f"found {args.lowest}, {args.highest} and {args.iterations}"
        )
    setup_logger(name="cellseg")
    cfg = load_model_config(args)
    folder = Path(cfg.OUTPUT_DIR) / "learning_rate"
    table, plot = folder / "rates.csv", folder / "rates.png"
    own = describe_own(("rate", "loss"))
    outputs = [Output("table", table, (".csv",), own), Output("plot", plot, (".png",), PICTURE)]
    check_outputs(outputs, args.config_file, overwrite=args.overwrite)
    log_engine_and_device(logger, cfg)
    seed_all_rng(cfg.SEED if cfg.SEED >= 0 else None)
    sweep = find_learning_rate(
        build_sweep_step(cfg),
        base_lr=cfg.SOLVER.BASE_LR,
        lowest=args.lowest,
        highest=args.highest,
        iterations=args.iterations,
    )
    sweep.write_csv(table)
    sweep.write_plot(plot)
    logger.info("Written: %s, %s", table, plot)
    logger.info("%s", describe_sweep(sweep))
    return 0
