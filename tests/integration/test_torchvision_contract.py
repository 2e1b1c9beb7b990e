"""What goes in and comes out is what torchvision's own Mask R-CNN takes and gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cellseg
import pytest
import torch
from cellseg.errors import CheckpointError
from cellseg.modeling import MaskRCNN
from cellseg.modeling.torchvision_keywords import is_imagenet, resnet50_fpn_config
from cellseg.modeling.torchvision_weights import torchvision_mismatches
from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, get_model
from torchvision.models._api import BUILTIN_MODELS, register_model
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights, maskrcnn_resnet50_fpn
from torchvision_data import BuildModel

Call = tuple[list[Tensor], list[dict[str, Tensor]]]
SMALL = {"min_size": 64, "max_size": 96, "box_detections_per_img": 5, "box_score_thresh": 0.0}


def target_of(boxes: list[list[int]], image_hw: tuple[int, int]) -> dict[str, Tensor]:
    masks = torch.zeros((len(boxes), *image_hw), dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes):
        mask[y0:y1, x0:x1] = 1
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.arange(len(boxes)) % 2 + 1,
        "masks": masks,
    }


def images_of(*sizes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand((3, *size), generator=generator) for size in sizes]


CELLS = [[5, 8, 25, 30], [30, 20, 55, 44]]


def one_image() -> Call:
    return images_of((64, 64)), [target_of(CELLS, (64, 64))]


def two_sizes() -> Call:
    return images_of((64, 80), (50, 60)), [target_of(CELLS, (64, 80)), target_of(CELLS, (50, 60))]


def one_without_cells() -> Call:
    return images_of((64, 64), (64, 48)), [target_of(CELLS, (64, 64)), target_of([], (64, 48))]


def no_cells_at_all() -> Call:
    return images_of((64, 64)), [target_of([], (64, 64))]


def further_fields() -> Call:
    (target,) = one_image()[1]
    extra = {"image_id": torch.tensor([7]), "area": torch.ones(2), "iscrowd": torch.zeros(2)}
    return one_image()[0], [{**target, **extra}]


def tuples_and_bool_masks() -> Any:
    images, (target,) = one_image()
    return tuple(images), ({**target, "masks": target["masks"].bool()},)


CALLS = [
    one_image,
    two_sizes,
    one_without_cells,
    no_cells_at_all,
    further_fields,
    tuples_and_bool_masks,
]


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    torch.manual_seed(0)
    return maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3, **SMALL)


@pytest.fixture
def ours(build_tiny: BuildModel) -> MaskRCNN:
    return build_tiny(num_classes=3, **SMALL)


def describe(value: Any, count: int | None = None) -> Any:
    """Kinds and shapes, with N for the number of detections, which is each model's own."""
    if isinstance(value, Tensor):
        return value.dtype, ["N" if n == count else n for n in value.shape], value.requires_grad
    if isinstance(value, dict):
        return {name: describe(item, count) for name, item in value.items()}
    return [describe(item, len(item["boxes"])) for item in value]


@pytest.mark.parametrize("call", CALLS)
def test_losses_have_the_same_names_and_kinds(
    theirs: nn.Module, ours: MaskRCNN, call: Callable[[], Call]
) -> None:
    expected, found = theirs.train()(*call()), ours.train()(*call())
    assert describe(found) == describe(expected)
    assert all(loss.isfinite() for loss in found.values())


@pytest.mark.parametrize(("call", "with_targets"), [(one_image, True), (two_sizes, False)])
def test_predictions_have_the_same_kinds_and_frames(
    theirs: nn.Module, ours: MaskRCNN, call: Callable[[], Call], with_targets: bool
) -> None:
    images, targets = call()
    arguments = (images, targets) if with_targets else (images,)
    with torch.no_grad():
        expected, found = theirs.eval()(*arguments), ours.eval()(*arguments)
    assert describe(found) == describe(expected)
    for cells in (*expected, *found):
        assert len(cells["boxes"]) > 0
    for image, *both in zip(images, expected, found):
        height, width = image.shape[1:]
        for cells in both:
            assert (cells["scores"].diff() <= 0).all()
            assert set(cells["labels"].tolist()) <= {1, 2}
            assert 0 <= cells["masks"].min() <= cells["masks"].max() <= 1
            x0, y0, x1, y1 = cells["boxes"].T
            assert ((x0 >= 0) & (x1 > x0) & (x1 <= width)).all()
            assert ((y0 >= 0) & (y1 > y0) & (y1 <= height)).all()


def test_no_detections_have_the_same_kinds(build_tiny: BuildModel) -> None:
    nothing = {**SMALL, "box_score_thresh": 1.0}
    (found,) = build_tiny(num_classes=3, **nothing).eval()(images_of((64, 80)))
    assert {name: list(value.shape) for name, value in found.items()} == {
        "boxes": [0, 4],
        "labels": [0],
        "scores": [0],
        "masks": [0, 1, 64, 80],
    }


