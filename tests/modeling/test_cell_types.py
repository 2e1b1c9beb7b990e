"""The classifier behind a class-agnostic Mask R-CNN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellseg import load_config
from cellseg.errors import ConfigError
from cellseg.modeling import (
    CELL_TYPE_HEAD_REGISTRY,
    CellTypeHead,
    CellTypeROIHeads,
    MaskRCNN,
)
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import GeneralizedRCNNWithTTA, build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

QUICK_START = Path(__file__).resolve().parents[2] / "configs/quick_start.yaml"
HW = (64, 64)


def configured(tiny_model: list[str], *options: Any) -> CfgNode:
    return load_config(
        QUICK_START,
        [
            *tiny_model,
            *("DATASETS.TRAIN", (), "DATASETS.TEST", (), "MODEL.ROI_HEADS.NUM_CLASSES", 3),
            *("MODEL.ROI_HEADS.NAME", "CellTypeROIHeads", "CELLSEG.CELL_TYPE.CONV_DIM", 8),
            *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "TEST.DETECTIONS_PER_IMAGE", 9),
            *options,
        ],
    )


@pytest.fixture(scope="module")
def cfg(tiny_model: list[str]) -> CfgNode:
    return configured(tiny_model)


@pytest.fixture(scope="module")
def model(cfg: CfgNode) -> nn.Module:
    torch.manual_seed(0)
    return build_model(cfg)


def image_of(classes: list[int], seed: int = 0) -> dict[str, Any]:
    """Squares side by side, one per class."""
    bitmaps = torch.zeros(len(classes), *HW, dtype=torch.bool)
    for k in range(len(classes)):
        bitmaps[k, 8:24, 2 + 20 * k : 18 + 20 * k] = True
    corners = [[2.0 + 20 * k, 8.0, 18.0 + 20 * k, 24.0] for k in range(len(classes))]
    target = Instances(
        HW,
        gt_boxes=Boxes(torch.tensor(corners).reshape(-1, 4)),
        gt_classes=torch.tensor(classes, dtype=torch.int64),
        gt_masks=BitMasks(bitmaps),
    )
    generator = torch.Generator().manual_seed(seed)
    pixels = (torch.rand(3, *HW, generator=generator) * 255).to(torch.uint8)
    return {"image": pixels, "height": HW[0], "width": HW[1], "instances": target}


def losses_of(model: nn.Module, *images: dict[str, Any]) -> dict[str, Tensor]:
    model.train()
    with EventStorage():
        losses: dict[str, Tensor] = model(list(images))
    return losses


def gradient_of(parameters: Any) -> float:
    gradients = [p.grad.abs().sum().item() for p in parameters if p.grad is not None]
    return sum(gradients)


def test_parts_are_built_for_one_class_and_the_classifier_for_all(model: nn.Module) -> None:
    heads = model.roi_heads
    assert isinstance(heads, CellTypeROIHeads)
    assert heads.num_classes == 1
    assert heads.box_predictor.cls_score.out_features == 2
    assert heads.mask_head.predictor.out_channels == 1
    assert heads.type_head.logits.out_features == 3


def test_parameters_are_those_of_a_model_with_one_class_and_the_head(
    model: nn.Module, tiny_model: list[str]
) -> None:
    options = ["MODEL.ROI_HEADS.NAME", "StandardROIHeads", "MODEL.ROI_HEADS.NUM_CLASSES", 1]
    plain = build_model(configured(tiny_model, *options)).state_dict()
    typed = model.state_dict()
    assert {name for name in typed if "type_head" not in name} == set(plain)
    assert all(typed[name].shape == plain[name].shape for name in plain)


def test_the_true_types_reach_the_proposals(model: nn.Module) -> None:
    image = image_of([2, 0, 1])
    truth = image["instances"]
    proposals = Instances(
        HW, proposal_boxes=truth.gt_boxes.clone(), objectness_logits=torch.ones(3)
    )
    with EventStorage():
        (labelled,) = model.roi_heads.label_and_sample_proposals([proposals], [truth])
    foreground = labelled[labelled.gt_classes == 0]
    assert set(labelled.gt_classes.tolist()) == {0}  # every proposal is one of the cells
    assert len(set(foreground.gt_types.tolist())) > 1  # 4 of 6 proposals are drawn
    for box, kind in zip(foreground.gt_boxes.tensor, foreground.gt_types):
        assert kind == truth.gt_classes[(truth.gt_boxes.tensor == box).all(dim=1)]
    assert truth.gt_classes.tolist() == [2, 0, 1]
    assert not truth.has("gt_types")


@pytest.mark.parametrize("detach", [False, True])
def test_gradients_of_the_type_loss(tiny_model: list[str], detach: bool) -> None:
    torch.manual_seed(0)
    model = build_model(configured(tiny_model, "CELLSEG.CELL_TYPE.DETACH", detach))
    losses = losses_of(model, image_of([0, 1, 2]), image_of([1], seed=1))
    assert losses["loss_cell_type"].item() == pytest.approx(np.log(3), rel=0.2)
    losses["loss_cell_type"].backward()
    assert gradient_of(model.roi_heads.type_head.parameters()) > 0
    assert gradient_of(model.roi_heads.mask_head.parameters()) == 0
    assert (gradient_of(model.backbone.parameters()) == 0) == detach


def test_images_without_cells(model: nn.Module) -> None:
    mixed = losses_of(model, image_of([]), image_of([1]))
    assert all(loss.isfinite() for loss in mixed.values())
    model.zero_grad()
    losses = losses_of(model, image_of([]))
    assert losses["loss_cell_type"].item() == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.roi_heads.type_head.parameters())


def test_weights_of_the_loss(tiny_model: list[str]) -> None:
    """With weight 0 it vanishes; a type that weighs much more decides."""
    torch.manual_seed(0)
    options = ("CELLSEG.CELL_TYPE.CLASS_WEIGHTS", [1.0, 1.0, 1e6])
    model = build_model(configured(tiny_model, *options))
    with torch.no_grad():
        model.roi_heads.type_head.logits.weight.zero_()
        model.roi_heads.type_head.logits.bias.copy_(torch.tensor([0.0, 0.0, 3.0]))
    loss = losses_of(model, image_of([0, 1, 2]))["loss_cell_type"].item()
    assert loss == pytest.approx(np.log(1 + 2 * np.exp(-3)), rel=1e-3)
    model.roi_heads.type_loss_weight = 0.0
    assert losses_of(model, image_of([0, 1, 2]))["loss_cell_type"].item() == 0
    assert "class_weights" not in "".join(model.state_dict())


def predictions(model: nn.Module, **changes: Any) -> Instances:
    model.eval()
    before = {name: getattr(model.roi_heads, name) for name in changes}
    vars(model.roi_heads).update(changes)
    try:
        with torch.no_grad():
            (found,) = model.inference([image_of([])], do_postprocess=False)
    finally:
        vars(model.roi_heads).update(before)
    return found


def test_predictions(model: nn.Module) -> None:
    found = predictions(model)
    plain = predictions(model, multiply_scores=False)
    assert len(found) == 9
    assert found.type_probs.shape == (9, 3)
    assert torch.allclose(found.type_probs.sum(dim=1), torch.ones(9))
    best, types = found.type_probs.max(dim=1)
    assert torch.equal(found.pred_classes, types)
    assert torch.allclose(found.scores, plain.scores * best)
    assert found.pred_masks.shape[:2] == (9, 1)


def test_types_without_masks_are_the_same(model: nn.Module) -> None:
    """As in the first stage of test-time augmentation."""
    found, without = predictions(model), predictions(model, mask_on=False)
    assert not without.has("pred_masks")
    assert torch.equal(found.pred_classes, without.pred_classes)
    assert torch.allclose(found.type_probs, without.type_probs)


def test_given_boxes(model: nn.Module) -> None:
    """Boxes get types and masks, and types that are known stay."""
    model.eval()
    found = predictions(model)
    given = Instances(HW, pred_boxes=found.pred_boxes, pred_classes=torch.full((9,), 2))
    with torch.no_grad():
        (again,) = model.inference([image_of([])], [given], do_postprocess=False)
        assert torch.equal(again.pred_classes, found.pred_classes)
        assert torch.allclose(again.pred_masks, found.pred_masks)
        found.pred_classes = torch.full((9,), 2)
        (kept,) = model.inference([image_of([])], [found], do_postprocess=False)
    assert kept.pred_classes.tolist() == [2] * 9
    assert torch.equal(kept.scores, found.scores)


def test_behind_a_mask_head_that_changes_scores(tiny_model: list[str]) -> None:
    """With all parts of cellseg; without masks the mask head has no say in the scores."""
    torch.manual_seed(0)
    options = ("MODEL.ROI_MASK_HEAD.NAME", "MaskIoUHead", "CELLSEG.BOX_HEAD.IOU_WEIGHT", 1.5)
    model = build_model(configured(tiny_model, *options))
    losses = losses_of(model, image_of([0, 1, 2]))
    assert {"loss_mask_iou", "loss_cell_type", "loss_cls"} <= set(losses)
    sum(losses.values()).backward()
    found = predictions(model)
    without = predictions(model, mask_on=False)
    plain = predictions(model, mask_on=False, multiply_scores=False)
    best = found.type_probs.max(dim=1).values
    assert torch.allclose(without.scores, plain.scores * best)
    assert (found.scores < without.scores).all()


def test_a_mask_head_of_another_kind(model: nn.Module) -> None:
    heads = model.roi_heads
    options = dict.fromkeys(("box_in_features", "box_pooler", "box_head"))
    with pytest.raises(ConfigError, match="Identity has no `layers`"):
        CellTypeROIHeads(
            type_head=nn.Identity(),
            **options,
            box_predictor=None,
            mask_in_features=["p2"],
            mask_head=nn.Identity(),
            num_classes=1,
            batch_size_per_image=1,
            positive_fraction=0.5,
            proposal_matcher=heads.proposal_matcher,
        )


def test_no_detections(model: nn.Module) -> None:
    model.eval()
    none = Instances(HW, pred_boxes=Boxes(torch.zeros(0, 4)), pred_classes=torch.zeros(0).long())
    with torch.no_grad():
        (found,) = model.inference([image_of([])], [none], do_postprocess=False)
    assert found.type_probs.shape == (0, 3)
    assert found.pred_masks.shape[0] == found.pred_classes.shape[0] == 0


def test_test_time_augmentation(cfg: CfgNode, model: nn.Module) -> None:
    augmented = cfg.clone()
    augmented.TEST.AUG.MIN_SIZES = (64, 80)
    model.eval()
    with torch.no_grad():
        (output,) = GeneralizedRCNNWithTTA(augmented, model)([image_of([])])
    found = output["instances"]
    assert len(found) > 0
    assert found.pred_masks.shape[1:] == HW
    assert set(found.pred_classes.tolist()) <= {0, 1, 2}
    assert model.roi_heads.mask_on


def test_called_as_torchvision_does(cfg: CfgNode) -> None:
    model = MaskRCNN(cfg)
    assert model.num_classes == 4
    (found,) = model.eval()([torch.rand(3, *HW)])
    assert set(found["labels"].tolist()) <= {1, 2, 3}


class ByArea(nn.Module):
    """A head of one's own: the larger the mask, the higher the type."""

    def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        super().__init__()
        self.num_types = cfg.MODEL.ROI_HEADS.NUM_CLASSES
        self.scale = nn.Parameter(torch.ones(()))
        assert (input_shape.channels, input_shape.height) == (32, 14)

    def forward(self, features: Tensor, soft_masks: Tensor) -> Tensor:
        assert features.shape[1:] == (32, 14, 14)
        area = self.scale * soft_masks.mean(dim=(1, 2, 3))
        return area[:, None] * torch.arange(self.num_types)


