"""cellseg's own parts are registered and selected as a user's are; nothing knows them by name."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cellseg.modeling
import pytest
from cellseg.evaluation import EVALUATOR_REGISTRY
from cellseg.modeling import MASK_LOSS_REGISTRY
from cellseg.training_data.augmentations import AUGMENTATION_REGISTRY
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    BaseMaskRCNNHead,
    ROIHeads,
)
from detectron2.utils.registry import Registry

PACKAGE = Path(cellseg.__file__).resolve().parent
KINDS = {BaseMaskRCNNHead: ROI_MASK_HEAD_REGISTRY, ROIHeads: ROI_HEADS_REGISTRY}
REGISTRIES = (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
)
# What every model goes through: the trainer, its hooks and steps, the two ways to predict, tools.
BLIND = [
    *sorted((PACKAGE / "engine").rglob("*.py")),
    PACKAGE / "modeling" / "torchvision_style.py",
    PACKAGE / "inference" / "predictor.py",
    *sorted((PACKAGE.parent / "tools").glob("*.py")),
]


def own_parts() -> dict[str, Any]:
    """What cellseg itself has in the registries of Detectron2."""
    return {
        name: part
        for registry in REGISTRIES
        for name, part in registry
        if part.__module__.startswith("cellseg.")
    }


def heads() -> Iterator[tuple[str, type, Registry]]:
    for name, part in inspect.getmembers(cellseg.modeling, inspect.isclass):
        for base, registry in KINDS.items():
            if issubclass(part, base):
                yield name, part, registry


def test_every_head_is_registered_under_its_own_name() -> None:
    found = list(heads())
    assert {"CellMaskHead", "MaskIoUHead", "CellROIHeads"} <= {name for name, _, _ in found}
    for name, head, registry in found:
        assert registry.get(name) is head
        assert own_parts()[name] is head


def words_of(path: Path) -> set[str]:
    """Names, attributes and the words of strings in the code of a module, less docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set() if id(node) in docstrings else set(re.findall(r"\w+", node.value))
        for field in ("id", "attr", "name", "module", "arg"):
            value = getattr(node, field, None)
            found |= set(re.findall(r"\w+", value)) if isinstance(value, str) else set()
    return found


@pytest.mark.parametrize("path", BLIND, ids=lambda path: str(path.relative_to(PACKAGE.parent)))
def test_trainer_and_models_know_no_part_by_name(path: Path) -> None:
    parts = own_parts()
    assert "CellMaskHead" in parts
    modules = {part.__module__.rpartition(".")[2] for part in parts.values()}
    known = words_of(path) & (set(parts) | modules)
    assert not known, f"{path} speaks of {sorted(known)}"


def test_the_search_would_find_them(tmp_path: Path) -> None:
    path = tmp_path / "engine.py"
    path.write_text('"""CellROIHeads"""\nfrom a.mask_head import b\nif x == "MaskIoUHead": y.z()\n')
    assert words_of(path) == {"a", "mask_head", "b", "x", "MaskIoUHead", "y", "z"}


def test_losses_of_masks_are_functions_that_a_plug_in_could_have_registered() -> None:
    names = {name for name, loss in MASK_LOSS_REGISTRY if loss.__module__.startswith("cellseg.")}
    assert names == {"bce", "dice", "jaccard", "lovasz"}


def test_registries_of_plug_ins_alone_start_empty() -> None:
    for registry in (AUGMENTATION_REGISTRY, EVALUATOR_REGISTRY):
        assert not [name for name, part in registry if part.__module__.startswith("cellseg.")]
