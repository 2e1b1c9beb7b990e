"""CELLSEG.INPUT.SCALE: the network sees larger images, everybody else the same pixels as ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
from cellseg import load_config
from cellseg.datasets.dataset_dicts import record_to_dict
from cellseg.errors import ConfigError
from cellseg.inference.predictor import CellPredictor
from cellseg.io import read_records
from cellseg.modeling import MaskRCNN
from cellseg.training_data.augmentations import ResizeByFactor, input_scale, scale_resizing
from cellseg.training_data.mapper import CellDatasetMapper
from detectron2.config import CfgNode, get_cfg
from detectron2.data import transforms as T

QUICK_START = Path(__file__).resolve().parents[2] / "configs/quick_start.yaml"


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)


def sized(cfg: CfgNode, scale: float, shorter: int, longest: int) -> CfgNode:
    cfg = cfg.clone()
    cfg.CELLSEG.INPUT.SCALE = scale
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = shorter, longest
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (shorter,), longest
    return cfg


@pytest.mark.parametrize(
    ("length", "longest", "factor", "expected"),
    [
        (0, 1000, 2.0, (80, 100)),  # native size, doubled
        (20, 1000, 2.0, (40, 50)),
        (32, 1000, 1.5, (48, 60)),
        (40, 25, 2.0, (40, 50)),  # MAX_SIZE is before the factor
        (0, 1000, 0.01, (1, 1)),
    ],
)
def test_both_sides_times_the_factor(
    image: np.ndarray, length: int, longest: int, factor: float, expected: tuple[int, int]
) -> None:
    resize = ResizeByFactor(T.ResizeShortestEdge((length,), longest, "choice"), factor)
    transform = resize.get_transform(image)
    assert transform.apply_image(image).shape == (*expected, 3)
    at_once = T.ResizeTransform(40, 50, *expected).apply_image(image)
    assert np.array_equal(transform.apply_image(image), at_once)


def test_at_one_nothing_changes(cfg: CfgNode) -> None:
    flip = T.RandomFlip()
    resize, same = scale_resizing(cfg, [T.ResizeShortestEdge((32,), 64, "choice"), flip])
    assert same is flip
    found = resize.get_transform(np.zeros((40, 100, 3), np.uint8))
    assert (found.h, found.w, found.new_h, found.new_w) == (40, 100, 26, 64)
    kept = T.ResizeShortestEdge((0,), 64, "choice")
    whole = scale_resizing(cfg, [kept])[0].get_transform(np.zeros((40, 100, 3), np.uint8))
    assert isinstance(whole, T.NoOpTransform)
    assert input_scale(get_cfg()) == 1.0  # Detectron2's own keys only


def test_an_image_of_two_rows_keeps_one(cfg: CfgNode) -> None:
    """The longer side, 700 px, becomes 96, and so the shorter one 0.3."""
    assert CellPredictor(cfg)(np.zeros((2, 700), np.uint8)).image_hw == (2, 700)


@pytest.mark.parametrize("native", [False, True])
def test_predicts_as_from_an_enlarged_image(cfg: CfgNode, image: np.ndarray, native: bool) -> None:
    """Twice 32 px, and 1.6 times the native 40 px, are 64 px."""
    scaled = sized(cfg, 1.6, 0, 1000) if native else sized(cfg, 2.0, 32, 48)
    expected, found = CellPredictor(cfg)(image), CellPredictor(scaled)(image)
    assert found.image_hw == (40, 50)
    assert len(found) == len(expected) > 0
    assert np.array_equal(found.to_bitmaps(), expected.to_bitmaps())
    assert np.array_equal(found.boxes_xyxy, expected.boxes_xyxy)


def test_in_torchvisions_manner(cfg: CfgNode) -> None:
    picture = torch.rand(3, 40, 50)
    path = cfg.MODEL.WEIGHTS
    plain = MaskRCNN(sized(cfg, 1.0, 64, 96)).load_weights(path).eval()
    scaled = MaskRCNN(sized(cfg, 2.0, 32, 48)).load_weights(path).eval()
    expected, found = plain([picture])[0], scaled([picture])[0]
    assert len(found["boxes"]) > 0
    assert found["masks"].shape[2:] == (40, 50)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.fixture
def entry(tmp_path: Path) -> dict[str, Any]:
    """Two touching rectangles, of 30 and 24 px, in an image of 20 x 30 px."""
    root = builders.write_label_images(tmp_path, "s", {"a": builders.touching()})
    (record,) = read_records("label_images", root, "s")
    return record_to_dict(record, ["cell"])


def test_training_doubles_image_boxes_and_masks(cfg: CfgNode, entry: dict[str, Any]) -> None:
    scaled = sized(cfg, 2.0, 0, 1000)
    scaled.INPUT.RANDOM_FLIP = "none"
    mapped = CellDatasetMapper(scaled, is_train=True)(entry)
    assert mapped["image"].shape == (3, 40, 60)
    cells = mapped["instances"]
    assert cells.gt_boxes.tensor.tolist() == [[6, 8, 16, 20], [16, 8, 24, 20]]
    assert cells.gt_masks.tensor.sum((1, 2)).tolist() == [4 * 30, 4 * 24]


def test_a_training_crop_is_in_pixels_of_the_file(cfg: CfgNode, entry: dict[str, Any]) -> None:
    scaled = sized(cfg, 2.0, 0, 1000)
    scaled.INPUT.CROP.ENABLED, scaled.INPUT.CROP.TYPE = True, "absolute"
    scaled.INPUT.CROP.SIZE = [12, 16]
    assert CellDatasetMapper(scaled, is_train=True)(entry)["image"].shape == (3, 24, 32)
    tested = CellDatasetMapper(scaled, is_train=False)(entry)
    assert tested["image"].shape == (3, 40, 60)
    assert (tested["height"], tested["width"]) == (20, 30)


@pytest.mark.parametrize("scale", [0.0, -1.0, 9.0])
def test_an_impossible_scale_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match=r"CELLSEG\.INPUT\.SCALE .* more than 0"):
        load_config(QUICK_START, ["CELLSEG.INPUT.SCALE", scale])