def test_a_head_of_ones_own(tiny_model: list[str]) -> None:
    if "ByArea" not in CELL_TYPE_HEAD_REGISTRY:
        CELL_TYPE_HEAD_REGISTRY.register(ByArea)
    model = build_model(configured(tiny_model, "CELLSEG.CELL_TYPE.HEAD", "ByArea"))
    losses_of(model, image_of([0, 2]))["loss_cell_type"].backward()
    assert model.roi_heads.type_head.scale.grad != 0
    assert set(predictions(model).pred_classes.tolist()) == {2}


def head_and_masks() -> tuple[CellTypeHead, Tensor]:
    torch.manual_seed(0)
    shape = ShapeSpec(channels=2, height=4, width=4)
    head = CellTypeHead(shape, num_types=3, num_conv=0, conv_dim=1, fc_dim=5)
    left = torch.zeros(1, 1, 8, 8)
    left[..., :4] = 1
    return head, left


def test_the_two_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without convolutions the hidden layer gets means of the input, inside and all over."""
    head, left = head_and_masks()
    seen: list[Tensor] = []
    head.hidden.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    features = torch.zeros(1, 2, 4, 4)
    features[0, 0, :, :2], features[0, 1, :, 2:] = 3.0, 8.0
    head(features, left)
    assert seen[0][0].tolist() == pytest.approx([3.0, 0.0, 1.0, 1.5, 4.0, 0.5])
    head(features, torch.zeros(1, 1, 8, 8))
    assert seen[1][0].tolist() == pytest.approx([0.0, 0.0, 0.0, 1.5, 4.0, 0.0])


def test_the_shape_alone_can_tell_types() -> None:
    """Bars along and across, on features that say nothing."""
    torch.manual_seed(0)
    shape = ShapeSpec(channels=1, height=7, width=7)
    head = CellTypeHead(shape, num_types=2, num_conv=1, conv_dim=8, fc_dim=8)
    masks = torch.zeros(2, 1, 14, 14)
    masks[0, :, 5:9], masks[1, :, :, 5:9] = 1, 1
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(80):
        logits = head(torch.zeros(2, 1, 7, 7), masks)
        loss = nn.functional.cross_entropy(logits, torch.tensor([0, 1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["CELLSEG.CELL_TYPE.VOTE", "dish"], "CELLSEG.CELL_TYPE.VOTE is 'dish'; .* none, image"),
        (["CELLSEG.CELL_TYPE.SCORE", "max"], "CELLSEG.CELL_TYPE.SCORE is 'max'"),
        (["CELLSEG.CELL_TYPE.HEAD", "CellTypeHed"], "did you mean CellTypeHead"),
        (["CELLSEG.CELL_TYPE.CLASS_WEIGHTS", [1.0, 2.0]], "each of the 3 types"),
        (["CELLSEG.CELL_TYPE.CLASS_WEIGHTS", [1.0, 2.0, 0]], "above 0"),
        (["CELLSEG.CELL_TYPE.LOSS_WEIGHT", -1.0], "LOSS_WEIGHT is -1.0"),
        (["CELLSEG.CELL_TYPE.FC_DIM", 0], "FC_DIM is 0"),
        (["MODEL.MASK_ON", False], "MODEL.MASK_ON True"),
    ],
)
def test_refuses(tiny_model: list[str], options: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(tiny_model, *options)


def test_keys_of_the_classifier_do_not_matter_without_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    load_config(QUICK_START, ["CELLSEG.CELL_TYPE.HEAD", "unknown"])
    assert "CELLSEG.CELL_TYPE.HEAD 'unknown' has no effect" in caplog.text
