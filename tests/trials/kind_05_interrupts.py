"""Kind 5: interrupts. Every command ends in one line, with 130 or 143, and leaves nothing half."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from harness import Trial
from stock import TRAIN
from strikes import struck

STATUS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
LONG = (*TRAIN, "SOLVER.MAX_ITER", "500", "SOLVER.CHECKPOINT_PERIOD", "400")
EVALUATING = (*TRAIN, "SOLVER.MAX_ITER", "40", "TEST.EVAL_PERIOD", "1")
PREDICT = ("predict", "images", "-o", "out", "--model", "run", "--save", "labels")

COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]]] = {
    # words, needs, and in which of its calls the signal comes
    "predict": (PREDICT, ("run", "images", "data"), (1, 40, 400)),
    "evaluate": (
        ("evaluate", "--predictions", "results/results.json", "--ground-truth", "truth.json"),
        ("results",),
        (1,),
    ),
    "tune": (("tune", "run", "--output", "tuned.yaml"), ("run", "data"), (1, 40, 400)),
    "report": (("report", "run", "--output", "report.html"), ("run", "data"), (1, 40, 400)),
    "inspect": (("inspect", "data/cells.yaml", "--output", "found"), ("data",), (1, 40, 400)),
    "convert": (
        (
            *("convert", "--from", "label_images", "--input", "data", "--split", "train"),
            *("--to", "coco_json", "--output", "converted"),
        ),
        ("data",),
        (1, 20),
    ),
    "find-lr": (
        ("find-lr", *TRAIN[1:], "OUTPUT_DIR", "swept"),
        ("data",),
        (1, 40, 400),
    ),
    "bundle": (("bundle", "run", "--name", "mine", "-o", "mine.zip"), ("run",), (1, 30)),
    "export-model": (("export-model", "--model", "run", "--output", "m.onnx"), ("run",), (1, 40)),
    "preview": (("preview", "--output", "preview.png"), (), (1, 40, 400)),
    "demo": (("demo", "-o", "demo"), (), (1, 100)),
    "info": (("info",), (), (1, 5)),
    "link": (("link", "linked", "--output", "tracks"), (), (1,)),
}


def _nothing_half(folder: Path) -> str:
    left = [path.name for path in folder.rglob("*") if "partial" in path.name]
    left += [path.name for path in folder.rglob("training.lock")]
    return f"left: {', '.join(left)}" if left else ""


def _one_line(output: str) -> str:
    return rf"^Interrupted \({output}\): [^\n]+$"


def _is_saved(iteration: str) -> Callable[[Path], str]:
    def look(folder: Path) -> str:
        out = folder / "out"
        saved = [path.name for path in out.glob(f"model_{iteration}.pth")]
        if not saved or (out / "last_checkpoint").read_text() not in saved:
            return f"no checkpoint: {sorted(path.name for path in out.glob('*'))}"
        status = json.loads((out / "run.json").read_text())["runs"][-1]["status"]
        return _nothing_half(folder) or ("" if status == "interrupted" else f"it is {status}")

    return look


def _interrupted(name: str, words: Sequence[str], needs: tuple[str, ...]) -> list[Trial]:
    return [
        Trial(
            5,
            f"{signal} in call {at} of {name}",
            code=struck(words, signal, at=at),
            needs=needs,
            status=(STATUS[signal],),
            says=(_one_line(signal),),
            holds=_nothing_half,
        )
        for signal in ("SIGINT", "SIGTERM")
        for at in COMMANDS[name][2]
    ]


TRIALS = [
    trial
    for name, (words, needs, _) in COMMANDS.items()
    for trial in _interrupted(name, words, needs)
]
TRIALS += [
    Trial(
        5,
        f"{signal} in the midst of a training",
        code=struck(LONG, signal, when="Starting training"),
        needs=("data",),
        status=(status,),
        says=(_one_line(signal), r"out/model_\d+\.pth has iteration \d+; go on with --resume"),
        holds=_is_saved("*"),
    )
    for signal, status in STATUS.items()
]
TRIALS += [
    Trial(
        5,
        f"{signal} in the midst of an evaluation",
        code=struck(EVALUATING, signal, when="Start inference"),
        needs=("data",),
        status=(status,),
        says=(_one_line(signal), "--resume"),
        holds=_is_saved("*"),
    )
    for signal, status in STATUS.items()
]
TRIALS += [
    Trial(
        5,
        f"{signal} in a training whose images others load",
        code=struck((*LONG, "DATALOADER.NUM_WORKERS", "2"), signal, when="Starting training"),
        needs=("data",),
        status=(STATUS[signal],),
        says=(_one_line(signal),),
        holds=_is_saved("*"),
    )
    for signal in ("SIGINT", "SIGTERM")
]
TRIALS += [
    Trial(
        5,
        f"{signal} to all processes of a training whose images others load",
        code=struck(
            (*LONG, "DATALOADER.NUM_WORKERS", "2"), signal, when="Starting training"
        ).replace("os.kill(os.getpid()", "os.killpg(os.getpgrp()"),
        needs=("data",),
        status=(STATUS[signal],),
        says=(_one_line(signal),),
        holds=_is_saved("*"),
    )
    for signal in ("SIGINT", "SIGTERM")
]
TRIALS += [
    Trial(
        5,
        f"{signal} twice in a training",
        code=struck(LONG, signal, when="Starting training", times=2),
        needs=("data",),
        status=(STATUS[signal],),
        says=(_one_line(signal),),
        seconds=30,
    )
    for signal in ("SIGINT", "SIGTERM")
]
TRIALS += [
    Trial(
        5,
        f"{signal} in call {at} of a training",
        code=struck(LONG, signal, at=at),
        needs=("data",),
        status=(STATUS[signal],),
        says=(_one_line(signal),),
        holds=_nothing_half,
    )
    for signal in ("SIGINT", "SIGTERM")
    for at in (1, 30, 300, 1000)
]
TRIALS += [
    Trial(
        5,
        "SIGTERM in a prediction by workers",
        code=struck((*PREDICT, "--workers", "1"), "SIGTERM", when="embedded engine|Detectron2"),
        needs=("run", "images", "data"),
        status=(143,),
        says=(_one_line("SIGTERM"),),
        holds=_nothing_half,
    ),
    Trial(
        5,
        "a prediction that was interrupted goes on",
        shell="cellseg predict images -o out --model run --save labels & sleep 4; kill -TERM $!; "
        "wait $!; cellseg predict images -o out --model run --save labels --resume",
        needs=("run", "images", "data"),
        status=(0,),
        says=("2 of 2 images done",),
        holds=_nothing_half,
    ),
    Trial(
        5,
        "Ctrl-C in Python is Python's",
        code="import os, signal\nfrom cellseg import load_config\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    import time\n    time.sleep(1)\n"
        "except KeyboardInterrupt as error:\n    print('caught', type(error).__name__)",
        status=(0,),
        says=("caught KeyboardInterrupt",),
    ),
]
