"""The model called as torchvision's Mask R-CNN is."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import cellseg
import pytest
import torch
from cellseg.errors import CheckpointError, ConfigError
from cellseg.modeling import CellMaskHead, MaskRCNN, binarize
from cellseg.modeling import torchvision_style as style
from cellseg.modeling.torchvision_keywords import resnet50_fpn_config
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

LOSSES = {
    "loss_classifier",
    "loss_box_reg",
    "loss_mask",
    "loss_objectness",
    "loss_rpn_box_reg",
}


def target_of(boxes: list[list[int]], hw: tuple[int, int]) -> dict[str, Tensor]:
    """Filled rectangles, labels 1, 2, 1, ..."""
    masks = torch.zeros((len(boxes), *hw), dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes):
        mask[y0:y1, x0:x1] = 1
    labels = torch.arange(len(boxes)) % 2 + 1
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": labels,
        "masks": masks,
    }


@pytest.fixture
def batch() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Two images of different sizes; the second holds no cells."""
    torch.manual_seed(1)
    images = [torch.rand(3, 80, 60), torch.rand(1, 64, 96)]
    cells = [[5, 8, 25, 30], [30, 40, 55, 75]]
    return images, [target_of(cells, (80, 60)), target_of([], (64, 96))]


def test_training_returns_the_five_losses_and_gradients(
    model: MaskRCNN, batch: tuple[list[Tensor], list[dict[str, Tensor]]]
) -> None:
    losses = model(*batch)
    assert set(losses) == LOSSES
    assert all(loss.shape == () and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert missing == []
    gradients = torch.stack([p.grad.abs().sum() for p in model.parameters()])
    assert gradients.isfinite().all()
    assert gradients.sum() > 0


def test_a_batch_without_any_cell_trains(model: MaskRCNN) -> None:
    losses = model([torch.rand(3, 64, 64)] * 2, [target_of([], (64, 64))] * 2)
    assert set(losses) == LOSSES
    assert losses["loss_mask"] == 0
    assert losses["loss_box_reg"] == 0
    assert losses["loss_objectness"] > 0
    sum(losses.values()).backward()


def test_what_nobody_counted_is_left_out(
    model: MaskRCNN, batch: tuple[list[Tensor], list[dict[str, Tensor]]]
) -> None:
    """In the frame of the image, which the network sees at another size."""
    images, targets = batch
    for target in targets:
        target["uncounted"] = torch.zeros(target["masks"].shape[1:], dtype=torch.uint8)
    targets[0]["uncounted"][:, 50:] = 1
    columns = style._target_to_instances(targets[0], (160, 120)).uncounted.mask.all(dim=0)
    assert columns.nonzero()[:, 0].tolist() == list(range(100, 120))
    torch.manual_seed(3)
    with_nothing_uncounted = model(images[1:], targets[1:])
    torch.manual_seed(3)
    del targets[1]["uncounted"]
    assert model(images[1:], targets[1:]) == with_nothing_uncounted
    targets[1]["uncounted"] = torch.ones(64, 96, dtype=torch.bool)
    losses = model(images[1:], targets[1:])
    assert {name: loss.item() for name, loss in losses.items()} == dict.fromkeys(LOSSES, 0.0)


def test_losses_go_down(model: MaskRCNN) -> None:
    torch.manual_seed(2)
    target = target_of([[10, 10, 40, 40]], (64, 64))
    image = target["masks"].float() * 0.8 + 0.1
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    totals = []
    for _ in range(12):
        total = sum(model([image], [target]).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert sum(totals[-3:]) < 0.8 * sum(totals[:3])


def test_uses_an_event_storage_that_is_open(
    model: MaskRCNN, batch: tuple[list[Tensor], list[dict[str, Tensor]]]
) -> None:
    with EventStorage() as storage:
        model(*batch)
    assert "rpn/num_pos_anchors" in storage.latest()


def test_gives_the_detector_resized_images_boxes_and_masks(model: MaskRCNN) -> None:
    """A 32x16 image becomes 128x64: everything is scaled by 4."""
    seen = []
    model.detector.forward = lambda inputs: seen.extend(inputs) or {}  # type: ignore[assignment]
    image = torch.zeros(3, 32, 16)
    image[0] = 1.0  # red
    image[2, :, :8] = 0.5
    target = target_of([[2, 4, 10, 20], [0, 0, 1, 1]], (32, 16))
    model([image], [target])
    (item,) = seen
    assert (item["height"], item["width"]) == (32, 16)
    assert item["image"].shape == (3, 128, 64)
    assert model.cfg.INPUT.FORMAT == "BGR"
    assert (item["image"][2] == 255).all()
    assert (item["image"][1] == 0).all()
    assert (item["image"][0, :, :28] == 127.5).all()
    truth = item["instances"]
    assert truth.image_size == (128, 64)
    assert truth.gt_boxes.tensor.tolist() == [[8, 16, 40, 80], [0, 0, 4, 4]]
    assert truth.gt_classes.tolist() == [0, 1]
    expected = torch.zeros(2, 128, 64, dtype=torch.bool)
    expected[0, 16:80, 8:40] = True
    expected[1, :4, :4] = True
    assert torch.equal(truth.gt_masks.tensor, expected)
    assert target["boxes"].tolist() == [[2, 4, 10, 20], [0, 0, 1, 1]]  # untouched


def test_shrinking_takes_the_mask_pixel_under_each_centre(tiny_cfg: CfgNode) -> None:
    """256x128 to 128x64: output pixel i covers 2i and 2i+1, its centre is the start of 2i+1."""
    model = MaskRCNN(tiny_cfg)
    seen = []
    model.detector.forward = lambda inputs: seen.extend(inputs) or {}  # type: ignore[assignment]
    masks = torch.zeros(1, 256, 128, dtype=torch.bool)
    masks[0, 1::4, 1::2] = True
    boxes = torch.tensor([[0.0, 0.0, 128.0, 256.0]])
    model(
        [torch.zeros(1, 256, 128)],
        [{"boxes": boxes, "labels": torch.tensor([1]), "masks": masks}],
    )
    expected = torch.zeros(1, 128, 64, dtype=torch.bool)
    expected[0, 0::2] = True
    assert torch.equal(seen[0]["instances"].gt_masks.tensor, expected)


def test_size_zero_keeps_the_size(tiny_cfg: CfgNode) -> None:
    cfg = tiny_cfg.clone()
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.FORMAT = (0,), 0, "RGB"
    model = MaskRCNN(cfg)
    image = torch.rand(3, 50, 70)
    for training in (True, False):
        item = model.train(training)._network_input(image)
        assert torch.equal(item["image"], image * 255)


def test_training_sizes_are_drawn(tiny_cfg: CfgNode) -> None:
    cfg = tiny_cfg.clone()
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (32, 48), 1000
    model = MaskRCNN(cfg)
    heights = {model._network_hw(20, 40) for _ in range(50)}
    assert heights == {(32, 64), (48, 96)}
    model.cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "range"
    heights = {model._network_hw(20, 40)[0] for _ in range(200)}
    assert heights <= set(range(32, 49))
    assert len(heights) > 10
    assert model.eval()._network_hw(20, 40) == (64, 128)


def test_predicts_in_the_frame_of_each_image(model: MaskRCNN) -> None:
    torch.manual_seed(3)
    images = [torch.rand(3, 80, 60), torch.rand(1, 40, 50)]
    results = model.eval()(images)
    assert len(results) == 2
    for image, cells in zip(images, results):
        height, width = image.shape[1:]
        count = len(cells["boxes"])
        assert 0 < count <= 12
        assert cells["labels"].dtype == torch.int64
        assert set(cells["labels"].tolist()) <= {1, 2}
        assert cells["masks"].shape == (count, 1, height, width)
        assert cells["masks"].dtype == torch.float32
        assert 0 <= cells["masks"].min() <= cells["masks"].max() <= 1
        assert not cells["masks"].requires_grad
        assert (cells["scores"].diff() <= 0).all()
        x0, y0, x1, y1 = cells["boxes"].T
        assert ((x0 >= 0) & (x1 > x0) & (x1 <= width)).all()
        assert ((y0 >= 0) & (y1 > y0) & (y1 <= height)).all()


def test_same_cells_as_the_engine_itself(model: MaskRCNN) -> None:
    """Thresholded, its masks are the bitmaps that Detectron2's own call gives."""
    torch.manual_seed(4)
    image = torch.rand(3, 32, 48)
    resized = nn.functional.interpolate(image[None] * 255, size=(64, 96), mode="bilinear")[0]
    inputs = [{"image": resized.flip(0), "height": 32, "width": 48}]
    model.eval()
    (ours,) = model([image])
    with torch.no_grad():
        theirs = model.detector(inputs)[0]["instances"]
    assert len(theirs) > 0
    assert torch.equal(ours["boxes"], theirs.pred_boxes.tensor)
    assert torch.equal(ours["scores"], theirs.scores)
    assert torch.equal(ours["labels"], theirs.pred_classes + 1)
    assert torch.equal(binarize(ours["masks"])[:, 0], theirs.pred_masks)


def test_no_detections_are_empty_tensors(tiny_cfg: CfgNode) -> None:
    cfg = tiny_cfg.clone()
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 1.0
    (cells,) = MaskRCNN(cfg).eval()([torch.rand(3, 30, 40)])
    assert {name: list(value.shape) for name, value in cells.items()} == {
        "boxes": [0, 4],
        "labels": [0],
        "scores": [0],
        "masks": [0, 1, 30, 40],
    }
    assert cells["labels"].dtype == torch.int64


def test_boxes_that_leave_the_image_are_clipped_or_dropped() -> None:
    found = Instances((100, 100))
    found.pred_boxes = Boxes(torch.tensor([[-20.0, 10, 50, 200], [120, 0, 130, 10]]))
    found.pred_classes = torch.tensor([0, 1])
    found.scores = torch.tensor([0.9, 0.8])
    found.pred_masks = torch.ones(2, 1, 28, 28)
    cells = style._instances_to_dict(found, (50, 200))
    assert cells["boxes"].tolist() == [[0, 5, 100, 50]]
    assert cells["labels"].tolist() == [1]
    inside = torch.zeros(50, 200, dtype=torch.bool)
    inside[5:50, :100] = True
    assert torch.equal(binarize(cells["masks"])[0, 0], inside)


def test_binarize_includes_the_threshold() -> None:
    masks = torch.tensor([[0.2, 0.5, 0.7]])
    assert binarize(masks).tolist() == [[False, True, True]]
    assert binarize(masks, threshold=0.2).tolist() == [[True, True, True]]
    assert binarize(masks).dtype == torch.bool


def test_names_are_detectron2s_own(model: MaskRCNN, tiny_cfg: CfgNode) -> None:
    plain = build_model(tiny_cfg)
    shapes = {name: value.shape for name, value in plain.state_dict().items()}
    assert {name: value.shape for name, value in model.state_dict().items()} == shapes
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in plain.named_parameters()]
    nested = nn.ModuleDict({"net": model}).state_dict()
    assert set(nested) == {f"net.{name}" for name in shapes}
    other = nn.ModuleDict({"net": MaskRCNN(tiny_cfg)})
    other.load_state_dict(nested)
    first = next(iter(shapes))
    assert torch.equal(other["net"].detector.state_dict()[first], model.state_dict()[first])


def test_mode_device_and_copies_reach_the_detector(model: MaskRCNN) -> None:
    assert model.training
    assert model.detector.training
    model.eval()
    assert not model.detector.training
    assert not model.detector.roi_heads.training
    model.to(torch.float64)
    assert model.detector.pixel_mean.dtype == torch.float64
    assert next(model.detector.parameters()).dtype == torch.float64
    model.to(torch.float32)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.detector is not model.detector
        next(twin.parameters()).data.zero_()
        assert (next(twin.detector.parameters()) == 0).all()
    assert (next(model.parameters()) != 0).any()


def same_values(first: nn.Module, second: nn.Module) -> bool:
    theirs = second.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in first.state_dict().items())


