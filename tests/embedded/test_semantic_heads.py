"""A class for each pixel, alone and beside instances; models are in tests/parity."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import Instances

SHAPES = {"p3": ShapeSpec(channels=2, stride=8), "p2": ShapeSpec(channels=2, stride=4)}


def test_scores_are_cut_from_the_padding_and_enlarged() -> None:
    scores = torch.arange(16.0).reshape(1, 4, 4)
    same = sem_seg_postprocess(scores, (2, 3), 2, 3)
    assert torch.equal(same, scores[:, :2, :3])
    assert sem_seg_postprocess(scores, (1, 1), 5, 7).eq(0).all()
    assert sem_seg_postprocess(scores, (4, 4), 8, 2).shape == (1, 8, 2)


def test_maps_are_enlarged_to_one_stride_and_summed() -> None:
    head = SemSegFPNHead(SHAPES, num_classes=3, conv_dims=4, common_stride=4, norm="").eval()
    assert head.in_features == ["p2", "p3"]
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
        for name in SHAPES:  # the middle of the kernel passes channel 0 on
            head.get_parameter(f"{name}.0.weight")[0, 0, 1, 1] = 1.0
        head.predictor.weight[2, 0] = 1.0
    features = {"p2": torch.full((1, 2, 4, 4), 3.0), "p3": torch.full((1, 2, 2, 2), 4.0)}
    assert head.layers(features)[0, :, 0, 0].tolist() == [0.0, 0.0, 7.0]
    scores, losses = head(features)
    assert scores.shape == (1, 3, 16, 16)
    assert losses == {}


def test_pixels_of_one_class_are_not_learned() -> None:
    head = SemSegFPNHead(
        SHAPES, num_classes=2, conv_dims=4, common_stride=4, norm="", ignore_value=9
    )
    scores = torch.tensor([0.0, 2.0]).reshape(1, 2, 1, 1).expand(1, 2, 4, 4)
    targets = torch.full((1, 16, 16), 9)
    targets[0, 3, 5] = 1
    expected = torch.log1p(torch.exp(torch.tensor(-2.0))).item()
    assert head.losses(scores, targets)["loss_sem_seg"].item() == pytest.approx(expected)


def test_a_head_needs_feature_maps_and_may_be_ones_own() -> None:
    with pytest.raises(ValueError, match=r"feature|empty"):
        SemSegFPNHead({}, num_classes=2, conv_dims=4, common_stride=4)
    assert SEM_SEG_HEADS_REGISTRY.get("SemSegFPNHead") is SemSegFPNHead


def test_segments_by_hand() -> None:
    """Six columns: a sure cell, one that it hides in part, one all hidden, one unsure; stuff."""
    masks = torch.zeros(4, 4, 6, dtype=torch.bool)
    masks[0, :, :2] = True
    masks[1, :, 1:4] = True  # a third of it is covered
    masks[2, :1, :2] = True  # all of it is covered
    masks[3, :, 5:] = True
    classes = torch.full((4, 6), 2)
    classes[:, 5] = 7
    classes[0, 0] = 0
    found = Instances((4, 6), scores=torch.tensor([0.9, 0.8, 0.7, 0.1]), pred_masks=masks)
    found.pred_classes = torch.tensor([3, 4, 5, 6])
    order = torch.tensor([2, 1, 3, 0])
    segments, described = combine_semantic_and_instance_outputs(found[order], classes, 0.5, 4, 0.5)
    assert segments.tolist() == [[1, 1, 2, 2, 3, 4]] * 4
    assert [(d["id"], d["isthing"], d["category_id"]) for d in described] == [
        (1, True, 3),
        (2, True, 4),
        (3, False, 2),
        (4, False, 7),
    ]
    assert [d["instance_id"] for d in described[:2]] == [3, 1]
    assert [d["area"] for d in described[2:]] == [4, 4]
    _, none = combine_semantic_and_instance_outputs(found[:0], classes, 0.5, 99, 0.5)
    assert none == []
