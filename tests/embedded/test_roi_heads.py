"""Region heads: sampling, box head and predictor, losses, detections; standard, cascade and C4."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import (
    ROI_KEYPOINT_HEAD_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    build_box_head,
    build_keypoint_head,
    build_roi_heads,
)
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    ROIHeads,
    StandardROIHeads,
    select_foreground_proposals,
)
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.modeling.roi_heads.roi_heads import Res5ROIHeads
from detectron2.structures import BitMasks, Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from torch import nn

HW = (48, 64)
SHAPES = {name: ShapeSpec(channels=8, stride=s) for name, s in (("p2", 4), ("p3", 8))}
TRUE_BOXES = [[4.0, 4, 20, 24], [30.0, 10, 60, 40]]


def heads_cfg(name: str = "StandardROIHeads") -> CfgNode:
    cfg = get_cfg()
    model = cfg.MODEL
    model.MASK_ON = True
    model.ROI_HEADS.NAME = name
    model.ROI_HEADS.IN_FEATURES = ["p2", "p3"]
    model.ROI_HEADS.NUM_CLASSES = 3
    model.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 16
    model.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    model.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    model.ROI_BOX_HEAD.NUM_FC = 1
    model.ROI_BOX_HEAD.FC_DIM = 16
    model.ROI_BOX_HEAD.POOLER_RESOLUTION = 3
    model.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = name == "CascadeROIHeads"
    model.ROI_MASK_HEAD.NUM_CONV = 1
    model.ROI_MASK_HEAD.CONV_DIM = 8
    model.ROI_MASK_HEAD.POOLER_RESOLUTION = 4
    return cfg


def c4_cfg() -> tuple[CfgNode, dict[str, ShapeSpec]]:
    cfg = heads_cfg("Res5ROIHeads")
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["res4"]
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 4
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 2
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 4
    return cfg, {"res4": ShapeSpec(channels=16, stride=16)}


def build(name: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """Heads of that name and features of two images."""
    torch.manual_seed(0)
    if name == "Res5ROIHeads":
        cfg, shapes = c4_cfg()
    else:
        cfg, shapes = heads_cfg(name), SHAPES
    maps = {
        key: torch.randn(2, s.channels, HW[0] // s.stride, HW[1] // s.stride)
        for key, s in shapes.items()
    }
    return build_roi_heads(cfg, shapes), maps


def proposals(*boxes: list[float]) -> Instances:
    tensor = torch.tensor(boxes).reshape(-1, 4)
    return Instances(HW, proposal_boxes=Boxes(tensor), objectness_logits=torch.zeros(len(tensor)))


def truth(boxes: list[list[float]], classes: list[int]) -> Instances:
    found = Instances(HW, gt_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)))
    found.gt_classes = torch.tensor(classes, dtype=torch.int64)
    if boxes:
        bitmaps = torch.zeros(len(boxes), *HW, dtype=torch.bool)
        for bitmap, (x0, y0, x1, y1) in zip(bitmaps, boxes):
            bitmap[int(y0) : int(y1), int(x0) : int(x1)] = True
        found.gt_masks = BitMasks(bitmaps)
    return found


def images() -> ImageList:
    return ImageList(torch.zeros(2, 3, *HW), [HW, HW])


def sampling_heads(**options: Any) -> ROIHeads:
    defaults = {
        "num_classes": 3,
        "batch_size_per_image": 8,
        "positive_fraction": 0.5,
        "proposal_matcher": Matcher([0.5], [0, 1]),
    }
    return ROIHeads(**{**defaults, **options})


class TestSampling:
    def test_proposals_get_the_truth_they_match(self) -> None:
        near, far = [5.0, 4, 20, 24], [40.0, 0, 50, 5]
        with EventStorage() as storage:
            (found,) = sampling_heads(proposal_append_gt=False).label_and_sample_proposals(
                [proposals(far, near)], [truth(TRUE_BOXES, [2, 0])]
            )
        assert found.proposal_boxes.tensor.tolist() == [near, far]
        assert found.gt_classes.tolist() == [2, 3]
        assert found.gt_boxes.tensor[0].tolist() == TRUE_BOXES[0]
        assert len(found.gt_masks) == 2
        stored = {name: value for name, (value, _) in storage.latest().items()}
        assert stored == {"roi_head/num_fg_samples": 1.0, "roi_head/num_bg_samples": 1.0}

    def test_true_boxes_are_appended(self) -> None:
        with EventStorage() as storage:
            first, second = sampling_heads().label_and_sample_proposals(
                [proposals(), proposals([0.0, 0, 9, 9])], [truth(TRUE_BOXES, [2, 0]), truth([], [])]
            )
        assert sorted(first.gt_classes.tolist()) == [0, 2]
        assert second.gt_classes.tolist() == [3]
        assert not second.has("gt_boxes")
        stored = {name: value for name, (value, _) in storage.latest().items()}
        assert stored == {"roi_head/num_fg_samples": 1.0, "roi_head/num_bg_samples": 0.5}

    def test_number_and_share_of_foreground(self) -> None:
        many = [TRUE_BOXES[0]] * 10 + [[50.0, 0, 60, 5]] * 10
        with EventStorage():
            (found,) = sampling_heads(positive_fraction=0.25).label_and_sample_proposals(
                [proposals(*many)], [truth(TRUE_BOXES, [2, 0])]
            )
        assert len(found) == 8
        assert (found.gt_classes < 3).tolist() == [True] * 2 + [False] * 6

    def test_ignored_proposals_are_not_sampled(self) -> None:
        matcher = Matcher([0.4, 0.9], [0, -1, 1])
        half = [4.0, 4, 20, 14]
        with EventStorage():
            (found,) = sampling_heads(
                proposal_matcher=matcher, proposal_append_gt=False
            ).label_and_sample_proposals(
                [proposals(half, [50.0, 0, 60, 5])], [truth(TRUE_BOXES, [2, 0])]
            )
        assert found.gt_classes.tolist() == [3]

    def test_foreground_selection(self) -> None:
        found = proposals(*[[0.0, 0, 1, 1]] * 4)
        found.gt_classes = torch.tensor([3, 0, -1, 2])
        empty = proposals()
        empty.gt_classes = torch.zeros(0, dtype=torch.int64)
        (first, second), (mask, _) = select_foreground_proposals([found, empty], 3)
        assert first.gt_classes.tolist() == [0, 2]
        assert mask.tolist() == [False, True, False, True]
        assert len(second) == 0

    def test_base_class_cannot_run(self) -> None:
        with pytest.raises(NotImplementedError):
            sampling_heads()(None, {}, [])


class TestBoxHead:
    def test_layers_and_names(self) -> None:
        shape = ShapeSpec(channels=4, height=5, width=3)
        head = FastRCNNConvFCHead(shape, conv_dims=[6, 7], fc_dims=[9, 8], conv_norm="")
        assert list(head.state_dict()) == [
            f"{name}.{kind}"
            for name in ("conv1", "conv2", "fc1", "fc2")
            for kind in ("weight", "bias")
        ]
        assert head.output_shape == ShapeSpec(channels=8)
        assert head(torch.zeros(2, 4, 5, 3)).shape == (2, 8)
        assert head(torch.zeros(0, 4, 5, 3)).shape == (0, 8)

    def test_without_fully_connected_layers(self) -> None:
        shape = ShapeSpec(channels=4, height=5, width=3)
        head = FastRCNNConvFCHead(shape, conv_dims=[32], fc_dims=[], conv_norm="GN")
        assert head.output_shape == ShapeSpec(channels=32, height=5, width=3)
        assert head.conv1.bias is None
        assert head(torch.zeros(2, 4, 5, 3)).shape == (2, 32, 5, 3)

    def test_fully_connected_layers_by_hand(self) -> None:
        torch.manual_seed(0)
        head = FastRCNNConvFCHead(ShapeSpec(2, 3, 3), conv_dims=[], fc_dims=[5])
        x = torch.randn(4, 2, 3, 3)
        expected = torch.relu(x.flatten(1) @ head.fc1.weight.T)
        torch.testing.assert_close(head(x), expected)
        with pytest.raises((AssertionError, ValueError)):
            FastRCNNConvFCHead(ShapeSpec(2, 3, 3), conv_dims=[], fc_dims=[])

    def test_from_config(self) -> None:
        cfg = heads_cfg()
        cfg.MODEL.ROI_BOX_HEAD.NUM_CONV = 2
        cfg.MODEL.ROI_BOX_HEAD.CONV_DIM = 10
        head = build_box_head(cfg, ShapeSpec(8, 3, 3))
        assert head.fc1.in_features == 10 * 3 * 3
        assert head.output_shape.channels == 16


UNIT = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))


def predictor(**options: Any) -> FastRCNNOutputLayers:
    torch.manual_seed(0)
    defaults = {"box2box_transform": UNIT, "num_classes": 2}
    return FastRCNNOutputLayers(ShapeSpec(channels=5), **{**defaults, **options})


def sampled() -> Instances:
    """Three regions of 10x10: classes 0, background (2), 1; the truth is moved by (1, 2) px."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [5, 5, 15, 15]])
    found = Instances(HW, proposal_boxes=Boxes(boxes), gt_classes=torch.tensor([0, 2, 1]))
    found.gt_boxes = Boxes(boxes + torch.tensor([1.0, 2, 1, 2]))
    return found


