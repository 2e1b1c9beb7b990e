"""Weights know the config that they were trained with, and say where another departs from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from cellseg import load_config
from cellseg.config.trained import ENTRY, TrainedConfig, portable_config
from cellseg.engine.bundling import bundle_model
from cellseg.engine.loading import find_classes, load_config_of_model
from cellseg.errors import CheckpointError, ConfigError
from cellseg.modeling import load_weights
from cellseg.modeling.weights import start_from
from cellseg.models import ModelCard, find_model
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from torch import nn

CLASSES = ("round", "long")


@pytest.fixture(scope="module")
def cfg(tiny_model: list[str]) -> CfgNode:
    opts = [*tiny_model, "MODEL.ROI_HEADS.NUM_CLASSES", 2, "DATASETS.TRAIN", (), "DATASETS.TEST"]
    return load_config("quick_start.yaml", [*opts, ()])


@pytest.fixture(scope="module")
def model(cfg: CfgNode) -> nn.Module:
    return build_model(cfg)


@pytest.fixture(scope="module")
def checkpoint(cfg: CfgNode, model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a training writes it; not to be changed."""
    path = tmp_path_factory.mktemp("run") / "model_final.pth"
    entry = TrainedConfig(portable_config(cfg), CLASSES).to_entry()
    torch.save({"model": model.state_dict(), ENTRY: entry}, path)
    return path


def changed(cfg: CfgNode, key: str, value: Any) -> CfgNode:
    other = cfg.clone()
    other.merge_from_list([key, value])
    return other


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[8], [16], [32], [64], [128]]),
        ("MODEL.PIXEL_MEAN", [0.0, 0.0, 0.0]),
        ("MODEL.PIXEL_STD", [1.0, 1.0, 1.0]),
        ("MODEL.RESNETS.STRIDE_IN_1X1", True),
        ("MODEL.BACKBONE.NAME", "build_fine_resnet_fpn_backbone"),
        ("MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", 7),
        ("INPUT.FORMAT", "RGB"),
    ],
)
def test_weights_in_another_network_are_refused_and_a_start_is_told_of(
    cfg: CfgNode,
    model: nn.Module,
    checkpoint: Path,
    caplog: pytest.LogCaptureFixture,
    key: str,
    value: Any,
) -> None:
    other = changed(cfg, key, value)
    with pytest.raises(CheckpointError, match="belong to another config") as caught:
        load_weights(model, checkpoint, cfg=other)
    assert f"{key} is {value!r}; the weights were trained with" in str(caught.value)
    assert str(checkpoint) in str(caught.value)
    other.MODEL.WEIGHTS = str(checkpoint)
    start_from(model, other)
    assert f"{key} is {value!r}" in caplog.text


@pytest.mark.parametrize(
    ("key", "value"),
    [("CELLSEG.INPUT.NORMALIZE", "minmax"), ("CELLSEG.INPUT.CHANNELS", [1]), ("NONE", None)],
)
def test_images_that_come_otherwise_are_told_of(
    cfg: CfgNode,
    model: nn.Module,
    checkpoint: Path,
    caplog: pytest.LogCaptureFixture,
    key: str,
    value: Any,
) -> None:
    other = cfg if value is None else changed(cfg, key, value)
    load_weights(model, checkpoint, cfg=other)
    warned = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert [key in one for one in warned] == [True] * (value is not None)


def test_another_number_of_classes_is_named(
    cfg: CfgNode, model: nn.Module, checkpoint: Path
) -> None:
    other = changed(cfg, "MODEL.ROI_HEADS.NUM_CLASSES", 3)
    with pytest.raises(CheckpointError, match="NUM_CLASSES is 3; the weights were trained with 2"):
        load_weights(model, checkpoint, cfg=other)


def test_the_same_classes_in_another_order(
    cfg: CfgNode, model: nn.Module, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = cfg.clone()
    other.DATASETS.TEST = ("synthetic_val",)
    with monkeypatch.context() as patch:
        metadata = {"thing_classes": CLASSES[::-1]}
        patch.setattr(MetadataCatalog, "get", lambda name: metadata)
        with pytest.raises(CheckpointError, match="synthetic_val are long, round, in this order"):
            load_weights(model, checkpoint, cfg=other)


def test_a_checkpoint_alone_is_a_model(cfg: CfgNode, checkpoint: Path) -> None:
    torch.load(checkpoint, weights_only=True)  # plain values
    for name in (checkpoint, checkpoint.parent):
        files = find_model(name)
        assert files.weights == str(checkpoint)
        found = load_config_of_model(name)
        assert portable_config(found) == portable_config(cfg)
        assert find_classes(found)[0] == list(CLASSES)


def test_a_file_of_others_needs_its_config(model: nn.Module, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "theirs.pth")
    with pytest.raises(ConfigError, match=r"theirs\.pth carries no config.*--config-file"):
        find_model(tmp_path / "theirs.pth")


def test_a_bundle_is_compared_too(
    cfg: CfgNode, model: nn.Module, checkpoint: Path, tmp_path: Path
) -> None:
    given = cfg.clone()
    given.MODEL.WEIGHTS = str(checkpoint)
    bundle_model(given, tmp_path / "two-types", ModelCard("two-types", CLASSES))
    load_weights(model, tmp_path / "two-types", cfg=cfg)
    with pytest.raises(CheckpointError, match=r"MODEL\.PIXEL_STD is \[1\.0, 1\.0, 1\.0\]"):
        load_weights(
            model,
            tmp_path / "two-types",
            cfg=changed(cfg, "MODEL.PIXEL_STD", [1.0, 1.0, 1.0]),
        )
