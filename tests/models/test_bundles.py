"""Bundles are written whole, read with every byte verified, and refused with a reason."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import cellseg
import pytest
import safetensors.torch
import torch
import yaml
from cellseg.errors import CheckpointError, ConfigError
from cellseg.models import ModelCard, open_bundle, write_bundle
from cellseg.models.card import _RULES, MeasuredMetric, TrainingSet

STATE = {"head.weight": torch.arange(6.0).view(2, 3), "steps": torch.tensor(7)}
CONFIG = {"MODEL": {"MASK_ON": True}, "CELLSEG": {"PLUGINS": ["lab.heads"]}}
CARD = ModelCard(
    "my-cells",
    ("round", "long"),
    description="Of two kinds, in Zürich.",
    trained_on=(TrainingSet("mine_train", 10, 200, "CC0-1.0", "A. Person"),),
    diameters_px=(8.0, 16.5, 30.0),
    thresholds={"MASK_NMS": [0.5, 1.0]},
    metrics=(MeasuredMetric("ap_dsb", 0.5, "mine_val", "cellseg train"),),
    made_with={"cellseg": cellseg.__version__},
)

Change = Callable[..., Path]


@pytest.mark.parametrize("name", ["my-cells", "my-cells.zip"])
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / name, CARD, CONFIG, STATE)
    again = open_bundle(tmp_path / name)
    assert again == bundle
    assert dataclasses.replace(again.card, sha256={}) == CARD
    assert again.read_config().tree == CONFIG
    weights = again.read_weights()
    assert weights.keys() == STATE.keys()
    assert all(torch.equal(weights[key], STATE[key]) for key in STATE)
    again.verify()
    assert again.size_bytes > 0


def test_every_key_of_the_card_has_a_rule() -> None:
    assert {field.name for field in dataclasses.fields(ModelCard)} == set(_RULES)


def test_the_same_model_gives_the_same_zip(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        write_bundle(tmp_path / name, CARD, CONFIG, STATE)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_nothing_is_replaced_without_being_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "my-cells"
    write_bundle(path, CARD, CONFIG, STATE)
    with pytest.raises(ConfigError, match=r"my-cells: is there already; .*--overwrite"):
        write_bundle(path, CARD, CONFIG, STATE)
    other = {"head.weight": torch.ones(1)}
    write_bundle(path, CARD, CONFIG, other, overwrite=True)
    assert open_bundle(path).read_weights().keys() == other.keys()


def test_what_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model_final.pth").write_bytes(b"hours of work")
    with pytest.raises(ConfigError, match="is no model bundle, and is not replaced"):
        write_bundle(tmp_path / "run", CARD, CONFIG, STATE, overwrite=True)
    assert (tmp_path / "run" / "model_final.pth").read_bytes() == b"hours of work"


def test_nothing_is_left_of_a_bundle_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"head\.weight: a weight is not finite"):
        write_bundle(tmp_path / "a", CARD, CONFIG, {"head.weight": torch.tensor([float("nan")])})
    config = {"CELLSEG": {"PLUGINS": ["my_head.py"]}}
    with pytest.raises(ConfigError, match=r"names the plug-in my_head\.py; a bundle holds no code"):
        write_bundle(tmp_path / "a", CARD, config, STATE)
    with pytest.raises(CheckpointError, match=r"the card of My Cells \(1\):\n  - name: found"):
        write_bundle(tmp_path / "a", dataclasses.replace(CARD, name="My Cells"), CONFIG, STATE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["config.yaml", "weights.safetensors"])
def test_a_changed_byte(name: str, bundle_copy: Path) -> None:
    content = bytearray((bundle_copy / name).read_bytes())
    content[-2] ^= 1
    (bundle_copy / name).write_bytes(content)
    bundle = open_bundle(bundle_copy)  # only its card is read
    with pytest.raises(
        CheckpointError,
        match=rf"tiny-cells/{name}: was changed .* SHA-256 is \w{{12}}\.\.\., expected \w{{12}}",
    ):
        bundle.verify()


@pytest.mark.parametrize("name", ["config.yaml", "weights.safetensors"])
def test_a_missing_file(name: str, bundle_copy: Path) -> None:
    (bundle_copy / name).unlink()
    with pytest.raises(CheckpointError, match=f"tiny-cells: no {name} in it; expected a model"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"format_version": 2}, "format_version is 2; expected at most 1.* Install a newer"),
        (
            {"made_with": {"cellseg": "7.1"}},
            r"made with cellseg 7\.1; expected at most .* newer",
        ),
        ({"name": None}, "name: missing, expected lower-case letters"),
        ({"name": "../x"}, "name: found '../x', expected lower-case letters"),
        ({"version": 1.0}, "version: found 1.0, expected a text, in quotes"),
        ({"classes": []}, r"classes: found \[\], expected a list of names, at least one"),
        ({"diameters_px": [9, 3, 5]}, r"diameters_px: found .*ascending and more than 0"),
        ({"pixel_size_um": 0}, "pixel_size_um: found 0, expected a number of micrometres"),
        ({"clases": ["a"]}, "clases: unknown key; did you mean classes"),
        ({"metrics": [{"name": "aji", "value": 0.5}]}, r"metrics\[0\]\.data: missing"),
        ({"trained_on": [{"name": "a", "cells": -1}]}, r"trained_on\[0\]\.cells: found -1"),
        ({"trained_on": ["a"]}, "trained_on: found .* a list of data sets, each with a name"),
    ],
)
def test_a_card_that_cannot_be(
    values: dict[str, object], problem: str, change_card: Change
) -> None:
    path = change_card(**values)
    with pytest.raises(CheckpointError, match=problem) as caught:
        open_bundle(path)
    assert str(path / "model.yaml") in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "- a", "\x00", b"\xff\xfe"])
def test_a_card_that_is_none(text: str | bytes, bundle_copy: Path) -> None:
    content = text if isinstance(text, bytes) else text.encode()
    (bundle_copy / "model.yaml").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"(?s)tiny-cells/model\.yaml.*again"):
        open_bundle(bundle_copy)


def test_another_engine_made_it(change_card: Change) -> None:
    made_with = {"engine": "detectron2 0.6", "cellseg": cellseg.__version__, "torch": "1.0"}
    open_bundle(change_card(made_with=made_with)).verify()


def test_weights_that_are_no_safetensors(bundle_copy: Path, change_card: Change) -> None:
    content = b"no tensors"
    (bundle_copy / "weights.safetensors").write_bytes(content)
    card = yaml.safe_load((bundle_copy / "model.yaml").read_text("utf-8"))
    sha256 = {**card["sha256"], "weights.safetensors": hashlib.sha256(content).hexdigest()}
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        open_bundle(change_card(sha256=sha256)).read_weights()


def test_a_config_that_needs_code(tmp_path: Path) -> None:
    """Whoever makes bundles without cellseg could name a file that comes along."""
    path = tmp_path / "my-cells"
    write_bundle(path, CARD, CONFIG, STATE)
    text = yaml.safe_dump({"CELLSEG": {"PLUGINS": ["./evil.py"]}, "_BASE_": "/etc/x.yaml"})
    (path / "config.yaml").write_text(text)
    card = yaml.safe_load((path / "model.yaml").read_text("utf-8"))
    card["sha256"]["config.yaml"] = hashlib.sha256(text.encode()).hexdigest()
    (path / "model.yaml").write_text(yaml.safe_dump(card))
    with pytest.raises(
        CheckpointError, match=r"names _BASE_ /etc/x\.yaml, the plug-in \./evil\.py"
    ):
        open_bundle(path).read_config()


def zip_of(folder: Path, path: Path, prefix: str = "", extra: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, prefix + file.name)
        if extra:
            archive.writestr(extra, b"x")
    return path


def test_a_zip_with_a_folder_inside(made_bundle: Path, tmp_path: Path) -> None:
    """As somebody makes it who packs the folder, on macOS with files of its own."""
    path = zip_of(made_bundle, tmp_path / "a.zip", "tiny-cells/", "__MACOSX/tiny-cells/model.yaml")
    open_bundle(path).verify()


@pytest.mark.parametrize("name", ["../evil.py", "/etc/passwd", "a/../../b", "..\\evil", "C:\\evil"])
def test_a_zip_that_leads_out_of_its_folder(name: str, made_bundle: Path, tmp_path: Path) -> None:
    path = zip_of(made_bundle, tmp_path / "a.zip", extra=name)
    with pytest.raises(CheckpointError, match=r"a\.zip: .* leads out of the folder"):
        open_bundle(path)


def test_a_zip_of_several_models_or_of_none(made_bundle: Path, tmp_path: Path) -> None:
    several = zip_of(made_bundle, tmp_path / "a.zip", "one/", "two/model.yaml")
    with pytest.raises(CheckpointError, match=r"several models in it; expected the zip of one"):
        open_bundle(several)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("images/cells.png", b"x")
    with pytest.raises(CheckpointError, match=r"b\.zip: no model\.yaml in it"):
        open_bundle(tmp_path / "b.zip")


def test_a_damaged_zip(made_bundle: Path, tmp_path: Path) -> None:
    path = zip_of(made_bundle, tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # in the weights: the zip's own checksum sees it
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors cannot be read: Bad CRC"):
        open_bundle(path).verify()
    path.write_bytes(content[:1000])
    with pytest.raises(CheckpointError, match="cannot be read as a zip"):
        open_bundle(path)


def test_no_bundle_holds_a_pickle(made_bundle: Path) -> None:
    assert {file.name for file in made_bundle.iterdir()} == {
        *("config.yaml", "model.yaml", "weights.safetensors"),
    }
    stored = safetensors.torch.load_file(made_bundle / "weights.safetensors")
    assert torch.int8 in {value.dtype for value in stored.values()}
