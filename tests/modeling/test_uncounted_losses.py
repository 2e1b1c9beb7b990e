"""What lies in uncounted regions reaches no loss: anchors, proposals and stages of a cascade."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import detectron2.modeling
import pytest
import torch
from cellseg import add_cellseg_config
from cellseg.engine.trainer import CellTrainer
from cellseg.modeling.building import build_model
from cellseg.training_data.label_masks import LabelMasks
from cellseg.training_data.uncounted_regions import UncountedRegions
from detectron2.config import CfgNode
from detectron2.modeling import ROI_HEADS_REGISTRY, StandardROIHeads
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

IMAGE_HW = (64, 64)
CELL = [4.0, 4.0, 20.0, 20.0]
CELL_INSIDE = [40.0, 40.0, 56.0, 56.0]
REGION_X = 32  # where the uncounted half begins, that on the right
LEFT, RIGHT = [8.0, 40.0, 24.0, 56.0], [40.0, 8.0, 56.0, 24.0]
HALF = [24.0, 40.0, 40.0, 56.0]  # 8 of its 16 columns are uncounted
THIRD = [20.0, 40.0, 38.0, 56.0]  # 6 of 18
NEAR_INSIDE = [41.0, 40.0, 57.0, 56.0]  # IoU 15/17 with CELL_INSIDE


@pytest.fixture(autouse=True)
def storage() -> Iterator[None]:
    with EventStorage():
        yield


def boxes_of(*rows: list[float]) -> Boxes:
    return Boxes(torch.tensor(rows).reshape(-1, 4))


def targets(*cells: list[float], first_uncounted: int | None = REGION_X) -> Instances:
    """Square cells, and all columns from `first_uncounted` on uncounted."""
    labels = torch.zeros(IMAGE_HW, dtype=torch.int64)
    for number, (x0, y0, x1, y1) in enumerate(cells, 1):
        labels[int(y0) : int(y1), int(x0) : int(x1)] = number
    found = Instances(IMAGE_HW, gt_boxes=boxes_of(*cells))
    found.gt_classes = torch.zeros(len(cells), dtype=torch.int64)
    if cells:
        found.gt_masks = LabelMasks.from_label_image(labels)
    if first_uncounted is not None:
        mask = torch.zeros(IMAGE_HW, dtype=torch.bool)
        mask[:, first_uncounted:] = True
        found.uncounted = UncountedRegions.of_cells(mask, len(cells))
    return found


def proposals(*rows: list[float]) -> Instances:
    return Instances(
        IMAGE_HW, proposal_boxes=boxes_of(*rows), objectness_logits=torch.zeros(len(rows))
    )


def batch(*per_image: Instances) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(7)
    return [
        {"image": torch.rand(3, *IMAGE_HW, generator=generator) * 255, "instances": each}
        for each in per_image
    ]


@pytest.fixture
def detector(tiny_cfg: CfgNode) -> Any:
    torch.manual_seed(0)
    return build_model(tiny_cfg).train()


def drawn(heads: Any, found: Instances, target: Instances) -> list[list[float]]:
    """The boxes of the background that the heads draw, in ascending order."""
    (chosen,) = heads.label_and_sample_proposals([found], [target])
    background = chosen.gt_classes == heads.num_classes
    return sorted(chosen.proposal_boxes.tensor[background].tolist())


def test_anchors_by_hand(detector: Any) -> None:
    anchors = [boxes_of(LEFT, RIGHT, HALF), boxes_of(THIRD, CELL, NEAR_INSIDE)]
    both = targets(CELL, CELL_INSIDE)
    (labels,), (matched,) = detector.proposal_generator.label_and_sample_anchors(anchors, [both])
    assert labels.tolist() == [0, -1, -1, 0, 1, 1]
    assert matched[4:].tolist() == [CELL, CELL_INSIDE]


def test_every_image_has_its_own_regions(detector: Any) -> None:
    anchors = [boxes_of(LEFT, RIGHT, CELL)]
    given = [targets(CELL, first_uncounted=None), targets(CELL), targets(first_uncounted=0)]
    labels, _ = detector.proposal_generator.label_and_sample_anchors(anchors, given)
    assert [one.tolist() for one in labels] == [[0, 0, 1], [0, -1, 1], [-1, -1, -1]]


def test_left_out_anchors_leave_their_places_to_others(detector: Any) -> None:
    """40 anchors on either side and 32 to draw: all are drawn from the counted side."""
    shifts = torch.arange(40.0)[:, None] * 0.1
    left, right = (torch.tensor([box]) + shifts for box in (LEFT, RIGHT))
    (labels,), _ = detector.proposal_generator.label_and_sample_anchors(
        [Boxes(right), Boxes(left)], [targets()]
    )
    assert [(labels[:40] == 0).sum(), (labels[40:] == 0).sum()] == [0, 32]


def test_no_gradient_comes_from_left_out_anchors(detector: Any) -> None:
    rpn = detector.proposal_generator
    anchors = [boxes_of(LEFT, RIGHT, HALF, THIRD, CELL, NEAR_INSIDE)]
    labels, matched = rpn.label_and_sample_anchors(anchors, [targets(CELL, CELL_INSIDE)])
    losses = []
    for change in (0.0, 5.0):
        logits = torch.zeros(1, 6, requires_grad=True)
        deltas = torch.zeros(1, 6, 4, requires_grad=True)
        moved = logits + change * torch.tensor([0, 1, 1, 0, 0, 0])
        found = rpn.losses(anchors, [moved], labels, [deltas], matched)
        sum(found.values()).backward()
        assert logits.grad is not None
        assert (logits.grad[0] != 0).tolist() == [True, False, False, True, True, True]
        losses.append({name: loss.item() for name, loss in found.items()})
    assert losses[0] == losses[1]


@ROI_HEADS_REGISTRY.register()
class UsersHeads(StandardROIHeads):
    """Of a plug-in that knows nothing of regions, and looks at the first proposals only."""

    def label_and_sample_proposals(self, proposals: Any, targets: Any) -> Any:
        return super().label_and_sample_proposals([each[:30] for each in proposals], targets)


HEADS = ["StandardROIHeads", "CellROIHeads", "CellTypeROIHeads", "CascadeROIHeads", "UsersHeads"]


def with_cellseg_keys(tiny_cfg: CfgNode) -> CfgNode:
    cfg = tiny_cfg.clone()
    cfg.defrost()
    add_cellseg_config(cfg)
    return cfg


def with_heads(tiny_cfg: CfgNode, name: str) -> Any:
    cfg = with_cellseg_keys(tiny_cfg)
    cfg.MODEL.ROI_HEADS.NAME = name
    cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = name == "CascadeROIHeads"
    torch.manual_seed(0)
    return build_model(cfg).train()


@pytest.mark.parametrize("name", HEADS)
def test_proposals_by_hand(tiny_cfg: CfgNode, name: str) -> None:
    heads = with_heads(tiny_cfg, name).roi_heads
    found = proposals(LEFT, RIGHT, HALF, THIRD, NEAR_INSIDE)
    assert drawn(heads, found, targets(CELL, CELL_INSIDE)) == sorted([LEFT, THIRD])
    assert drawn(heads, found, targets()) == sorted([LEFT, THIRD])  # no cell at all
    (chosen,) = heads.label_and_sample_proposals([found], [targets(CELL, CELL_INSIDE)])
    foreground = chosen.proposal_boxes.tensor[chosen.gt_classes == 0].tolist()
    assert sorted(foreground) == sorted([CELL, CELL_INSIDE, NEAR_INSIDE])
    assert not chosen.has("uncounted")


def test_detections_in_a_region_change_no_loss(detector: Any) -> None:
    """More proposals there, or others: the very same are drawn, with the very same losses."""
    heads = detector.roi_heads
    features = {
        name: torch.rand(1, 32, side, side)
        for name, side in zip(detector.backbone.output_shape(), (16, 8, 4, 2, 1))
    }
    target = targets(CELL)
    counted = [[float(4 * k), 30.0, 4.0 * k + 9, 44.0] for k in range(5)]
    elsewhere = [[40.0 + k, 8.0, 50.0 + k, 24.0] for k in range(12)]
    results = []
    for more in ([], elsewhere, [RIGHT]):
        torch.manual_seed(3)
        _, losses = heads(None, features, [proposals(*counted, *more)], [target])
        results.append({name: loss.item() for name, loss in losses.items()})
    assert results[0] == results[1] == results[2]
    target.remove("uncounted")
    torch.manual_seed(3)
    _, losses = heads(None, features, [proposals(*counted, *elsewhere)], [target])
    assert losses["loss_cls"].item() != results[0]["loss_cls"]


def test_later_stages_of_a_cascade(tiny_cfg: CfgNode) -> None:
    heads = with_heads(tiny_cfg, "CascadeROIHeads").roi_heads
    found = [proposals(LEFT, RIGHT, HALF, THIRD, NEAR_INSIDE), proposals(RIGHT)]
    given = [targets(CELL_INSIDE), targets(CELL, first_uncounted=None)]
    first, second = heads._match_and_label_boxes(found, 1, given)
    assert first.proposal_boxes.tensor.tolist() == [LEFT, THIRD, NEAR_INSIDE]
    assert first.gt_classes.tolist() == [2, 2, 0]
    assert second.gt_classes.tolist() == [2]


@pytest.mark.parametrize("name", HEADS)
def test_an_image_that_nobody_counted_teaches_nothing(tiny_cfg: CfgNode, name: str) -> None:
    model = with_heads(tiny_cfg, name)
    losses = model(batch(targets(first_uncounted=0)))
    assert {name: loss.item() for name, loss in losses.items()} == dict.fromkeys(losses, 0.0)
    sum(losses.values()).backward()
    gradients = [one.grad for one in model.parameters() if one.requires_grad]
    assert all(one is None or not one.any() for one in gradients)


def losses_and_random_state(model: Any, images: list[dict[str, Any]]) -> Any:
    torch.manual_seed(1)
    losses = {name: loss.item() for name, loss in model(images).items()}
    return losses, torch.rand(1).item()


def test_without_regions_all_is_as_ever(tiny_cfg: CfgNode) -> None:
    images = batch(targets(CELL, first_uncounted=None), targets(first_uncounted=None))
    results = []
    for build in (detectron2.modeling.build_model, build_model, CellTrainer.build_model):
        torch.manual_seed(0)
        model = build(with_cellseg_keys(tiny_cfg)).train()
        results.append(losses_and_random_state(model, images))
    assert results[0] == results[1] == results[2]


def copies(model: nn.Module) -> list[Any]:
    return [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]


def test_copies_choose_by_themselves(detector: Any) -> None:
    images = batch(targets(CELL))
    expected = losses_and_random_state(detector, images)
    for other in copies(detector):
        assert losses_and_random_state(other, images) == expected
        assert other.proposal_generator.label_and_sample_anchors.__self__.rpn is (
            other.proposal_generator
        )
    assert losses_and_random_state(detector, images) == expected


def test_state_dicts_stay(tiny_cfg: CfgNode, detector: Any) -> None:
    plain: Tensor = detectron2.modeling.build_model(tiny_cfg).state_dict()
    assert list(detector.state_dict()) == list(plain)
