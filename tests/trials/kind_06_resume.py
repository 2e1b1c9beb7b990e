"""Kind 6: resume finds its way, whatever is damaged, and nothing is lost or there twice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from harness import Trial
from stock import TRAIN

RESUME = (*TRAIN, "OUTPUT_DIR", "run", "SOLVER.MAX_ITER", "4", "--resume")
CHANGES = ("run/*", "run/*/*", "run/*/*/*", "run")
Prepare = Callable[[Path], None]


def _note(content: bytes | None) -> Prepare:
    """last_checkpoint with this in it, or none."""

    def prepare(folder: Path) -> None:
        path = folder / "run" / "last_checkpoint"
        path.unlink()
        if content is not None:
            path.write_bytes(content)

    return prepare


def _damaged(damage: Callable[[bytes], bytes], *, older: bool = True) -> Prepare:
    """The newest checkpoint damaged; with a whole one beside it, or alone."""

    def prepare(folder: Path) -> None:
        final = folder / "run" / "model_final.pth"
        if older:
            shutil.copy(final, folder / "run" / "model_0000001.pth")
        final.write_bytes(damage(final.read_bytes()))

    return prepare


def _flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


def _weights_alone(folder: Path) -> None:
    import torch

    path = folder / "run" / "model_final.pth"
    torch.save({"model": torch.load(path, weights_only=True)["model"]}, path)


def _all(*prepares: Prepare) -> Prepare:
    def prepare(folder: Path) -> None:
        for one in prepares:
            one(folder)

    return prepare


def _write(name: str, content: bytes, *, append: bool = False) -> Prepare:
    def prepare(folder: Path) -> None:
        path = folder / "run" / name
        path.write_bytes((path.read_bytes() if append else b"") + content)

    return prepare


def _remove(name: str) -> Prepare:
    return lambda folder: (folder / "run" / name).unlink()


def _lines_are_right(folder: Path) -> str:
    """Each line of metrics.json whole, each iteration once, in their order, and the last one."""
    text = (folder / "run" / "metrics.json").read_text()
    try:
        numbers = [json.loads(line)["iteration"] for line in text.splitlines()]
    except ValueError:
        return f"metrics.json has a line that is none: {text[-80:]!r}"
    if numbers != sorted(set(numbers)) or not text.endswith("\n"):
        return f"iterations of metrics.json: {numbers}"
    return "" if numbers[-1] == 4 else f"metrics.json ends at {numbers[-1]}"


def _resumed(name: str, prepare: Prepare, *says: str) -> Trial:
    return Trial(
        6,
        name,
        RESUME,
        needs=("run", "data"),
        prepare=prepare,
        status=(0,),
        says=("Resuming from run/model", *says),
        changes=CHANGES,
        holds=_lines_are_right,
    )


NEWEST = "the newest whole checkpoint"
NOTES = {
    "is missing": None,
    "is empty": b"",
    "is a blank line": b"\n \n",
    "is binary": bytes(range(256)),
    "is Latin-1": "modèle.pth".encode("latin-1"),
    "names what is gone": b"model_0000099.pth",
    "names a folder": b"inference",
    "names the folder above": b"..",
    "names another folder's": b"../elsewhere/model_final.pth",
    "names the best one": b"model_best.pth",
    "is a megabyte": b"x" * 2**20,
    "has two lines": b"model_final.pth\nmodel_0000001.pth",
    "names a name of 300 letters": b"m" * 300 + b".pth",
}
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut in half": lambda content: content[: len(content) // 2],
    "without its last byte": lambda content: content[:-1],
    "with one bit flipped": _flip,
    "with zeros in it": lambda content: content[:9000] + bytes(4096) + content[13096:],
    "empty": lambda content: b"",
    "a text": lambda content: b"no checkpoint at all\n",
    "with bytes behind it": lambda content: content[:-22] + b"x" * 70000,
}

TRIALS = [
    _resumed(f"resume where last_checkpoint {what}", _note(content), NEWEST)
    for what, content in NOTES.items()
]
TRIALS += [
    _resumed(f"resume where the last checkpoint is {what}", _damaged(damage), NEWEST, "model_final")
    for what, damage in DAMAGES.items()
]
TRIALS += [
    Trial(
        6,
        f"resume where the only checkpoint is {what}",
        RESUME,
        needs=("run", "data"),
        prepare=_damaged(damage, older=False),
        says=("CheckpointError: run: no whole checkpoint", "model_final.pth", "--overwrite"),
    )
    for what, damage in DAMAGES.items()
]
TRIALS += [
    Trial(
        6,
        "resume from weights alone",
        RESUME,
        needs=("run", "data"),
        prepare=_weights_alone,
        says=("no whole checkpoint", "holds weights alone"),
    ),
    Trial(
        6,
        "resume where the named checkpoint is a folder",
        RESUME,
        needs=("run", "data"),
        prepare=_all(
            _remove("model_final.pth"), lambda folder: (folder / "run/model_final.pth").mkdir()
        ),
        says=("no whole checkpoint",),
    ),
    Trial(
        6,
        "resume where only the note is left",
        RESUME,
        needs=("run", "data"),
        prepare=_remove("model_final.pth"),
        says=("no whole checkpoint", "there is no such file"),
    ),
    Trial(
        6,
        "resume where nothing is",
        (*TRAIN, "--resume"),
        needs=("data",),
        status=(0,),
        says=("holds no checkpoint: starting from",),
    ),
    Trial(
        6,
        "evaluation of the last checkpoint where the note is binary",
        (*TRAIN, "OUTPUT_DIR", "run", "--resume", "--eval-only"),
        needs=("run", "data"),
        prepare=_note(b"\xff\xfe\x00"),
        status=(0,),
        says=(NEWEST,),
        changes=CHANGES,
    ),
    Trial(
        6,
        "predict with a run whose note is binary",
        ("predict", "images", "-o", "out", "--model", "run", "--save", "labels"),
        needs=("run", "data", "images"),
        prepare=_note(b"\xff\xfe\x00"),
        status=(0,),
    ),
    Trial(
        6,
        "predict with a run that has a binary note alone",
        ("predict", "images", "-o", "out", "--model", "run", "--save", "labels"),
        needs=("run", "data", "images"),
        prepare=_all(_note(b"\xff\xfe\x00"), _remove("model_final.pth")),
        says=("no checkpoint in it",),
    ),
]
FILES = {
    "metrics.json ends within a line": _write("metrics.json", b'{"iteration": 7, "lo', append=True),
    "metrics.json is binary": _write("metrics.json", bytes(range(256)) * 9),
    "metrics.json is empty": _write("metrics.json", b""),
    "metrics.json is gone": _remove("metrics.json"),
    "metrics.json has lines of the future": _write(
        "metrics.json", b'{"iteration": 3, "total_loss": 1}\n{"iteration": 90}\n', append=True
    ),
    "metrics.json has a list in it": _write("metrics.json", b"[1, 2]\nnull\n", append=True),
    "run.json is cut": _write("run.json", b'{"runs": ['),
    "run.json is binary": _write("run.json", bytes(range(256))),
    "run.json is gone": _remove("run.json"),
    "a partial checkpoint was left": _write("model_0000002.pth.partial", b"PK"),
    "a partial file was left": _write(f".{'0a' * 16}.partial.json", b"{"),
    "config.yaml is cut": _write("config.yaml", b"MODEL:\n  ["),
    "somebody's lock was left": _write("training.lock", b'{"host": "a", "process": 1}\n'),
}
TRIALS += [_resumed(f"resume where {what}", prepare) for what, prepare in FILES.items()]
TRIALS += [
    Trial(
        6,
        "resume twice, with nothing left to train",
        shell=f"cellseg {' '.join(repr(word) for word in RESUME)} && "
        f"cellseg {' '.join(repr(word) for word in RESUME)}",
        needs=("run", "data"),
        status=(0,),
        says=("Nothing left to train",),
        changes=CHANGES,
        holds=_lines_are_right,
        seconds=120,
    ),
    Trial(
        6,
        "best.json and model_best.pth are damaged",
        (*RESUME, "CELLSEG.TRAIN.BEST_METRIC", "cell_iou/ap_dsb"),
        needs=("run", "data"),
        prepare=_all(_write("best.json", b"{"), _write("model_best.pth", b"PK\x03\x04")),
        status=(0,),
        says=("model_best.pth cannot be read and will be written anew",),
        changes=CHANGES,
        holds=_lines_are_right,
    ),
]
