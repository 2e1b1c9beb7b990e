"""detectron2.utils.comm: in one process, and in two that talk over gloo."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm

WORLD_SIZE = 2


def run_all_functions(rank: int, folder: str) -> None:
    """One of the two processes; writes what it saw."""
    address = f"file://{folder}/meeting_point"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=WORLD_SIZE)
    seen: dict[str, Any] = {}
    try:
        comm.get_local_process_group()
    except AssertionError as error:
        seen["without_local_group"] = str(error)
    comm.create_local_process_group(WORLD_SIZE)
    comm.create_local_process_group(WORLD_SIZE)
    seen["ranks"] = [comm.get_rank(), comm.get_local_rank()]
    seen["sizes"] = [comm.get_world_size(), comm.get_local_size()]
    seen["group_size"] = dist.get_world_size(comm.get_local_process_group())
    seen["is_main"] = comm.is_main_process()
    comm.synchronize()
    seen["all_gather"] = comm.all_gather({"rank": rank, "text": "x" * (1 + 1000 * rank)})
    seen["all_gather_in_group"] = comm.all_gather(rank, group=comm.get_local_process_group())
    seen["gather"] = comm.gather([rank])
    seen["gather_in_1"] = comm.gather(rank * 10, dst=1)
    torch.manual_seed(rank)
    seen["seed"] = comm.shared_random_seed()
    losses = {"b": torch.tensor(1.0 + rank), "a": torch.tensor(10.0 * rank)}
    for name, average in (("mean", True), ("sum", False)):
        reduced = comm.reduce_dict(losses, average=average)
        seen[name] = {key: float(value) for key, value in reduced.items()}
    seen["untouched"] = {key: float(value) for key, value in losses.items()}
    groups = [weakref.ref(dist.group.WORLD), weakref.ref(comm.get_local_process_group())]
    comm.synchronize()  # nobody leaves while another still talks
    comm.destroy_process_groups()
    seen["groups_left"] = [group() is not None for group in groups]
    Path(folder, f"seen_{rank}.json").write_text(json.dumps(seen), encoding="utf-8")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("comm")
    mp.spawn(run_all_functions, args=(str(folder),), nprocs=WORLD_SIZE)
    return [
        json.loads((folder / f"seen_{rank}.json").read_text("utf-8")) for rank in range(WORLD_SIZE)
    ]


def test_ranks_and_sizes(seen: list[dict[str, Any]]) -> None:
    assert [one["ranks"] for one in seen] == [[0, 0], [1, 1]]
    assert [one["sizes"] for one in seen] == [[2, 2], [2, 2]]
    assert [one["is_main"] for one in seen] == [True, False]


def test_local_group(seen: list[dict[str, Any]]) -> None:
    assert all("create_local_process_group" in one["without_local_group"] for one in seen)
    assert [one["group_size"] for one in seen] == [2, 2]


def test_groups_and_their_threads_end_before_python_does(seen: list[dict[str, Any]]) -> None:
    assert [one["groups_left"] for one in seen] == [[False, False], [False, False]]


def test_gathering(seen: list[dict[str, Any]]) -> None:
    for one in seen:
        assert [(item["rank"], len(item["text"])) for item in one["all_gather"]] == [
            (0, 1),
            (1, 1001),
        ]
        assert one["all_gather_in_group"] == [0, 1]
    assert [one["gather"] for one in seen] == [[[0], [1]], []]
    assert [one["gather_in_1"] for one in seen] == [[], [0, 10]]


def test_shared_seed(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["seed"] == seen[1]["seed"]
    assert 0 <= seen[0]["seed"] < 2**31


def test_reduced_dicts(seen: list[dict[str, Any]]) -> None:
    assert seen[0]["mean"] == {"a": 5.0, "b": 1.5}
    assert seen[0]["sum"] == {"a": 10.0, "b": 3.0}
    assert [one["untouched"] for one in seen] == [{"a": 0.0, "b": 1.0}, {"a": 10.0, "b": 2.0}]


def test_single_process() -> None:
    assert (comm.get_rank(), comm.get_local_rank()) == (0, 0)
    assert (comm.get_world_size(), comm.get_local_size()) == (1, 1)
    assert comm.is_main_process()
    comm.synchronize()
    data = {"any": "thing"}
    assert comm.all_gather(data) == [data]
    assert comm.gather(data) == [data]
    assert 0 <= comm.shared_random_seed() < 2**31
    losses = {"loss": torch.tensor(2.0)}
    assert comm.reduce_dict(losses) == losses
    with pytest.raises(AssertionError):
        comm.get_local_process_group()
