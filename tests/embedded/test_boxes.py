"""detectron2.structures: Boxes, BoxMode and pairwise measures."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from detectron2.structures import (
    Boxes,
    BoxMode,
    pairwise_ioa,
    pairwise_iou,
    pairwise_point_box_distance,
)
from detectron2.structures.boxes import matched_pairwise_iou, pairwise_intersection

XYXY, XYWH, ROTATED = BoxMode.XYXY_ABS, BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS


def random_boxes(count: int, seed: int) -> Boxes:
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed)) * 20
    return Boxes(torch.cat([corners.amin(1), corners.amax(1)], dim=1))


def overlap_1d(low1: float, high1: float, low2: float, high2: float) -> float:
    return max(0.0, min(high1, high2) - max(low1, low2))


def slow_intersection(a: list[float], b: list[float]) -> float:
    return overlap_1d(a[0], a[2], b[0], b[2]) * overlap_1d(a[1], a[3], b[1], b[3])


@pytest.mark.parametrize("kind", [list, tuple])
def test_convert_single_box_keeps_its_type(kind: type) -> None:
    converted = BoxMode.convert(kind([5.0, 6.0, 10.0, 20.0]), XYXY, XYWH)
    assert converted == kind([5.0, 6.0, 5.0, 14.0])
    assert type(converted) is kind
    back = BoxMode.convert(kind([5, 6, 5, 14]), XYWH, XYXY)
    assert back == kind([5, 6, 10, 20])
    assert type(back[0]) is int


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_convert_arrays_and_tensors_keeps_type_and_input(dtype: type) -> None:
    boxes = np.array([[1, 2, 4, 8], [0, 0, 3, 3]], dtype=dtype)
    as_array = BoxMode.convert(boxes, XYXY, XYWH)
    as_tensor = BoxMode.convert(torch.from_numpy(boxes), XYXY, XYWH)
    assert as_array.tolist() == as_tensor.tolist() == [[1, 2, 3, 6], [0, 0, 3, 3]]
    assert as_array.dtype == dtype
    assert as_tensor.dtype == torch.from_numpy(boxes).dtype
    assert boxes.tolist() == [[1, 2, 4, 8], [0, 0, 3, 3]]


def test_convert_to_the_same_mode_is_the_same_object() -> None:
    box = [1, 2, 3, 4]
    assert BoxMode.convert(box, XYWH, XYWH) is box
    assert BoxMode.convert(box, 0, 1) == [1, 2, 2, 2]  # plain numbers, as in dataset files


def test_convert_rotated_boxes() -> None:
    assert BoxMode.convert([2.0, 4.0, 6.0, 8.0], XYWH, ROTATED) == [5.0, 8.0, 6.0, 8.0, 0.0]
    angle = 30.0
    width = 4 * math.cos(math.radians(angle)) + 2 * math.sin(math.radians(angle))
    height = 4 * math.sin(math.radians(angle)) + 2 * math.cos(math.radians(angle))
    boxes = torch.tensor([[10.0, 20.0, 4.0, 2.0, angle], [10.0, 20.0, 4.0, 2.0, -90.0]])
    converted = BoxMode.convert(boxes, ROTATED, XYXY)
    expected = [[10 - width / 2, 20 - height / 2, 10 + width / 2, 20 + height / 2], [9, 18, 11, 22]]
    torch.testing.assert_close(converted, torch.tensor(expected))


def test_convert_what_cannot_be_converted() -> None:
    with pytest.raises(AssertionError):
        BoxMode.convert([0.1, 0.1, 0.2, 0.2], BoxMode.XYXY_REL, XYXY)
    with pytest.raises(AssertionError):
        BoxMode.convert([1.0, 2.0, 3.0], XYXY, XYWH)
    with pytest.raises(AssertionError):
        BoxMode.convert(torch.zeros(1, 4), ROTATED, XYXY)
    with pytest.raises(NotImplementedError):
        BoxMode.convert([1.0, 2.0, 3.0, 4.0, 0.0], ROTATED, XYWH)


def test_construction() -> None:
    assert Boxes([[1, 2, 3, 4]]).tensor.dtype == torch.float32
    assert Boxes(torch.ones(2, 4, dtype=torch.float64)).tensor.dtype == torch.float32
    assert Boxes(np.ones((2, 4))).tensor.shape == (2, 4)
    for empty in ([], torch.empty(0), torch.empty(0, 4)):
        assert Boxes(empty).tensor.shape == (0, 4)
    for wrong in ([1.0, 2.0, 3.0, 4.0], torch.ones(2, 5), torch.ones(1, 2, 4)):
        with pytest.raises(AssertionError):
            Boxes(wrong)


def test_indexing() -> None:
    boxes = Boxes(torch.arange(12.0).reshape(3, 4))
    assert boxes[1].tensor.tolist() == [[4, 5, 6, 7]]
    assert boxes[-1].tensor.tolist() == [[8, 9, 10, 11]]
    assert len(boxes[1:]) == 2
    assert boxes[torch.tensor([True, False, True])].tensor[:, 0].tolist() == [0, 8]
    assert boxes[torch.tensor([2, 2])].tensor[:, 0].tolist() == [8, 8]
    assert len(boxes[torch.zeros(0, dtype=torch.int64)]) == 0
    assert [one.tolist() for one in boxes] == boxes.tensor.tolist()
    with pytest.raises(IndexError):
        boxes[3]
    with pytest.raises(AssertionError):
        boxes[torch.tensor(1)]
    assert repr(boxes).startswith("Boxes(tensor(")


def test_measures() -> None:
    boxes = Boxes([[0, 0, 4, 2], [3, 3, 3, 9], [5, 5, 8.5, 9]])
    assert boxes.area().tolist() == [8, 0, 14]
    assert boxes.get_centers().tolist() == [[2, 1], [3, 6], [6.75, 7]]
    assert boxes.nonempty().tolist() == [True, False, True]
    assert boxes.nonempty(threshold=2).tolist() == [False, False, True]
    assert boxes.nonempty(threshold=3.5).tolist() == [False, False, False]
    assert boxes.device == torch.device("cpu")


def test_inside_box() -> None:
    boxes = Boxes([[0, 0, 9, 19], [0, 0, 10, 19], [-1, 0, 5, 5], [0, 0, 9, 20]])
    assert boxes.inside_box((20, 10)).tolist() == [True, False, False, False]
    assert boxes.inside_box((20, 10), boundary_threshold=1).tolist() == [True] * 4


def test_clip_and_scale() -> None:
    boxes = Boxes([[-5, 2, 30, 50], [12, 25, 15, 30]])
    boxes.clip((20, 10))
    assert boxes.tensor.tolist() == [[0, 2, 10, 20], [10, 20, 10, 20]]
    boxes.scale(2.0, 0.5)
    assert boxes.tensor.tolist() == [[0, 1, 20, 10], [20, 10, 20, 10]]
    with pytest.raises(AssertionError):
        Boxes([[0, 0, math.nan, 1]]).clip((10, 10))
    with pytest.raises(AssertionError):
        Boxes([[0, 0, math.inf, 1]]).clip((10, 10))


def test_clip_leaves_the_given_tensor_alone_and_passes_gradients_on() -> None:
    given = torch.tensor([[-5.0, 2, 30, 50]], requires_grad=True)
    boxes = Boxes(given)
    boxes.clip((20, 10))
    assert given.tolist() == [[-5, 2, 30, 50]]
    boxes.tensor.sum().backward()
    assert given.grad is not None
    assert given.grad.tolist() == [[0, 1, 0, 0]]


def test_clone_to_and_cat_do_not_share_memory() -> None:
    boxes = Boxes([[0, 0, 1, 1]])
    copies = [boxes.clone(), Boxes.cat([boxes]), Boxes.cat([boxes, boxes])]
    boxes.scale(5, 5)
    assert [copy.tensor[0].tolist() for copy in copies] == [[0, 0, 1, 1]] * 3
    assert Boxes.cat([]).tensor.shape == (0, 4)
    assert boxes.to(torch.device("cpu")).tensor.tolist() == boxes.tensor.tolist()
    with pytest.raises(AssertionError):
        Boxes.cat([boxes.tensor])
    with pytest.raises(AssertionError):
        Boxes.cat(iter([boxes]))


def test_pairwise_measures_against_a_loop() -> None:
    first, second = random_boxes(7, seed=1), random_boxes(5, seed=2)
    shared = torch.tensor(
        [[slow_intersection(a, b) for b in second.tensor.tolist()] for a in first.tensor.tolist()]
    )
    union = first.area()[:, None] + second.area()[None] - shared
    torch.testing.assert_close(pairwise_intersection(first, second), shared)
    torch.testing.assert_close(pairwise_iou(first, second), shared / union)
    torch.testing.assert_close(pairwise_ioa(first, second), shared / second.area())
    torch.testing.assert_close(
        matched_pairwise_iou(first[:5], second), torch.diagonal(shared / union)
    )


def test_pairwise_measures_of_degenerate_boxes() -> None:
    point = Boxes([[1, 1, 1, 1]])
    square = Boxes([[0, 0, 2, 2], [2, 0, 4, 2], [1, 1, 1, 1]])  # the second touches the first
    assert pairwise_iou(point, square).tolist() == [[0, 0, 0]]
    assert pairwise_ioa(square, point).tolist() == [[0], [0], [0]]
    assert pairwise_iou(square, square)[0].tolist() == [1, 0, 0]
    assert pairwise_iou(Boxes([]), square).shape == (0, 3)
    assert pairwise_ioa(square, Boxes([])).shape == (3, 0)
    with pytest.raises(AssertionError):
        matched_pairwise_iou(point, square)


def test_point_box_distance() -> None:
    points = torch.tensor([[2.0, 3.0], [-1.0, 0.0]])
    boxes = Boxes([[0, 0, 10, 5], [2, 2, 3, 4], [0, 0, 0, 0]])
    distances = pairwise_point_box_distance(points, boxes)
    assert distances.shape == (2, 3, 4)
    assert distances[0].tolist() == [[2, 3, 8, 2], [0, 1, 1, 1], [2, 3, -2, -3]]
    assert distances[1, 0].tolist() == [-1, 0, 11, 5]
