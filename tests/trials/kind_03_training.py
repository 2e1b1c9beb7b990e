"""Kind 3: a training does not overwrite another one without a word, nor do two mix."""

from __future__ import annotations

import json
from pathlib import Path

from harness import Trial
from stock import TRAIN

INTO_RUN = (*TRAIN, "OUTPUT_DIR", "run")
CHANGES = ("run/*", "run/*/*", "run/*/*/*", "run")
REFUSED = ("run holds a training", "--resume", "OUTPUT_DIR", "--overwrite")


def _keep_only(*names: str):
    def prepare(folder: Path) -> None:
        for path in (folder / "run").iterdir():
            if path.is_file() and path.name not in names:
                path.unlink()

    return prepare


def _own_files(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out/notes.txt").write_text("mine")
    (folder / "out/weights.pth").write_bytes(b"mine")


def _is_one_run(folder: Path) -> str:
    runs = json.loads((folder / "run" / "run.json").read_text())["runs"]
    lines = (folder / "run" / "metrics.json").read_text().splitlines()
    numbers = [json.loads(line)["iteration"] for line in lines]
    wrong = len(runs) != 1 or numbers != sorted(set(numbers))
    return f"{len(runs)} runs, iterations {numbers}" if wrong else ""


def _no_lock(folder: Path) -> str:
    return "the lock was left" if list(folder.rglob("training.lock")) else ""


HOLD = """
import os, subprocess, sys, time
holder = subprocess.Popen([sys.executable, "-c", '''
import os, sys, time
from cellseg.engine.run_folder import locked_folder
with locked_folder("%s"):
    print("held", flush=True)
    time.sleep(60)
'''], stdout=subprocess.PIPE, text=True)
assert holder.stdout.readline() == "held\\n"
"""
RUN = "from cellseg.cli import main\nstatus = main(%r)\n"
END = "holder.kill()\nholder.wait()\n"

TRIALS = [
    Trial(
        3,
        "a new training into a finished run",
        INTO_RUN,
        needs=("run", "data"),
        says=REFUSED,
        never=("Full config",),
    ),
    Trial(
        3,
        "a new training into a run that has the best checkpoint alone",
        INTO_RUN,
        needs=("run", "data"),
        prepare=lambda folder: (folder / "run/model_final.pth").rename(
            folder / "run/model_best.pth"
        ),
        says=REFUSED,
    ),
    Trial(
        3,
        "a new training into a run without last_checkpoint",
        INTO_RUN,
        needs=("run", "data"),
        prepare=lambda folder: (folder / "run/last_checkpoint").unlink(),
        says=REFUSED,
    ),
    Trial(
        3,
        "a new training in place of a finished run",
        (*INTO_RUN, "--overwrite"),
        needs=("run", "data"),
        status=(0,),
        changes=CHANGES,
        holds=_is_one_run,
    ),
    Trial(
        3,
        "a new training into a folder with a log and a config",
        INTO_RUN,
        needs=("run", "data"),
        prepare=_keep_only("log.txt", "config.yaml"),
        status=(0,),
        changes=CHANGES,
        holds=_is_one_run,
    ),
    Trial(
        3,
        "a new training after one that came to no checkpoint",
        INTO_RUN,
        needs=("run", "data"),
        prepare=_keep_only("log.txt", "config.yaml", "metrics.json", "run.json"),
        status=(0,),
        changes=CHANGES,
        holds=_is_one_run,
    ),
    Trial(
        3,
        "a new training into an empty folder",
        TRAIN,
        needs=("data",),
        prepare=lambda folder: (folder / "out").mkdir(),
        status=(0,),
        holds=_no_lock,
    ),
    Trial(
        3,
        "a new training beside somebody's own files",
        TRAIN,
        needs=("data",),
        prepare=_own_files,
        status=(0,),
    ),
    Trial(
        3,
        "an unusable start does not throw the old run away",
        (*INTO_RUN, "--overwrite", "MODEL.WEIGHTS", "gone.pth"),
        needs=("run", "data"),
        says=("gone.pth",),
        changes=("run/log.txt", "run/config.yaml", "run"),
    ),
    Trial(
        3,
        "an evaluation into a run keeps its config",
        (*INTO_RUN, "--eval-only", "MODEL.WEIGHTS", "run/model_final.pth"),
        needs=("run", "data"),
        status=(0,),
        changes=("run/log.txt", "run/figures.json", "run/inference/*", "run/inference/*/*", "run"),
    ),
    Trial(
        3,
        "a new training from Python into a finished run",
        code="from cellseg import load_config\nfrom cellseg.engine import CellTrainer\n"
        f"cfg = load_config('quick_start.yaml', {list(INTO_RUN[3:])!r})\n"
        "trainer = CellTrainer(cfg)\ntrainer.resume_or_load(resume=False)\ntrainer.train()",
        needs=("run", "data"),
        says=REFUSED,
        changes=("run/events*", "run"),
    ),
]
TRIALS += [
    Trial(
        3,
        f"{what} while another process trains there",
        code=HOLD % "run" + RUN % (list(words),) + END + "sys.exit(status)",
        needs=("run", "data"),
        says=(r"run is in use: process \d+ on \S+, since 20\S+, trains into it",),
    )
    for what, words in {
        "a new training": INTO_RUN,
        "a training that overwrites": (*INTO_RUN, "--overwrite"),
        "a training that resumes": (*INTO_RUN, "--resume", "SOLVER.MAX_ITER", "3"),
    }.items()
]
TRIALS += [
    Trial(
        3,
        "an evaluation while another process trains there",
        code=HOLD % "run"
        + RUN % ([*INTO_RUN, "--eval-only", "MODEL.WEIGHTS", "run/model_final.pth"],)
        + END
        + "sys.exit(status)",
        needs=("run", "data"),
        status=(0,),
        changes=("run/log.txt", "run/figures.json", "run/inference/*", "run/inference/*/*", "run"),
    ),
    Trial(
        3,
        "a training after the one that had the folder was killed",
        code=HOLD % "out" + END + RUN % (list(TRAIN),) + "sys.exit(status)",
        needs=("data",),
        status=(0,),
        holds=_no_lock,
    ),
    Trial(
        3,
        "two trainings begun together",
        shell=" ".join(map(repr, ("cellseg", *TRAIN))).replace("'cellseg'", "cellseg", 1)
        + " > one.txt 2>&1 & one=$!; "
        + " ".join(map(repr, ("cellseg", *TRAIN))).replace("'cellseg'", "cellseg", 1)
        + " > two.txt 2>&1; two=$?; wait $one; echo statuses $? $two; cat one.txt two.txt",
        needs=("data",),
        status=(0,),
        says=("statuses (0 1|1 0)", "TrainingError: .*out (is in use|holds a training)"),
        holds=_no_lock,
        seconds=120,
    ),
]
