"""The examples in docstrings are true, in every room below the model, and some above."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

ROOMS = ("cells", "config", "images", "io", "models", "datasets", "evaluation", "corrections")
MODULES = ("errors", "files", "locks", "names", "rules", "shipped", "bootstrap", "plugins")
MODULES += ("engine.bundling",)


def modules() -> list[str]:
    found = [f"cellseg.{name}" for name in MODULES]
    for room in ROOMS:
        package = importlib.import_module(f"cellseg.{room}")
        inside = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        found += [package.__name__, *(module.name for module in inside)]
    return found


@pytest.mark.parametrize("name", modules())
def test_examples_of_docstrings(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_the_hard_algebra_has_examples() -> None:
    for name in ("run_lengths", "runs", "polygons"):
        module = importlib.import_module(f"cellseg.cells.{name}")
        assert doctest.testmod(module).attempted >= 4


def test_the_example_of_roi_align_on_six_cells() -> None:
    module = pytest.importorskip("detectron2.layers.cpu_roi_align", reason="Detectron2 has none")
    assert doctest.testmod(module) == (0, 5)
