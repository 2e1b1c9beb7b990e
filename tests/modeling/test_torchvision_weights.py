"""`torchvision://` weights: the same feature maps as torchvision's own network, without network."""

from __future__ import annotations

import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
import yaml
from cellseg import load_config
from cellseg.errors import CheckpointError
from cellseg.modeling import downloads, torchvision_weights
from cellseg.modeling.torchvision_weights import (
    ARCHITECTURES,
    register_torchvision_weights,
    torchvision_mismatches,
    torchvision_to_detectron2,
)
from cellseg.modeling.weights import find_weights_file
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model, build_resnet_backbone
from detectron2.utils.file_io import PathManager
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGENET_CONFIG = REPOSITORY / "configs/dsb2018/mask_rcnn_R_50_FPN_imagenet.yaml"
HUB_FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnext50_32x4d": "resnext50_32x4d-7cdf4587.pth",
}


class RememberingCheckpointer(DetectionCheckpointer):
    incompatible: Any = None

    def _load_model(self, checkpoint: Any) -> Any:
        self.incompatible = super()._load_model(checkpoint)
        return self.incompatible


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders of downloads and of converted files, both empty; no download can succeed."""

    def refuse(address: str, target: Path) -> None:
        raise URLError("no network here")

    monkeypatch.setattr(downloads, "_receive", refuse)
    monkeypatch.setenv("CELLSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    register_torchvision_weights()
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def network_of_torchvision(name: str) -> nn.Module:
    """Random weights and random statistics, so that no batch norm is an identity."""
    torch.manual_seed(0)
    network = getattr(torchvision.models, name)(weights=None).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network


def place_in_hub(folder: Path, name: str) -> nn.Module:
    network = network_of_torchvision(name)
    torch.save(network.state_dict(), folder / HUB_FILES[name])
    return network


def resnet_config(name: str) -> CfgNode:
    cfg = get_cfg()
    node = cfg.MODEL.RESNETS
    node.DEPTH, node.NUM_GROUPS, node.WIDTH_PER_GROUP = ARCHITECTURES[name]
    node.RES2_OUT_CHANNELS = 64 if node.DEPTH < 50 else 256
    node.STRIDE_IN_1X1 = False
    node.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    return cfg


def local_path(name: str, **options: Any) -> Path:
    return Path(PathManager.get_local_path(f"torchvision://{name}", **options))


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize("name", list(HUB_FILES))
def test_feature_maps_are_those_of_torchvision(name: str, norm: str, caches: Path) -> None:
    network = place_in_hub(caches, name)
    stages = {f"layer{number}": f"res{number + 1}" for number in range(1, 5)}
    image = torch.randn(1, 3, 96, 64)
    cfg = resnet_config(name)
    cfg.MODEL.RESNETS.NORM = norm
    backbone = build_resnet_backbone(cfg, ShapeSpec(channels=3))
    checkpointer = RememberingCheckpointer(backbone)

    checkpointer.load(f"torchvision://{name}")

    missing = checkpointer.incompatible.missing_keys
    # Frozen stages that were built with BN have a counter, which nothing reads.
    assert not [key for key in missing if norm != "BN" or "num_batches_tracked" not in key]
    assert not checkpointer.incompatible.unexpected_keys
    with torch.no_grad():
        expected = create_feature_extractor(network, stages)(image)
        found = backbone.eval()(image)
    for stage in stages.values():
        error = (found[stage] - expected[stage]).abs().max() / expected[stage].abs().max()
        assert error < 1e-5, stage


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_every_network_has_all_parameters_in_their_shapes(name: str) -> None:
    with torch.device("meta"):
        state = getattr(torchvision.models, name)(weights=None).state_dict()
        backbone = build_resnet_backbone(resnet_config(name), ShapeSpec(channels=3))
    found = {key: value.shape for key, value in torchvision_to_detectron2(state).items()}
    assert found == {key: value.shape for key, value in backbone.state_dict().items()}


def test_in_a_whole_model_only_what_is_new_is_missing(
    caches: Path, tiny_model: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    network = place_in_hub(caches, "resnet18")
    cfg = load_config(IMAGENET_CONFIG, [*tiny_model, "MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    checkpointer = RememberingCheckpointer(model)
    with caplog.at_level(logging.WARNING):
        checkpointer.resume_or_load("torchvision://resnet18", resume=False)

    parts = {re.match(r"backbone\.fpn|\w+", key)[0] for key in checkpointer.incompatible[0]}
    assert parts == {"backbone.fpn", "proposal_generator", "roi_heads"}
    assert not checkpointer.incompatible.unexpected_keys
    assert not checkpointer.incompatible.incorrect_shapes
    loaded = model.backbone.bottom_up.res4[1].conv2.norm.running_var
    assert torch.equal(loaded, network.layer3[1].bn2.running_var)


def test_the_file_is_converted_once_and_again_when_needed(caches: Path) -> None:
    place_in_hub(caches, "resnet18")
    path = local_path("resnet18")
    content = torch.load(path, weights_only=True)
    assert content["matching_heuristics"] is True
    assert not [key for key in content["model"] if key.startswith("fc") or "batches" in key]

    first = path.stat().st_mtime_ns
    assert local_path("resnet18") == path
    assert path.stat().st_mtime_ns == first
    assert local_path("resnet18", force=True).stat().st_mtime_ns > first

    os.utime(path, (1, 1))  # older than torchvision's file
    assert local_path("resnet18").stat().st_mtime_ns > first


def test_an_interrupted_conversion_leaves_no_file(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place_in_hub(caches, "resnet18")

    def save_half(content: object, file: Path) -> None:
        Path(file).write_bytes(b"PK half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", save_half)
    with pytest.raises(KeyboardInterrupt):
        local_path("resnet18")
    cache = Path(os.environ["CELLSEG_CACHE"])
    assert not [path for path in cache.rglob("*") if path.suffix == ".pth"]

    monkeypatch.undo()
    monkeypatch.setenv("CELLSEG_CACHE", str(cache))
    monkeypatch.setenv("TORCH_HOME", str(caches.parents[1]))
    assert local_path("resnet18").is_file()


def test_without_network_the_message_says_what_to_fetch_and_where_to_put_it(caches: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        local_path("resnet50")
    message = str(caught.value)
    assert "https://download.pytorch.org/models/resnet50-0676ba61.pth" in message
    assert str(caches / HUB_FILES["resnet50"]) in message
    assert "no network here" in message


def test_a_download_lands_where_torchvision_looks_and_its_hash_is_checked(
    caches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = caches.parent / "made.pth"
    torch.save(network_of_torchvision("resnet18").state_dict(), made)
    monkeypatch.setattr(downloads, "_receive", lambda _, target: shutil.copy(made, target))
    with pytest.raises(CheckpointError, match="expected f37072fd"):
        local_path("resnet18")
    assert not (caches / HUB_FILES["resnet18"]).exists()
    monkeypatch.setattr(downloads, "_hash", lambda file: "f37072fd" + "0" * 56)
    assert local_path("resnet18").is_file()
    assert (caches / HUB_FILES["resnet18"]).is_file()


@pytest.mark.parametrize("damage", ["no file of torch", "another network"])
def test_a_wrong_file_is_named(damage: str, caches: Path) -> None:
    file = caches / HUB_FILES["resnet18"]
    if damage == "another network":
        torch.save({"features.0.weight": torch.ones(2)}, file)
    else:
        file.write_bytes(b"<html>404</html>")
    with pytest.raises(CheckpointError, match=rf"{file.name} does not hold .* delete it"):
        local_path("resnet18")


@pytest.mark.parametrize("name", ["resnet", "resnet50.pth", ""])
def test_unknown_networks(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"no such network.*resnet18, resnet34, resnet50"):
        local_path(name)


def test_mismatching_keys_are_told() -> None:
    cfg = get_cfg()
    assert torchvision_mismatches(cfg) == []
    cfg.MODEL.WEIGHTS = "torchvision://resnext50_32x4d"
    told = {line.split(" is ")[0] for line in torchvision_mismatches(cfg)}
    assert told == {
        *("MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "INPUT.FORMAT"),
        *("MODEL.RESNETS.STRIDE_IN_1X1", "MODEL.RESNETS.NUM_GROUPS"),
        "MODEL.RESNETS.WIDTH_PER_GROUP",
    }
    good = load_config(IMAGENET_CONFIG)
    assert torchvision_mismatches(good) == []
    good.MODEL.RESNETS.NORM = "GN"
    assert "MODEL.RESNETS.NORM is 'GN'" in torchvision_mismatches(good)[0]


def test_the_page_shows_what_the_config_sets() -> None:
    page = (REPOSITORY / "docs" / "weights.md").read_text("utf-8")
    shown = yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])
    cfg = load_config(IMAGENET_CONFIG)
    before = cfg.clone()
    cfg.merge_from_other_cfg(CfgNode(shown))
    assert cfg == before
    assert all(f"`{name}`" in page for name in ARCHITECTURES)


def test_registering_twice_is_harmless() -> None:
    register_torchvision_weights()
    handlers = PathManager._path_handlers
    assert isinstance(handlers["torchvision://"], torchvision_weights.TorchvisionHandler)


def test_options_behind_a_path_are_no_part_of_the_file_name(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"")
    find_weights_file(f"{file}?matching_heuristics=True")
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        find_weights_file(f"{tmp_path}/other.pth?matching_heuristics=True")
