"""Locks on files: one process at a time, and none that outlives its process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cellseg.locks import LockedError, is_held_here, take_lock

HOLD = """
from cellseg.locks import take_lock
lock = take_lock({!r})
print("held", flush=True)
input()
"""


def hold_elsewhere(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD.format(str(path))]
    holder = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_file_is_held_by_one_process_and_says_by_which(tmp_path: Path) -> None:
    path = tmp_path / "in_use.lock"
    with hold_elsewhere(path) as holder:
        with pytest.raises(LockedError) as caught:
            take_lock(path)
        said = json.loads(path.read_text())
        assert said["process"] == holder.pid
        assert f"process {holder.pid} on {said['host']}, since {said['since']}" in str(caught.value)
        holder.communicate("end\n")
    take_lock(path).release()


def test_the_lock_of_a_killed_process_hinders_nobody(tmp_path: Path) -> None:
    path = tmp_path / "in_use.lock"
    with hold_elsewhere(path) as holder:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    assert path.exists()
    lock = take_lock(path)
    assert json.loads(path.read_text())["process"] == os.getpid()
    lock.release()
    assert not path.exists()


def test_a_process_holds_a_file_once_by_whatever_name(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    lock = take_lock(tmp_path / "there" / "in_use.lock")
    with pytest.raises(LockedError, match="this process"):
        take_lock(tmp_path / "link" / "in_use.lock")
    assert is_held_here(tmp_path / "link" / "in_use.lock")
    lock.release()
    lock.release()
    take_lock(tmp_path / "link" / "in_use.lock").release()
