"""The options of `predict` for many machines."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from cellseg.cli._parser import CommandParser
from cellseg.inference.cluster import open_cluster
from cellseg.inference.cluster_prediction import predict_on_cluster
from cellseg.inference.file_work import Outcome
from cellseg.inference.files import predict_files


def add_cluster_options(parser: CommandParser) -> None:
    """`--scheduler` and `--workers`, of which one may be given."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="the workers of this Dask scheduler do the work: its address, such as "
        "tcp://10.0.0.1:8786, or its --scheduler-file (docs/clusters.md)",
    )
    group.add_argument(
        "--workers",
        type=_parse_count,
        metavar="N",
        help="N processes on this machine do the work, with a GPU each where there are several",
    )


def _parse_count(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r}: expected a number of workers, 1 or more")


def open_prediction(args: argparse.Namespace) -> Callable[..., Outcome]:
    """`predict_files`, or what does the same with the workers that the options name.

    Those of this machine are started here, and end with the one call of what is returned.

    Raises:
        ClusterError: Dask is not installed, or the scheduler does not answer.
    """
    if args.scheduler is None and args.workers is None:
        return predict_files
    opened = ExitStack()
    cluster = opened.enter_context(open_cluster(args.scheduler, args.workers or 1))
    named = [str(value) for key, value in zip(args.opts[::2], args.opts[1::2]) if key == _DEVICE]

    def predict(*what: Any, **options: Any) -> Outcome:
        with opened:
            return predict_on_cluster(*what, cluster=cluster, device="".join(named[-1:]), **options)

    return predict


_DEVICE = "MODEL.DEVICE"
