"""What the embedded engine says about the parts of Detectron2 that it has not."""

from __future__ import annotations

import importlib
import sys

import pytest

pytestmark = pytest.mark.embedded_only

FULL_ENGINE = "github.com/facebookresearch/detectron2"


@pytest.mark.parametrize(
    "statement",
    [
        "import detectron2.export",
        "from detectron2.export import TracingAdapter",
        "from detectron2 import projects",
        "from detectron2.tracking import BaseTracker",
        "from detectron2.structures import RotatedBoxes",
    ],
)
def test_imports_of_left_out_parts_name_the_full_engine(statement: str) -> None:
    part = statement.split()[-1].split(".")[-1]
    with pytest.raises(ImportError, match=rf"{part} is not part of .*{FULL_ENGINE}|{FULL_ENGINE}"):
        exec(statement)


def test_a_slip_of_the_pen_is_named() -> None:
    with pytest.raises(ImportError, match="Did you mean PolygonMasks"):
        exec("from detectron2.structures import PolygonMask")


def test_other_packages_are_left_alone() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'detectron2_not_at_all'$"):
        importlib.import_module("detectron2_not_at_all")


def test_probing_for_an_attribute_is_not_an_error() -> None:
    assert not hasattr(importlib.import_module("detectron2.modeling"), "DeepLab")


def test_the_explanation_is_installed_once() -> None:
    from detectron2._missing import explain_missing_modules

    before = list(sys.meta_path)
    explain_missing_modules()
    assert sys.meta_path == before


def test_module_getattr() -> None:
    from detectron2._missing import missing_module_attribute

    with pytest.raises(ImportError, match=rf"detectron2\.x\.Known is not part.*{FULL_ENGINE}"):
        missing_module_attribute("detectron2.x", "Known", known={"Known"})
    with pytest.raises(AttributeError, match=r"'detectron2\.x' has no attribute 'other'"):
        missing_module_attribute("detectron2.x", "other", known={"Known"})