class TestPredictor:
    def test_shapes(self) -> None:
        layers = predictor()
        logits, deltas = layers(torch.zeros(4, 5))
        assert (logits.shape, deltas.shape) == ((4, 3), (4, 8))
        assert predictor(cls_agnostic_bbox_reg=True)(torch.zeros(4, 5))[1].shape == (4, 4)
        wide = FastRCNNOutputLayers(ShapeSpec(5, 2, 3), box2box_transform=UNIT, num_classes=2)
        assert wide(torch.zeros(4, 5, 2, 3))[0].shape == (4, 3)
        plain = FastRCNNOutputLayers(30, box2box_transform=UNIT, num_classes=2)
        assert plain.cls_score.in_features == 30

    def test_initial_weights(self) -> None:
        torch.manual_seed(0)
        layers = FastRCNNOutputLayers(400, box2box_transform=UNIT, num_classes=20)
        assert layers.cls_score.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert layers.bbox_pred.weight.std().item() == pytest.approx(0.001, rel=0.05)
        assert not layers.cls_score.bias.any()

    @pytest.mark.parametrize("agnostic", [False, True])
    def test_losses_by_hand(self, agnostic: bool) -> None:
        layers = predictor(loss_weight={"loss_box_reg": 3.0}, cls_agnostic_bbox_reg=agnostic)
        logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 3.0]])
        deltas = torch.full((3, 4 if agnostic else 8), 7.0)
        deltas[0, :4] = torch.tensor([0.5, 0.0, 0.0, 0.0])
        deltas[2, -4:] = torch.tensor([0.1, 0.2, 0.0, 0.3])
        with EventStorage() as storage:
            losses = layers.losses((logits, deltas), [sampled()])
        expected = -torch.log_softmax(logits, 1)[torch.arange(3), torch.tensor([0, 2, 1])].mean()
        assert losses["loss_cls"].item() == pytest.approx(expected.item(), rel=1e-5)
        # wanted are (0.1, 0.2, 0, 0)
        errors = (0.4 + 0.2) + 0.3
        assert losses["loss_box_reg"].item() == pytest.approx(3.0 * errors / 3, rel=1e-5)
        stored = {name: value for name, (value, _) in storage.latest().items()}
        assert stored == {
            "fast_rcnn/cls_accuracy": pytest.approx(2 / 3),
            "fast_rcnn/fg_cls_accuracy": pytest.approx(1 / 2),
            "fast_rcnn/false_negative": pytest.approx(1 / 2),
        }

    def test_losses_of_background_alone(self) -> None:
        found = sampled()
        found.gt_classes = torch.tensor([2, 2, 2])
        found.remove("gt_boxes")
        layers = predictor()
        with EventStorage() as storage:
            losses = layers.losses(layers(torch.ones(3, 5)), [found])
        sum(losses.values()).backward()
        assert losses["loss_box_reg"].item() == 0.0
        assert layers.bbox_pred.weight.grad is not None
        assert "fast_rcnn/fg_cls_accuracy" not in storage.latest()

    def test_losses_of_nothing(self) -> None:
        layers = predictor()
        with EventStorage():
            losses = layers.losses(layers(torch.zeros(0, 5)), [sampled()[torch.zeros(0).long()]])
        assert [loss.item() for loss in losses.values()] == [0.0, 0.0]

    @pytest.mark.embedded_only
    def test_losses_of_no_images(self) -> None:
        layers = predictor()
        with EventStorage():
            losses = layers.losses(layers(torch.zeros(0, 5)), [])
        assert [loss.item() for loss in losses.values()] == [0.0, 0.0]

    def test_independent_classes(self) -> None:
        layers = predictor(use_sigmoid_ce=True)
        logits = torch.tensor([[2.0, -1.0, 9.0], [0.5, 0.0, 9.0], [1.0, 3.0, 9.0]])
        with EventStorage():
            losses = layers.losses((logits, torch.zeros(3, 8)), [sampled()])
        signs = torch.tensor([[1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])
        expected = torch.log1p(torch.exp(-signs * logits[:, :2])).sum() / 3
        assert losses["loss_cls"].item() == pytest.approx(expected.item(), rel=1e-5)
        (probabilities,) = layers.predict_probs((logits, torch.zeros(3, 8)), [sampled()])
        torch.testing.assert_close(probabilities, torch.sigmoid(logits))

    def test_boxes_and_probabilities_per_image(self) -> None:
        layers = predictor()
        pair = [sampled()[:1], sampled()[1:]]
        logits, deltas = torch.randn(3, 3), torch.zeros(3, 8)
        deltas[:, 4] = 0.5  # class 1 is moved by half a side
        boxes = layers.predict_boxes((logits, deltas), pair)
        assert boxes[0].tolist() == [[0, 0, 10, 10, 5, 0, 15, 10]]
        assert boxes[1].shape == (2, 8)
        probabilities = layers.predict_probs((logits, deltas), pair)
        torch.testing.assert_close(torch.cat(list(probabilities)), logits.softmax(1))
        chosen = layers.predict_boxes_for_gt_classes((logits, deltas), pair)
        assert chosen[0].tolist() == [[0, 0, 10, 10]]  # class 0
        assert chosen[1].tolist() == [[25, 20, 35, 30], [10, 5, 20, 15]]  # background, class 1
        assert list(layers.predict_boxes((logits, deltas), [])) == []
        assert list(layers.predict_boxes_for_gt_classes((logits, deltas), [])) == []

    @pytest.mark.embedded_only
    def test_federated_loss_is_left_out(self) -> None:
        with pytest.raises(NotImplementedError, match="full Detectron2"):
            predictor(use_sigmoid_ce=True, use_fed_loss=True)


class TestDetections:
    BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [30, 30, 90, 90]])

    def test_threshold_classes_and_suppression(self) -> None:
        scores = torch.tensor([[0.6, 0.30, 0.1], [0.8, 0.05, 0.15], [0.1, 0.5, 0.4]])
        (found,), (rows,) = fast_rcnn_inference([self.BOXES], [scores], [HW], 0.2, 0.5, 100)
        # box 0 of class 0 is suppressed by box 1, that of class 1 is not
        assert found.scores.tolist() == pytest.approx([0.8, 0.5, 0.3])
        assert found.pred_classes.tolist() == [0, 1, 1]
        assert rows.tolist() == [1, 2, 0]
        assert found.pred_boxes.tensor[1].tolist() == [30, 30, 64, 48]  # clipped
        assert found.image_size == HW

    def test_boxes_per_class(self) -> None:
        boxes = torch.cat((self.BOXES, self.BOXES + 1), dim=1)
        scores = torch.tensor([[0.9, 0.7, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
        (found,), _ = fast_rcnn_inference([boxes], [scores], [HW], 0.2, 0.5, 100)
        assert found.pred_boxes.tensor.tolist() == [[0, 0, 10, 10], [1, 1, 11, 11]]

    @pytest.mark.parametrize(("topk", "expected"), [(2, 2), (0, 0), (-1, 3)])
    def test_number_of_detections(self, topk: int, expected: int) -> None:
        scores = torch.tensor([[0.6, 0.30, 0.1], [0.8, 0.05, 0.15], [0.1, 0.5, 0.4]])
        (found,), _ = fast_rcnn_inference([self.BOXES], [scores], [HW], 0.2, 0.5, topk)
        assert len(found) == expected

    def test_values_that_are_not_finite_are_left_out(self) -> None:
        boxes = self.BOXES.clone()
        boxes[0, 0] = math.nan
        scores = torch.tensor([[0.9, 0.0, 0.1], [0.8, 0.0, 0.2], [math.inf, 0.0, 0.0]])
        (found,), _ = fast_rcnn_inference([boxes], [scores], [HW], 0.2, 0.5, 100)
        assert found.scores.tolist() == pytest.approx([0.8])

    def test_nothing(self) -> None:
        for boxes in (torch.zeros(0, 4), torch.zeros(0, 8)):
            (found,), (rows,) = fast_rcnn_inference(
                [boxes], [torch.zeros(0, 3)], [HW], 0.2, 0.5, 100
            )
            assert (len(found), len(rows)) == (0, 0)
            assert found.pred_boxes.tensor.shape == (0, 4)


NAMES = ["StandardROIHeads", "CascadeROIHeads", "Res5ROIHeads"]


class TestWholeHeads:
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("empty", [(), (1,), (0, 1)])
    def test_training(self, name: str, empty: tuple[int, ...]) -> None:
        heads, maps = build(name)
        for value in maps.values():
            value.requires_grad_()
        found = [proposals([3.0, 3, 20, 20], [40.0, 5, 50, 15]) for _ in range(2)]
        targets = [truth([], []) if i in empty else truth(TRUE_BOXES, [0, 2]) for i in range(2)]
        with EventStorage() as storage:
            _, losses = heads(images(), maps, found, targets)
        stages = [f"_stage{k}" for k in range(3)] if name == "CascadeROIHeads" else [""]
        names = {f"{kind}{s}" for kind in ("loss_cls", "loss_box_reg") for s in stages}
        assert set(losses) == names | {"loss_mask"}
        total = sum(losses.values())
        assert math.isfinite(total.item())
        total.backward()
        assert all(p.grad is not None for p in heads.parameters() if p.requires_grad)
        assert (losses["loss_mask"].item() == 0.0) == (len(empty) == 2)
        assert "roi_head/num_fg_samples" in storage.latest()
        if name == "CascadeROIHeads":
            assert "stage2/roi_head/num_bg_samples" in storage.latest()
            assert "stage1/fast_rcnn/cls_accuracy" in storage.latest()

    @pytest.mark.parametrize("name", NAMES)
    def test_testing(self, name: str) -> None:
        heads, maps = build(name)
        heads.eval()
        found = [proposals([3.0, 3, 20, 20], [40.0, 5, 50, 15]), proposals()]
        with torch.no_grad():
            (first, second), losses = heads(images(), maps, found)
        assert losses == {}
        assert len(first) > 0
        assert len(second) == 0
        side = first.pred_masks.shape[-1]
        assert first.pred_masks.shape == (len(first), 1, side, side)
        assert second.pred_masks.shape == (0, 1, side, side)
        with torch.no_grad():
            again = heads.forward_with_given_boxes(
                maps,
                [
                    Instances(HW, pred_boxes=i.pred_boxes, pred_classes=i.pred_classes)
                    for i in (first, second)
                ],
            )
        torch.testing.assert_close(again[0].pred_masks, first.pred_masks)

    @pytest.mark.parametrize("name", NAMES)
    def test_without_masks(self, name: str) -> None:
        cfg, shapes = c4_cfg() if name == "Res5ROIHeads" else (heads_cfg(name), SHAPES)
        cfg.MODEL.MASK_ON = False
        heads = build_roi_heads(cfg, shapes)
        assert not heads.mask_on
        assert not any(key.startswith("mask_head") for key in heads.state_dict())
        _, maps = build(name)
        with EventStorage():
            _, losses = heads(
                images(), maps, [proposals([3.0, 3, 9, 9])] * 2, [truth(TRUE_BOXES, [0, 2])] * 2
            )
        assert "loss_mask" not in losses
        heads.eval()
        with torch.no_grad():
            detections, _ = heads(images(), maps, [proposals([3.0, 3, 9, 9])] * 2)
        assert not detections[0].has("pred_masks")

    @pytest.mark.parametrize("name", ["StandardROIHeads", "Res5ROIHeads"])
    def test_training_needs_targets(self, name: str) -> None:
        heads, maps = build(name)
        with pytest.raises((AssertionError, ValueError)):
            heads(images(), maps, [proposals([3.0, 3, 9, 9])] * 2)

    def test_mask_head_trains_on_predicted_boxes(self) -> None:
        cfg = heads_cfg()
        cfg.MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES = True
        torch.manual_seed(0)
        heads = build_roi_heads(cfg, SHAPES)
        nn.init.constant_(heads.box_predictor.bbox_pred.bias, 1.0)  # dx: a tenth of the width
        _, maps = build("StandardROIHeads")
        with EventStorage():
            found, _ = heads(images(), maps, [proposals()] * 2, [truth(TRUE_BOXES, [0, 2])] * 2)
        boxes = found[0].proposal_boxes.tensor
        assert not boxes.requires_grad
        widths = boxes[:, 2] - boxes[:, 0]
        expected = sorted(math.exp(0.2) * width for width in (16, 30))
        assert sorted(widths.tolist()) == pytest.approx(expected, rel=0.05)

    def test_mask_head_may_take_the_feature_maps_themselves(self) -> None:
        @ROI_MASK_HEAD_REGISTRY.register()
        class WholeMapsHeadForTest(nn.Module):
            def __init__(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
                super().__init__()
                self.shapes = input_shape

            def forward(self, inputs: dict[str, torch.Tensor], instances: Any) -> Any:
                self.seen = list(inputs)
                return instances

        cfg = heads_cfg()
        cfg.MODEL.ROI_MASK_HEAD.POOLER_TYPE = ""
        cfg.MODEL.ROI_MASK_HEAD.NAME = "WholeMapsHeadForTest"
        heads = build_roi_heads(cfg, SHAPES).eval()
        assert heads.mask_pooler is None
        assert heads.mask_head.shapes == SHAPES
        _, maps = build("StandardROIHeads")
        with torch.no_grad():
            heads(images(), maps, [proposals([3.0, 3, 9, 9])] * 2)
        assert heads.mask_head.seen == ["p2", "p3"]

    def test_maps_of_different_channels(self) -> None:
        shapes = {**SHAPES, "p3": ShapeSpec(channels=9, stride=8)}
        with pytest.raises((AssertionError, ValueError)):
            build_roi_heads(heads_cfg(), shapes)

    def test_a_keypoint_head_of_ones_own(self) -> None:
        @ROI_KEYPOINT_HEAD_REGISTRY.register()
        class KeypointHeadForTest(nn.Module):
            def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
                super().__init__()
                self.channels = input_shape.channels

        cfg = get_cfg()
        cfg.MODEL.ROI_KEYPOINT_HEAD.NAME = "KeypointHeadForTest"
        assert build_keypoint_head(cfg, ShapeSpec(channels=5)).channels == 5
        cfg.MODEL.ROI_KEYPOINT_HEAD.NAME = "NoSuchHead"
        with pytest.raises(KeyError):
            build_keypoint_head(cfg, ShapeSpec(channels=5))

    @pytest.mark.embedded_only
    @pytest.mark.parametrize("name", NAMES)
    def test_keypoints_are_left_out(self, name: str) -> None:
        cfg, shapes = c4_cfg() if name == "Res5ROIHeads" else (heads_cfg(name), SHAPES)
        cfg.MODEL.KEYPOINT_ON = True
        with pytest.raises(NotImplementedError, match="full Detectron2"):
            build_roi_heads(cfg, shapes)


class TestOlderSubclasses:
    """Heads written before the constructors took parts define `_init_*_head` on the instance."""

    def test_a_mask_head_built_by_the_instance_is_the_only_one(self) -> None:
        class Older(StandardROIHeads):
            def __init__(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
                super().__init__(cfg, input_shape)
                self._init_mask_head(cfg, input_shape)

            def _init_mask_head(  # type: ignore[override]
                self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]
            ) -> None:
                self.mask_on = True
                self.mask_head = nn.Conv2d(8, 3, 1)

        heads = Older(heads_cfg(), SHAPES)

        assert [type(part).__name__ for part in heads.children()] == [
            "ROIPooler",
            "FastRCNNConvFCHead",
            "FastRCNNOutputLayers",
            "Conv2d",
        ]

    def test_a_box_head_built_by_the_instance(self) -> None:
        class Older(StandardROIHeads):
            def __init__(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
                parts = StandardROIHeads._init_box_head(cfg, input_shape)
                super().__init__(cfg, input_shape, **{**parts, "box_in_features": ["p3"]})

            def _init_box_head(self, *_: Any) -> None:  # type: ignore[override]
                raise AssertionError("not to be called on the class")

        assert Older(heads_cfg(), SHAPES).box_in_features == ["p3"]


class WithPoints(StandardROIHeads):
    def _forward_keypoint(self, features: dict[str, torch.Tensor], instances: Any) -> Any:
        if self.training:
            return {"loss_points": features["p2"].sum()}
        for one in instances:
            one.points = torch.zeros(len(one))
        return instances


def test_a_subclass_may_predict_points_behind_masks() -> None:
    heads, (_, maps) = WithPoints(heads_cfg(), SHAPES), build("StandardROIHeads")
    found = [proposals([3.0, 3, 20, 20]) for _ in range(2)]
    with EventStorage():
        _, losses = heads(images(), maps, found, [truth(TRUE_BOXES, [0, 2])] * 2)
    assert losses["loss_points"] == maps["p2"].sum()
    heads.eval()
    with torch.no_grad():
        given = [Instances(HW, pred_boxes=Boxes(torch.tensor(TRUE_BOXES))) for _ in range(2)]
        for one in given:
            one.pred_classes = torch.tensor([0, 2])
        first, _ = heads.forward_with_given_boxes(maps, given)
    assert {"pred_masks", "points"} <= set(first.get_fields())


class TestCascade:
    def test_stages_and_names(self) -> None:
        heads, _ = build("CascadeROIHeads")
        assert isinstance(heads, CascadeROIHeads)
        assert heads.num_cascade_stages == 3
        names = set(heads.state_dict())
        assert {"box_head.2.fc1.weight", "box_predictor.1.bbox_pred.bias"} <= names

    def test_gradient_of_the_stages_is_shared_out(self) -> None:
        """The features get a third of what a stage would give them on its own."""
        heads, maps = build("CascadeROIHeads")
        pooled = heads.box_pooler(list(maps.values()), [Boxes(torch.tensor(TRUE_BOXES))] * 2)

        shared, alone = (pooled.detach().clone().requires_grad_() for _ in range(2))
        del heads.box_pooler
        heads.box_pooler = lambda maps, boxes: shared
        heads._run_stage([], [], 0)[0].sum().backward()
        heads.box_predictor[0](heads.box_head[0](alone))[0].sum().backward()
        torch.testing.assert_close(3 * shared.grad, alone.grad)

    def test_scores_are_the_mean_and_boxes_the_last(self) -> None:
        heads, maps = build("CascadeROIHeads")
        heads.eval()
        for stage, layers in enumerate(heads.box_predictor):
            nn.init.zeros_(layers.cls_score.weight)
            nn.init.zeros_(layers.bbox_pred.weight)
            layers.cls_score.bias.data = torch.tensor([stage * 1.0, 0.0, 0.0, 0.0])
            layers.bbox_pred.bias.data = torch.tensor([1.0, 0.0, 0.0, 0.0])
        with torch.no_grad():
            (first, _), _ = heads(images(), maps, [proposals([2.0, 2, 32, 22]), proposals()])
        best = first[first.pred_classes == 0]
        mean = sum(math.exp(k) / (math.exp(k) + 3) for k in range(3)) / 3
        assert best.scores.tolist() == pytest.approx([mean], rel=1e-5)
        moved = 30 * (1 / 10 + 1 / 20 + 1 / 30)  # weights of the stages: 10, 20, 30
        assert best.pred_boxes.tensor[0].tolist() == pytest.approx(
            [2 + moved, 2, 32 + moved, 22], rel=1e-5
        )

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("ROI_BOX_CASCADE_HEAD.IOUS", (0.5, 0.6)),
            ("ROI_BOX_CASCADE_HEAD.IOUS", (0.4, 0.6, 0.7)),
            ("ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", False),
        ],
    )
    def test_contradictory_configs(self, key: str, value: Any) -> None:
        cfg = heads_cfg("CascadeROIHeads")
        cfg.merge_from_list([f"MODEL.{key}", value])
        with pytest.raises((AssertionError, ValueError)):
            build_roi_heads(cfg, SHAPES)

    def test_as_many_heads_as_predictors(self) -> None:
        parts = CascadeROIHeads.from_config(heads_cfg("CascadeROIHeads"), SHAPES)
        parts["box_predictors"] = parts["box_predictors"][:2]
        with pytest.raises((AssertionError, ValueError)):
            CascadeROIHeads(**parts)


class TestRes5:
    def test_shapes_and_names(self) -> None:
        heads, _ = build("Res5ROIHeads")
        assert isinstance(heads, Res5ROIHeads)
        assert heads.box_predictor.cls_score.in_features == 32
        assert "res5.0.shortcut.weight" in heads.state_dict()
        assert heads.res5[0].stride == 2

    def test_one_feature_map_alone(self) -> None:
        cfg, shapes = c4_cfg()
        cfg.MODEL.ROI_HEADS.IN_FEATURES = ["res4", "res4"]
        with pytest.raises((AssertionError, ValueError)):
            build_roi_heads(cfg, shapes)
