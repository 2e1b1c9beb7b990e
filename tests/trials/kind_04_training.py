"""Kind 4: what the system does to a training's folder: full, read-only, removed, no folder."""

from __future__ import annotations

import subprocess
from pathlib import Path

from harness import Trial
from stock import TRAIN

LONG = (*TRAIN, "SOLVER.MAX_ITER", "30", "SOLVER.CHECKPOINT_PERIOD", "3", "DATASETS.TEST", "()")
RUN = "import sys\nfrom cellseg.cli import main\nsys.exit(main(%r))\n"


def _disk(size: str):
    """A disk of its own for `out`."""

    def prepare(folder: Path) -> None:
        (folder / "out").mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=777", "tmpfs", "out"]
        subprocess.run(command, cwd=folder, check=True)

    return prepare


def _last_is_whole(folder: Path) -> str:
    from cellseg.engine.resuming import find_last_checkpoint

    left = [path.name for path in (folder / "out").rglob("*partial*")]
    return f"left: {left}" if left else "" if find_last_checkpoint(folder / "out") else "none whole"


def _after(words: str, do: str) -> str:
    return f"""
import os, re, shutil, sys, threading, time
from pathlib import Path
def wait():
    said = os.readlink("/proc/self/fd/1")
    while not re.search({words!r}, open(said, errors="replace").read()):
        time.sleep(0.003)
    {do}
threading.Thread(target=wait, daemon=True).start()
"""


def _limited(size: int, words: list[str]) -> str:
    """No file may become larger, as with a quota."""
    limit = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"
    return limit + RUN % (words,)


def _make(mode: int):
    def prepare(folder: Path) -> None:
        (folder / "out").mkdir()
        (folder / "out").chmod(mode)

    return prepare


TRIALS = [
    Trial(
        4,
        "a disk that has no room for a checkpoint",
        LONG,
        needs=("data",),
        prepare=_disk("1m"),
        says=(r"TrainingError: out: a checkpoint needs about \d+\.\d MB, and \d\.\d MB are free",),
    ),
    Trial(
        4,
        "a disk that is full after some checkpoints",
        LONG,
        needs=("data",),
        prepare=_disk("12m"),
        says=(
            r"TrainingError: out/model_\d+\.pth could not be written",
            r"a checkpoint needs about \d+\.\d MB, and \d+\.\d MB are free",
            "are whole: then go on with --resume",
        ),
        holds=_last_is_whole,
    ),
    Trial(
        4,
        "a quota below the size of a checkpoint",
        code=_limited(1_000_000, [*LONG]),
        needs=("data",),
        says=(r"TrainingError: out/model_0000002\.pth could not be written", "needs about"),
    ),
    Trial(
        4,
        "the output folder is removed under a training",
        code=_after("to out/model_0000005", 'shutil.rmtree("out", ignore_errors=True)')
        + RUN % (list(LONG),),
        needs=("data",),
        status=(0,),
        says=("is gone: somebody has removed or emptied the folder",),
        holds=_last_is_whole,
    ),
    Trial(
        4,
        "the output folder becomes read-only under a training",
        code=_after("Starting training", 'os.chmod("out", 0o500)') + RUN % (list(LONG),),
        needs=("data",),
        says=("out.*Permission denied; choose another folder",),
    ),
    Trial(
        4,
        "a read-only output folder",
        LONG,
        needs=("data",),
        prepare=_make(0o500),
        says=("out.*Permission denied; choose another folder",),
    ),
    Trial(
        4,
        "an output folder that may not be entered",
        LONG,
        needs=("data",),
        prepare=_make(0o000),
        says=("out.*Permission denied; choose another folder",),
    ),
    Trial(
        4,
        "an output folder that is a file",
        LONG,
        needs=("data",),
        prepare=lambda folder: (folder / "out").write_text("mine") and None,
        says=("out.*(File exists|Not a directory); a file is where a folder is expected",),
    ),
    Trial(
        4,
        "an output folder below a file",
        (*LONG, "OUTPUT_DIR", "mine.txt/out"),
        needs=("data",),
        prepare=lambda folder: (folder / "mine.txt").write_text("mine") and None,
        says=("mine.txt/out.*Not a directory",),
    ),
    Trial(
        4,
        "an output folder of 300 letters",
        (*LONG, "OUTPUT_DIR", "o" * 300),
        needs=("data",),
        says=("File name too long; choose a shorter name",),
    ),
    Trial(
        4,
        "a log that is a folder",
        LONG,
        needs=("data",),
        prepare=lambda folder: (folder / "out/log.txt").mkdir(parents=True),
        says=("log.txt.*Is a directory",),
    ),
    Trial(
        4,
        "metrics that are a folder",
        LONG,
        needs=("data",),
        prepare=lambda folder: (folder / "out/metrics.json").mkdir(parents=True),
        says=("metrics.json.*Is a directory",),
    ),
    Trial(
        4,
        "a lock that is a folder",
        LONG,
        needs=("data",),
        prepare=lambda folder: (folder / "out/training.lock").mkdir(parents=True),
        says=("training.lock.*Is a directory",),
    ),
    Trial(
        4,
        "an output folder with a name in no encoding",
        shell="cellseg " + " ".join(map(repr, (*TRAIN, "OUTPUT_DIR"))) + " $'out_\\xe9'",
        needs=("data",),
        says=("OUTPUT_DIR is 'out_.*choose another name",),
    ),
]
