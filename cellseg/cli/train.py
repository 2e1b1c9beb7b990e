"""Train and evaluate a cell segmentation model.

python tools/train_net.py --config-file configs/quick_start.yaml [--resume] [KEY VALUE ...]
python tools/train_net.py --config-file F --eval-only MODEL.WEIGHTS output/model_final.pth

On several GPUs, either of
python tools/train_net.py --num-gpus 2 --config-file F
torchrun --nproc-per-node 2 tools/train_net.py --config-file F
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import cellseg  # before detectron2: it makes `import detectron2` work
from cellseg.engine import CellTrainer
from cellseg.engine.distributed import run_in_processes
from cellseg.engine.setup import load_config
from cellseg.errors import CellsegError
from cellseg.files import write_whole
from cellseg.modeling.device import resolve_device
from cellseg.modeling.weights import load_weights
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.evaluation import verify_results
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

FIGURES_FILE = "figures.json"

logger = logging.getLogger("cellseg.train_net")


def setup(args: argparse.Namespace) -> CfgNode:
    """Configuration and logs; the first line says which engine runs."""
    cfg = load_config(args.config_file, args.opts)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="cellseg")
    logger.info("Engine: %s", cellseg.engine_info())
    resolve_device(cfg)
    cfg.freeze()
    default_setup(cfg, args)
    return cfg


def evaluate(cfg: CfgNode, resume: bool) -> dict[str, dict[str, float]]:
    """Figures of MODEL.WEIGHTS or, with `resume`, of the last checkpoint of OUTPUT_DIR."""
    model = CellTrainer.build_model(cfg)
    checkpointer = DetectionCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
    found = resume and checkpointer.has_checkpoint()
    load_weights(model, checkpointer.get_checkpoint_file() if found else cfg.MODEL.WEIGHTS)
    results = CellTrainer.test(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        results |= CellTrainer.test_with_TTA(cfg, model)
    if comm.is_main_process():
        write_figures(results, Path(cfg.OUTPUT_DIR) / FIGURES_FILE)
        verify_results(cfg, results)
    return results


def write_figures(results: dict[str, dict[str, float]], path: Path) -> None:
    """Write what `--eval-only` found, under the names that metrics.json has too."""
    with write_whole(path) as partial:
        partial.write_text(json.dumps(flatten_results_dict(results), indent=1) + "\n", "utf-8")
    logger.info("Figures: %s", path)


def run(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    cfg = setup(args)
    if args.eval_only:
        return evaluate(cfg, args.resume)
    trainer = CellTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def main(arguments: list[str] | None = None) -> int | str:
    """Exit status, or the text of an error that the user can mend."""
    try:
        run_in_processes(run, default_argument_parser().parse_args(arguments))
    except CellsegError as error:
        return f"{type(error).__name__}: {error}"
    return 0
