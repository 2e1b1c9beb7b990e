"""One training in several processes: started here, or by torchrun."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from cellseg.errors import CellsegError, ConfigError
from cellseg.interrupts import Interrupted, expect_repeats, forwarding, leave, requested, watched
from cellseg.rules import number
from cellseg.system_errors import explain_system_error
from detectron2.engine import launch
from detectron2.utils import comm


def run_in_processes(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> None:
    """Call `main(args)` in every process of a run.

    Three ways lead here: a single process; `--num-gpus`, `--num-machines`, `--machine-rank` and
    `--dist-url` as Detectron2's `launch` takes them; `torchrun --nproc-per-node N SCRIPT ...`,
    which has started the processes already. The processes talk over NCCL, each with a GPU of its
    own, or over gloo on a machine without CUDA.

    Args:
        main: must be importable by name; its result is dropped.
        args: what `detectron2.engine.default_argument_parser` has parsed.

    Raises:
        CellsegError: `main` raised it in this process.
        SystemExit: a process that was started here has ended with an error, which it has said.
        ConfigError: both torchrun and `--num-gpus` or `--num-machines` ask for processes.
    """
    _check_processes(args)
    if _started_by_torchrun():
        _run_as_one_of_torchrun(main, args)
        return
    if args.num_gpus * args.num_machines == 1:
        main(args)
        return
    try:
        machines = (args.num_machines, args.machine_rank, args.dist_url)
        with forwarding():
            launch(_end_with_message, args.num_gpus, *machines, (main, args))
    except torch.multiprocessing.ProcessExitedException as error:
        asked = requested()
        if asked is not None and error.exit_code == asked.status:  # the process has said it all
            sys.exit(asked.status)
        if asked is not None:
            raise asked from None
        # the process has said why; a traceback of this one would say nothing more
        sys.exit(f"The run ended because one of its processes did: {error}")
    except torch.multiprocessing.ProcessRaisedException as error:  # before it came to `main`
        explained = explain_system_error(RuntimeError(str(error)))
        if not explained:
            raise
        sys.exit(f"RuntimeError: {explained}")


def _check_processes(args: argparse.Namespace) -> None:
    limits = {
        "num_gpus": number(1, _most_processes(), whole=True),
        "num_machines": number(1, 100_000, whole=True),
    }
    limits["machine_rank"] = number(0, max(args.num_machines - 1, 0), whole=True).remark(
        "--num-machines, less 1"
    )
    for name, rule in limits.items():
        value = getattr(args, name)
        if not rule.accepts(value):
            option = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{option} is {value}; expected {rule.expected}")


def _most_processes() -> int:
    """How many processes this machine has room for: its GPUs, or without any its processors."""
    if torch.cuda.is_available():
        return torch.cuda.device_count()
    return max(16, os.cpu_count() or 1)


def _started_by_torchrun() -> bool:
    return dist.is_available() and dist.is_torchelastic_launched()


def _end_with_message(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> None:
    with watched(is_child=True):
        try:
            _say_what_ends(main, args)
        except KeyboardInterrupt as error:
            if comm.is_main_process():
                print(error, file=sys.stderr, flush=True)
            leave(error.status if isinstance(error, Interrupted) else Interrupted().status)


def _say_what_ends(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> None:
    try:
        main(args)
    except Exception as error:
        if (asked := requested()) is not None:  # another process was faster to end
            raise asked from None
        said = str(error) if isinstance(error, CellsegError) else explain_system_error(error)
        if not said:  # a bug, which its traceback helps to mend
            raise
        sys.exit(f"{type(error).__name__}: {said}")


def _run_as_one_of_torchrun(
    main: Callable[[argparse.Namespace], Any], args: argparse.Namespace
) -> None:
    if args.num_gpus > 1 or args.num_machines > 1:
        raise ConfigError(
            f"torchrun has started {os.environ['WORLD_SIZE']} processes, and --num-gpus "
            f"{args.num_gpus} --num-machines {args.num_machines} asks for more. Use one of the two."
        )
    use_cuda = torch.cuda.is_available()
    if use_cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if use_cuda else "gloo")
    comm.create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
    expect_repeats()
    try:
        main(args)
    except Interrupted as asked:
        if comm.is_main_process():
            raise
        sys.exit(asked.status)  # one process says it for all
    # not in a `finally`: after an error it would wait for the others. Only the embedded engine's
    # function lets go of all groups: Detectron2 has none
    getattr(comm, "destroy_process_groups", dist.destroy_process_group)()
