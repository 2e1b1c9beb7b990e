"""Too little shared memory: an error of the worker in place of a training that waits for ever."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cellseg.errors import TrainingError
from cellseg.system_errors import strip_worker_traceback
from cellseg.training_data import shared_memory
from cellseg.training_data.shared_memory import tensor_bytes, wait_for_room
from torch.utils.data import DataLoader

Found = namedtuple("Found", "f_frsize f_blocks f_bavail")
ENTRY = {"image": torch.zeros(1000, dtype=torch.uint8), "file_name": "a.png"}


def be_a_worker(monkeypatch: pytest.MonkeyPatch, *states: Found) -> list[Found]:
    """One of three workers, and what the system says of its shared memory, in turn."""
    left = list(states)
    monkeypatch.setattr(shared_memory, "get_worker_info", lambda: SimpleNamespace(num_workers=3))
    monkeypatch.setattr(shared_memory.os, "statvfs", lambda _: left.pop(0))
    monkeypatch.setattr(shared_memory.time, "sleep", lambda _: None)
    return left


def test_room_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    left = be_a_worker(monkeypatch, Found(100, 60, 30))
    wait_for_room(ENTRY, tmp_path)
    assert left == []


def test_what_can_never_fit_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    be_a_worker(monkeypatch, Found(100, 59, 59))
    with pytest.raises(TrainingError, match=r"3 processes need .*NUM_WORKERS 0, or .*--shm-size"):
        wait_for_room(ENTRY, tmp_path)


def test_others_may_give_room_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    left = be_a_worker(monkeypatch, Found(100, 60, 3), Found(100, 60, 29), Found(100, 60, 30))
    wait_for_room(ENTRY, tmp_path)
    assert left == []


def test_what_stays_full_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    be_a_worker(monkeypatch, Found(100, 60, 3))
    with pytest.raises(TrainingError, match=r"0\.0 of them free"):
        wait_for_room(ENTRY, tmp_path, wait_s=-1)


def test_without_workers_or_shared_memory_nothing_is_asked(tmp_path: Path) -> None:
    wait_for_room(ENTRY, tmp_path)
    wait_for_room(ENTRY, tmp_path / "none")


def test_tensors_are_counted_at_any_depth() -> None:
    instances = SimpleNamespace(_fields={"boxes": SimpleNamespace(tensor=torch.zeros(2, 4))})
    assert tensor_bytes({"image": torch.zeros(3), "instances": instances, "id": 7}) == 12 + 32


class Failing(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Any:
        raise TrainingError("too little of it:\nsecond line")


def test_the_text_of_an_error_of_a_worker() -> None:
    with pytest.raises(TrainingError) as caught:
        next(iter(DataLoader(Failing(), num_workers=1)))
    assert "Original Traceback" in str(caught.value)
    assert strip_worker_traceback(str(caught.value)) == "too little of it:\nsecond line"
