"""Box losses: hand-computed values and gradients, plain and weighted by IoU, on an engine."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from cellseg import load_config
from cellseg.errors import ConfigError
from cellseg.modeling import CellBoxPredictor, CellROIHeads, MaskRCNN
from cellseg.modeling.roi_heads import iou_balanced_cross_entropy
from detectron2.layers import ShapeSpec
from detectron2.modeling.box_regression import Box2BoxTransform, _dense_box_regression_loss
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor

CONFIG = Path(__file__).resolve().parent.parent.parent / "configs" / "quick_start.yaml"
LOSS_TYPES = ["smooth_l1", "giou", "diou", "ciou"]
PROPOSAL, TRUTH = [0.0, 0.0, 10.0, 10.0], [2.0, 0.0, 8.0, 12.0]
# Of these two: 60 px shared, 112 in both, a hull of 10 x 12, centres (5, 5) and (5, 6).
IOU, HULL, HULL_DIAGONAL2, DISTANCE2 = 60 / 112, 120, 244, 1


def predictor(kind: type = CellBoxPredictor, **options: Any) -> Any:
    torch.manual_seed(0)
    transform = Box2BoxTransform((10.0, 10.0, 5.0, 5.0))
    return kind(ShapeSpec(channels=8), box2box_transform=transform, num_classes=2, **options)


def proposals(boxes: list[list[float]], truths: list[list[float]], classes: list[int]) -> Instances:
    found = Instances((50, 50), proposal_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)))
    found.gt_classes = torch.tensor(classes, dtype=torch.int64)
    if truths:
        found.gt_boxes = Boxes(torch.tensor(truths))
    return found


def a_batch() -> list[Instances]:
    """Two images with cells and one without, which has no true boxes at all."""
    shifted = [[x + 3.0 for x in PROPOSAL], PROPOSAL, TRUTH, [30.0, 30.0, 40.0, 40.0]]
    return [
        proposals(shifted, [PROPOSAL, TRUTH, TRUTH, TRUTH], [0, 1, 0, 2]),
        proposals([TRUTH], [PROPOSAL], [1]),
        proposals([PROPOSAL, TRUTH], [], [2, 2]),
    ]


def test_hand_computed_weights() -> None:
    """Two cells with equal losses, IoU 1/4 and 1, exponent 1/2: weights 1/2 and 1, times 4/3."""
    logits = torch.zeros(3, 2, requires_grad=True)
    classes, ious = torch.tensor([0, 0, 1]), torch.tensor([0.25, 1.0, 0.9])
    loss = iou_balanced_cross_entropy(logits, classes, ious, 0.5)
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    assert logits.grad is not None
    # Each probability is 1/2: the gradient of a plain cross-entropy is -+1/2, its mean a third.
    expected = [-2 / 3, 2 / 3, -4 / 3, 4 / 3, 1.0, -1.0]
    assert (logits.grad * 6).flatten().tolist() == pytest.approx(expected)


def test_gradients_are_those_of_frozen_weights() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(12, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    classes = torch.randint(0, 4, (12,), generator=generator)
    ious = torch.rand(12, generator=generator, dtype=torch.float64)
    plain = -logits.detach().log_softmax(1)[torch.arange(12), classes]
    cells = [k for k in range(12) if classes[k] < 3]
    scale = sum(plain[k] for k in cells) / sum(plain[k] * ious[k] ** 1.5 for k in cells)
    weights = torch.tensor([ious[k] ** 1.5 * scale if k in cells else 1.0 for k in range(12)])

    def frozen(x: Tensor) -> Tensor:
        return -(weights * x.log_softmax(1)[torch.arange(12), classes]).mean()

    assert torch.autograd.gradcheck(frozen, logits)
    (expected,) = torch.autograd.grad(frozen(logits), logits)
    loss = iou_balanced_cross_entropy(logits, classes, ious, 1.5)
    (found,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    assert loss.item() == pytest.approx(plain.mean().item())


@pytest.mark.parametrize(
    ("classes", "ious"), [([2, 2], [0.0, 0.0]), ([0, 1], [0.0, 0.0]), ([0, 2], [1.0, 0.3])]
)
def test_nothing_to_weight(classes: list[int], ious: list[float]) -> None:
    """Only background; only cells that do not fit at all; one cell."""
    logits = torch.randn(2, 3, requires_grad=True)
    loss = iou_balanced_cross_entropy(logits, torch.tensor(classes), torch.tensor(ious), 1.5)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_a_perfect_classification_is_finite_in_half_precision() -> None:
    logits = torch.tensor([[60.0, -60.0], [-60.0, 60.0]], dtype=torch.bfloat16)
    loss = iou_balanced_cross_entropy(logits, torch.tensor([0, 1]), torch.ones(2), 1.5)
    assert (loss.item(), loss.dtype) == (0.0, torch.float32)


@pytest.mark.parametrize("box_reg_loss_type", LOSS_TYPES)
def test_off_is_the_engines_loss_and_on_changes_only_the_classes(box_reg_loss_type: str) -> None:
    options = {"box_reg_loss_type": box_reg_loss_type, "loss_weight": {"loss_cls": 0.5}}
    features = torch.randn(7, 8)
    found, stats, gradients = [], [], []
    for kind, more in (
        (FastRCNNOutputLayers, {}),
        (CellBoxPredictor, {"iou_weight": 0.0}),
        (CellBoxPredictor, {"iou_weight": 1.5}),
    ):
        layers = predictor(kind, **options, **more)
        with EventStorage() as storage:
            losses = layers.losses(layers(features), a_batch())
        (gradient,) = torch.autograd.grad(losses["loss_cls"], layers.cls_score.bias)
        found.append({name: loss.item() for name, loss in losses.items()})
        stats.append({name: value for name, (value, _) in storage.latest().items()})
        gradients.append(gradient)
    engines, off, weighted = found
    assert off == engines
    assert torch.equal(gradients[0], gradients[1])
    assert weighted == pytest.approx(engines)  # the size is kept ...
    assert not torch.allclose(gradients[0], gradients[2], rtol=0.01)  # ... and the gradient not
    assert stats[0] == stats[1] == stats[2]
    assert "fast_rcnn/cls_accuracy" in stats[0]


def test_weights_are_those_of_the_matched_boxes() -> None:
    """IoUs 49/151 (shifted by 3), 60/112, 1 and, of the second image, 60/112."""
    layers, features = predictor(iou_weight=1.0), torch.randn(7, 8)
    predictions = layers(features)
    with EventStorage():
        loss = layers.losses(predictions, a_batch())["loss_cls"]
    (found,) = torch.autograd.grad(loss, layers.cls_score.bias, retain_graph=True)
    ious = torch.tensor([49 / 151, IOU, 1.0, 0.0, IOU, 0.0, 0.0])
    classes = torch.tensor([0, 1, 0, 2, 1, 2, 2])
    expected = iou_balanced_cross_entropy(predictions[0], classes, ious, 1.0)
    torch.testing.assert_close(found, torch.autograd.grad(expected, layers.cls_score.bias)[0])


def test_no_proposals() -> None:
    layers = predictor(iou_weight=1.5)
    with EventStorage():
        losses = layers.losses(layers(torch.zeros(0, 8)), [proposals([], [], [])])
    assert [loss.item() for loss in losses.values()] == [0.0, 0.0]
    sum(losses.values()).backward()


def ciou_penalty() -> float:
    v = 4 / math.pi**2 * (math.atan(6 / 12) - math.atan(10 / 10)) ** 2
    return v**2 / (1 - IOU + v)


HAND_COMPUTED = {
    # shifts (0, 1) and scales (0.6, 1.2) of sides of 10 px, weighted 10, 10, 5, 5
    "smooth_l1": 1.0 + 5 * abs(math.log(0.6)) + 5 * math.log(1.2),
    "giou": 1 - IOU + (HULL - 112) / HULL,
    "diou": 1 - IOU + DISTANCE2 / HULL_DIAGONAL2,
    "ciou": 1 - IOU + DISTANCE2 / HULL_DIAGONAL2 + ciou_penalty(),
}


@pytest.mark.parametrize("box_reg_loss_type", LOSS_TYPES)
def test_hand_computed_box_losses(box_reg_loss_type: str) -> None:
    """No shift is predicted; the other proposal is background and counts in the divisor."""
    layers = predictor(box_reg_loss_type=box_reg_loss_type, iou_weight=1.5)
    both = proposals([PROPOSAL, PROPOSAL], [TRUTH, TRUTH], [1, 2])
    with EventStorage():
        losses = layers.losses((torch.zeros(2, 3), torch.zeros(2, 8)), [both])
    assert losses["loss_box_reg"].item() == pytest.approx(HAND_COMPUTED[box_reg_loss_type] / 2)


class DoubleTransform(Box2BoxTransform):
    """The engine's rounds to float32, too coarse for differences."""

    def apply_deltas(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        sizes = boxes[:, 2:] - boxes[:, :2]
        shift, scale = deltas[:, :2] / 10, (deltas[:, 2:] / 5).exp()
        centres = boxes[:, :2] + sizes / 2 + shift * sizes
        halves = scale * sizes / 2
        return torch.cat([centres - halves, centres + halves], dim=1)


def dense_loss(deltas: Tensor, kind: str, sources: Tensor, truths: Tensor) -> Tensor:
    transform = DoubleTransform((10.0, 10.0, 5.0, 5.0))
    return _dense_box_regression_loss([sources], transform, [deltas[None]], [truths], ..., kind)


def boxes_that_overlap() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    corners = 20 * torch.rand(6, 2, generator=generator, dtype=torch.float64)
    sizes = 8 + 8 * torch.rand(6, 2, generator=generator, dtype=torch.float64)
    sources = torch.cat([corners, corners + sizes], dim=1)
    truths = sources + 3 * torch.randn(6, 4, generator=generator, dtype=torch.float64)
    deltas = torch.randn(6, 4, generator=generator, dtype=torch.float64) / 5
    return deltas.requires_grad_(), sources, truths


@pytest.mark.parametrize("kind", ["smooth_l1", "giou", "diou"])
def test_gradients_of_box_losses(kind: str) -> None:
    deltas, sources, truths = boxes_that_overlap()
    assert torch.autograd.gradcheck(lambda x: dense_loss(x, kind, sources, truths), deltas)


def test_gradient_of_ciou() -> None:
    """By its definition the factor of the aspect ratio's penalty has no gradient."""
    deltas, sources, truths = boxes_that_overlap()
    transform = DoubleTransform((10.0, 10.0, 5.0, 5.0))

    def angles(x: Tensor) -> Tensor:
        boxes = transform.apply_deltas(x, sources)
        predicted, true = (
            torch.atan((b[:, 2] - b[:, 0]) / (b[:, 3] - b[:, 1])) for b in (boxes, truths)
        )
        return 4 / math.pi**2 * (predicted - true) ** 2

    boxes = transform.apply_deltas(deltas.detach(), sources)
    low, high = torch.maximum(boxes, truths)[:, :2], torch.minimum(boxes, truths)[:, 2:]
    shared = (high - low).clamp(min=0).prod(dim=1)
    areas = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (boxes, truths)]
    iou = shared / (areas[0] + areas[1] - shared)
    factor = angles(deltas.detach()) / (1 - iou + angles(deltas.detach()))

    def frozen(x: Tensor) -> Tensor:
        return dense_loss(x, "diou", sources, truths) + (factor * angles(x)).sum()

    assert torch.autograd.gradcheck(frozen, deltas)
    found = dense_loss(deltas, "ciou", sources, truths)
    expected = frozen(deltas)
    assert found.item() == pytest.approx(expected.item())
    gradients = [torch.autograd.grad(loss, deltas)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)