def test_checkpoints_go_both_ways(model: MaskRCNN, tiny_cfg: CfgNode, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "ours.pth")
    plain = build_model(tiny_cfg)
    assert not same_values(plain, model)
    DetectionCheckpointer(plain).load(str(tmp_path / "ours.pth"))
    assert same_values(plain, model)

    trained = build_model(tiny_cfg)
    DetectionCheckpointer(trained, str(tmp_path)).save("model_final", iteration=3)
    assert same_values(model.load_weights(tmp_path / "model_final.pth"), trained)
    DetectionCheckpointer(model).load(str(tmp_path / "ours.pth"))
    assert same_values(model, plain)


def test_needs_masks(tiny_cfg: CfgNode) -> None:
    cfg = tiny_cfg.clone()
    cfg.MODEL.MASK_ON = False
    with pytest.raises(ConfigError, match=r"MODEL\.MASK_ON"):
        MaskRCNN(cfg)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_without_cuda_it_is_built_on_the_cpu(tiny_cfg: CfgNode) -> None:
    cfg = tiny_cfg.clone()
    cfg.MODEL.DEVICE = "cuda"
    cfg.freeze()
    model = MaskRCNN(cfg)
    assert model.detector.device.type == "cpu"
    assert cfg.MODEL.DEVICE == "cuda"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_runs_on_a_gpu(
    model: MaskRCNN, batch: tuple[list[Tensor], list[dict[str, Tensor]]]
) -> None:
    model.to("cuda")
    assert all(loss.is_cuda for loss in model(*batch).values())
    assert model.eval()(batch[0])[0]["masks"].is_cuda


