"""detectron2.projects.point_rend on points that are counted by hand; models are in tests/parity."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.projects.point_rend import (
    ColorAugSSDTransform,
    ImplicitPointRendMaskHead,
    PointRendMaskHead,
    add_pointrend_config,
)
from detectron2.projects.point_rend.point_features import (
    generate_regular_grid_point_coords,
    get_point_coords_wrt_image,
    get_uncertain_point_coords_on_grid,
    get_uncertain_point_coords_with_randomness,
    point_sample,
    point_sample_fine_grained_features,
    sample_point_labels,
)
from detectron2.projects.point_rend.point_head import roi_mask_point_loss
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

RAMP = torch.arange(4.0).expand(4, 4)[None, None]  # the column of each pixel


def cfg_of(**point_head) -> CfgNode:
    cfg = get_cfg()
    add_pointrend_config(cfg)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.POINT_HEAD.NUM_CLASSES = 2
    cfg.MODEL.ROI_MASK_HEAD.FC_DIM, cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 8, 4
    cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION = 4
    cfg.MODEL.ROI_MASK_HEAD.POINT_HEAD_ON = True
    cfg.MODEL.POINT_HEAD.update({"FC_DIM": 8, "TRAIN_NUM_POINTS": 10, **point_head})
    return cfg


SHAPES = {"p2": ShapeSpec(channels=4, stride=4)}
FEATURES = {"p2": torch.rand(1, 4, 8, 8)}


def proposals(count: int) -> Instances:
    masks = torch.zeros(count, 32, 32, dtype=torch.bool)
    masks[:, 8:16, 8:24] = True
    boxes = Boxes(torch.tensor([[4.0, 4, 28, 20]]).expand(count, 4))
    return Instances(
        (32, 32),
        proposal_boxes=boxes,
        gt_classes=torch.zeros(count, dtype=torch.int64),
        gt_masks=BitMasks(masks),
    )


def test_maps_are_read_between_pixels() -> None:
    points = torch.tensor([[[0.5, 0.5], [0.125, 0.8], [0.25, 0.4]]])
    assert point_sample(RAMP, points, align_corners=False).tolist() == [[[1.5, 0.0, 0.5]]]
    grid = points[:, :, None]
    assert point_sample(RAMP, grid, align_corners=False).shape == (1, 1, 3, 1)


def test_points_in_boxes_read_the_image() -> None:
    boxes = [Boxes(torch.tensor([[0.0, 0, 16, 16]])), Boxes(torch.tensor([[4.0, 0, 12, 8]]))]
    points = torch.full((2, 1, 2), 0.5)
    maps = torch.cat([RAMP, RAMP * 10])
    found, in_image = point_sample_fine_grained_features([maps], [0.25], boxes, points)
    assert in_image.tolist() == [[[8.0, 8.0]], [[8.0, 4.0]]]
    assert found.tolist() == [[[1.5]], [[15.0]]]


def test_the_most_uncertain_pixels_come_first() -> None:
    uncertainty = torch.tensor([[[[-3.0, -1.0, -9.0], [-2.0, -8.0, -7.0]]]])
    indices, points = get_uncertain_point_coords_on_grid(uncertainty, 2)
    assert indices.tolist() == [[1, 3]]
    assert torch.allclose(points, torch.tensor([[[0.5, 0.25], [1 / 6, 0.75]]]))
    everything, _ = get_uncertain_point_coords_on_grid(uncertainty, 99)
    assert everything.shape == (1, 6)


def test_training_prefers_uncertain_points() -> None:
    torch.manual_seed(0)
    points = get_uncertain_point_coords_with_randomness(
        RAMP - 1.5, lambda logits: -logits.abs(), num_points=40, oversample_ratio=10,
        importance_sample_ratio=0.75,
    )  # fmt: skip
    assert points.shape == (1, 40, 2)
    from_middle = (points[0, :, 0] - 0.5).abs()
    assert from_middle[:30].max() < 0.1  # the best 30 of 400, where the map is near 1.5
    assert from_middle[30:].max() > 0.2
    for strange in ((0.5, 0.5), (3, 1.5)):
        with pytest.raises((ValueError, AssertionError)):
            get_uncertain_point_coords_with_randomness(RAMP, lambda x: x, 4, *strange)


def test_labels_of_points() -> None:
    cells = proposals(1)
    grid = generate_regular_grid_point_coords(1, 2, "cpu")
    points = get_point_coords_wrt_image(cells.proposal_boxes.tensor, grid)
    assert points.tolist() == [[[10.0, 8.0], [22.0, 8.0], [10.0, 16.0], [22.0, 16.0]]]
    assert sample_point_labels([cells], points).tolist() == [[0.5] * 4]  # all on an edge
    inside = torch.tensor([[[9.0, 9.0], [30.0, 9.0]]])
    assert sample_point_labels([cells[:0], cells], inside).tolist() == [[1.0, 0.0]]
    cells.gt_masks = PolygonMasks([[[8, 8, 24, 8, 24, 16]]])
    with pytest.raises((TypeError, AssertionError), match="bitmask"):
        sample_point_labels([cells], inside)


def test_loss_of_points_by_hand() -> None:
    logits = torch.zeros(1, 2, 3)
    logits[0, 1] = torch.tensor([9.0, -9.0, 0.0])
    cells = Instances((4, 4), gt_classes=torch.tensor([1]))
    with EventStorage() as storage:
        loss = roi_mask_point_loss(logits, [cells], torch.tensor([[0.0, 0.0, -1.0]]))
        nothing = roi_mask_point_loss(logits[:0], [cells[:0]], torch.zeros(0, 3))
    assert loss.item() == pytest.approx((9 + 2 * np.log1p(np.exp(-9))) / 3)
    assert storage.latest()["point/accuracy"][0] == 0.5
    assert nothing.item() == 0.0


@pytest.mark.embedded_only
@pytest.mark.parametrize("kind", [PointRendMaskHead, ImplicitPointRendMaskHead])
def test_no_cell_in_a_batch_gives_zero_losses(kind: type) -> None:
    name = "ImplicitPointHead" if kind is ImplicitPointRendMaskHead else "StandardPointHead"
    head = kind(cfg_of(NAME=name), SHAPES)
    with EventStorage():
        losses = head(FEATURES, [proposals(0)])
    assert [loss.item() for loss in losses.values()] == [0.0, 0.0]
    sum(losses.values()).backward()


@pytest.mark.embedded_only
def test_coarse_masks_alone_can_be_predicted() -> None:
    cfg = cfg_of()
    cfg.MODEL.ROI_MASK_HEAD.POINT_HEAD_ON = False
    head = PointRendMaskHead(cfg, SHAPES).eval()
    found = proposals(2)
    detections = Instances((32, 32), pred_boxes=found.proposal_boxes, pred_classes=found.gt_classes)
    (masked,) = head(FEATURES, [detections])
    assert masked.pred_masks.shape == (2, 1, 7, 7)


@pytest.mark.parametrize("count", [0, 2])
def test_masks_are_enlarged_step_by_step(count: int) -> None:
    head = PointRendMaskHead(cfg_of(SUBDIVISION_STEPS=3), SHAPES).eval()
    # 7 to 14 to 28 at once, as 28 * 28 points may be predicted; one step is left
    assert head.mask_point_subdivision_init_resolution == 28
    found = proposals(count)
    detections = Instances((32, 32), pred_boxes=found.proposal_boxes, pred_classes=found.gt_classes)
    (masked,) = head(FEATURES, [detections])
    assert masked.pred_masks.shape == ((count, 1, 56, 56) if count else (0, 1, 28, 28))


def test_numbers_of_classes_must_agree() -> None:
    with pytest.raises((ValueError, AssertionError)):
        PointRendMaskHead(cfg_of(NUM_CLASSES=80), SHAPES)


@pytest.mark.embedded_only
def test_weights_of_an_old_file_are_renamed() -> None:
    head = PointRendMaskHead(cfg_of(), SHAPES)
    old = {k.replace("coarse_head.fc", "coarse_head.coarse_mask_fc"): v for k, v in
           head.state_dict().items()}  # fmt: skip
    assert "coarse_head.coarse_mask_fc1.weight" in old
    PointRendMaskHead(cfg_of(), SHAPES).load_state_dict(old)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_colours_vary_and_shapes_do_not(order: str) -> None:
    random.seed(1)
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)
    augmentation = ColorAugSSDTransform(order)
    results = [augmentation.apply_image(image) for _ in range(20)]
    assert all(result.shape == image.shape and result.dtype == np.uint8 for result in results)
    assert len({result.tobytes() for result in results}) > 10
    assert augmentation.apply_coords(image) is augmentation.apply_segmentation(image) is image
    still = ColorAugSSDTransform(order, 0, 1.0, 1.0, 1.0, 1.0, 0)
    kept = [still.apply_image(image).astype(int) - image for _ in range(20)]
    assert np.abs(kept).max() <= 8  # HSV of OpenCV has 180 hues and 256 saturations
    with pytest.raises((ValueError, AssertionError)):
        ColorAugSSDTransform("HSV")
