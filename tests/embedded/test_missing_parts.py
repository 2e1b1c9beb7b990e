"""What the embedded engine says about the parts of Detectron2 that it has not."""

from __future__ import annotations

import copy
import doctest
import importlib
import inspect
import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

missing = pytest.importorskip("detectron2._missing", reason="only for the embedded engine")

LEFT_OUT_MODULES = missing.LEFT_OUT_MODULES
FULL_ENGINE = "github.com/facebookresearch/detectron2"
ROTATED = missing.left_out("detectron2.structures.RotatedBoxes")


@pytest.mark.parametrize(
    "statement",
    [
        "import detectron2.export.torchscript",
        "from detectron2.export import Caffe2Tracer",
        "from detectron2.projects import panoptic_deeplab",
        "from detectron2.projects.deeplab import DeepLabV3Head",
        "from detectron2.tracking import BaseTracker",
        "from detectron2.structures import RotatedBoxes",
        "from detectron2.structures.rotated_boxes import pairwise_iou",
        "from detectron2.layers import ROIAlignRotated, nms_rotated",
        "from detectron2.evaluation import LVISEvaluator",
        "from detectron2.engine import AutogradProfiler",
    ],
)
def test_left_out_parts_may_be_imported(statement: str) -> None:
    exec(statement)


@pytest.mark.parametrize("name", sorted(LEFT_OUT_MODULES))
def test_left_out_modules_hold_stand_ins_only(name: str) -> None:
    module = importlib.import_module(name)
    for part in LEFT_OUT_MODULES[name].split():
        with pytest.raises(NotImplementedError, match=rf"{name}\.{part} is not .*{FULL_ENGINE}"):
            getattr(module, part)()
    with pytest.raises(ImportError, match=FULL_ENGINE):
        exec(f"from {name} import a_name_of_nothing")


def derive_from_an_abstract_class() -> None:
    from detectron2.modeling import Backbone

    class Both(Backbone, ROTATED):  # type: ignore[misc, valid-type]
        pass


@pytest.mark.parametrize(
    "use",
    [
        lambda: ROTATED(torch.zeros(1, 5)),
        lambda: ROTATED.cat([]),
        lambda: ROTATED[0],
        lambda: list(ROTATED),
        lambda: "name" in ROTATED,
        lambda: ROTATED.register(),
        lambda: type("Mine", (ROTATED,), {}),
        lambda: type("Mine", (dict, ROTATED), {}),
        derive_from_an_abstract_class,
    ],
)
def test_every_use_names_the_part_and_the_full_engine(use: Callable[[], Any]) -> None:
    with pytest.raises(NotImplementedError, match=rf"\.RotatedBoxes is not .*{FULL_ENGINE}"):
        use()


def test_nothing_is_a_left_out_part() -> None:
    from detectron2.structures import Boxes, RotatedBoxes

    boxes = Boxes(torch.zeros(1, 4))
    assert not isinstance(boxes, RotatedBoxes)
    assert isinstance(boxes, (RotatedBoxes, Boxes))
    assert isinstance(boxes, RotatedBoxes | Boxes)
    assert not issubclass(Boxes, RotatedBoxes)


def test_a_stand_in_can_be_looked_at() -> None:
    assert inspect.isclass(ROTATED)
    assert repr(ROTATED) == "<class 'detectron2.structures.RotatedBoxes'>"
    assert "not part of the embedded engine" in (inspect.getdoc(ROTATED) or "")
    assert pickle.loads(pickle.dumps(ROTATED)) is copy.deepcopy(ROTATED) is ROTATED
    assert not hasattr(ROTATED, "tensor")
    assert getattr(ROTATED, "tensor", None) is None
    assert not hasattr(ROTATED, "__wrapped__")
    assert doctest.DocTestFinder().find(ROTATED, "RotatedBoxes")


def test_a_module_does_not_list_its_stand_ins() -> None:
    names: dict[str, Any] = {}
    exec("from detectron2.structures import *", names)
    structures = importlib.import_module("detectron2.structures")
    assert "Boxes" in names
    assert "RotatedBoxes" not in names
    assert "RotatedBoxes" not in dir(structures)
    assert hasattr(structures, "RotatedBoxes")


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("data", "load_proposals_into_dataset"),
        ("data.build", "load_proposals_into_dataset"),
        ("data.datasets", "load_lvis_json"),
        ("data.detection_utils", "create_keypoint_hflip_indices"),
        ("engine.hooks", "AutogradProfiler"),
        ("layers", "ROIAlignRotated"),
        ("layers.nms", "nms_rotated"),
        ("modeling", "RetinaNet"),
        ("modeling.anchor_generator", "RotatedAnchorGenerator"),
        ("modeling.backbone", "SwinTransformer"),
        ("modeling.box_regression", "Box2BoxTransformRotated"),
        ("modeling.meta_arch", "FCOS"),
        ("modeling.roi_heads", "KRCNNConvDeconvUpsampleHead"),
        ("modeling.roi_heads.keypoint_head", "KRCNNConvDeconvUpsampleHead"),
        ("modeling.roi_heads.roi_heads", "select_proposals_with_visible_keypoints"),
    ],
)
def test_modules_with_left_out_names(module: str, name: str) -> None:
    found = importlib.import_module(f"detectron2.{module}")
    with pytest.raises(NotImplementedError, match=f"{name} is not part of .*{FULL_ENGINE}"):
        getattr(found, name)()
    assert not hasattr(found, "a_name_of_nothing")


@pytest.mark.parametrize(
    "statement",
    [
        "import detectron2.no_such_module",
        "import detectron2.data.datasets.lvis_v1_categories",
        "from detectron2.structures import a_name_of_nothing",
        "from detectron2.structures.rotated_boxes import a_name_of_nothing",
    ],
)
def test_unknown_parts_fail_at_import(statement: str) -> None:
    with pytest.raises(ImportError, match=FULL_ENGINE):
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
    before = list(sys.meta_path)
    missing.explain_missing_modules()
    assert sys.meta_path == before


def test_module_getattr() -> None:
    module_getattr = missing.left_out_names("detectron2.x", "Known")
    assert module_getattr("Known") is missing.left_out("detectron2.x.Known")
    with pytest.raises(AttributeError, match=r"'detectron2\.x' has no attribute 'other'"):
        module_getattr("other")
