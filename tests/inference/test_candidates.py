"""Masks for those detections alone that can become cells: fewer masks, the same cells."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cellseg.cells.instances import CellInstances
from cellseg.engine.setup import load_config
from cellseg.inference import predictor as predictor_module
from cellseg.inference.predictor import CellPredictor
from cellseg.modeling import CellMaskHead
from cellseg.modeling.candidates import can_become_cells
from detectron2.modeling import ROI_MASK_HEAD_REGISTRY, build_model
from detectron2.structures import Instances
from torch import Tensor, nn

QUICK_START = Path(__file__).resolve().parents[2] / "configs/quick_start.yaml"
HW = (96, 80)
TYPES = ("MODEL.ROI_HEADS.NAME", "CellTypeROIHeads", "CELLSEG.CELL_TYPE.CONV_DIM", 8)
CASCADE = (
    *("MODEL.ROI_HEADS.NAME", "CascadeROIHeads"),
    *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True),
)
MASK_IOU = ("MODEL.ROI_MASK_HEAD.NAME", "MaskIoUHead", "CELLSEG.MASK_IOU.CONV_DIM", 8)
PER_CLASS = ("CELLSEG.TEST.SCORE_THRESHOLD", [0.3, 0.9, 0.6])
ALL_STEPS = (
    *("CELLSEG.TEST.LARGEST_COMPONENT", True, "CELLSEG.TEST.FILL_HOLES", True),
    *("CELLSEG.TEST.MAX_AREA", 3000, "CELLSEG.TEST.EXCLUSIVE", [True, True, False]),
    *("CELLSEG.TEST.BORDER", ["drop", "keep", "keep"], "CELLSEG.TEST.MIN_AREA", 5),
)
VOTE = ("CELLSEG.CELL_TYPE.VOTE", "image")


def random_logits(shape: torch.Size) -> Tensor:
    return 2 * torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def built(tiny_model: list[str], tmp_path: Path) -> Callable[..., CellPredictor]:
    """Predictors of random weights and random scores, the same ones every time."""
    torch.manual_seed(0)

    def build(*options: Any) -> CellPredictor:
        weights = tmp_path / "model.pth"
        cfg = load_config(
            QUICK_START,
            [
                *tiny_model,
                *("DATASETS.TRAIN", (), "DATASETS.TEST", (), "MODEL.WEIGHTS", str(weights)),
                *("MODEL.ROI_HEADS.NUM_CLASSES", 3, "TEST.DETECTIONS_PER_IMAGE", 400),
                *("INPUT.MIN_SIZE_TEST", 80, "INPUT.MAX_SIZE_TEST", 96),
                *options,
            ],
        )
        torch.save({"model": build_model(cfg).state_dict()}, weights)
        predictor = CellPredictor(cfg)
        for name, layer in predictor.model.named_modules():
            if name.rpartition(".")[2] == "cls_score":
                layer.register_forward_hook(lambda _, __, logits: random_logits(logits.shape))
            if name.endswith("type_head.logits"):
                layer.register_forward_hook(lambda _, __, logits: 1000 * logits)
        return predictor

    return build


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, HW, dtype=np.uint8)


def predict_and_spy(
    predictor: CellPredictor, image: np.ndarray
) -> tuple[CellInstances, list[tuple[float, int]]]:
    """The cells, and (score, class) of every box that the mask head was asked for."""
    asked: list[tuple[float, int]] = []

    def spy(_: nn.Module, given: Any) -> None:
        for one in given[1]:
            asked.extend(zip(one.scores.tolist(), one.pred_classes.tolist()))

    with predictor.model.roi_heads.mask_head.register_forward_pre_hook(spy):
        return predictor(image), asked


def assert_same(one: CellInstances, other: CellInstances) -> None:
    assert np.array_equal(one.to_bitmaps(), other.to_bitmaps())
    for name in ("boxes_xyxy", "classes", "scores"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ((), (0.5, 0.5, 0.5)),
        (PER_CLASS, (0.3, 0.9, 0.6)),
        ((*PER_CLASS, *VOTE), (0.3, 0.3, 0.3)),
        (MASK_IOU, (0.5, 0.5, 0.5)),
        ((*MASK_IOU, *PER_CLASS), (0.3, 0.9, 0.6)),
        ((*MASK_IOU, *VOTE), (0.5, 0.5, 0.5)),
        (TYPES, (0.5, 0.5, 0.5)),
        ((*TYPES, "CELLSEG.CELL_TYPE.SCORE", "detection", *PER_CLASS), (0.3, 0.3, 0.3)),
        ((*TYPES, *MASK_IOU, *PER_CLASS), (0.3, 0.3, 0.3)),
        (CASCADE, (0.5, 0.5, 0.5)),
        # fewer than there are: the best of all classes, whatever the thresholds of each
        (("TEST.DETECTIONS_PER_IMAGE", 60, *PER_CLASS), (0.3, 0.9, 0.6)),
        (("CELLSEG.TEST.MASK_NMS", 0.3), (0.5, 0.5, 0.5)),
        (ALL_STEPS, (0.5, 0.5, 0.5)),
    ],
    ids=str,
)
def test_fewer_masks_and_the_same_cells(
    options: tuple[Any, ...],
    limits: tuple[float, ...],
    built: Callable[..., CellPredictor],
    image: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predictor = built(*options)
    cells, asked = predict_and_spy(predictor, image)
    monkeypatch.setattr(predictor_module, "masks_of_candidates_only", lambda *_: nullcontext())
    everything, all_asked = predict_and_spy(predictor, image)
    assert_same(cells, everything)
    assert asked == [
        (score, kind) for score, kind in all_asked if score >= np.float32(limits[kind])
    ]
    assert 0 < len(cells) <= len(asked) < len(all_asked)


def test_the_model_is_the_same_afterwards(
    built: Callable[..., CellPredictor], image: np.ndarray
) -> None:
    predictor = built()
    predictor(image)
    assert "forward_with_given_boxes" not in vars(predictor.model.roi_heads)
    pixels = torch.from_numpy(np.stack([image] * 3))
    with torch.no_grad():
        (found,) = predictor.model.inference([{"image": pixels}], do_postprocess=False)
    assert found.scores.min() < 0.5


class RisingMaskHead(CellMaskHead):
    """Of another package than cellseg: scores rise with the masks."""

    def forward(self, x: Tensor, instances: Any) -> Any:
        found = super().forward(x, instances)
        for one in found:
            one.scores = one.scores.sqrt()
        return found


class OtherLayersMaskHead(CellMaskHead):
    """Of another package, and computes scores as cellseg does: not at all."""

    def layers(self, x: Tensor) -> Tensor:
        return -super().layers(x)


@pytest.mark.parametrize("promises", [False, True])
def test_heads_of_other_packages_say_whether_scores_only_fall(
    promises: bool,
    built: Callable[..., CellPredictor],
    image: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(ROI_MASK_HEAD_REGISTRY._obj_map, "RisingMaskHead", RisingMaskHead)
    monkeypatch.setattr(RisingMaskHead, "scores_only_fall", promises, raising=False)
    cells, asked = predict_and_spy(built("MODEL.ROI_MASK_HEAD.NAME", "RisingMaskHead"), image)
    lowest = min(score for score, _ in asked)
    assert (lowest >= 0.5) == promises
    assert (cells.scores.min() < 0.5**0.5) != promises


def test_a_head_with_other_layers_alone_needs_no_promise(
    built: Callable[..., CellPredictor], image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ROI_MASK_HEAD_REGISTRY._obj_map, "OtherLayers", OtherLayersMaskHead)
    _, asked = predict_and_spy(built("MODEL.ROI_MASK_HEAD.NAME", "OtherLayers"), image)
    assert min(score for score, _ in asked) >= 0.5


def test_views_of_an_image_keep_what_may_be_part_of_a_mean(
    built: Callable[..., CellPredictor], image: np.ndarray
) -> None:
    _, asked = predict_and_spy(built("TEST.AUG.ENABLED", True), image)
    assert min(score for score, _ in asked) < 0.5


def test_a_threshold_is_reached_in_float32() -> None:
    """0.3 as float32 is above 0.3, the number before it below; as in `passes_score`."""
    scores = torch.tensor([0.3, np.nextafter(np.float32(0.3), np.float32(0)), 0.3])
    found = Instances((4, 4), scores=scores, pred_classes=torch.tensor([0, 0, 1]))
    assert can_become_cells(found, torch.tensor(0.3)).tolist() == [True, False, True]
    assert can_become_cells(found, torch.tensor([0.3, 0.4])).tolist() == [True, False, False]
    assert can_become_cells(found[:0], torch.tensor([0.3, 0.4])).tolist() == []
