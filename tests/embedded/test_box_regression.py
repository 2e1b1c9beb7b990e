"""Boxes as deltas, and the loss on them."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.modeling.box_regression import (
    Box2BoxTransform,
    Box2BoxTransformLinear,
    _dense_box_regression_loss,
)
from detectron2.structures import Boxes

SOURCE = torch.tensor([[0.0, 0.0, 10.0, 20.0]])  # centre (5, 10)
TARGET = torch.tensor([[5.0, 10.0, 25.0, 20.0]])  # centre (15, 15), twice as wide, half as high


def random_boxes(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 50
    return torch.cat((low, low + 5 + torch.rand(count, 2, generator=generator) * 40), dim=1)


def test_deltas_by_hand() -> None:
    deltas = Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)).get_deltas(SOURCE, TARGET)
    expected = [[10 * 10 / 10, 10 * 5 / 20, 5 * math.log(2), 5 * math.log(0.5)]]
    torch.testing.assert_close(deltas, torch.tensor(expected))


def test_applying_deltas_undoes_getting_them() -> None:
    transform = Box2BoxTransform(weights=(2.0, 3.0, 4.0, 5.0))
    sources, targets = random_boxes(50, 0), random_boxes(50, 1)
    found = transform.apply_deltas(transform.get_deltas(sources, targets), sources)
    torch.testing.assert_close(found, targets, rtol=1e-4, atol=1e-4)


def test_several_deltas_per_box() -> None:
    transform = Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0))
    move, grow = [0.5, 0.0, 0.0, 0.0], [0.0, 0.0, math.log(2), math.log(3)]
    found = transform.apply_deltas(torch.tensor([move + grow]), SOURCE)
    expected = [[5.0, 0.0, 15.0, 20.0, -5.0, -20.0, 15.0, 40.0]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_growth_is_limited() -> None:
    found = Box2BoxTransform((1.0, 1.0, 1.0, 1.0)).apply_deltas(
        torch.tensor([[0.0, 0.0, 100.0, 0.0]]), SOURCE
    )
    assert (found[0, 2] - found[0, 0]).item() == pytest.approx(10 * 1000 / 16, rel=1e-5)
    narrow = Box2BoxTransform((1.0, 1.0, 1.0, 1.0), scale_clamp=math.log(2))
    found = narrow.apply_deltas(torch.tensor([[0.0, 0.0, 100.0, 0.0]]), SOURCE)
    assert found[0].tolist() == pytest.approx([-5.0, 0.0, 15.0, 20.0])


def test_deltas_in_half_precision_give_boxes_in_single() -> None:
    transform = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))
    assert transform.apply_deltas(torch.zeros(1, 4).half(), SOURCE).dtype == torch.float32


def test_no_boxes() -> None:
    transform = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))
    assert transform.get_deltas(SOURCE[:0], TARGET[:0]).shape == (0, 4)
    assert transform.apply_deltas(torch.zeros(0, 8), SOURCE[:0]).shape == (0, 8)


def test_a_source_without_area_is_an_error() -> None:
    flat = torch.tensor([[3.0, 3.0, 3.0, 9.0]])
    with pytest.raises((AssertionError, ValueError, RuntimeError)):
        Box2BoxTransform((1.0, 1.0, 1.0, 1.0)).get_deltas(flat, TARGET)


class TestDistancesToTheSides:
    source = torch.tensor([[0.0, 0.0, 10.0, 20.0]])  # centre (5, 10)
    target = torch.tensor([[1.0, 2.0, 13.0, 16.0]])

    def test_by_hand(self) -> None:
        pixels = Box2BoxTransformLinear(normalize_by_size=False)
        assert pixels.get_deltas(self.source, self.target).tolist() == [[4, 8, 8, 6]]
        sizes = Box2BoxTransformLinear().get_deltas(self.source, self.target)
        torch.testing.assert_close(sizes, torch.tensor([[0.4, 0.4, 0.8, 0.3]]))

    @pytest.mark.parametrize("normalize", [False, True])
    def test_applying_undoes_getting(self, normalize: bool) -> None:
        transform = Box2BoxTransformLinear(normalize_by_size=normalize)
        deltas = transform.get_deltas(self.source, self.target)
        torch.testing.assert_close(transform.apply_deltas(deltas, self.source), self.target)

    def test_negative_distances_count_as_none(self) -> None:
        transform = Box2BoxTransformLinear(normalize_by_size=False)
        found = transform.apply_deltas(torch.tensor([[-1.0, 2.0, 3.0, -4.0]]), self.source)
        assert found.tolist() == [[5, 8, 8, 10]]

    def test_several_deltas_per_box(self) -> None:
        transform = Box2BoxTransformLinear(normalize_by_size=False)
        found = transform.apply_deltas(torch.tensor([[1.0, 1, 1, 1, 2, 2, 2, 2]]), self.source)
        assert found.tolist() == [[4, 9, 6, 11, 3, 8, 7, 12]]


def smooth_l1(x: float, beta: float) -> float:
    return abs(x) - beta / 2 if abs(x) >= beta else x * x / (2 * beta)


@pytest.mark.parametrize("beta", [0.0, 0.6])
def test_smooth_l1_over_the_foreground_of_two_images(beta: float) -> None:
    transform = Box2BoxTransform((1.0, 2.0, 3.0, 4.0))
    anchors = random_boxes(3)
    truth = [random_boxes(3, 1), random_boxes(3, 2)]
    predicted = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(3))
    foreground = torch.tensor([[True, False, True], [False, False, True]])
    loss = _dense_box_regression_loss(
        [Boxes(anchors[:2]), Boxes(anchors[2:])],
        transform,
        [predicted[:, :2], predicted[:, 2:]],
        truth,
        foreground,
        smooth_l1_beta=beta,
    )
    expected = 0.0
    for image, anchor in foreground.nonzero().tolist():
        wanted = transform.get_deltas(anchors[anchor][None], truth[image][anchor][None])[0]
        errors = (predicted[image, anchor] - wanted).tolist()
        expected += sum(smooth_l1(error, beta) if beta else abs(error) for error in errors)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def giou_by_hand(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    union = sum(areas) - width * height
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return width * height / union - (hull - union) / hull


def test_generalized_iou_loss_on_decoded_boxes() -> None:
    transform = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))
    anchors, truth = random_boxes(4), random_boxes(4, 1)
    loss = _dense_box_regression_loss(
        [anchors], transform, [torch.zeros(1, 4, 4)], [truth], ..., "giou"
    )
    expected = sum(1 - giou_by_hand(a, b) for a, b in zip(anchors.tolist(), truth.tolist()))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["smooth_l1", "giou", "diou", "ciou"])
def test_loss_is_zero_where_boxes_fit_and_where_there_is_no_foreground(kind: str) -> None:
    transform = Box2BoxTransform((10.0, 10.0, 5.0, 5.0))
    anchors, truth = random_boxes(4), random_boxes(4, 1)
    deltas = transform.get_deltas(anchors, truth)[None].requires_grad_()
    fits = _dense_box_regression_loss([anchors], transform, [deltas], [truth], ..., kind)
    assert fits.item() == pytest.approx(0.0, abs=1e-4)
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    loss = _dense_box_regression_loss([anchors], transform, [deltas], [truth], nothing, kind)
    loss.backward()
    assert loss.item() == 0.0
    assert deltas.grad is not None
    assert not deltas.grad.any()


def test_unknown_loss() -> None:
    transform = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="l2"):
        _dense_box_regression_loss([SOURCE], transform, [SOURCE[None]], [TARGET], ..., "l2")
