"""Kind 8: code that runs where nobody expects it."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from harness import Trial, nothing
from stock import TINY, TRAIN

REPORT = ("report", "run", "--output", "report.html")
TUNE = ("tune", "run", "--output", "tuned.yaml")
PREDICT = ("predict", "images", "-o", "out", "--save", "labels")
THEIRS = "open('ran', 'w').close()\n"
_TAG = "!!python/object/apply:os.system ['touch ran']"


class Touch:
    """A pickle of this runs a program when it is loaded."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch ran",)


def _did_not_run(folder: Path) -> str:
    return "the code ran" if list(folder.rglob("ran")) else ""


def _ran(folder: Path) -> str:
    return "" if list(folder.rglob("ran")) else "the plug-in did not run"


def _change_config(change: Callable[[dict], object], text: str = THEIRS) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        config = folder / "run" / "config.yaml"
        tree = yaml.safe_load(config.read_text("utf-8"))
        change(tree)
        config.write_text(yaml.safe_dump(tree), "utf-8")
        (folder / "run" / "theirs.py").write_text(text, "utf-8")

    return prepare


def _named(*plugins: str) -> Callable[[dict], None]:
    def change(tree: dict) -> None:
        tree["CELLSEG"]["PLUGINS"] = list(plugins)

    return change


def _named_with_keys(tree: dict) -> None:
    tree["CELLSEG"]["PLUGINS"] = ["./theirs.py"]
    tree["MODEL"]["THEIRS"] = {"WIDTH": 3}
    tree["MODEL"]["ROI_MASK_HEAD"]["NAME"] = "TheirMaskHead"


def _carry_plugin(folder: Path) -> None:
    """A checkpoint without a config beside it, which carries one that names a plug-in."""
    import torch

    content = torch.load(folder / "run" / "model_final.pth", weights_only=True)
    content["cellseg"]["config"]["CELLSEG"]["PLUGINS"] = ["theirs"]
    torch.save(content, folder / "cells.pth")
    (folder / "theirs.py").write_text(THEIRS, "utf-8")


def _bundle_with_plugin(folder: Path) -> None:
    config, card = folder / "bundle" / "config.yaml", folder / "bundle" / "model.yaml"
    tree = yaml.safe_load(config.read_text("utf-8"))
    tree["CELLSEG"]["PLUGINS"] = ["theirs"]
    config.write_text(yaml.safe_dump(tree), "utf-8")
    told = yaml.safe_load(card.read_text("utf-8"))
    told["sha256"]["config.yaml"] = hashlib.sha256(config.read_bytes()).hexdigest()
    card.write_text(yaml.safe_dump(told), "utf-8")
    (folder / "bundle" / "theirs.py").write_text(THEIRS, "utf-8")


def _program_in_last_checkpoint(folder: Path) -> None:
    _torch_zip(folder)
    (folder / "cells.pth").replace(folder / "run" / "model_final.pth")


def _write(name: str, text: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")

    return prepare


def _pickle(name: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(pickle.dumps({"model": {"a": np.zeros(2), "b": Touch()}}))

    return prepare


def _npy(name: str) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / name, np.array({"masks": Touch()}), allow_pickle=True)

    return prepare


def _seg_files(folder: Path) -> None:
    for number in range(2):
        _npy(f"images/cells_{number}_seg.npy")(folder)


def _torch_zip(folder: Path) -> None:
    """A checkpoint of torch's whose pickle runs a program."""
    with zipfile.ZipFile(folder / "run" / "model_final.pth") as source:
        members = {one: source.read(one) for one in source.namelist()}
    with zipfile.ZipFile(folder / "cells.pth", "w") as target:
        for name, content in members.items():
            is_code = name.endswith("data.pkl")
            target.writestr(name, pickle.dumps({"model": Touch()}) if is_code else content)


def _slip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "cells.zip", "w") as target:
        target.writestr("model.yaml", "name: cells\n")
        target.writestr("../../ran", "x")


def _foreign_clone(folder: Path) -> None:
    def git(*words: str) -> None:
        names = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", folder, *names, *words], check=True, capture_output=True)

    (folder / "notes.txt").write_text("theirs\n")
    git("init", "--quiet")
    git("add", "notes.txt")
    git("commit", "--quiet", "-m", "first")
    git("config", "core.fsmonitor", "touch ran #")
    git("config", "filter.theirs.clean", "touch ran; cat")
    (folder / ".gitattributes").write_text("* filter=theirs\n")
    (folder / "notes.txt").write_text("changed\n")


def _config_with(line: str) -> Callable[[Path], None]:
    return _write("mine.yaml", f"_BASE_: quick_start.yaml\n{line}\n")


def _declaration(folder: Path) -> None:
    (folder / "mine.yaml").write_text(
        "_BASE_: quick_start.yaml\nCELLSEG: {DATASETS: {DECLARATIONS: [cells.yaml]}}\n"
    )
    (folder / "cells.yaml").write_text(f"cells: {_TAG}\n")


_INSPECT = ("inspect", "data/cells.yaml", "--config-file", "mine.yaml")
_WEIGHTS = (*PREDICT, "--config-file", "quick_start.yaml", *TINY, "MODEL.WEIGHTS")
_FROM_RUN = {"needs": ("run", "data"), "status": (0,), "says": ("theirs.* not run",)}
_NO_ADVICE = ("weights_only",)


def _never_runs(name: str, words: tuple[str, ...], prepare: Callable, **more: Any) -> Trial:
    return Trial(8, name, words, prepare=prepare, holds=_did_not_run, **more)


