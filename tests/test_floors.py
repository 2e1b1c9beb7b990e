"""The floors of the house: who imports whom, what runs without torch, who asks for the engine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import REPOSITORY, run_program

PACKAGE = REPOSITORY / "cellseg"
EVALUATORS = {"coco_evaluator", "iou_evaluator", "pictures", "registry"}


def test_the_contracts_of_pyproject_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{PACKAGE / 'embedded'}"}
    done = subprocess.run(
        [lint, "--no-cache"], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def modules_of(room: str) -> list[str]:
    paths = sorted((PACKAGE / room).rglob("*.py"))
    assert paths, room
    names = [path.relative_to(REPOSITORY).with_suffix("").parts for path in paths]
    return [".".join(name).removesuffix(".__init__") for name in names]


def loaded_with(modules: list[str], *names: str) -> list[str]:
    """Which of `names` a new process has loaded once it has imported `modules`."""
    script = f"import sys, {', '.join(modules)}\nprint(*(n for n in {names} if n in sys.modules))"
    done = run_program("-c", script)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    "room",
    ["cells", "config", "images", "io", "tracking", "evaluation", "inspection", "corrections"],
)
def test_rooms_that_load_neither_torch_nor_an_engine(room: str) -> None:
    """At run time: the contracts do not see through lazy attributes."""
    modules = modules_of(room)
    if room == "evaluation":
        modules = [name for name in modules if name.rpartition(".")[2] not in EVALUATORS]
    assert loaded_with(modules, "torch", "torchvision", "detectron2") == []


def test_prediction_does_not_load_the_training() -> None:
    assert loaded_with(["cellseg.inference.predictor"], "cellseg.engine", "torch") == ["torch"]


def test_no_command_loads_the_plug_in_for_napari() -> None:
    modules = ["cellseg.__main__", *modules_of("cli")]
    assert loaded_with(modules, "cellseg.napari", "napari", "qtpy", "magicgui") == []


def test_nothing_depends_on_which_engine_runs() -> None:
    """Commands and logs say it; only these two look at the answer."""
    asking = re.compile(r"engine_info\(\)\.|engine\.name\b|_find_detectron2|EMBEDDED_ROOT")
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in sorted(PACKAGE.rglob("*.py"))
        if asking.search(path.read_text("utf-8"))
    }
    assert found <= {"bootstrap.py", "cli/info.py"}
