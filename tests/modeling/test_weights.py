"""Checkpoints that fit, that fit in part, and that are no checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cellseg.errors import CheckpointError
from cellseg.modeling import MaskRCNN, load_weights
from detectron2.config import CfgNode
from torch import Tensor


@pytest.fixture
def state(model: MaskRCNN) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_other_classes_need_partial(
    model: MaskRCNN, state: dict[str, Tensor], tiny_cfg: CfgNode, tmp_path: Path
) -> None:
    path = tmp_path / "two_classes.pth"
    torch.save({"model": state, "iteration": 9}, path)
    cfg = tiny_cfg.clone()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 5
    other = MaskRCNN(cfg)
    with pytest.raises(CheckpointError) as caught:
        load_weights(other, path)
    assert str(path) in str(caught.value)
    assert "cls_score.weight: [3, 64] in the file, [6, 64] in the model" in str(caught.value)
    assert str(caught.value).count("cls_score.weight") == 1

    fresh = MaskRCNN(cfg).load_weights(path, partial=True)
    name = "backbone.fpn_lateral2.weight"
    assert torch.equal(fresh.state_dict()[name], state[name])
    assert fresh.state_dict()["roi_heads.box_predictor.cls_score.weight"].shape == (6, 64)


def test_missing_parameters(model: MaskRCNN, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    name = "roi_heads.mask_head.deconv.weight"
    torch.save({key: value for key, value in state.items() if key != name}, path)
    with pytest.raises(CheckpointError, match=rf"\(1\):\n  - {name}: not in the file"):
        load_weights(model, path)
    load_weights(model, path, partial=True)


def test_surplus_parameters_are_no_error(
    model: MaskRCNN, state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save({**state, "something.else": torch.ones(2)}, tmp_path / "more.pth")
    load_weights(model, tmp_path / "more.pth")


def test_nothing_fits(model: MaskRCNN, tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.ones(2)}, tmp_path / "alien.pth")
    for partial in (False, True):
        with pytest.raises(CheckpointError, match="do not fit"):
            load_weights(model, tmp_path / "alien.pth", partial=partial)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 cut short"])
def test_broken_files(model: MaskRCNN, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"broken\.pth: cannot be read") as caught:
        load_weights(model, path)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("path", ["", "nowhere/model.pth", "."])
def test_missing_files(model: MaskRCNN, path: str) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        load_weights(model, path)