def a_model(tiny_model: list[str], *more: str) -> MaskRCNN:
    opts = [*tiny_model, "MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.NAME", "CellROIHeads", *more]
    torch.manual_seed(0)
    return MaskRCNN(load_config(CONFIG, opts))


@pytest.mark.parametrize("box_reg_loss_type", LOSS_TYPES)
def test_heads_on_the_engine(tiny_model: list[str], box_reg_loss_type: str) -> None:
    model = a_model(
        tiny_model,
        *("CELLSEG.BOX_HEAD.IOU_WEIGHT", "1.5"),
        *("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", box_reg_loss_type),
    )
    heads = model.detector.roi_heads
    assert type(heads) is CellROIHeads
    assert heads.box_predictor.iou_weight == 1.5
    masks = torch.zeros(1, 64, 64, dtype=torch.uint8)
    masks[0, 20:40, 10:40] = 1
    target = {"boxes": torch.tensor([[10.0, 20.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    losses = model([torch.rand(3, 64, 64)], [{**target, "masks": masks}])
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert heads.box_predictor.cls_score.weight.grad.any()


def test_checkpoints_of_the_engines_heads_fit(tiny_model: list[str], tmp_path: Path) -> None:
    plain = a_model(tiny_model, "MODEL.ROI_HEADS.NAME", "StandardROIHeads")
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    a_model(tiny_model).load_weights(tmp_path / "plain.pth")


@pytest.mark.parametrize(
    "opts",
    [
        ["CELLSEG.BOX_HEAD.IOU_WEIGHT", "-1.0"],
        ["CELLSEG.BOX_HEAD.IOU_WEIGHT", "1.0", "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", "True"],
    ],
)
def test_wrong_weight_is_a_config_error(opts: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"BOX_HEAD.IOU_WEIGHT is .*expected"):
        load_config(CONFIG, opts)