TRIALS = [
    Trial(8, "report of a run", REPORT, needs=("run", "data"), status=(0,)),
    Trial(8, "thresholds of a run", TUNE, needs=("run", "data"), status=(0,)),
    *(
        _never_runs(f"{words[0]} of a run that names {what}", words, prepare, **_FROM_RUN)
        for words in (REPORT, TUNE)
        for what, prepare in (
            ("a plug-in by its path", _change_config(_named("./theirs.py"))),
            ("a plug-in by its name", _change_config(_named("theirs"))),
            ("a plug-in with keys and a head", _change_config(_named_with_keys)),
        )
    ),
    Trial(
        8,
        "a plug-in that is named on the command line runs",
        (*REPORT, "--plugin", "run/theirs.py"),
        needs=("run", "data"),
        prepare=_change_config(_named("./theirs.py")),
        status=(0,),
        holds=_ran,
    ),
    _never_runs(
        "a checkpoint that carries the name of a plug-in",
        (*PREDICT, "--model", "cells.pth"),
        _carry_plugin,
        needs=("run", "images"),
        says=("cells.pth names the plug-in 'theirs'", "--plugin theirs"),
    ),
    _never_runs(
        "a bundle that names a plug-in in its folder",
        (*PREDICT, "--model", "bundle"),
        _bundle_with_plugin,
        needs=("bundle", "images"),
        says=("names the plug-in 'theirs'", "--plugin theirs"),
    ),
    _never_runs(
        "a bundle that names a plug-in starts a training",
        (*TRAIN, "MODEL.WEIGHTS", "bundle"),
        _bundle_with_plugin,
        needs=("bundle", "data"),
        status=(0, 1),
    ),
    _never_runs(
        "a training in a clone with programs in its config",
        TRAIN,
        _foreign_clone,
        needs=("data",),
        status=(0,),
        changes=(".git/**",),
    ),
    *(
        _never_runs(f"a tag of Python in {what}", words, prepare, says=(says,), needs=("data",))
        for what, words, prepare, says in (
            ("a config", _INSPECT, _config_with(f"SEED: {_TAG}"), "mine.yaml"),
            ("a declaration", ("train", "--config-file", "mine.yaml"), _declaration, "cells.yaml"),
            ("a run's config", REPORT, _write("run/config.yaml", f"SEED: {_TAG}\n"), "config.yaml"),
            ("an override", (*_INSPECT, "--opts", "SEED", _TAG), _config_with(""), "SEED"),
        )
    ),
    *(
        _never_runs(
            f"weights from {address}",
            (*_WEIGHTS, address),
            nothing,
            needs=("images",),
            says=(says,),
            seconds=100,
        )
        for address, says in (
            ("http://127.0.0.1:9/cells.pth", "not encrypted.*expected https"),
            ("http://127.0.0.1:9/cells.pth#sha256=0123456789", "cannot be downloaded"),
            ("https://127.0.0.1:9/cells.pth", "cannot be downloaded.*MODEL.WEIGHTS"),
            ("https://127.0.0.1:9/cells.pth#sha1=0", "sha256="),
            ("ftp://127.0.0.1/cells.pth", "ftp://127.0.0.1/cells.pth"),
            ("nonsense://cells", "nonsense://cells"),
        )
    ),
    *(
        _never_runs(
            f"a base from {address}",
            _INSPECT,
            _write("mine.yaml", f"_BASE_: '{address}'\n"),
            needs=("data",),
            says=("mine.yaml", address),
        )
        for address in ("http://127.0.0.1:9/base.yaml", "https://127.0.0.1:9/base.yaml")
    ),
    *(
        _never_runs(
            f"a program in {name}",
            (*_WEIGHTS, name),
            _pickle(name),
            needs=("images",),
            says=(name,),
            never=_NO_ADVICE,
        )
        for name in ("cells.pkl", "cells.pth", "cells.pyth", "cells.safetensors")
    ),
    _never_runs(
        "a program in a checkpoint of torch",
        (*_WEIGHTS, "cells.pth"),
        _torch_zip,
        needs=("images", "run"),
        says=("cells.pth",),
        never=_NO_ADVICE,
    ),
    _never_runs(
        "a checkpoint with a program as a model",
        (*PREDICT, "--model", "cells.pth"),
        _torch_zip,
        needs=("images", "run"),
        says=("cells.pth",),
        never=_NO_ADVICE,
    ),
    _never_runs(
        "a program in the last checkpoint of a run",
        (*TRAIN, "--resume", "OUTPUT_DIR", "run", "SOLVER.MAX_ITER", "4"),
        _program_in_last_checkpoint,
        needs=("run", "data"),
        status=(0, 1),
        changes=("run/*",),
        says=("model_final.pth",),
        never=_NO_ADVICE,
    ),
    _never_runs(
        "an array with a program as an image",
        (*PREDICT, "--model", "bundle"),
        _npy("images/field.npy"),
        needs=("bundle", "images"),
        says=("field.npy",),
    ),
    _never_runs(
        "what Cellpose saves with a program in it",
        (
            *("convert", "--from", "cellpose", "--input", ".", "--split", "images"),
            *("--to", "coco_json", "--output", "out"),
        ),
        _seg_files,
        needs=("images",),
        says=("cells_0_seg.npy",),
    ),
    _never_runs(
        "a zip that leads out of its folder as a model",
        (*PREDICT, "--model", "cells.zip"),
        _slip,
        needs=("images",),
        says=("cells.zip",),
    ),
]
