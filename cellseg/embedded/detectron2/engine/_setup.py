"""What a training script needs at its start: command line, log, seed, writers, processes."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger
from torch import nn

_logger = logging.getLogger(__name__)

_EXAMPLES = """\
examples:
  two GPUs:              {prog} --config-file cfg.yaml --num-gpus 2
  other settings:        {prog} --config-file cfg.yaml SOLVER.BASE_LR 0.001
  evaluate only:         {prog} --config-file cfg.yaml --eval-only MODEL.WEIGHTS model.pth
  first of two machines: {prog} --num-machines 2 --machine-rank 0 --dist-url tcp://HOST:PORT
"""


def create_ddp_model(
    model: nn.Module, *, fp16_compression: bool = False, **kwargs: Any
) -> nn.Module:
    """Let the processes of a distributed training average the gradients of `model`.

    Args:
        model: on the device of this process.
        fp16_compression: exchange gradients in half precision.
        **kwargs: of `torch.nn.parallel.DistributedDataParallel`.

    Returns:
        The wrapped model; `model` itself in a single process.
    """
    if comm.get_world_size() == 1:
        return model
    if "device_ids" not in kwargs:
        on_cpu = next(iter(model.parameters())).device.type == "cpu"
        kwargs["device_ids"] = None if on_cpu else [comm.get_local_rank()]
    parallel = nn.parallel.DistributedDataParallel(model, **kwargs)
    if fp16_compression:
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook

        parallel.register_comm_hook(state=None, hook=fp16_compress_hook)
    return parallel


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """The command line of a training script.

    Args:
        epilog: shown at the end of `--help`; examples by default.
    """
    parser = argparse.ArgumentParser(
        epilog=epilog or _EXAMPLES.format(prog=os.path.basename(sys.argv[0])),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def number(name: str, default: int, text: str) -> None:
        parser.add_argument(name, type=int, default=default, help=f"{text} (default: {default})")

    parser.add_argument(
        "--config-file", default="", metavar="FILE", help="YAML config to start from"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue from the last checkpoint of OUTPUT_DIR"
    )
    parser.add_argument("--eval-only", action="store_true", help="do not train, only evaluate")
    number("--num-gpus", 1, "processes on this machine, one GPU each")
    number("--num-machines", 1, "machines that train together")
    number("--machine-rank", 0, "which of the machines this is")
    # The same port each time for the same user: a training that still runs is then noticed.
    user = os.getuid() if hasattr(os, "getuid") else 1
    parser.add_argument(
        "--dist-url",
        default=f"tcp://127.0.0.1:{49152 + user % 16384}",
        help="where the processes meet (default: %(default)s)",
    )
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="settings over those of the file",
    )
    return parser


def default_setup(cfg: CfgNode, args: argparse.Namespace | Mapping[str, Any]) -> None:
    """Prepare a job: output folder, log, random seed, and a copy of the whole config.

    Args:
        cfg: OUTPUT_DIR, SEED, CUDNN_BENCHMARK and FLOAT32_PRECISION are used; the config is
            written to `<OUTPUT_DIR>/config.yaml`.
        args: the command line, for the log; `config_file` and `eval_only` are looked at.
    """
    rank, output_dir = comm.get_rank(), cfg.OUTPUT_DIR
    writes = bool(output_dir) and comm.is_main_process()
    if writes:
        PathManager.mkdirs(output_dir)
    for name in ("fvcore", "detectron2"):
        logger = setup_logger(output_dir, distributed_rank=rank, name=name)

    logger.info("Rank of this process: %d of %d", rank, comm.get_world_size())
    logger.info("Environment:\n%s", collect_env_info())
    logger.info("Command line: %s", args)
    if config_file := getattr(args, "config_file", ""):
        with PathManager.open(config_file) as file:
            logger.info("Contents of %s:\n%s", config_file, file.read())
    if writes:
        path = os.path.join(output_dir, "config.yaml")
        logger.info("Full config, also in %s:\n%s", path, cfg.dump())
        with PathManager.open(path, "w") as file:
            file.write(cfg.dump())

    # Reproducible, and yet another sequence in every process.
    seed_all_rng(cfg.SEED + rank if cfg.SEED >= 0 else None)
    if not getattr(args, "eval_only", False):  # too few images to pay off
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    if cfg.FLOAT32_PRECISION:
        _set_float32_precision(cfg.FLOAT32_PRECISION)


def _set_float32_precision(precision: str) -> None:
    """Trade digits of float32 for speed on a GPU: "highest" for none, "high" or "medium"."""
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = precision != "highest"
        _logger.info("Precision of float32 products: %s", precision)


def default_writers(output_dir: str, max_iter: int | None = None) -> list[EventWriter]:
    """Writers for the log, for `metrics.json` and, if it is installed, for TensorBoard.

    Args:
        output_dir: created if need be.
        max_iter: end of the training, for the estimate of the time left.
    """
    PathManager.mkdirs(output_dir)
    writers = [CommonMetricPrinter(max_iter), JSONWriter(os.path.join(output_dir, "metrics.json"))]
    if importlib.util.find_spec("tensorboard") is None:
        _logger.info("TensorBoard is not installed; the figures are in metrics.json")
        return writers
    return [*writers, TensorboardXWriter(output_dir)]
