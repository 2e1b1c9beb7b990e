"""Proposals: the head, labels of anchors, losses, selection."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_proposal_generator
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead, build_rpn_head
from detectron2.modeling.proposal_generator.proposal_utils import (
    add_ground_truth_to_proposals,
    find_top_rpn_proposals,
)
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from torch import nn


def rpn_cfg() -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16]]
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = 16
    return cfg


SHAPES = {"p2": ShapeSpec(channels=6, stride=4), "p3": ShapeSpec(channels=6, stride=8)}


def features(num_images: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"p2": torch.randn(num_images, 6, 8, 12), "p3": torch.randn(num_images, 6, 4, 6)}


def images(num_images: int) -> ImageList:
    return ImageList(torch.zeros(num_images, 3, 32, 48), [(32, 48)] * num_images)


def truth(*boxes: list[float]) -> Instances:
    return Instances((32, 48), gt_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)))


def find(boxes: list[Any], logits: list[Any], **options: Any) -> list[Instances]:
    """`find_top_rpn_proposals` with nothing limited unless said."""
    defaults: dict[str, Any] = {
        "image_sizes": [(100, 100)],
        "nms_thresh": 0.5,
        "pre_nms_topk": 1000,
        "post_nms_topk": 1000,
        "min_box_size": 0.0,
        "training": False,
    }
    return find_top_rpn_proposals(
        [torch.tensor(b) for b in boxes],
        [torch.tensor(s) for s in logits],
        **{**defaults, **options},
    )


def test_head_shares_its_weights_over_the_maps() -> None:
    head = StandardRPNHead(in_channels=3, num_anchors=2)
    x = torch.randn(1, 3, 5, 7)
    logits, deltas = head([x, x[:, :, :3, :4], x])
    assert [tuple(t.shape) for t in logits] == [(1, 2, 5, 7), (1, 2, 3, 4), (1, 2, 5, 7)]
    assert [tuple(t.shape) for t in deltas] == [(1, 8, 5, 7), (1, 8, 3, 4), (1, 8, 5, 7)]
    assert torch.equal(logits[0], logits[2])
    hidden = torch.relu(nn.functional.conv2d(x, head.conv.weight, head.conv.bias, padding=1))
    torch.testing.assert_close(logits[0], head.objectness_logits(hidden))
    torch.testing.assert_close(deltas[0], head.anchor_deltas(hidden))


def test_names_and_initial_weights_of_the_head() -> None:
    torch.manual_seed(0)
    head = StandardRPNHead(in_channels=32, num_anchors=3, box_dim=4, conv_dims=(-1,))
    names = [f"{n}.{k}" for n in ("conv", "objectness_logits", "anchor_deltas") for k in "wb"]
    short = [name.replace("weight", "w").replace("bias", "b") for name in head.state_dict()]
    assert short == names
    assert head.conv.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert all(not v.any() for n, v in head.named_parameters() if n.endswith("bias"))


def test_several_convolutions() -> None:
    head = StandardRPNHead(in_channels=4, num_anchors=1, conv_dims=(8, -1, 2))
    assert [conv.out_channels for conv in head.conv] == [8, 8, 2]
    assert "conv.conv1.weight" in head.state_dict()
    assert head.objectness_logits.in_channels == 2
    with pytest.raises(ValueError, match="0"):
        StandardRPNHead(in_channels=4, num_anchors=1, conv_dims=(8, 0))


def test_head_from_config_needs_equal_maps() -> None:
    cfg = rpn_cfg()
    head = build_rpn_head(cfg, list(SHAPES.values()))
    assert head.objectness_logits.out_channels == 3
    with pytest.raises((AssertionError, ValueError)):
        build_rpn_head(cfg, [ShapeSpec(channels=6, stride=4), ShapeSpec(channels=5, stride=8)])
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[8], [16, 32]]
    with pytest.raises((AssertionError, ValueError)):
        build_rpn_head(cfg, list(SHAPES.values()))


def test_labels_of_anchors() -> None:
    """One anchor per cell of 10 px; the true box is that of cell (0, 1), shifted by a pixel."""
    generator = DefaultAnchorGenerator(
        sizes=[[10]], aspect_ratios=[[1.0]], strides=[10], offset=0.0
    )
    options: dict[str, Any] = {
        "in_features": ["f"],
        "head": nn.Identity(),
        "anchor_generator": generator,
        "anchor_matcher": Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
        "box2box_transform": Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
        "batch_size_per_image": 100,
        "positive_fraction": 0.5,
        "pre_nms_topk": (10, 10),
        "post_nms_topk": (10, 10),
    }
    anchors = generator([torch.zeros(1, 1, 2, 3)])
    rpn = RPN(**options)
    box = [6.0, -5.0, 16.0, 5.0]
    labels, boxes = rpn.label_and_sample_anchors(anchors, [truth(box), truth()])
    assert labels[0].tolist() == [0, 1, 0, 0, 0, 0]
    assert boxes[0].tolist() == [box] * 6
    assert labels[1].tolist() == [0] * 6
    assert not boxes[1].any()
    # the upper row and the left column reach over the border
    inside = RPN(**options, anchor_boundary_thresh=0)
    inside_labels, _ = inside.label_and_sample_anchors(anchors, [truth(box)])
    assert inside_labels[0].tolist() == [-1, -1, -1, -1, 0, 0]
    few = RPN(**{**options, "batch_size_per_image": 3})
    few_labels, _ = few.label_and_sample_anchors(anchors, [truth(box)])
    assert few_labels[0].tolist().count(-1) == 3
    assert few_labels[0][1] == 1


def test_losses_by_hand() -> None:
    cfg = rpn_cfg()
    cfg.MODEL.RPN.LOSS_WEIGHT = 2.0
    cfg.MODEL.RPN.BBOX_REG_LOSS_WEIGHT = 3.0
    rpn = build_proposal_generator(cfg, SHAPES)
    anchors = [Boxes(torch.tensor([[0.0, 0, 8, 8], [8, 0, 16, 8]])), Boxes(torch.ones(1, 4) * 4)]
    anchors[1].tensor[:, 2:] += 16
    logits = [torch.tensor([[0.5, -1.0]]), torch.tensor([[2.0]])]
    deltas = [torch.tensor([[[0.1, 0.2, 0.3, 0.4], [9.0, 9, 9, 9]]]), torch.full((1, 1, 4), 9.0)]
    labels = [torch.tensor([1, 0, -1], dtype=torch.int8)]
    # the true box of the first anchor: moved by (0.5, 0) sides, same size
    boxes = [torch.tensor([[4.0, 0, 12, 8], [0, 0, 1, 1], [0, 0, 1, 1]])]
    with EventStorage() as storage:
        losses = rpn.losses(anchors, logits, labels, deltas, boxes)
    expected_cls = math.log1p(math.exp(-0.5)) + math.log1p(math.exp(-1.0))
    expected_loc = abs(0.1 - 0.5) + 0.2 + 0.3 + 0.4
    assert losses["loss_rpn_cls"].item() == pytest.approx(2 * expected_cls / 16, rel=1e-5)
    assert losses["loss_rpn_loc"].item() == pytest.approx(6 * expected_loc / 16, rel=1e-5)
    stored = {name: value for name, (value, _) in storage.latest().items()}
    assert stored == {"rpn/num_pos_anchors": 1.0, "rpn/num_neg_anchors": 1.0}


def test_training_and_testing_end_to_end() -> None:
    torch.manual_seed(0)
    rpn = build_proposal_generator(rpn_cfg(), SHAPES)
    targets = [truth([2.0, 2, 20, 18], [30.0, 5, 40, 25]), truth()]
    with EventStorage():
        proposals, losses = rpn(images(2), features(2), targets)
    assert sorted(losses) == ["loss_rpn_cls", "loss_rpn_loc"]
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in rpn.parameters())
    assert not proposals[0].proposal_boxes.tensor.requires_grad
    rpn.eval()
    with torch.no_grad():
        proposals, losses = rpn(images(2), features(2))
    assert losses == {}
    for found in proposals:
        assert found.image_size == (32, 48)
        logits = found.objectness_logits
        assert torch.equal(logits, logits.sort(descending=True).values)
        low, high = found.proposal_boxes.tensor.amin(0), found.proposal_boxes.tensor.amax(0)
        assert low.min() >= 0
        assert high[2] <= 48
        assert high[3] <= 32


def test_training_needs_ground_truth() -> None:
    rpn = build_proposal_generator(rpn_cfg(), SHAPES)
    with pytest.raises((AssertionError, ValueError)):
        rpn(images(1), features(1))


def test_logits_and_deltas_are_in_the_order_of_the_anchors() -> None:
    """A head whose deltas name their place: the proposals must be moved accordingly."""

    class Naming(nn.Module):
        def forward(self, maps: list[torch.Tensor]) -> tuple[list[torch.Tensor], ...]:
            (x,) = maps
            height, width = x.shape[-2:]
            place = torch.arange(2.0 * height * width).view(height, width, 2)  # row, col, anchor
            logits = place.permute(2, 0, 1)[None]
            deltas = torch.zeros(1, 2, 4, height, width)
            deltas[0, :, 0] = place.permute(2, 0, 1) / 100
            return [logits], [deltas.flatten(1, 2)]

    rpn = RPN(
        in_features=["f"],
        head=Naming(),
        anchor_generator=DefaultAnchorGenerator(
            sizes=[[10, 20]], aspect_ratios=[[1.0]], strides=[50], offset=0.5
        ),
        anchor_matcher=Matcher([0.5], [0, 1]),
        box2box_transform=Box2BoxTransform((1.0, 1.0, 1.0, 1.0)),
        batch_size_per_image=1,
        positive_fraction=0.5,
        pre_nms_topk=(100, 100),
        post_nms_topk=(100, 100),
        nms_thresh=1.0,
    ).eval()
    batch = ImageList(torch.zeros(1, 3, 100, 150), [(100, 150)])
    (found,), _ = rpn(batch, {"f": torch.zeros(1, 1, 2, 3)})
    expected = []
    for place in reversed(range(12)):
        row, col, anchor = place // 6, place // 2 % 3, place % 2
        side = (10, 20)[anchor]
        x, y = 25 + 50 * col + side * place / 100, 25 + 50 * row
        expected.append([x - side / 2, y - side / 2, x + side / 2, y + side / 2])
    torch.testing.assert_close(found.proposal_boxes.tensor, torch.tensor(expected).float())


def test_selection_suppresses_within_a_map_only() -> None:
    fine = [[[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]]]
    coarse = [[[0.0, 0, 10, 10]]]
    (found,) = find([fine, coarse], [[[1.0, 3.0, 2.0]], [[0.5]]])
    assert found.objectness_logits.tolist() == [3.0, 2.0, 0.5]
    assert found.proposal_boxes.tensor[:, 3].tolist() == [9.0, 60.0, 10.0]


def test_selection_limits_and_clips() -> None:
    boxes = [[[-5.0, -5, 10, 10], [30, 30, 200, 40], [70, 70, 75, 90], [120, 10, 130, 20]]]
    logits = [[1.0, 2.0, 3.0, 4.0]]
    (found,) = find([boxes], [logits])
    expected = [[70, 70, 75, 90], [30, 30, 100, 40], [0, 0, 10, 10]]  # the last is outside
    assert found.proposal_boxes.tensor.tolist() == expected
    (found,) = find([boxes], [logits], min_box_size=5.0)
    assert found.objectness_logits.tolist() == [2.0, 1.0]
    (found,) = find([boxes], [logits], pre_nms_topk=2)
    assert found.objectness_logits.tolist() == [3.0]
    (found,) = find([boxes], [logits], post_nms_topk=1)
    assert found.objectness_logits.tolist() == [3.0]


def test_selection_of_each_image_on_its_own() -> None:
    boxes = [[[0.0, 0, 10, 10], [20, 20, 30, 30]], [[0.0, 0, 90, 90], [0, 0, 5, 5]]]
    first, second = find([boxes], [[[0.0, 1.0], [5.0, 4.0]]], image_sizes=[(100, 25), (50, 80)])
    assert first.proposal_boxes.tensor.tolist() == [[20, 20, 25, 30], [0, 0, 10, 10]]
    assert second.proposal_boxes.tensor.tolist() == [[0, 0, 80, 50], [0, 0, 5, 5]]
    assert second.image_size == (50, 80)


def test_values_that_are_not_finite() -> None:
    boxes = [[[0.0, 0, 10, 10], [20, 20, math.inf, 30], [40, 40, 50, 50]]]
    logits = [[1.0, 2.0, math.nan]]
    (found,) = find([boxes], [logits])
    assert found.objectness_logits.tolist() == [1.0]
    with pytest.raises(FloatingPointError):
        find([boxes], [logits], training=True)


def test_all_boxes_outside() -> None:
    (found,) = find([[[[-20.0, -20, -10, -10]]]], [[[1.0]]])
    assert len(found) == 0


def proposals_of(*boxes: list[float], **extra: torch.Tensor) -> Instances:
    found = Instances((32, 48), proposal_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)))
    found.objectness_logits = torch.zeros(len(boxes))
    for name, value in extra.items():
        found.set(name, value)
    return found


def test_ground_truth_joins_the_proposals() -> None:
    found = proposals_of([0.0, 0, 5, 5])
    first, second = add_ground_truth_to_proposals([truth([1.0, 2, 3, 4]), truth()], [found, found])
    assert first.proposal_boxes.tensor.tolist() == [[0, 0, 5, 5], [1, 2, 3, 4]]
    assert torch.sigmoid(first.objectness_logits[1]).item() == pytest.approx(1.0)
    assert first.objectness_logits[1].item() == pytest.approx(10 * math.log(10), rel=1e-6)
    assert sorted(first.get_fields()) == ["objectness_logits", "proposal_boxes"]
    assert len(second) == 1
    assert len(found) == 1
    (plain,) = add_ground_truth_to_proposals([Boxes(torch.tensor([[1.0, 2, 3, 4]]))], [found])
    assert plain.proposal_boxes.tensor.tolist() == [[0, 0, 5, 5], [1, 2, 3, 4]]


def test_proposals_with_more_fields_than_the_ground_truth() -> None:
    found = proposals_of([0.0, 0, 5, 5], source=torch.zeros(1))
    gt = truth([1.0, 2, 3, 4])
    with pytest.raises((AssertionError, ValueError)):
        add_ground_truth_to_proposals([gt], [found])
    gt.source = torch.ones(1)
    (both,) = add_ground_truth_to_proposals([gt], [found])
    assert both.source.tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match="proposals"):
        add_ground_truth_to_proposals([gt], [found, found])


def test_precomputed_proposals_need_no_generator() -> None:
    cfg = rpn_cfg()
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "PrecomputedProposals"
    assert build_proposal_generator(cfg, SHAPES) is None
