"""Errors of the system and of PyTorch become one line with file and advice."""

from __future__ import annotations

import argparse
import errno
import os
import re
from pathlib import Path

import pytest
import torch.multiprocessing
from cellseg.cli import run_command
from cellseg.engine import distributed
from cellseg.system_errors import explain_system_error


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EROFS, "choose another folder"),
        (errno.EACCES, "choose another folder"),
        (errno.ENOTDIR, "a file is where a folder is expected"),
        (errno.ENAMETOOLONG, "choose a shorter name"),
        (errno.EMFILE, "ulimit -n"),
    ],
)
def test_errors_of_the_system_name_file_and_advice(number: int, advice: str) -> None:
    said = explain_system_error(OSError(number, os.strerror(number), "out/a.tif"))
    assert said.startswith(f"out/a.tif: {os.strerror(number)}; ")
    assert advice in said


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        (
            "DataLoader worker (pid 9) is killed by signal: Bus error. It is possible that "
            "dataloader's workers are out of shared memory.",
            "NUM_WORKERS 0.*--shm-size",
        ),
        ("The server socket has failed: EADDRINUSE, address already in use", "--dist-url"),
        ("CUDA out of memory. Tried to allocate 2 GiB", "IMS_PER_BATCH lower"),
        ("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0", "disk is full"),
    ],
)
def test_errors_of_pytorch_say_what_to_do(text: str, advice: str) -> None:
    error = RuntimeError(f"Traceback of a process:\n  File x.py\n{text}")
    assert re.match(re.escape(text[:20]) + ".*" + advice, explain_system_error(error))


def test_a_cause_is_found_and_a_bug_is_none() -> None:
    wrapped = RuntimeError("writing failed")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device", "x.pth")
    assert explain_system_error(wrapped).startswith("x.pth: No space left on device; free")
    assert explain_system_error(RuntimeError("shape [3] is invalid")) == ""
    assert explain_system_error(KeyError("momentum")) == ""


def test_an_output_that_is_a_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("")
    status = run_command("demo", ["-o", str(tmp_path / "out" / "below")])
    said = capsys.readouterr().err.strip().splitlines()
    assert status == 1
    assert "out" in said[-1]
    assert "a file is where a folder is expected" in said[-1]


def test_a_port_that_is_taken_ends_a_run_of_processes_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def launch(*_: object) -> None:
        raise torch.multiprocessing.ProcessRaisedException(
            "-- Process 0 terminated with:\nTraceback:\nRuntimeError: EADDRINUSE", 0, 1
        )

    monkeypatch.setattr(distributed, "launch", launch)
    args = argparse.Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto")
    with pytest.raises(SystemExit, match="EADDRINUSE; another training has the port"):
        distributed.run_in_processes(print, args)
