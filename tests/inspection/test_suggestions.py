"""Settings from cells: rules by hand, and a model that is built from what is printed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from builders import rectangle, scene_of_masks, write_label_images
from cellseg import load_config
from cellseg.errors import DatasetError
from cellseg.inspection.report import inspect_splits
from cellseg.inspection.sources import Split, find_datasets, read_split
from cellseg.inspection.suggestions import (
    choose_splits,
    round_up,
    suggest_anchors,
    suggest_aspect_ratios,
    suggest_config,
    suggest_detections,
    suggest_scale,
)
from detectron2.modeling import build_model

BASE = Path(__file__).resolve().parents[2] / "configs" / "base_mask_rcnn_R_50_FPN.yaml"


def squares(*sides: float) -> np.ndarray:
    return np.array([[side, side] for side in sides], float)


def test_anchors_are_the_medians_of_their_levels() -> None:
    assert suggest_anchors(squares(7, 9, 20, 30, 34)) == [9, 32, 64, 128, 256]
    assert suggest_anchors(squares(3, 3, 3)) == [4, 32, 64, 128, 256]
    assert suggest_anchors(squares(300, 500)) == [16, 32, 64, 128, 400]
    assert suggest_anchors(np.array([[4.0, 16.0]])) == [8, 32, 64, 128, 256]


def test_a_few_odd_cells_make_no_anchor() -> None:
    assert suggest_anchors(squares(*[20] * 1000, 100)) == [20, 32, 64, 128, 256]


def test_aspect_ratios() -> None:
    assert suggest_aspect_ratios(squares(5, 9)) == [1.0]
    two_to_one = np.array([[10.0, 20.0], [20.0, 10.0]] * 5)
    assert suggest_aspect_ratios(two_to_one) == [0.5, 1.0, 2.0]
    assert suggest_aspect_ratios(two_to_one * [1, 2]) == [0.25, 0.5, 1.0, 2.0, 4.0]


def test_scale_of_images_of_one_size() -> None:
    small = suggest_scale([(128, 128)] * 3, np.array([14.0]))
    assert small.factor == 320 / 128
    assert (small.min_sizes[2], small.max_size, small.crop_px) == (320, 400, 0)
    kept = suggest_scale([(520, 704)] * 3, np.array([25.0]))
    assert (kept.factor, kept.min_sizes[2], kept.min_size_test) == (1.0, 520, 520)
    limited = suggest_scale([(1000, 1333)], np.array([10.0]))
    assert limited.factor == pytest.approx(1.0, abs=0.01)
    large = suggest_scale([(1024, 1024)], np.array([140.0]))
    assert large.factor == 0.25


def test_scale_of_images_that_differ_or_are_huge() -> None:
    mixed = suggest_scale([(256, 256), (520, 696)], np.array([15.0]))
    assert (mixed.factor, mixed.crop_px, mixed.min_size_test) == (1.0, 256, 0)
    assert mixed.min_sizes == (192, 224, 256, 320, 384)
    huge = suggest_scale([(3000, 4000)] * 2, np.array([15.0]))
    assert (huge.factor, huge.crop_px) == (1.0, 512)
    assert suggest_scale([(40, 50), (80, 90)], np.array([15.0])).crop_px == 40


def test_numbers_of_detections_and_proposals() -> None:
    assert [suggest_detections(n) for n in (1, 67, 375)] == [100, 110, 570]
    assert [round_up(v, least=200) for v in (1, 201, 1875, 99_999)] == [200, 300, 2000, 10_000]


def test_splits_by_their_names() -> None:
    assert choose_splits(["d_train", "d_val", "d_test"]) == ("d_train", "d_val")
    assert choose_splits(["d_devtest", "d_train"]) == ("d_train", "d_devtest")
    assert choose_splits(["mine"]) == ("mine", "mine")


def test_the_fragment_loads_as_it_is_and_builds_a_model(
    tmp_path: Path, tiny_model: list[str]
) -> None:
    hw = (80, 96)
    masks = [rectangle(hw, 12 * k, 20, 12 * k + 9, 29) for k in range(8)]
    folder = tmp_path / "cells: #1 'ü'"
    write_label_images(folder, "train", {"a": scene_of_masks(masks, hw)})
    write_label_images(folder, "val", {"b": scene_of_masks(masks[:3], hw)})
    name = f"fragment_{tmp_path.name}"
    declared = {name: {"format": "label_images", "root": str(folder), "splits": ["train", "val"]}}
    declaration = folder / "my cells.yaml"
    declaration.write_text(yaml.safe_dump(declared, allow_unicode=True), "utf-8")
    [names] = find_datasets(str(declaration)).values()
    inspection = inspect_splits([read_split(split) for split in names])
    path = tmp_path / "suggested.yaml"
    path.write_text(suggest_config(inspection, BASE), "utf-8")
    cfg = load_config(path, [*tiny_model, "MODEL.DEVICE", "cpu"])
    assert ((f"{name}_train",), (f"{name}_val",)) == (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 1
    assert cfg.TEST.DETECTIONS_PER_IMAGE == 100
    # Cells of 9 px are 10.2 px across as discs; 35 px would be 3.45 times as large: 80 -> 272.
    assert cfg.INPUT.MIN_SIZE_TEST == 272
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES == [[16], [31], [64], [128], [256]]
    image = scene_of_masks(masks, hw).image.astype(float)
    assert pytest.approx([image.mean()] * 3, abs=0.06) == cfg.MODEL.PIXEL_MEAN
    assert pytest.approx([image.std()] * 3, abs=0.06) == cfg.MODEL.PIXEL_STD
    build_model(cfg)


def test_without_a_cell_there_is_nothing_to_suggest() -> None:
    with pytest.raises(DatasetError, match="no cell"):
        suggest_config(inspect_splits([Split("s", ("cell",), ())]), BASE)
