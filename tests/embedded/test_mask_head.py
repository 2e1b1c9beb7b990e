"""Mask heads: layers, loss, figures, inference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_MASK_HEAD_REGISTRY, BaseMaskRCNNHead, build_mask_head
from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_inference, mask_rcnn_loss
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

POOLED = ShapeSpec(channels=4, height=7, width=7)


class GivenMasks:
    """The least that the loss asks of `gt_masks`: targets that were cut out before."""

    def __init__(self, targets: torch.Tensor) -> None:
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def crop_and_resize(self, boxes: torch.Tensor, side: int) -> torch.Tensor:
        assert boxes.shape == (len(self.targets), 4)
        assert self.targets.shape[1:] == (side, side)
        return self.targets


def foreground(targets: torch.Tensor, classes: list[int]) -> Instances:
    return Instances(
        (20, 20),
        proposal_boxes=Boxes(torch.tensor([[0.0, 0, 4, 4]] * len(classes)).reshape(-1, 4)),
        gt_classes=torch.tensor(classes, dtype=torch.int64),
        gt_masks=GivenMasks(targets),
    )


def bce(logit: float, target: float) -> float:
    return math.log1p(math.exp(-logit)) + (1 - target) * logit


def test_layers_double_the_size() -> None:
    head = MaskRCNNConvUpsampleHead(POOLED, num_classes=3, conv_dims=[8, 8, 6])
    assert head.layers(torch.zeros(5, 4, 7, 7)).shape == (5, 3, 14, 14)
    assert head.layers(torch.zeros(0, 4, 7, 7)).shape == (0, 3, 14, 14)
    assert list(head.state_dict()) == [
        f"{name}.{kind}"
        for name in ("mask_fcn1", "mask_fcn2", "deconv", "predictor")
        for kind in ("weight", "bias")
    ]


def test_layers_by_hand() -> None:
    torch.manual_seed(0)
    head = MaskRCNNConvUpsampleHead(POOLED, num_classes=1, conv_dims=[8, 6])
    x = torch.randn(2, 4, 7, 7)
    expected = torch.relu(nn.functional.conv2d(x, head.mask_fcn1.weight, padding=1))
    expected = nn.functional.conv_transpose2d(expected, head.deconv.weight, stride=2)
    expected = nn.functional.conv2d(torch.relu(expected), head.predictor.weight)
    torch.testing.assert_close(head.layers(x), expected)  # all biases start at zero


def test_head_from_config() -> None:
    cfg = get_cfg()
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 2
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 32
    cfg.MODEL.ROI_MASK_HEAD.NORM = "GN"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    cfg.VIS_PERIOD = 5
    head = build_mask_head(cfg, POOLED)
    assert type(head) is MaskRCNNConvUpsampleHead
    assert head.predictor.out_channels == 3
    assert isinstance(head.mask_fcn2.norm, nn.GroupNorm)
    assert head.mask_fcn2.bias is None
    assert not hasattr(head, "mask_fcn3")
    assert (head.vis_period, head.loss_weight) == (5, 1.0)
    cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK = True
    assert build_mask_head(cfg, POOLED).predictor.out_channels == 1


def test_loss_takes_the_channel_of_the_true_class() -> None:
    """Two instances of 2x2 pixels; logits of class 1 are as below, those of class 0 are 9."""
    logits = torch.full((2, 2, 2, 2), 9.0)
    logits[0, 1] = torch.tensor([[1.0, -1.0], [2.0, 0.5]])
    logits[1, 0] = torch.tensor([[-3.0, -3.0], [3.0, 3.0]])
    targets = torch.tensor([[[1, 1], [0, 1]], [[0, 0], [1, 1]]], dtype=torch.bool)
    parts = ((targets[:1], [1]), (targets[:0], []), (targets[1:], [0]))
    found = [foreground(*part) for part in parts]
    with EventStorage() as storage:
        loss = mask_rcnn_loss(logits, found)
    pixels = [(1.0, 1), (-1.0, 1), (2.0, 0), (0.5, 1), (-3.0, 0), (-3.0, 0), (3.0, 1), (3.0, 1)]
    expected = sum(bce(logit, target) for logit, target in pixels) / 8
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    stored = {name: value for name, (value, _) in storage.latest().items()}
    assert stored == {
        "mask_rcnn/accuracy": pytest.approx(6 / 8),
        "mask_rcnn/false_positive": pytest.approx(1 / 3),  # of three pixels outside
        "mask_rcnn/false_negative": pytest.approx(1 / 5),  # of five inside
    }


def test_one_mask_for_all_classes_and_soft_targets() -> None:
    logits = torch.tensor([[[[2.0]]]])
    with EventStorage():
        loss = mask_rcnn_loss(logits, [foreground(torch.tensor([[[0.75]]]), [4])])
    assert loss.item() == pytest.approx(bce(2.0, 0.75), rel=1e-5)


@pytest.mark.parametrize("target", [True, False])
def test_masks_that_are_all_inside_or_all_outside(target: bool) -> None:
    with EventStorage() as storage:
        mask_rcnn_loss(torch.ones(1, 1, 2, 2), [foreground(torch.full((1, 2, 2), target), [0])])
    stored = {name: value for name, (value, _) in storage.latest().items()}
    assert stored["mask_rcnn/false_positive"] == (0.0 if target else 1.0)
    assert stored["mask_rcnn/false_negative"] == 0.0


def test_loss_without_instances_is_zero_with_a_gradient() -> None:
    logits = torch.zeros(0, 2, 4, 4, requires_grad=True)
    loss = mask_rcnn_loss(logits, [Instances((8, 8), gt_classes=torch.zeros(0))])
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None


def test_pictures_of_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures: dict[str, torch.Tensor] = {}
    found = [foreground(torch.zeros(1, 2, 2, dtype=torch.bool), [0])]
    logits = torch.full((1, 1, 2, 2), 50.0, requires_grad=True)
    with EventStorage(1) as storage:
        monkeypatch.setattr(storage, "put_image", pictures.__setitem__)
        mask_rcnn_loss(logits, found, 2)
        assert not pictures
        storage.step()
        mask_rcnn_loss(logits, found, 2)
    ((name, picture),) = pictures.items()
    assert name == "Left: mask prediction;   Right: mask GT (0)"
    assert picture.shape == (3, 2, 4)
    torch.testing.assert_close(picture[0].detach(), torch.tensor([[1.0, 1, 0, 0]] * 2))


@pytest.mark.parametrize("channels", [1, 3])
def test_inference_gives_the_mask_of_the_predicted_class(channels: int) -> None:
    logits = torch.randn(3, channels, 4, 4)
    classes = [torch.tensor([2, 0]), torch.zeros(0, dtype=torch.int64), torch.tensor([1])]
    found = [Instances((9, 9), pred_classes=c) for c in classes]
    mask_rcnn_inference(logits, found)
    assert [tuple(i.pred_masks.shape) for i in found] == [(2, 1, 4, 4), (0, 1, 4, 4), (1, 1, 4, 4)]
    columns = [0, 0, 0] if channels == 1 else [2, 0, 1]
    for row, (column, mask) in enumerate(
        zip(columns, torch.cat([found[0].pred_masks, found[2].pred_masks]))
    ):
        torch.testing.assert_close(mask[0], torch.sigmoid(logits[row, column]))


def test_inference_without_detections() -> None:
    found = [Instances((9, 9), pred_classes=torch.zeros(0, dtype=torch.int64))]
    mask_rcnn_inference(torch.zeros(0, 2, 4, 4), found)
    assert found[0].pred_masks.shape == (0, 1, 4, 4)


def test_a_head_of_ones_own() -> None:
    @ROI_MASK_HEAD_REGISTRY.register()
    class ScaledHeadForTest(BaseMaskRCNNHead):
        def __init__(self, cfg: Any, input_shape: ShapeSpec) -> None:
            super().__init__(loss_weight=0.5)
            self.scale = nn.Parameter(torch.tensor(2.0))

        def layers(self, x: torch.Tensor) -> torch.Tensor:
            return self.scale * x[:, :1]

    cfg = get_cfg()
    cfg.MODEL.ROI_MASK_HEAD.NAME = "ScaledHeadForTest"
    head = build_mask_head(cfg, POOLED)
    with EventStorage():
        losses = head(torch.ones(1, 4, 1, 1), [foreground(torch.ones(1, 1, 1), [0])])
    assert losses["loss_mask"].item() == pytest.approx(0.5 * bce(2.0, 1.0), rel=1e-5)
    head.eval()
    found = [Instances((9, 9), pred_classes=torch.tensor([0]))]
    assert head(torch.ones(1, 4, 1, 1), found) is found
    assert found[0].pred_masks.item() == pytest.approx(1 / (1 + math.exp(-2)))


def test_wrong_heads() -> None:
    with pytest.raises((AssertionError, ValueError)):
        MaskRCNNConvUpsampleHead(POOLED, num_classes=3, conv_dims=[])
    with pytest.raises(NotImplementedError):
        BaseMaskRCNNHead()(torch.zeros(1), [])


def test_loss_with_bitmaps() -> None:
    """A mask that fills its box exactly has targets of 1, one that misses it of 0."""
    bitmaps = torch.zeros(2, 16, 16, dtype=torch.bool)
    bitmaps[0, 2:10, 4:12] = True
    found = Instances(
        (16, 16),
        proposal_boxes=Boxes(torch.tensor([[4.0, 2, 12, 10], [4.0, 2, 12, 10]])),
        gt_classes=torch.tensor([0, 0]),
        gt_masks=BitMasks(bitmaps),
    )
    logits = torch.stack([torch.full((1, 4, 4), 30.0), torch.full((1, 4, 4), -30.0)])
    with EventStorage():
        assert mask_rcnn_loss(logits, [found]).item() == pytest.approx(0.0, abs=1e-6)