class TestFactory:
    def config(self, **settings: object) -> CfgNode:
        return resnet50_fpn_config(settings.pop("num_classes", 2), "GN", settings)

    def test_builds_a_resnet50_with_one_class(self) -> None:
        model = cellseg.maskrcnn_resnet50_fpn()
        assert isinstance(model, cellseg.MaskRCNN)
        assert model.num_classes == 2
        shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
        assert shapes["roi_heads.box_predictor.cls_score.weight"] == [2, 1024]
        assert shapes["roi_heads.mask_head.predictor.weight"] == [1, 256, 1, 1]
        assert shapes["backbone.bottom_up.res5.2.conv3.weight"] == [2048, 512, 1, 1]
        assert "backbone.bottom_up.res2.0.conv1.norm.running_mean" not in shapes
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert model.detector.device.type == "cpu"

    def test_equals_the_base_configuration(self) -> None:
        """Whatever shapes the parameters or their use agrees with the file in configs/."""
        path = Path(cellseg.__file__).parents[1] / "configs/base_mask_rcnn_R_50_FPN.yaml"
        tree = CfgNode.load_yaml_with_base(str(path))["MODEL"]
        ours = self.config().MODEL
        for section in ("BACKBONE", "RESNETS", "FPN", "ANCHOR_GENERATOR", "ROI_HEADS"):
            for key, value in tree[section].items():
                if key != "BATCH_SIZE_PER_IMAGE":
                    assert ours[section][key] == value, (section, key)
        # its base class has the same layers, and the loss that CellMaskHead has unless told
        assert tree["ROI_MASK_HEAD"].pop("NAME") == "CellMaskHead"
        assert CellMaskHead.__base__.__name__ == ours.ROI_MASK_HEAD.NAME
        for section in ("ROI_BOX_HEAD", "ROI_MASK_HEAD"):
            for key, value in tree[section].items():
                assert ours[section][key] == value, (section, key)
        assert list(ours.PIXEL_MEAN) == tree["PIXEL_MEAN"]
        assert list(ours.PIXEL_STD) == tree["PIXEL_STD"]

    def test_torchvision_keywords(self) -> None:
        cfg = self.config(
            num_classes=4,
            min_size=(256, 512),
            max_size=900,
            box_detections_per_img=50,
            box_score_thresh=0,
            rpn_pre_nms_top_n_train=77,
            anchor_sizes=(4, 8, 16, 32, 64),
            trainable_backbone_layers=3,
        )
        assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 3
        assert tuple(cfg.INPUT.MIN_SIZE_TRAIN) == (256, 512)
        assert cfg.INPUT.MIN_SIZE_TEST == 512
        assert cfg.INPUT.MAX_SIZE_TRAIN == cfg.INPUT.MAX_SIZE_TEST == 900
        assert cfg.TEST.DETECTIONS_PER_IMAGE == 50
        assert cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST == 0
        assert cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN == 77
        assert cfg.MODEL.ANCHOR_GENERATOR.SIZES == [[4], [8], [16], [32], [64]]
        assert cfg.MODEL.BACKBONE.FREEZE_AT == 2
        assert self.config().TEST.DETECTIONS_PER_IMAGE == 500

    def test_frozen_batch_norm_follows_the_model_zoo(self) -> None:
        cfg = resnet50_fpn_config(81, "FrozenBN", {})
        assert cfg.MODEL.RESNETS.STRIDE_IN_1X1
        assert cfg.MODEL.FPN.NORM == ""
        assert cfg.MODEL.PIXEL_MEAN == [103.53, 116.28, 123.675]

    @pytest.mark.parametrize(
        ("settings", "error", "message"),
        [
            ({"box_detection_per_img": 5}, TypeError, "did you mean 'box_detections_per_img'"),
            ({"colour": 5}, TypeError, "no keyword 'colour'$"),
            ({"num_classes": 1}, ValueError, "counts the background"),
            ({"anchor_sizes": (8, 16)}, ValueError, "expected 5"),
            ({"trainable_backbone_layers": 6}, ValueError, "0 to 5"),
        ],
    )
    def test_refuses(self, settings: dict, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            self.config(**settings)

    def test_weights_that_are_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"nowhere\.pth: no such checkpoint"):
            cellseg.maskrcnn_resnet50_fpn(weights=tmp_path / "nowhere.pth")
