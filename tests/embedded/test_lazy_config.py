"""detectron2.config: LazyCall, LazyConfig, instantiate."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from detectron2.config import LazyCall, LazyConfig, configurable, instantiate
from detectron2.config.instantiate import dump_dataclass


class Layer:
    def __init__(self, width: int, inner: Any = None) -> None:
        self.width, self.inner = width, inner


@dataclass
class Shape:
    channels: int
    stride: int = 1


@dataclass
class Net:
    shape: Shape
    others: list[Shape] = field(default_factory=list)
    name: str = ""


@pytest.fixture
def omegaconf() -> Any:
    return pytest.importorskip("omegaconf")


def saved_and_loaded(cfg: Any, folder: Path) -> Any:
    LazyConfig.save(cfg, str(folder / "config.yaml"))
    return LazyConfig.load(str(folder / "config.yaml"))


def test_plain_containers_are_made_from_the_inside_out() -> None:
    half = {"_target_": "fractions.Fraction", "numerator": 1, "denominator": 2}
    layer = instantiate({"_target_": Layer, "width": 3, "inner": [half, half, 7]})
    assert (layer.width, layer.inner) == (3, [Fraction(1, 2), Fraction(1, 2), 7])
    assert instantiate([half]) == [Fraction(1, 2)]


@pytest.mark.parametrize("value", [5, "text", None, {"no": "target"}, (1, 2), Layer(1)])
def test_anything_else_stays_itself(value: Any) -> None:
    assert instantiate(value) is value


def test_a_target_can_be_made_too() -> None:
    adder = {"_target_": "functools.partial", "func": sum}
    with pytest.raises(TypeError):  # partial takes its function by position only
        instantiate({"_target_": adder})
    assert instantiate({"_target_": {"_target_": chooser, "which": "counter"}, "a": 2}) == {"a": 2}


def chooser(which: str) -> Any:
    return {"counter": Counter}[which]


def test_failing_calls_name_the_target(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(TypeError, match="height"):
        instantiate({"_target_": Layer, "height": 1})
    assert "Layer" in caplog.text
    with pytest.raises(ImportError):
        instantiate({"_target_": "no_such_module.Layer"})


@pytest.mark.embedded_only
def test_targets_that_are_no_callables_are_named() -> None:
    with pytest.raises(TypeError, match="3"):
        instantiate({"_target_": 3})
    with pytest.raises(TypeError, match="7"):
        dump_dataclass(7)
    with pytest.raises(TypeError, match="Shape"):
        dump_dataclass(Shape)


def test_dataclasses_as_plain_containers() -> None:
    net = Net(Shape(1), [Shape(2, 4), Shape(3)], "x")
    dumped = dump_dataclass(net)
    shape = f"{__name__}.Shape"
    assert dumped == {
        "_target_": f"{__name__}.Net",
        "shape": {"_target_": shape, "channels": 1, "stride": 1},
        "others": [
            {"_target_": shape, "channels": 2, "stride": 4},
            {"_target_": shape, "channels": 3, "stride": 1},
        ],
        "name": "x",
    }
    assert instantiate(dumped) == net


def test_calls_can_be_changed_before_they_are_made(omegaconf: Any, tmp_path: Path) -> None:
    written = LazyCall(Layer)(width=3, inner=LazyCall(Layer)(width="${..width}", inner=[1]))
    for cfg in (written, saved_and_loaded(written, tmp_path)):
        assert isinstance(cfg, omegaconf.DictConfig)
        assert instantiate(cfg).inner.width == 3
        cfg.width = 5
        layer = instantiate(cfg)
        assert (layer.width, layer.inner.width, list(layer.inner.inner)) == (5, 5, [1])


def test_lists_of_calls(omegaconf: Any) -> None:
    layer = instantiate(LazyCall(Layer)(width=1, inner=[4, LazyCall(Layer)(width=2)]))
    assert isinstance(layer.inner, omegaconf.ListConfig)
    assert (layer.inner[0], layer.inner[1].width) == (4, 2)


def test_dataclasses_as_targets_and_as_arguments(omegaconf: Any, tmp_path: Path) -> None:
    written = LazyCall(Layer)(width=1, inner=Shape(channels=8))
    written.other = LazyCall(Shape)(channels=2)
    for cfg in (written, saved_and_loaded(written, tmp_path)):
        assert instantiate(cfg.other) == Shape(2)
        del cfg["other"]
        assert instantiate(cfg).inner == Shape(8)


def test_only_callables_can_be_called_lazily() -> None:
    with pytest.raises(TypeError, match="3"):
        LazyCall(3)


def test_files_hold_names_and_interpolations(omegaconf: Any, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    calls = [LazyCall(Fraction)(numerator=1), LazyCall("builtins.dict")(a=2)]
    LazyConfig.save(omegaconf.OmegaConf.create({"n": 2, "m": "${n}"}), str(path))
    assert "${n}" in path.read_text()
    assert LazyConfig.load(str(path), "m") == 2
    assert LazyConfig.load(str(path), ("m", "n")) == (2, 2)
    LazyConfig.save(
        omegaconf.OmegaConf.create({"calls": calls}, flags={"allow_objects": True}), str(path)
    )
    assert "_target_: fractions.Fraction" in path.read_text()
    assert instantiate(LazyConfig.load(str(path)).calls) == [1, {"a": 2}]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"c\.json"):
        LazyConfig.load(str(tmp_path / "c.json"))


@pytest.mark.embedded_only
def test_what_files_cannot_hold(omegaconf: Any, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    with open(os.devnull, "rb") as file:
        for value in (lambda: 1, file, {"_target_": dict.fromkeys}):
            cfg = omegaconf.DictConfig({"value": value}, flags={"allow_objects": True})
            with pytest.raises(ValueError, match=r"c\.yaml"):
                LazyConfig.save(cfg, str(path))
    assert not path.exists()
    with pytest.raises(NotImplementedError, match=r"c\.py.*full Detectron2"):
        LazyConfig.load(str(tmp_path / "c.py"))


@pytest.mark.embedded_only
def test_without_omegaconf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "omegaconf", None)
    assert instantiate([{"_target_": dict, "a": 1}]) == [{"a": 1}]
    for needs_it in (
        lambda: LazyCall(Layer)(width=1),
        lambda: LazyConfig.load(str(tmp_path / "c.yaml")),
        lambda: LazyConfig.save({}, str(tmp_path / "c.yaml")),
    ):
        with pytest.raises(ImportError, match="pip install omegaconf"):
            needs_it()


def test_omegaconf_stands_for_a_cfg(omegaconf: Any) -> None:
    class Head:
        @configurable
        def __init__(self, *, width: int, depth: int = 1) -> None:
            self.sizes = (width, depth)

        @classmethod
        def from_config(cls, cfg: Any) -> dict[str, Any]:
            return {"width": cfg.HEAD.WIDTH}

    cfg = omegaconf.OmegaConf.create("HEAD: {WIDTH: 8}")
    assert Head(cfg).sizes == (8, 1)
    assert Head(cfg=cfg, depth=2).sizes == (8, 2)
