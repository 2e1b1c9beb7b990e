"""Signals at chosen moments of a command, in the process of a trial."""

from __future__ import annotations

from collections.abc import Sequence


def struck(
    words: Sequence[str], signal: str, *, at: int = 0, when: str = "", times: int = 1
) -> str:
    """Python code that runs a command and sends its own process a signal.

    Args:
        words: of the command, without `cellseg`.
        signal: "SIGTERM" and the like.
        at: number of the function of cellseg, among those that the command's `run` calls, in which
            the signal comes.
        when: the signal comes when this stands in the output, in place of `at`.
        times: how many, 0.15 s from each other.
    """
    return f"""
import os, re, signal, sys, threading, time
from cellseg.cli import main

def strike():
    for _ in range({times}):
        os.kill(os.getpid(), signal.{signal})
        time.sleep(0.15)

def wait():
    said = os.readlink("/proc/self/fd/1")
    while not re.search({when!r}, open(said, errors="replace").read()):
        time.sleep(0.005)
    strike()

calls = -1

def count(frame, event, argument):
    global calls
    if event != "call" or not frame.f_globals.get("__name__", "").startswith("cellseg."):
        return
    if frame.f_code.co_name == "run" and frame.f_globals["__name__"].startswith("cellseg.cli."):
        calls = max(calls, 0)
    if calls >= 0:
        calls += 1
    if calls == {at}:
        sys.setprofile(None)
        threading.Thread(target=strike, daemon=True).start()
        time.sleep(0.02)

if {when!r}:
    threading.Thread(target=wait, daemon=True).start()
else:
    sys.setprofile(count)
status = main({list(words)!r})
sys.setprofile(None)
print("calls", calls)
sys.exit(status)
"""
