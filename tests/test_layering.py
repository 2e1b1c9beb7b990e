"""The dependencies that the layout promises: what runs without torch, and who imports whom."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "cellseg"
TORCH_FREE = [
    "cellseg",
    "cellseg.cells.labels",
    "cellseg.cells.instances",
    "cellseg.io",
    "cellseg.images",
    "cellseg.io.records",
    "cellseg.cells.synthetic",
    "cellseg.cells.synthetic_types",
    "cellseg.datasets.cache",
    "cellseg.datasets.splits",
    "cellseg.inspection.report",
    "cellseg.inspection.fix",
    "cellseg.inspection.suggestions",
    "cellseg.evaluation",
    "cellseg.evaluation.confusion",
    "cellseg.cells.matching",
    "cellseg.evaluation.metrics",
    "cellseg.evaluation.scoring",
    "cellseg.evaluation.tuning",
    "cellseg.cells.selection",
    "cellseg.io.submission",
    "cellseg.report",
    "cellseg.report.charts",
    "cellseg.report.measures",
    "cellseg.report.gallery",
    "cellseg.report.page",
]


def loaded_with(module: str, *names: str) -> list[str]:
    """Which of `names` a new process has loaded once it has imported `module`."""
    code = f"import sys, {module}; print(*(name for name in {names!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.parametrize("module", TORCH_FREE)
def test_imports_neither_torch_nor_engine(module: str) -> None:
    assert loaded_with(module, "torch", "torchvision", "detectron2") == []


def imported_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def modules_below(folder: Path) -> list[Path]:
    files = sorted(folder.rglob("*.py"))
    assert files, folder
    return files


def test_embedded_engine_knows_nothing_of_cellseg() -> None:
    for path in modules_below(PACKAGE / "embedded"):
        assert not any(name.split(".")[0] == "cellseg" for name in imported_modules(path)), path


def test_nothing_imports_tools_and_inference_not_engine() -> None:
    for path in modules_below(PACKAGE):
        names = imported_modules(path)
        assert not any(name.split(".")[0] == "tools" for name in names), path
        if "inference" in path.parts:
            assert not any(name.startswith("cellseg.engine") for name in names), path


def test_prediction_does_not_load_the_training() -> None:
    assert loaded_with("cellseg.inference.predictor", "cellseg.engine", "torch") == ["torch"]


def test_only_bootstrap_asks_which_engine_runs() -> None:
    for path in modules_below(PACKAGE):
        if "embedded" in path.relative_to(PACKAGE).parts or path.name in (
            "bootstrap.py",
            "__init__.py",
        ):
            continue
        assert "engine_info" not in path.read_text("utf-8"), path
