"""Whole detectors: from a batch of images to losses and detections."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    Backbone,
    GeneralizedRCNN,
    ProposalNetwork,
    build_model,
    detector_postprocess,
)
from detectron2.structures import BitMasks, Boxes, Instances, ROIMasks
from detectron2.utils.events import EventStorage
from torch import nn

HW = (40, 56)


def model_cfg() -> CfgNode:
    """A Mask R-CNN of ResNet-18 and a thin pyramid, for three classes."""
    cfg = get_cfg()
    model = cfg.MODEL
    model.DEVICE = "cpu"
    model.MASK_ON = True
    model.BACKBONE.NAME = "build_resnet_fpn_backbone"
    model.BACKBONE.FREEZE_AT = 0
    model.RESNETS.DEPTH = 18
    model.RESNETS.RES2_OUT_CHANNELS = 64
    model.RESNETS.NORM = "GN"
    model.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    model.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    model.FPN.OUT_CHANNELS = 16
    model.ANCHOR_GENERATOR.SIZES = [[8], [16], [32], [64], [128]]
    model.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    model.RPN.BATCH_SIZE_PER_IMAGE = 32
    model.RPN.PRE_NMS_TOPK_TRAIN = 50
    model.RPN.PRE_NMS_TOPK_TEST = 50
    model.RPN.POST_NMS_TOPK_TEST = 20
    model.ROI_HEADS.NAME = "StandardROIHeads"
    model.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    model.ROI_HEADS.NUM_CLASSES = 3
    model.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 16
    model.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    model.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    model.ROI_BOX_HEAD.NUM_FC = 1
    model.ROI_BOX_HEAD.FC_DIM = 16
    model.ROI_BOX_HEAD.POOLER_RESOLUTION = 3
    model.ROI_MASK_HEAD.CONV_DIM = 8
    cfg.TEST.DETECTIONS_PER_IMAGE = 7
    return cfg


@pytest.fixture
def model() -> GeneralizedRCNN:
    torch.manual_seed(0)
    return build_model(model_cfg())


def item(hw: tuple[int, int] = HW, boxes: tuple[list[float], ...] = ([8.0, 6, 30, 28],)) -> Any:
    found = Instances(hw, gt_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)))
    found.gt_classes = torch.arange(len(boxes))
    bitmaps = torch.zeros(len(boxes), *hw, dtype=torch.bool)
    for bitmap, (x0, y0, x1, y1) in zip(bitmaps, boxes):
        bitmap[int(y0) : int(y1), int(x0) : int(x1)] = True
    found.gt_masks = BitMasks(bitmaps)
    return {"image": torch.rand(3, *hw) * 255, "instances": found}


def test_training_gives_the_five_losses_and_gradients(model: GeneralizedRCNN) -> None:
    with EventStorage() as storage:
        losses = model([item(), item((32, 48))])
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"}
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert {
        "rpn/num_pos_anchors",
        "roi_head/num_fg_samples",
        "fast_rcnn/cls_accuracy",
        "mask_rcnn/accuracy",
    } <= set(storage.latest())


def test_images_without_objects_train(model: GeneralizedRCNN) -> None:
    empty = item(boxes=())
    empty["instances"].remove("gt_masks")
    for batch in ([empty], [empty, item()]):
        model.zero_grad()
        with EventStorage():
            losses = model(batch)
        assert all(torch.isfinite(loss) for loss in losses.values())
        sum(losses.values()).backward()
        assert all(p.grad is not None for p in model.parameters())


def test_detections_are_in_the_frame_of_the_output(model: GeneralizedRCNN) -> None:
    model.eval()
    image = item()["image"]
    with torch.no_grad():
        (raw,) = model.inference([{"image": image}], do_postprocess=False)
        (plain,) = model([{"image": image}])
        (scaled,) = model([{"image": image, "height": 80, "width": 28}])
    assert raw.image_size == HW
    assert 0 < len(raw) <= 7
    assert raw.pred_masks.shape == (len(raw), 1, 28, 28)
    found = scaled["instances"]
    assert found.image_size == (80, 28)
    assert found.pred_masks.shape == (len(found), 80, 28)
    assert found.pred_masks.dtype == torch.bool
    factors = torch.tensor([0.5, 2.0, 0.5, 2.0])
    torch.testing.assert_close(found.pred_boxes.tensor, raw.pred_boxes.tensor * factors)
    torch.testing.assert_close(plain["instances"].scores, raw.scores)
    assert plain["instances"].image_size == HW


def test_known_boxes_get_masks_only(model: GeneralizedRCNN) -> None:
    model.eval()
    batch = [item(), item((32, 48))]
    known = [
        Instances((40, 56), pred_boxes=Boxes(torch.tensor([[4.0, 4, 20, 20]]))),
        Instances((32, 48), pred_boxes=Boxes(torch.zeros(0, 4))),
    ]
    for instances in known:
        instances.pred_classes = torch.full((len(instances),), 2)
    with torch.no_grad():
        first, second = model.inference(batch, known, do_postprocess=False)
    assert first.pred_masks.shape == (1, 1, 28, 28)
    assert second.pred_masks.shape == (0, 1, 28, 28)
    assert not first.has("scores")


def test_no_detection_at_all() -> None:
    cfg = model_cfg()
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 1.0
    with torch.no_grad():
        (found,) = build_model(cfg).eval()([item()])
    assert len(found["instances"]) == 0
    assert found["instances"].pred_masks.shape == (0, *HW)


def test_inference_is_for_testing(model: GeneralizedRCNN) -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        model.inference([item()])


def test_images_are_normalised_and_padded(model: GeneralizedRCNN) -> None:
    mean = torch.tensor(model_cfg().MODEL.PIXEL_MEAN)
    bright = {"image": (mean + 3.0)[:, None, None].expand(3, 40, 56)}
    batch = model.preprocess_image([bright, item((20, 70))])
    assert batch.tensor.shape == (2, 3, 64, 96)  # multiples of 32
    assert batch.image_sizes == [(40, 56), (20, 70)]
    assert torch.allclose(batch.tensor[0, :, :40, :56], torch.tensor(3.0))
    assert not batch.tensor[0, :, 40:].any()
    assert model.device.type == "cpu"


def test_mean_and_deviation_are_not_saved(model: GeneralizedRCNN) -> None:
    names = set(model.state_dict())
    assert not any(name.startswith("pixel") for name in names)
    assert {
        "backbone.bottom_up.stem.conv1.weight",
        "backbone.fpn_lateral3.weight",
        "backbone.fpn_output5.bias",
        "proposal_generator.rpn_head.conv.weight",
        "proposal_generator.rpn_head.anchor_deltas.bias",
        "roi_heads.box_head.fc1.weight",
        "roi_heads.box_predictor.cls_score.weight",
        "roi_heads.box_predictor.bbox_pred.bias",
        "roi_heads.mask_head.deconv.weight",
        "roi_heads.mask_head.predictor.bias",
    } <= names


def test_mean_and_deviation_must_fit() -> None:
    cfg = model_cfg()
    cfg.MODEL.PIXEL_STD = [1.0]
    with pytest.raises((AssertionError, ValueError)):
        build_model(cfg)


def test_the_seed_decides_the_weights(model: GeneralizedRCNN) -> None:
    torch.manual_seed(0)
    again = build_model(model_cfg())
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


def test_proposals_may_come_with_the_data() -> None:
    cfg = model_cfg()
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "PrecomputedProposals"
    model = build_model(cfg)
    batch = item()
    with pytest.raises((AssertionError, ValueError)), EventStorage():
        model([batch])
    batch["proposals"] = Instances(
        HW,
        proposal_boxes=Boxes(torch.tensor([[7.0, 7, 30, 30]])),
        objectness_logits=torch.zeros(1),
    )
    with EventStorage():
        losses = model([batch])
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_mask"}
    model.eval()
    with torch.no_grad():
        (found,) = model([batch])
    assert len(found["instances"]) > 0


def test_pictures_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = model_cfg()
    cfg.VIS_PERIOD = 2
    model = build_model(cfg)
    names: list[str] = []
    sizes: list[tuple[int, ...]] = []

    def put_image(name: str, picture: Any) -> None:
        names.append(name)
        sizes.append(picture.shape)

    with EventStorage(1) as storage:
        monkeypatch.setattr(storage, "put_image", put_image)
        model([item()])
        assert not names
        storage.step()
        model([item()])
    name = "Left: GT bounding boxes;  Right: Predicted proposals"
    assert sizes[names.index(name)] == (3, 40, 112)


def test_pictures_need_an_input_format(model: GeneralizedRCNN) -> None:
    parts: dict[str, Any] = {
        "backbone": model.backbone,
        "proposal_generator": model.proposal_generator,
        "roi_heads": model.roi_heads,
        "pixel_mean": [0.0],
        "pixel_std": [1.0],
    }
    assert GeneralizedRCNN(**parts).vis_period == 0
    with pytest.raises((AssertionError, ValueError)):
        GeneralizedRCNN(**parts, vis_period=1)


def test_proposal_network() -> None:
    cfg = model_cfg()
    cfg.MODEL.META_ARCHITECTURE = "ProposalNetwork"
    model = build_model(cfg)
    assert isinstance(model, ProposalNetwork)
    with EventStorage():
        losses = model([item()])
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_loc"}
    model.eval()
    with torch.no_grad():
        (found,) = model([{"image": item()["image"], "height": 80, "width": 112}])
    assert found["proposals"].image_size == (80, 112)
    assert found["proposals"].has("objectness_logits")


def test_a_backbone_without_pyramid_or_padding() -> None:
    """The default config is a C4 model; with a small backbone in its place."""

    @BACKBONE_REGISTRY.register()
    class StridedForTest(Backbone):
        def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 3, stride=16)
            self._out_features = ["res4"]
            self._out_feature_strides, self._out_feature_channels = {"res4": 16}, {"res4": 16}

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"res4": self.conv(x)}

    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "StridedForTest"
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 4
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 2
    model = build_model(cfg)
    assert type(model.roi_heads).__name__ == "Res5ROIHeads"
    with EventStorage():
        losses = model([item()])
    assert set(losses) == {"loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg"}


def test_a_model_of_ones_own() -> None:
    @META_ARCH_REGISTRY.register()
    class LineForTest(nn.Linear):
        def __init__(self, cfg: CfgNode) -> None:
            super().__init__(2, cfg.MODEL.ROI_HEADS.NUM_CLASSES)

    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "LineForTest"
    assert build_model(cfg).out_features == 80
    cfg.MODEL.META_ARCHITECTURE = "NoSuchModel"
    with pytest.raises(KeyError):
        build_model(cfg)


class TestPostprocess:
    def detections(self) -> Instances:
        boxes = torch.tensor([[0.0, 0, 4, 4], [2.0, 2, 8, 8], [5.0, 5, 5, 7]])
        masks = torch.ones(3, 1, 28, 28)
        return Instances((8, 8), pred_boxes=Boxes(boxes), pred_masks=masks, score=torch.arange(3))

    def test_scale_and_paste(self) -> None:
        found = detector_postprocess(self.detections(), 16, 24)
        assert found.image_size == (16, 24)
        assert found.score.tolist() == [0, 1]  # the last box has no area
        assert found.pred_boxes.tensor.tolist() == [[0, 0, 12, 8], [6, 4, 24, 16]]
        expected = torch.zeros(2, 16, 24, dtype=torch.bool)
        expected[0, :8, :12] = True
        expected[1, 4:, 6:] = True
        assert torch.equal(found.pred_masks, expected)

    def test_masks_of_regions_and_threshold(self) -> None:
        found = self.detections()
        found.pred_masks = ROIMasks(torch.full((3, 28, 28), 0.4))
        assert not detector_postprocess(found, 8, 8).pred_masks.any()
        assert detector_postprocess(found, 8, 8, mask_threshold=0.3).pred_masks.any()

    def test_proposals_are_scaled_too(self) -> None:
        boxes = Boxes(torch.tensor([[1.0, 1, 9, 4]]))
        found = detector_postprocess(Instances((8, 8), proposal_boxes=boxes), 16, 16)
        assert found.proposal_boxes.tensor.tolist() == [[2, 2, 16, 8]]

    def test_boxes_are_needed(self) -> None:
        with pytest.raises((AssertionError, ValueError)):
            detector_postprocess(Instances((8, 8), scores=torch.zeros(1)), 8, 8)
