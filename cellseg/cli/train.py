"""Train and evaluate a cell segmentation model.

    cellseg train --config-file quick_start.yaml [--resume | --overwrite] [KEY VALUE ...]
    cellseg train --config-file FILE --eval-only MODEL.WEIGHTS output/model_final.pth

On several GPUs, either of
    cellseg train --num-gpus 2 --config-file FILE
    torchrun --nproc-per-node 2 -m cellseg train --config-file FILE

Ctrl-C and SIGTERM end it behind the present iteration, with a checkpoint; a second one at once.

Exit status: 0 all went well, 1 the run could not go on, 130 or 143 it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
from contextlib import ExitStack, nullcontext
from pathlib import Path

from cellseg.cli._model import load_model_config, log_engine_and_device
from cellseg.cli._parser import CommandParser
from cellseg.engine import CellTrainer
from cellseg.engine.distributed import run_in_processes
from cellseg.engine.hooks.run_record import FIGURES_FILE
from cellseg.engine.resuming import check_resumable, find_last_checkpoint
from cellseg.engine.run_folder import check_new, kept_config, locked_folder
from cellseg.evaluation.tables import without_nan
from cellseg.files import write_whole
from cellseg.modeling.building import build_model
from cellseg.modeling.weights import load_weights
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.evaluation import verify_results
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

logger = logging.getLogger("cellseg.train")


def add_arguments(parser: CommandParser) -> None:
    parser.add_config_option()
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint of OUTPUT_DIR"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="throw away the training that OUTPUT_DIR holds; without it, and without --resume, "
        "a folder with checkpoints is refused",
    )
    parser.add_argument("--eval-only", action="store_true", help="do not train, only evaluate")
    processes = parser.add_argument_group("several processes, as Detectron2 starts them")
    for name, default, text in (
        ("--num-gpus", 1, "processes on this machine, one GPU each"),
        ("--num-machines", 1, "machines that train together"),
        ("--machine-rank", 0, "number of this machine among them"),
    ):
        processes.add_argument(
            name, type=int, default=default, metavar="N", help=f"{text} (default: {default})"
        )
    processes.add_argument(
        "--dist-url",
        default=default_argument_parser().get_default("dist_url"),
        metavar="URL",
        help="where the processes meet (default: %(default)s)",
    )
    parser.add_overrides()


def setup(args: argparse.Namespace, until_the_end: ExitStack | None = None) -> CfgNode:
    """Configuration and logs; the first lines say which engine runs, and where.

    Args:
        args: of the command.
        until_the_end: of a training, which has its folder for itself for so long.
    """
    cfg = load_model_config(args)
    if until_the_end is not None and comm.is_main_process():
        until_the_end.enter_context(locked_folder(cfg.OUTPUT_DIR))
        check_before_training(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="cellseg")
    log_engine_and_device(logger, cfg)
    cfg.freeze()
    # Of the files Detectron2 would print the first; the whole config is printed in any case.
    words = argparse.Namespace(**{**vars(args), "config_file": ""})
    with kept_config(cfg.OUTPUT_DIR) if args.eval_only else nullcontext():
        default_setup(cfg, words)
    return cfg


def check_before_training(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Refuse what cannot be begun or resumed while the folder is still as it was."""
    found = find_last_checkpoint(cfg.OUTPUT_DIR) if args.resume else None
    if found is None and not args.overwrite:
        check_new(cfg.OUTPUT_DIR)
    if found is not None:
        on_cpu = cfg.clone()
        on_cpu.MODEL.DEVICE = "cpu"
        check_resumable(found, build_model(on_cpu), cfg)


def evaluate(cfg: CfgNode, resume: bool) -> dict[str, dict[str, float]]:
    """Metrics of MODEL.WEIGHTS or, with `resume`, of the last checkpoint of OUTPUT_DIR."""
    model = CellTrainer.build_model(cfg)
    found = find_last_checkpoint(cfg.OUTPUT_DIR) if resume else None
    weights = cfg.MODEL.WEIGHTS if found is None else str(found)
    load_weights(model, weights, cfg=cfg)
    results = CellTrainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results |= CellTrainer.test_with_TTA(cfg, model)
    if comm.is_main_process():
        write_metrics(results, Path(cfg.OUTPUT_DIR) / FIGURES_FILE)
        verify_results(cfg, results)
    return results


def write_metrics(results: dict[str, dict[str, float]], path: Path) -> None:
    """Write what `--eval-only` found, under the names that metrics.json has too."""
    with write_whole(path) as partial:
        figures = without_nan(dict(flatten_results_dict(results)))
        partial.write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n", "utf-8")
    logger.info("Metrics: %s", path)


def train_or_evaluate(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The work of one process; all of them call it."""
    if args.eval_only:
        return evaluate(setup(args), args.resume)
    with ExitStack() as until_the_end:
        cfg = setup(args, until_the_end)
        trainer = CellTrainer(cfg)
        trainer.resume_or_load(resume=args.resume, overwrite=args.overwrite)
        return trainer.train()


def run(args: argparse.Namespace) -> int:
    run_in_processes(train_or_evaluate, args)
    return 0
