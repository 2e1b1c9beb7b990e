"""Communication between the processes of one training; everything also works in a single one."""

from __future__ import annotations

import functools
import gc
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist

_local_group: dist.ProcessGroup | None = None


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of processes on all machines."""
    return dist.get_world_size() if _is_distributed() else 1


def get_rank() -> int:
    """Number of this process among all, from 0."""
    return dist.get_rank() if _is_distributed() else 0


def is_main_process() -> bool:
    """Whether this is the process of rank 0: the one that logs and writes."""
    return get_rank() == 0


@functools.cache  # a second call with the same number is harmless
def create_local_process_group(num_workers_per_machine: int) -> None:
    """Form one process group per machine; all processes must call it together.

    `detectron2.engine.launch` does. Where processes are started in another way, call it after
    `torch.distributed.init_process_group`.

    Args:
        num_workers_per_machine: processes per machine, the same on each; usually its GPUs.

    Raises:
        AssertionError: the group exists already, or the number does not divide the world size.
    """
    global _local_group
    assert _local_group is None, "the local process group exists already"
    machines, rest = divmod(get_world_size(), num_workers_per_machine)
    assert rest == 0, f"{get_world_size()} processes do not fill machines of equal size"
    ranks = np.arange(get_world_size()).reshape(machines, num_workers_per_machine)
    for ranks_of_machine in ranks.tolist():  # every process takes part in forming every group
        group = dist.new_group(ranks_of_machine)
        if get_rank() in ranks_of_machine:
            _local_group = cast("dist.ProcessGroup", group)


def destroy_process_groups() -> None:
    """Leave all process groups, the local one too; `torch.distributed` can start anew after it.

    What the groups did has to be over: one process leaves while another still waits for it
    otherwise. `torch.distributed.destroy_process_group` alone leaves alive what this module holds
    on to, with the threads of gloo, and a thread that drops a tensor while Python ends aborts the
    process (SIGABRT), after all its work was done.
    """
    global _local_group
    _local_group = None
    create_local_process_group.cache_clear()
    _cpu_group.cache_clear()
    dist.destroy_process_group()
    gc.collect()  # a parallel model is part of cycles, and holds its group


def get_local_process_group() -> dist.ProcessGroup:
    """The processes on this machine.

    Raises:
        AssertionError: `create_local_process_group` was not called.
    """
    assert _local_group is not None, (
        "there is no local process group: start the processes with detectron2.engine.launch, or "
        "call comm.create_local_process_group after torch.distributed.init_process_group"
    )
    return _local_group


def get_local_rank() -> int:
    """Number of this process among those on this machine, from 0."""
    return dist.get_rank(get_local_process_group()) if _is_distributed() else 0


def get_local_size() -> int:
    """Number of processes on this machine."""
    return dist.get_world_size(get_local_process_group()) if _is_distributed() else 1


def synchronize() -> None:
    """Wait until all processes have come here."""
    if get_world_size() > 1:
        on_gpu = dist.get_backend() == "nccl"  # which warns unless it is told the device
        dist.barrier(device_ids=[torch.cuda.current_device()] if on_gpu else None)


@functools.cache
def _cpu_group() -> dist.ProcessGroup:
    """All processes over gloo, so that gathering objects takes no GPU memory."""
    needs_gloo = dist.get_backend() == "nccl"
    return cast(
        "dist.ProcessGroup", dist.new_group(backend="gloo") if needs_gloo else dist.group.WORLD
    )


def all_gather(data: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Collect a picklable object from every process, in all of them.

    Args:
        data: this process's object.
        group: the processes that take part; all by default.

    Returns:
        One object per process, by rank; `[data]` in a single process.
    """
    if get_world_size() == 1:
        return [data]
    group = group or _cpu_group()
    collected: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(collected, data, group=group)
    return collected


def gather(data: Any, dst: int = 0, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Collect a picklable object from every process, in process `dst` only.

    Returns:
        In `dst` one object per process, by rank; elsewhere an empty list.
    """
    if get_world_size() == 1:
        return [data]
    group = group or _cpu_group()
    collected: list[Any] = []
    if dist.get_rank(group) == dst:
        collected = [None] * dist.get_world_size(group)
    dist.gather_object(data, collected or None, dst=dst, group=group)
    return collected


def shared_random_seed() -> int:
    """A random number below 2**31 that is the same in all processes; all must call it together."""
    own = int(np.random.randint(2**31))  # noqa: NPY002  # follows seed_all_rng
    return all_gather(own)[0]


@torch.no_grad()
def reduce_dict(
    input_dict: dict[str, torch.Tensor], average: bool = True
) -> dict[str, torch.Tensor]:
    """Sum or average scalars over all processes, into process 0.

    Args:
        input_dict: scalar tensors, the same names in every process.
        average: divide by the number of processes.

    Returns:
        The same names, sorted; correct in process 0 only. A single process gets its own back.
    """
    world_size = get_world_size()
    if world_size == 1:
        return input_dict
    names = sorted(input_dict)
    totals = torch.stack([input_dict[name] for name in names])
    dist.reduce(totals, dst=0)
    return dict(zip(names, totals / world_size if average else totals))
