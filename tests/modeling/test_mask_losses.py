"""Losses of masks: hand-computed values, gradients, and the head that uses them on an engine."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cellseg import add_cellseg_config, load_config
from cellseg.errors import ConfigError
from cellseg.modeling import MaskRCNN
from cellseg.modeling.mask_losses import (
    MASK_LOSS_REGISTRY,
    bce,
    boundary_weights,
    dice,
    jaccard,
    lovasz,
    parse_loss,
    weighted_bce,
)
from cellseg.training_data.label_masks import LabelMasks
from detectron2.modeling import build_model
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_loss
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor

CONFIG = Path(__file__).resolve().parent.parent.parent / "configs" / "quick_start.yaml"
LOSSES = {name: MASK_LOSS_REGISTRY.get(name) for name in ("bce", "dice", "jaccard", "lovasz")}
SURE = 50.0  # sigmoid is 1 to all digits


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_hand_computed_values() -> None:
    """Two pixels of four are true; three are predicted, one of them with 0.5."""
    targets = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    logits = torch.tensor([[[SURE, -SURE], [SURE, 0.0]]])
    assert dice(logits, targets).item() == pytest.approx(1 - (2 * 1 + 1) / (2.5 + 2 + 1))
    assert jaccard(logits, targets).item() == pytest.approx(1 - (1 + 1) / (2.5 + 2 - 1 + 1))
    assert bce(logits, targets).item() == pytest.approx((0 + 50 + 50 + math.log(2)) / 4)
    # Errors 51, 51, 1, 0 (relu of -49): the Jaccard loss grows by 1/2 (a missed pixel of two),
    # 1/6 (a false one: 1 - 1/3), 1/12 (1 - 1/4)
    expected = 51 / 2 + 51 * (2 / 3 - 1 / 2) + 1 * (3 / 4 - 2 / 3)
    assert lovasz(logits, targets).item() == pytest.approx(expected)


def test_lovasz_of_hard_predictions_is_one_minus_iou_times_the_margin() -> None:
    """At logits -1 and 1 every wrong pixel has the hinge error 2, every right one 0."""
    generator = torch.Generator().manual_seed(0)
    targets = (torch.rand(20, 6, 6, generator=generator) > 0.5).double()
    predicted = (torch.rand(20, 6, 6, generator=generator) > 0.5).double()
    shared = (targets * predicted).sum((1, 2))
    iou = shared / (targets + predicted - targets * predicted).sum((1, 2))
    torch.testing.assert_close(lovasz(2 * predicted - 1, targets), 2 * (1 - iou))


def test_lovasz_without_target_pixels_is_the_mean_hinge_error() -> None:
    """Errors 1 + logit, relu: 3, 1.5, 0, 1; every pixel above -1 is pushed down alike."""
    logits = torch.tensor([[[2.0, 0.5], [-1.5, 0.0]]], requires_grad=True)
    loss = lovasz(logits, torch.zeros(1, 2, 2))
    assert loss.item() == pytest.approx((3 + 1.5 + 1) / 4)
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad[0].tolist() == [[0.25, 0.25], [0.0, 0.25]]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_that_of_the_logits_alone(name: str, dtype: torch.dtype) -> None:
    """A sum over 784 pixels would lose whole pixels; nothing but the logits is rounded."""
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(4, 28, 28, generator=generator).to(dtype)
    targets = (torch.rand(4, 28, 28, generator=generator) > 0.5).to(dtype)
    expected = LOSSES[name](logits.double(), targets.double())
    with torch.autocast("cpu", torch.bfloat16):
        found = LOSSES[name](logits, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("empty", [True, False])
def test_gradients_are_those_of_differences_and_perfect_is_zero(name: str, empty: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    targets = (torch.rand(3, 5, 5, generator=generator) > 0.6).double()
    if empty:
        targets[0] = 0
    logits = torch.randn(3, 5, 5, generator=generator).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, targets), logits)
    perfect = LOSSES[name]((2 * targets - 1) * SURE, targets)
    torch.testing.assert_close(perfect, torch.zeros(3, dtype=torch.float64))


def test_boundary_weighs_more() -> None:
    targets = torch.zeros(1, 5, 5)
    targets[0, :, :2] = 1
    weights = boundary_weights(targets, 3.0)
    assert weights[0].tolist() == [[1, 4, 4, 1, 1]] * 5
    logits = torch.zeros(1, 5, 5)
    assert weighted_bce(3.0)(logits, targets).item() == pytest.approx(math.log(2))
    logits[0, :, 1] = logit(0.9)
    expected = (4 * -math.log(0.9) + (4 + 1 + 1 + 1) * math.log(2)) / 11
    assert weighted_bce(3.0)(logits, targets).item() == pytest.approx(expected)


def test_sums_of_losses() -> None:
    targets = (torch.rand(2, 4, 4) > 0.5).float()
    logits = torch.randn(2, 4, 4)
    expected = 0.5 * bce(logits, targets) + 2 * jaccard(logits, targets)
    torch.testing.assert_close(parse_loss("0.5*bce + 2*jaccard")(logits, targets), expected)
    for text in ("iou", "bce+", "bce*2", "", "bcé"):
        with pytest.raises(ConfigError, match="Expected one of bce, dice"):
            parse_loss(text)
    with pytest.raises(ConfigError, match="boundary weight"):
        parse_loss("bce", -1)


@pytest.fixture
def registered_loss() -> Iterator[str]:
    """A loss of the user's own; the registry is as it was afterwards."""

    @MASK_LOSS_REGISTRY.register()
    def area_L1_2(logits: Tensor, targets: Tensor) -> Tensor:
        assert logits.dtype == targets.dtype == torch.float32
        return (logits.sigmoid().sum((1, 2)) - targets.sum((1, 2))).abs()

    yield "area_L1_2"
    del MASK_LOSS_REGISTRY._obj_map["area_L1_2"]


