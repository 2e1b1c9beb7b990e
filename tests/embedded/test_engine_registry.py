"""detectron2.utils.registry."""

from __future__ import annotations

import json
import os.path
from collections import OrderedDict

import pytest
import torch
from detectron2.utils.registry import Registry, _convert_target_to_string, locate


class Plain:
    class Inner:
        pass


def shapes() -> Registry:
    registry = Registry("SHAPE")
    registry.register(Plain)

    @registry.register()
    def build_circle() -> str:
        return "circle"

    @registry.register()
    def build_square() -> str:
        return "square"

    return registry


def test_registered_objects_are_found_by_name() -> None:
    registry = shapes()
    assert registry.get("Plain") is Plain
    assert registry.get("build_circle")() == "circle"
    assert "build_square" in registry
    assert "build_triangle" not in registry
    assert {name for name, _ in registry} == {"Plain", "build_circle", "build_square"}


def test_a_name_is_given_once() -> None:
    registry = shapes()
    with pytest.raises(AssertionError, match="Plain"):
        registry.register(Plain)


def test_unknown_names_are_key_errors_that_name_the_registry() -> None:
    with pytest.raises(KeyError, match=r"build_triangle.*SHAPE"):
        shapes().get("build_triangle")


@pytest.mark.embedded_only
def test_unknown_names_come_with_proposals_and_the_way_out() -> None:
    with pytest.raises(KeyError) as caught:
        shapes().get("build_circel")
    text = str(caught.value)
    assert "Did you mean build_circle" in text
    assert "Registered here: Plain, build_circle, build_square" in text
    assert "install the full Detectron2" in text
    with pytest.raises(KeyError, match="Registered here: nothing"):
        Registry("EMPTY").get("anything")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("json.dumps", json.dumps),
        ("os.path.join", os.path.join),
        ("collections.OrderedDict.fromkeys", OrderedDict.fromkeys),
        (f"{__name__}.Plain.Inner", Plain.Inner),
        ("builtins.len", len),
        ("len", len),
        ("dict.fromkeys", dict.fromkeys),
        ("json", json),
    ],
)
def test_locate(name: str, expected: object) -> None:
    assert locate(name) == expected


def test_locate_what_is_not_there() -> None:
    for name in ("no_such_module_at_all", "no_such_module_at_all.attribute"):
        with pytest.raises(ImportError):
            locate(name)


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (OrderedDict, "collections.OrderedDict"),
        (len, "builtins.len"),
        (Plain.Inner, f"{__name__}.Plain.Inner"),
        (torch.nn.Linear, "torch.nn.Linear"),  # from torch.nn.modules.linear
        (json.JSONDecoder, "json.JSONDecoder"),
        (torch.optim.SGD, "torch.optim.SGD"),
    ],
)
def test_objects_have_a_short_name_that_leads_back(found: object, name: str) -> None:
    assert _convert_target_to_string(found) == name
    assert locate(name) is found


@pytest.mark.embedded_only
def test_locate_names_what_it_did_not_find() -> None:
    with pytest.raises(ImportError, match=r"json\.no_such_function"):
        locate("json.no_such_function")
