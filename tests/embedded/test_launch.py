"""Several processes on one machine, talking over gloo. Starting them is what takes the time."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from detectron2.engine import DEFAULT_TIMEOUT, SimpleTrainer, create_ddp_model, launch
from detectron2.utils import comm
from torch import nn

needs_gloo = pytest.mark.skipif(torch.cuda.is_available(), reason="gloo is used without CUDA only")


class Weight(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def forward(self, x: float) -> dict[str, torch.Tensor]:
        return {"fit": (self.w * x).sum(), "other": self.w.sum()}


def train_together(folder: str) -> None:
    """Process 0 sees 1, process 1 sees 3."""
    rank = comm.get_rank()
    model = create_ddp_model(Weight(), broadcast_buffers=False, device_ids=None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = SimpleTrainer(model, [1.0 + 2.0 * rank], optimizer)
    trainer.train(0, 1)
    stored = trainer.storage.latest()
    facts = [
        f"{comm.get_local_rank()} of {comm.get_world_size()} over {dist.get_backend()}",
        f"{model.module.w.item():.4f}",
        *[str(stored[name][0]) for name in ("fit", "total_loss") if name in stored],
    ]
    Path(folder, f"rank{rank}").write_text(" | ".join(facts))


@needs_gloo
def test_processes_average_gradients_and_losses(tmp_path):
    launch(train_together, 2, dist_url="auto", args=(str(tmp_path),))
    # mean gradient (1 + 3) / 2 + 1; the main process stores the losses
    assert (tmp_path / "rank0").read_text() == "0 of 2 over gloo | 0.7000 | 2.0 | 3.0"
    assert (tmp_path / "rank1").read_text() == "1 of 2 over gloo | 0.7000"


class Parallel:
    """Takes the place of `DistributedDataParallel`."""

    def __init__(self, model: nn.Module, **kwargs: object) -> None:
        self.kwargs = kwargs
        self.communication: object = None

    def register_comm_hook(self, state: object, hook: object) -> None:
        self.communication = hook


@pytest.mark.embedded_only
@pytest.mark.parametrize(("device", "expected"), [("cpu", None), ("meta", [3])])
def test_parallel_model_is_told_its_device_unless_that_is_the_cpu(monkeypatch, device, expected):
    monkeypatch.setattr(comm, "get_world_size", lambda: 4)
    monkeypatch.setattr(comm, "get_local_rank", lambda: 3)
    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", Parallel)
    parallel = create_ddp_model(nn.Linear(1, 1, device=device), fp16_compression=True)
    assert parallel.kwargs == {"device_ids": expected}
    assert parallel.communication.__name__ == "fp16_compress_hook"
    assert create_ddp_model(Weight(), device_ids=[1]).kwargs == {"device_ids": [1]}
    assert create_ddp_model(Weight()).communication is None


def fail(how: str) -> None:
    if comm.get_rank() == 1:
        if how == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError(how)
    time.sleep(600)


@needs_gloo
@pytest.mark.parametrize("how", ["the second process is unhappy", "SIGKILL"])
def test_one_worker_that_dies_ends_the_run_and_says_why(how):
    start = time.monotonic()
    with pytest.raises(Exception, match=how):
        launch(fail, 2, dist_url="auto", args=(how,))
    assert time.monotonic() - start < 120  # and not 600


def test_single_process_is_this_one():
    seen: list[tuple[int, str]] = []
    launch(lambda text: seen.append((os.getpid(), text)), 1, args=("here",))
    assert seen == [(os.getpid(), "here")]
    assert not dist.is_initialized()


@pytest.mark.embedded_only
def test_ranks_count_over_machines(monkeypatch, caplog):
    """The second of two machines with two processes each, without really starting them."""
    ranks: list[int] = []

    def start_here(function, args, nprocs, **options):
        for local_rank in range(nprocs):
            function(local_rank, *args)

    def note_group(backend, init_method, rank, world_size, timeout):
        ranks.append(rank)
        assert (init_method, world_size, timeout) == ("file:///meet", 4, DEFAULT_TIMEOUT)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.multiprocessing, "start_processes", start_here)
    monkeypatch.setattr(dist, "init_process_group", note_group)
    monkeypatch.setattr(comm, "destroy_process_groups", lambda: None)
    monkeypatch.setattr(comm, "create_local_process_group", lambda processes: None)
    called: list[str] = []
    launch(called.append, 2, num_machines=2, machine_rank=1, dist_url="file:///meet", args=("x",))
    assert ranks == [2, 3]
    assert called == ["x", "x"]
    assert "unreliable" in caplog.text


@pytest.mark.embedded_only
def test_meeting_point_that_is_not_there_is_named(monkeypatch, caplog):
    def refuse(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.setattr(
        torch.multiprocessing,
        "start_processes",
        lambda function, args, **options: function(0, *args),
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(dist, "init_process_group", refuse)
    with pytest.raises(OSError, match="no route"):
        launch(print, 2, dist_url="tcp://nowhere:1")
    assert "tcp://nowhere:1" in caplog.text


@pytest.mark.embedded_only
def test_bad_meeting_points_and_too_many_gpus_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="dist_url"):
        launch(print, 2)
    with pytest.raises(ValueError, match="2 machine"):
        launch(print, 1, num_machines=2, dist_url="auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="2 GPUs"):
        launch(print, 2, dist_url="auto")


def test_processes_wait_half_an_hour_for_each_other():
    assert timedelta(minutes=30) == DEFAULT_TIMEOUT
