"""Several views of an image, one result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellseg import load_config
from cellseg.errors import ConfigError
from cellseg.inference.augmented import AugmentedRCNN, View, merge_detections
from cellseg.inference.predictor import CellPredictor
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from fvcore.transforms.transform import NoOpTransform
from torch import nn

QUICK_START = Path(__file__).resolve().parents[2] / "configs/quick_start.yaml"
HW = (64, 96)


def configured(tiny_model: list[str], *options: Any) -> CfgNode:
    """Nine detections per image, whatever their scores."""
    few = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "TEST.DETECTIONS_PER_IMAGE", 9]
    no_data = ["DATASETS.TRAIN", (), "DATASETS.TEST", (), "TEST.AUG.ENABLED", True]
    return load_config(QUICK_START, [*tiny_model, *no_data, *few, *options])


def built(cfg: CfgNode) -> nn.Module:
    torch.manual_seed(0)
    return build_model(cfg).eval()


@pytest.fixture
def image() -> torch.Tensor:
    pixels = np.random.default_rng(0).integers(0, 80, (3, *HW), dtype=np.uint8)
    pixels[:, 10:25, 12:40] = 200
    pixels[:, 40:60, 60:75] = 250
    return torch.from_numpy(pixels)


def found(boxes: list[list[float]], scores: list[float], classes: list[int]) -> Instances:
    return Instances(
        HW,
        pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)),
        scores=torch.tensor(scores),
        pred_classes=torch.tensor(classes, dtype=torch.long),
        extra=torch.stack([torch.tensor(scores), 1 - torch.tensor(scores)], dim=1),
    )


def test_scores_are_means_over_views_and_boxes_weighted_by_them() -> None:
    first = found([[0.0, 0, 10, 10], [50, 50, 60, 60]], [0.9, 0.4], [0, 0])
    second = found([[2.0, 0, 12, 10]], [0.3], [0])
    merged = merge_detections([first, second])
    assert merged.scores.tolist() == pytest.approx([0.6, 0.2])
    expected = torch.tensor([[0.5, 0, 10.5, 10], [50, 50, 60, 60]])
    torch.testing.assert_close(merged.pred_boxes.tensor, expected)
    extra = torch.tensor([[0.9 * 0.9 + 0.3 * 0.3, 0.9 * 0.1 + 0.3 * 0.7], [0.16, 0.24]])
    torch.testing.assert_close(merged.extra, extra / torch.tensor([[1.2], [0.4]]))


def test_every_detection_is_of_one_cell() -> None:
    """Two neighbours that overlap stay two, each with the box that is nearest to it."""
    left, right = [0.0, 0, 10, 10], [3.0, 0, 13, 10]
    merged = merge_detections(
        [found([left, right], [0.9, 0.8], [0, 0]), found([right, left], [0.7, 0.5], [0, 0])]
    )
    assert merged.scores.tolist() == pytest.approx([0.75, 0.7])
    torch.testing.assert_close(merged.pred_boxes.tensor, torch.tensor([right, left]))


def test_classes_and_distant_boxes_stay_apart() -> None:
    box = [0.0, 0, 10, 10]
    merged = merge_detections(
        [found([box], [0.8], [1]), found([box], [0.6], [0]), found([[6.0, 0, 16, 10]], [0.4], [1])]
    )
    assert merged.pred_classes.tolist() == [1, 0, 1]
    assert merged.scores.tolist() == pytest.approx([0.8 / 3, 0.2, 0.4 / 3])


def test_nothing_found() -> None:
    none = found([], [], [])
    assert len(merge_detections([none, none])) == 0
    merged = merge_detections([none, found([[0.0, 0, 4, 4]], [0.5], [2])])
    assert (merged.scores.tolist(), merged.pred_classes.tolist()) == ([0.25], [2])


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_masks_come_back_as_they_went(mirrored: bool, turns: int) -> None:
    """A soft mask is the crop of its box; the crop in the view, brought back, is that again."""
    resize = T.ResizeTransform(*HW, 2 * HW[0], 2 * HW[1])
    view = View(resize, mirrored, turns, (2 * HW[0], 2 * HW[1]))
    plain = View(NoOpTransform(), mirrored, turns, HW)
    image = np.random.default_rng(0).random(HW).astype(np.float32)
    x0, y0, x1, y1 = box = (8, 20, 36, 48)
    for each, scale in ((plain, 1), (view, 2)):
        moved = each.transform.apply_box(np.array([box], np.float32))
        back = each.transform.inverse().apply_box(moved)
        assert np.allclose(back, [box])
        a, b, c, d = (int(value) // scale for value in moved[0])
        crop = plain.transform.apply_image(image)[b:d, a:c]
        (mask,) = each.masks_in_image(torch.from_numpy(crop.copy())[None, None])[0]
        assert np.array_equal(mask.numpy(), image[y0:y1, x0:x1])


def test_one_view_is_the_model_itself(tiny_model: list[str], image: torch.Tensor) -> None:
    cfg = configured(tiny_model, "TEST.AUG.FLIP", False, "CELLSEG.TEST.AUG_ROTATE90", False)
    model = built(cfg)
    batch = [{"image": image, "height": 32, "width": 48}]
    with torch.no_grad():
        (expected,), (raw,) = model(batch), model.inference(batch, do_postprocess=False)
    (same,) = AugmentedRCNN(cfg, model).inference(batch, do_postprocess=False)
    assert len(same) == len(raw) > 0
    for name, values in raw.get_fields().items():
        theirs = getattr(values, "tensor", values)
        ours = getattr(same.get(name), "tensor", same.get(name))
        torch.testing.assert_close(ours, theirs)
    (output,) = AugmentedRCNN(cfg, model)(batch)
    assert output["instances"].image_size == (32, 48)
    assert torch.equal(output["instances"].pred_masks, expected["instances"].pred_masks)


def test_a_turned_image_has_turned_cells(tiny_model: list[str], image: torch.Tensor) -> None:
    """The eight views of an image and of the same image turned are the same eight."""
    cfg = configured(tiny_model, "TEST.DETECTIONS_PER_IMAGE", 200)
    augmented = AugmentedRCNN(cfg, built(cfg))
    turned = torch.rot90(image, 1, (1, 2))
    (upright,) = augmented.inference([{"image": image}], do_postprocess=False)
    (other,) = augmented.inference([{"image": turned}], do_postprocess=False)
    assert len(upright) == len(other) > 5
    torch.testing.assert_close(other.scores, upright.scores, atol=1e-4, rtol=1e-4)
    x0, y0, x1, y1 = upright.pred_boxes.tensor.unbind(1)
    moved = torch.stack([y0, HW[1] - x1, y1, HW[1] - x0], dim=1)
    torch.testing.assert_close(other.pred_boxes.tensor, moved, atol=1e-2, rtol=1e-3)
    masks = torch.rot90(upright.pred_masks, 1, (2, 3))
    torch.testing.assert_close(other.pred_masks, masks, atol=1e-3, rtol=1e-3)


def test_sizes(tiny_model: list[str], image: torch.Tensor) -> None:
    cfg = configured(tiny_model, "TEST.AUG.MIN_SIZES", (0, 80), "TEST.AUG.MAX_SIZE", 100)
    augmented = AugmentedRCNN(cfg, built(cfg))
    pixels = image.permute(1, 2, 0).numpy()
    shapes = [each.transform.apply_image(pixels).shape[:2] for each in augmented._views_of(pixels)]
    assert len(shapes) == 16
    assert set(shapes) == {(64, 96), (96, 64), (67, 100), (100, 67)}
    (merged,) = augmented.inference([{"image": image}], do_postprocess=False)
    assert merged.image_size == HW
    assert 0 < len(merged) <= 9
    assert (merged.scores.diff() <= 0).all()


def test_a_mask_head_that_judges_its_masks_is_heard(
    tiny_model: list[str], image: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = configured(tiny_model, "MODEL.ROI_MASK_HEAD.NAME", "MaskIoUHead")
    model = built(cfg)
    results = []
    for iou in (0.5, 1.0):
        constant = lambda x, masks, iou=iou: torch.full((len(x), 1), iou)  # noqa: E731
        monkeypatch.setattr(model.roi_heads.mask_head.mask_iou, "forward", constant)
        results += AugmentedRCNN(cfg, model).inference([{"image": image}], do_postprocess=False)
    half, whole = results
    assert len(half) > 1
    torch.testing.assert_close(half.scores, whole.scores / 2)
    assert half.mask_ious.tolist() == [0.5] * len(half)


def test_types_keep_their_probabilities(tiny_model: list[str], image: torch.Tensor) -> None:
    types = ["MODEL.ROI_HEADS.NAME", "CellTypeROIHeads", "MODEL.ROI_HEADS.NUM_CLASSES", 3]
    cfg = configured(tiny_model, *types)
    model = built(cfg)
    (merged,) = AugmentedRCNN(cfg, model).inference([{"image": image}], do_postprocess=False)
    assert len(merged) > 1
    torch.testing.assert_close(merged.type_probs.sum(dim=1), torch.ones(len(merged)))
    assert set(merged.pred_classes.tolist()) <= {0, 1, 2}


def test_without_masks(tiny_model: list[str], image: torch.Tensor) -> None:
    cfg = configured(tiny_model)
    cfg.MODEL.MASK_ON = False
    (merged,) = AugmentedRCNN(cfg, built(cfg)).inference([{"image": image}], do_postprocess=False)
    assert len(merged) > 1
    assert not merged.has("pred_masks")


def test_the_predictor_uses_it(checkpoint_options: list[str]) -> None:
    """Twice, over a square image and the same turned, with the cells of both turned alike."""
    grey = np.random.default_rng(3).integers(0, 80, (64, 64), dtype=np.uint8)
    grey[8:30, 20:36] = 220
    predictors = {
        enabled: CellPredictor(
            load_config(QUICK_START, [*checkpoint_options, "TEST.AUG.ENABLED", enabled])
        )
        for enabled in (True, False)
    }
    for enabled, predictor in predictors.items():
        upright, turned = predictor(grey), predictor(np.rot90(grey).copy())
        alike = len(upright) == len(turned) and np.allclose(
            upright.scores, turned.scores, atol=1e-4
        )
        assert alike == enabled
        assert len(upright) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["TEST.AUG.MIN_SIZES", ()], r"TEST.AUG.MIN_SIZES is \(\)"),
        (["TEST.AUG.MIN_SIZES", (0, -1)], r"TEST.AUG.MIN_SIZES is \[0, -1\]"),
        (["TEST.AUG.MAX_SIZE", 0], "MAX_SIZE 0; expected"),
    ],
)
def test_bad_settings(tiny_model: list[str], options: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(tiny_model, *options)


def test_models_that_cannot_be_augmented(tiny_model: list[str]) -> None:
    cfg = configured(tiny_model)
    with pytest.raises(ConfigError, match="expected GeneralizedRCNN"):
        AugmentedRCNN(cfg, nn.Identity())
    model = built(cfg)
    cfg.MODEL.KEYPOINT_ON = True
    with pytest.raises(ConfigError, match="keypoints"):
        AugmentedRCNN(cfg, model)