def changed(name: str, value: Any) -> Call:
    images, (target,) = one_image()
    return images, [{**target, name: value}]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ((images_of((64, 64)), None), "targets: needed in training mode"),
        (
            changed("boxes", torch.tensor([[5.0, 8, 5, 30], [0, 0, 4, 4]])),
            r"boxes\[0\].*degenerate",
        ),
        (
            changed("boxes", torch.tensor([[9.0, 8, 5, 30], [0, 0, 4, 4]])),
            r"boxes\[0\].*degenerate",
        ),
        (changed("boxes", torch.rand(2, 5)), r"boxes: expected shape \[N, 4\]"),
        (changed("boxes", [[5, 8, 25, 30]]), "boxes: expected a tensor"),
        (([torch.rand(64, 64)], one_image()[1]), r"image 0: .*found \[64, 64\]"),
        (([torch.zeros(3, 64, 64, dtype=torch.uint8)], one_image()[1]), "image 0: .*uint8"),
    ],
)
def test_both_refuse(theirs: nn.Module, ours: MaskRCNN, call: Any, message: str) -> None:
    """torchvision raises AssertionError, TypeError or ValueError; ours names image and field."""
    with pytest.raises((AssertionError, TypeError, ValueError)):
        theirs.train()(*call)
    with pytest.raises((TypeError, ValueError), match=message):
        ours.train()(*call)


class TestBuilder:
    """`cellseg.maskrcnn_resnet50_fpn` is called where torchvision's builder was."""

    def test_as_the_references_call_it(self) -> None:
        """train.py hands these keywords to `torchvision.models.get_model`."""
        name = "cellseg_test_maskrcnn_resnet50_fpn"
        register_model(name)(cellseg.maskrcnn_resnet50_fpn)
        try:
            model = get_model(
                name,
                weights=None,
                weights_backbone=None,
                num_classes=91,
                trainable_backbone_layers=None,
                _skip_resize=True,
            )
        finally:
            del BUILTIN_MODELS[name]
        assert model.num_classes == 91
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert model.train()._network_hw(70, 50) == (70, 50)
        assert model.eval()._network_hw(400, 200) == (1333, 667)

    def test_backbone_from_imagenet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """That the file fits is shown in tests/modeling/test_torchvision_weights.py."""
        loaded = []
        monkeypatch.setattr(
            MaskRCNN, "load_weights", lambda model, path, partial: loaded.append(path) or model
        )
        model = cellseg.maskrcnn_resnet50_fpn(weights_backbone=ResNet50_Weights.IMAGENET1K_V1)
        cfg = model.cfg.clone()
        cfg.MODEL.WEIGHTS = loaded[0]
        assert torchvision_mismatches(cfg) == []
        assert loaded == ["torchvision://resnet50"]
        frozen = {n.split(".")[2] for n, p in model.named_parameters() if not p.requires_grad}
        assert frozen == {"stem", "res2"}  # 3 of 5 are trained, as by torchvision

    def test_names_of_backbone_weights(self) -> None:
        assert not is_imagenet(None)
        assert is_imagenet("IMAGENET1K_V1")
        assert is_imagenet("ResNet50_Weights.IMAGENET1K_V1")
        with pytest.raises(ValueError, match="expected IMAGENET1K_V1"):
            is_imagenet(ResNet50_Weights.IMAGENET1K_V2)
        with pytest.raises(ValueError, match=r"norm is 'GN'; .* batch norm"):
            cellseg.maskrcnn_resnet50_fpn(weights_backbone="IMAGENET1K_V1", norm="GN")

    @pytest.mark.parametrize("weights", ["DEFAULT", MaskRCNN_ResNet50_FPN_Weights.COCO_V1])
    def test_weights_of_torchvisions_own_model(self, weights: Any) -> None:
        with pytest.raises(CheckpointError, match=r"does not fit.*weights_backbone"):
            cellseg.maskrcnn_resnet50_fpn(weights=weights)

    def test_keywords_for_pixels_and_overlaps(self) -> None:
        keywords = {
            "image_mean": [0.1, 0.2, 0.3],
            "image_std": [0.4, 0.5, 0.6],
            "rpn_fg_iou_thresh": 0.6,
            "rpn_bg_iou_thresh": 0.2,
            "box_fg_iou_thresh": 0.55,
            "box_bg_iou_thresh": 0.45,
            "bbox_reg_weights": (1.0, 2.0, 3.0, 4.0),
        }
        cfg = resnet50_fpn_config(2, None, keywords)
        assert cfg.INPUT.FORMAT == "BGR"
        mean, std = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
        assert mean == pytest.approx([76.5, 51.0, 25.5])
        assert std == pytest.approx([153.0, 127.5, 102.0])
        assert cfg.MODEL.RPN.IOU_THRESHOLDS == [0.2, 0.6]
        assert cfg.MODEL.RPN.IOU_LABELS == [0, -1, 1]
        assert cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS == [0.45, 0.55]
        assert cfg.MODEL.ROI_HEADS.IOU_LABELS == [0, -1, 1]
        assert cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS == (1.0, 2.0, 3.0, 4.0)
        plain = resnet50_fpn_config(2, None, {"box_fg_iou_thresh": 0.5, "box_bg_iou_thresh": 0.5})
        assert plain.MODEL.ROI_HEADS.IOU_THRESHOLDS == [0.5]
        assert plain.MODEL.ROI_HEADS.IOU_LABELS == [0, 1]
        with pytest.raises(ValueError, match=r"box_bg_iou_thresh 0\.5 is above box_fg_iou_thresh"):
            resnet50_fpn_config(2, None, {"box_fg_iou_thresh": 0.4})

    def test_modules_of_torchvision_are_refused(self) -> None:
        with pytest.raises(TypeError, match=r"'box_predictor': .*docs/custom_head\.md"):
            cellseg.maskrcnn_resnet50_fpn(box_predictor=nn.Linear(2, 2))
