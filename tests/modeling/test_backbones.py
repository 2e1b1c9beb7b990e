"""The backbone with early stride 1: names as ever, strides halved, coordinates right."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cellseg import load_config
from cellseg.modeling import load_weights
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import Boxes, ImageList

QUICK_START = Path(__file__).resolve().parents[2] / "configs/quick_start.yaml"
FINE = ["MODEL.BACKBONE.NAME", "build_fine_resnet_fpn_backbone"]
STRIDES = {"p2": 2, "p3": 4, "p4": 8, "p5": 16, "p6": 32}


@pytest.fixture(scope="module")
def plain_cfg(tiny_model: list[str]) -> CfgNode:
    return load_config(QUICK_START, tiny_model)


@pytest.fixture(scope="module")
def fine_cfg(tiny_model: list[str]) -> CfgNode:
    """One key away from `plain_cfg`."""
    return load_config(QUICK_START, [*tiny_model, *FINE])


def test_levels_keep_their_names_at_half_the_strides(fine_cfg: CfgNode) -> None:
    backbone = build_backbone(fine_cfg).eval()
    expected = {level: ShapeSpec(channels=32, stride=stride) for level, stride in STRIDES.items()}
    assert backbone.output_shape() == expected
    assert backbone.size_divisibility == 16
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 96))
    sizes = {level: tuple(each.shape[2:]) for level, each in maps.items()}
    assert sizes == {level: (64 // stride, 96 // stride) for level, stride in STRIDES.items()}


def test_sides_need_to_be_multiples_of_16_only(fine_cfg: CfgNode) -> None:
    backbone = build_backbone(fine_cfg).eval()
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, 48, 80))["p2"].shape[2:] == (24, 40)
    model = build_model(fine_cfg)
    images = [torch.zeros(3, 40, 70)]
    divisor = model.backbone.size_divisibility
    assert ImageList.from_tensors(images, divisor).tensor.shape[2:] == (48, 80)


def test_every_checkpoint_loads_unchanged(
    plain_cfg: CfgNode, fine_cfg: CfgNode, tmp_path: Path
) -> None:
    plain, fine = build_model(plain_cfg), build_model(fine_cfg)
    torch.save({"model": plain.state_dict()}, tmp_path / "plain.pth")
    load_weights(fine, tmp_path / "plain.pth")  # raises where anything does not fit
    ours, theirs = fine.state_dict(), plain.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_weights_of_resnet50_fit_by_name_and_shape(plain_cfg: CfgNode) -> None:
    shapes = []
    for builder in ("build_resnet_fpn_backbone", FINE[1]):
        cfg = load_config(QUICK_START, ["MODEL.BACKBONE.NAME", builder])
        with torch.device("meta"):
            backbone = build_backbone(cfg)
        shapes.append({key: value.shape for key, value in backbone.state_dict().items()})
    assert shapes[0] == shapes[1]


def test_the_first_convolution_skips_no_pixel(plain_cfg: CfgNode, fine_cfg: CfgNode) -> None:
    """Every other of its outputs is one of the plain network's, which has stride 2."""
    torch.manual_seed(0)
    plain, fine = build_backbone(plain_cfg).eval(), build_backbone(fine_cfg).eval()
    fine.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 64, 64)
    plain.bottom_up.stem.conv1.norm = fine.bottom_up.stem.conv1.norm = None  # GN sees all pixels
    with torch.no_grad():
        sparse, dense = (each.bottom_up.stem.conv1(image) for each in (plain, fine))
    assert dense.shape[2:] == (64, 64)
    assert torch.allclose(dense[..., ::2, ::2], sparse, atol=1e-5)


def test_anchors_stand_on_the_finer_grid(fine_cfg: CfgNode) -> None:
    """Centres of neighbours on p2 are 2 px apart, and as many as p2 has cells."""
    model = build_model(fine_cfg)
    generator = model.proposal_generator.anchor_generator
    assert list(generator.strides) == list(STRIDES.values())
    maps = [torch.zeros(1, 1, 64 // stride, 96 // stride) for stride in STRIDES.values()]
    finest = generator(maps)[0].tensor.reshape(32, 48, 3, 4)
    centres = (finest[..., :2] + finest[..., 2:]) / 2
    assert torch.equal(centres[0, 1] - centres[0, 0], torch.tensor([[2.0, 0.0]] * 3))
    assert torch.equal(centres[1, 0] - centres[0, 0], torch.tensor([[0.0, 2.0]] * 3))
    side = (finest[..., 2] - finest[..., 0])[0, 0, 1]  # of the square one
    assert side == fine_cfg.MODEL.ANCHOR_GENERATOR.SIZES[0][0]


@pytest.mark.parametrize(
    ("side", "level"), [(20, "p2"), (55, "p2"), (60, "p3"), (120, "p4"), (240, "p5"), (900, "p5")]
)
def test_regions_are_pooled_where_they_are(fine_cfg: CfgNode, side: int, level: str) -> None:
    """Maps that hold their own x coordinate in pixels give back the x of each bin's centre."""
    pooler = build_model(fine_cfg).roi_heads.box_pooler
    levels = fine_cfg.MODEL.ROI_HEADS.IN_FEATURES
    maps = []
    for number, each in enumerate(levels):
        stride = STRIDES[each]
        x = (torch.arange(1024 // stride) + 0.5) * stride
        x = x.expand(1024 // stride, -1)
        maps.append(torch.stack([x, torch.full_like(x, number)])[None])
    box = torch.tensor([[37.0, 50.0, 37.0 + side, 50.0 + side]])
    pooled = pooler(maps, [Boxes(box)])[0]
    assert pooled[1].round(decimals=3).unique().tolist() == [levels.index(level)]
    bins = 37 + (torch.arange(7) + 0.5) * side / 7
    assert torch.allclose(pooled[0], bins.expand(7, 7), atol=0.01)


def test_trains_and_predicts_in_pixels_of_the_image(fine_cfg: CfgNode) -> None:
    torch.manual_seed(0)
    model = build_model(fine_cfg).eval()
    with torch.no_grad():
        (output,) = model([{"image": torch.rand(3, 40, 70) * 255, "height": 40, "width": 70}])
    found = output["instances"]
    assert found.image_size == (40, 70)
    assert len(found) > 0
    assert found.pred_boxes.tensor[:, 2].max() <= 70
