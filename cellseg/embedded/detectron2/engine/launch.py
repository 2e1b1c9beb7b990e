"""Runs a function in several processes that train together."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm

__all__ = ["DEFAULT_TIMEOUT", "launch"]

DEFAULT_TIMEOUT = timedelta(minutes=30)

_logger = logging.getLogger(__name__)


class _Job(NamedTuple):
    """What a worker process needs to know."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    processes_per_machine: int
    num_machines: int
    machine_rank: int
    url: str
    timeout: timedelta


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple[Any, ...] = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> None:
    """Call `main_func(*args)` in every process of a distributed training.

    To be called once on every machine. A single process is not started anew: the function is
    called right here. Several talk over NCCL, each with a GPU of its own, or over gloo on a
    machine without CUDA. If one of them fails, the others of this machine are stopped.

    Args:
        main_func: must be importable by name (a module's function).
        num_gpus_per_machine: processes per machine.
        num_machines: machines that take part.
        machine_rank: which of them this is, from 0.
        dist_url: where the processes meet, the same on all machines: "tcp://host:port" or
            "file:///path"; "auto" finds a free port if there is one machine only.
        args: arguments of `main_func`.
        timeout: how long a process waits for the others.

    Raises:
        ValueError: more processes than GPUs, or "auto" with several machines.
        torch.multiprocessing.ProcessRaisedException: an error in a process, with its traceback.
        torch.multiprocessing.ProcessExitedException: a process ended otherwise.
    """
    if num_machines * num_gpus_per_machine <= 1:
        main_func(*args)
        return
    if torch.cuda.is_available() and num_gpus_per_machine > torch.cuda.device_count():
        raise ValueError(
            f"{num_gpus_per_machine} GPUs are asked for, this machine has "
            f"{torch.cuda.device_count()}"
        )
    url = _meeting_point(dist_url, num_machines)
    job = _Job(main_func, args, num_gpus_per_machine, num_machines, machine_rank, url, timeout)
    mp.start_processes(_work, args=(job,), nprocs=num_gpus_per_machine, start_method="spawn")


def _meeting_point(dist_url: str | None, num_machines: int) -> str:
    if dist_url is None or (dist_url == "auto" and num_machines > 1):
        raise ValueError(f"{num_machines} machine(s) need a dist_url with host and port")
    if dist_url.startswith("file://") and num_machines > 1:
        _logger.warning("A file:// meeting point is unreliable between machines; prefer tcp://")
    return f"tcp://127.0.0.1:{_free_port()}" if dist_url == "auto" else dist_url


def _free_port() -> int:
    """A port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _work(local_rank: int, job: _Job) -> None:
    use_cuda = torch.cuda.is_available()
    if use_cuda:
        torch.cuda.set_device(local_rank)
    try:
        dist.init_process_group(
            "nccl" if use_cuda else "gloo",
            init_method=job.url,
            rank=job.machine_rank * job.processes_per_machine + local_rank,
            world_size=job.num_machines * job.processes_per_machine,
            timeout=job.timeout,
        )
    except Exception:
        _logger.error("No process group at %s", job.url)
        raise
    comm.create_local_process_group(job.processes_per_machine)
    comm.synchronize()
    job.function(*job.args)
    comm.destroy_process_groups()