def test_a_registered_loss_is_known_by_its_name(registered_loss: str) -> None:
    """Probabilities of 0.5 in four pixels, one of them true: the areas differ by 1."""
    logits, targets = torch.zeros(2, 2, 2).bfloat16(), torch.zeros(2, 2, 2)
    targets[:, 0, 0] = 1
    loss = parse_loss("3*area_L1_2+bce")(logits, targets)
    assert loss.tolist() == pytest.approx([3 * 1 + math.log(2)] * 2)
    with pytest.raises(
        ConfigError, match=r"did you mean area_L1_2\? Expected one of area_L1_2, bce"
    ):
        parse_loss("bce+area_L1")


def proposals(count: int) -> Instances:
    labels = torch.zeros(32, 32, dtype=torch.int64)
    labels[4:14, 4:16], labels[18:30, 10:28] = 1, 2
    which = torch.arange(count) % 2
    found = Instances((32, 32), gt_masks=LabelMasks.from_label_image(labels)[which])
    boxes = torch.tensor([[3.0, 3.0, 17.0, 15.0], [9.0, 17.0, 29.0, 31.0]])
    found.proposal_boxes = Boxes(boxes[which] + torch.rand(count, 4))
    found.gt_classes = torch.zeros(count, dtype=torch.int64)
    return found


@pytest.mark.parametrize("loss", ["bce", "bce+dice", "lovasz"])
def test_head_on_the_engine(tiny_model: list[str], loss: str) -> None:
    opts = [*tiny_model, "MODEL.DEVICE", "cpu", "MODEL.ROI_MASK_HEAD.NAME", "CellMaskHead"]
    head = build_model(load_config(CONFIG, [*opts, "CELLSEG.MASK_HEAD.LOSS", loss])).roi_heads
    head = head.mask_head.train()
    both = [proposals(5), proposals(0), proposals(2)]
    features = torch.randn(7, 32, 14, 14)
    with EventStorage():
        found = head(features, both)["loss_mask"]
        expected = mask_rcnn_loss(head.layers(features), both)
    if loss == "bce":
        torch.testing.assert_close(found, expected)
    else:
        assert found.item() != pytest.approx(expected.item())
    found.backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    nothing = head(features[:0], [proposals(0)])["loss_mask"]
    assert nothing.item() == 0
    nothing.backward()


def test_statistics_and_pictures_are_those_of_the_engine(
    tiny_model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures: dict[EventStorage, list[Tensor]] = {}
    monkeypatch.setattr(
        EventStorage,
        "put_image",
        lambda storage, name, picture: pictures.setdefault(storage, []).append(picture),
    )
    opts = [*tiny_model, "MODEL.DEVICE", "cpu", "MODEL.ROI_MASK_HEAD.NAME", "CellMaskHead"]
    cfg = load_config(CONFIG, [*opts, "VIS_PERIOD", "1"])
    torch.manual_seed(0)
    head = build_model(cfg).roi_heads.mask_head.train()
    both, features = [proposals(3), proposals(0)], torch.randn(3, 32, 14, 14)
    with EventStorage() as ours:
        head(features, both)
    with EventStorage() as engines:
        mask_rcnn_loss(head.layers(features), both, vis_period=1)
    names = {f"mask_rcnn/{name}" for name in ("accuracy", "false_positive", "false_negative")}
    assert ours.latest().keys() == engines.latest().keys() == names
    for name in names:
        assert ours.latest()[name][0] == pytest.approx(engines.latest()[name][0])
    assert len(pictures[ours]) == len(pictures[engines]) == 3
    for found, expected in zip(pictures[ours], pictures[engines]):
        torch.testing.assert_close(found, expected)


def test_wrong_loss_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="MASK_HEAD"):
        load_config(CONFIG, ["CELLSEG.MASK_HEAD.LOSS", "iou"])


def test_a_model_with_losses_from_a_config_can_be_pickled(tiny_cfg) -> None:
    cfg = tiny_cfg.clone()
    add_cellseg_config(cfg)
    cfg.MODEL.ROI_MASK_HEAD.NAME = "CellMaskHead"
    cfg.CELLSEG.MASK_HEAD.LOSS, cfg.CELLSEG.MASK_HEAD.BOUNDARY_WEIGHT = "bce+2*dice", 3.0
    logits, targets = torch.randn(2, 4, 4), (torch.rand(2, 4, 4) > 0.5).float()
    mine = MaskRCNN(cfg)
    theirs = pickle.loads(pickle.dumps(mine))
    expected = parse_loss("bce+2*dice", 3.0)(logits, targets)
    again = pickle.loads(pickle.dumps(parse_loss("bce+2*dice", 3.0)))(logits, targets)
    assert torch.equal(again, expected)
    for name, value in mine.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name])
