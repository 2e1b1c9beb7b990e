"""Losses of masks: hand-computed values, gradients, and the head that uses them on an engine."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from cellseg.config import load_config
from cellseg.errors import ConfigError
from cellseg.modeling.mask_losses import (
    LOSSES,
    bce,
    boundary_weights,
    dice,
    jaccard,
    lovasz,
    parse_loss,
    weighted_bce,
)
from cellseg.structures import LabelMasks
from detectron2.modeling import build_model
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_loss
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

CONFIG = Path(__file__).resolve().parent.parent.parent / "configs" / "quick_start.yaml"
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
    for text in ("iou", "bce+", "bce*2", ""):
        with pytest.raises(ConfigError, match="expected one of bce, dice"):
            parse_loss(text)
    with pytest.raises(ConfigError, match="boundary weight"):
        parse_loss("bce", -1)


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


def test_wrong_loss_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="MASK_HEAD"):
        load_config(CONFIG, ["CELLSEG.MASK_HEAD.LOSS", "iou"])
