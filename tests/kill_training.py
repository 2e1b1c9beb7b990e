"""Kill a training at random moments, let it resume, and compare what comes out to the last bit.

    python -m tests.kill_training --times 100 [--workers 1] [--seed 0]

A tiny model is trained once without a break. Then the same training is begun, killed (SIGKILL)
anywhere in its life, in the midst of a checkpoint or of an evaluation, resumed, perhaps killed
again, until it has ended; this is repeated until so many kills were done. Compared are all
checkpoints, with optimizer, averages and random states, the best one with its history, and
metrics.json. Processes are forked from one that has imported everything.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cellseg.cli.train  # noqa: F401 -- imported once, here
import torch
import torch.utils.tensorboard
from cellseg.cli import main as run_cellseg

QUICK_START = "quick_start.yaml"
OF_THE_CLOCK = {"time", "data_time", "rank_data_time", "eta_seconds"}
DECLARATION = """
killed:
  format: synthetic
  image_hw: [64, 64]
  splits: {train: {images: 5, seed: 1}, val: {images: 1, seed: 2}}
  classes: [cell]
"""
OPTIONS = {
    "DATASETS.TRAIN": "('killed_train',)",
    "DATASETS.TEST": "('killed_val',)",
    "DATALOADER.ASPECT_RATIO_GROUPING": "True",
    "INPUT.MIN_SIZE_TRAIN": "(64,)",
    "INPUT.MIN_SIZE_TEST": "64",
    "MODEL.BACKBONE.FREEZE_AT": "0",
    "MODEL.RESNETS.STEM_OUT_CHANNELS": "8",
    "MODEL.RESNETS.RES2_OUT_CHANNELS": "16",
    "MODEL.RESNETS.WIDTH_PER_GROUP": "4",
    "MODEL.RESNETS.NORM": "BN",
    "MODEL.FPN.NORM": "BN",
    "MODEL.ROI_BOX_HEAD.NORM": "",
    "MODEL.ROI_MASK_HEAD.NORM": "",
    "MODEL.FPN.OUT_CHANNELS": "8",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": "16",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": "30",
    "MODEL.RPN.POST_NMS_TOPK_TEST": "20",
    "MODEL.ROI_BOX_HEAD.FC_DIM": "16",
    "MODEL.ROI_MASK_HEAD.CONV_DIM": "8",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": "1",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": "16",
    "SOLVER.IMS_PER_BATCH": "2",
    "SOLVER.MAX_ITER": "24",
    "SOLVER.WARMUP_ITERS": "4",
    "SOLVER.CHECKPOINT_PERIOD": "5",
    "TEST.EVAL_PERIOD": "5",
    "TEST.DETECTIONS_PER_IMAGE": "10",
    "CELLSEG.DETERMINISTIC": "True",
    "CELLSEG.TEST.PICTURES": "0",
    "CELLSEG.TRAIN.BEST_METRIC": "validation_loss",
    "CELLSEG.TRAIN.BEST_MODE": "min",
    "CELLSEG.TRAIN.VALIDATION_LOSS": "True",
    "CELLSEG.TRAIN.EMA_DECAY": "0.9",
    "CELLSEG.TRAIN.SAMPLE_PICTURES": "0",
    "CELLSEG.AUGMENTATION.NOISE.ENABLED": "True",
}


@dataclass
class Killing:
    """Trainings that are killed.

    Args:
        folder: for all that is written.
        workers: DATALOADER.NUM_WORKERS.
        more: further KEY: VALUE pairs.

    Attributes:
        life_s: how long an uninterrupted training took.
        moments: how many were killed when.
    """

    folder: Path
    workers: int = 0
    more: Mapping[str, str] = field(default_factory=dict)
    life_s: float = 0.0
    moments: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        declared = self.folder / "killed.yaml"
        declared.write_text(DECLARATION)
        options = {
            **OPTIONS,
            "CELLSEG.DATASETS.DECLARATIONS": f"['{declared}']",
            "DATALOADER.NUM_WORKERS": str(self.workers),
            **self.more,
        }
        self.options = [word for pair in options.items() for word in pair]

    def start(self, run: Path, *, resume: bool) -> int:
        """Start a training in a process of its own; its id."""
        sys.stdout.flush()
        child = os.fork()
        if child:
            return child
        status = 70
        try:
            with run.with_suffix(".log").open("ab", buffering=0) as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            words = ["train", "--config-file", QUICK_START, *(["--resume"] if resume else [])]
            status = run_cellseg([*words, "OUTPUT_DIR", str(run), *self.options])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)

    def train_whole(self, run: Path) -> None:
        """Train without a break."""
        start = time.monotonic()
        self.wait_for(self.start(run, resume=False), run)
        self.life_s = time.monotonic() - start

    def wait_for(self, child: int, run: Path) -> None:
        """Wait for the end of a training, which has to be a good one."""
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            tail = run.with_suffix(".log").read_text()[-3000:]
            raise AssertionError(f"{run.name} ended with {status}: {tail}")

    def train_with_kills(self, run: Path, chance: random.Random, most: int) -> int:
        """Train, and kill up to `most` times on the way; how often it was killed."""
        kills = 0
        for attempt in range(most + 1):
            child = self.start(run, resume=attempt > 0)
            if attempt == most or (attempt and chance.random() < 0.5):
                self.wait_for(child, run)
                return kills
            if not self.kill_somewhere(child, run, chance):
                return kills
            kills += 1
        return kills

    def kill_somewhere(self, child: int, run: Path, chance: random.Random) -> bool:
        """Kill at a random moment; False if the training came to its end first."""
        moment = chance.choice(["any", "any", "checkpoint", "evaluation"])
        wait_s = chance.uniform(0, self.life_s)
        log = run.with_suffix(".log")
        begin = time.monotonic()
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            is_time = time.monotonic() - begin > wait_s
            there = {
                "any": lambda: True,
                "checkpoint": lambda: any(run.glob("*.partial")),
                "evaluation": lambda: _evaluates(log),
            }
            if is_time and there[moment]():
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                self.moments[moment] += 1
                return True
            time.sleep(0.0005 if is_time else 0.005)
        return False


def _evaluates(log: Path) -> bool:
    """Whether the last lines of a log are those of an evaluation."""
    if not log.exists():
        return False
    tail = log.read_bytes()[-4000:]
    return tail.rfind(b"inference") > max(tail.rfind(b"is the best"), tail.rfind(b"not better"))


def list_differences(run: Path, whole: Path) -> list[str]:
    """In what a training differs from another one that had no break; empty if in nothing."""
    found = [f"left: {path.name}" for path in run.rglob("*partial*")]
    names = sorted(path.name for path in whole.glob("*.pth"))
    if names != sorted(path.name for path in run.glob("*.pth")):
        return [*found, f"checkpoints: {sorted(path.name for path in run.glob('*.pth'))}"]
    for name in names:
        one, other = (torch.load(each / name, weights_only=True) for each in (run, whole))
        found += [f"{name}: {place}" for place in _unequal(one, other)]
    for name in ("best.json", "last_checkpoint"):
        if (run / name).read_text() != (whole / name).read_text():
            found.append(name)
    mine, other = _read_lines(run), _read_lines(whole)
    if [line["iteration"] for line in mine] != [line["iteration"] for line in other]:
        found.append(f"metrics.json: iterations {[line['iteration'] for line in mine]}")
    elif mine != other:
        found.append("metrics.json: figures")
    return found


def _read_lines(run: Path) -> list[dict[str, str]]:
    lines = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    return [{k: repr(v) for k, v in line.items() if k not in OF_THE_CLOCK} for line in lines]


def _unequal(one: Any, other: Any, place: str = "") -> Iterator[str]:
    """Where two checkpoints differ; clocks may."""
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        if not same or one.numpy().tobytes() != other.numpy().tobytes():
            yield place
    elif isinstance(one, dict):
        if one.keys() != other.keys():
            yield f"{place}: {sorted(map(str, one.keys() ^ other.keys()))}"
            return
        for key in one.keys() - OF_THE_CLOCK:
            yield from _unequal(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            yield f"{place}: {len(one)} and {len(other)} entries"
        for number, (a, b) in enumerate(zip(one, other)):
            yield from _unequal(a, b, f"{place}/{number}")
    elif repr(one) != repr(other):
        yield f"{place}: {one} and {other}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100, help="kills (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="of the loader")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    torch.set_num_threads(1)
    chance = random.Random(args.seed)
    kills = trainings = 0
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        killing = Killing(folder, args.workers)
        killing.train_whole(folder / "whole")
        print(f"without a break: {killing.life_s:.1f} s")
        different = []
        begin = time.monotonic()
        while kills < args.times:
            trainings += 1
            run = folder / f"run_{trainings}"
            kills += killing.train_with_kills(run, chance, min(3, args.times - kills))
            found = list_differences(run, folder / "whole")
            different += [f"{run.name}: {each}" for each in found]
            print(
                f"{run.name}: {kills} kills so far; {'; '.join(found[:5]) or 'equal'}", flush=True
            )
            shutil.rmtree(run)
        took_s = time.monotonic() - begin
    print(
        f"{kills} kills ({dict(killing.moments)}) of {trainings} trainings in {took_s:.0f} s: "
        f"{len(different)} differences"
    )
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
