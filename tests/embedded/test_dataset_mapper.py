# ruff: noqa: NPY002 (the engine draws from numpy's global generator)
"""From a dataset's dict to what a model is given."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, BoxMode
from PIL import Image

HEIGHT, WIDTH = 12, 16


def cell(x0: int, y0: int, x1: int, y1: int, **more: Any) -> dict[str, Any]:
    bitmap = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    bitmap[y0:y1, x0:x1] = 1
    return {
        "bbox": [float(x0), float(y0), float(x1), float(y1)],
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": 0,
        "segmentation": mask_util.encode(bitmap),
        **more,
    }


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def sample(tmp_path: Path, pixels: np.ndarray) -> dict[str, Any]:
    path = tmp_path / "cells.png"
    Image.fromarray(pixels).save(path)
    return {
        "file_name": str(path),
        "height": HEIGHT,
        "width": WIDTH,
        "image_id": 7,
        "annotations": [cell(1, 2, 5, 6), cell(6, 6, 14, 11)],
    }


def mapper(*augmentations: Any, **more: Any) -> DatasetMapper:
    options = {
        "is_train": True,
        "image_format": "RGB",
        "use_instance_mask": True,
        "instance_mask_format": "bitmask",
        **more,
    }
    return DatasetMapper(augmentations=list(augmentations), **options)


@pytest.fixture
def cfg() -> CfgNode:
    cfg = get_cfg()
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.MODEL.MASK_ON = True
    cfg.INPUT.MIN_SIZE_TRAIN = (24,)
    cfg.INPUT.MIN_SIZE_TEST = 18
    return cfg


def test_what_training_is_given(sample: dict[str, Any], pixels: np.ndarray) -> None:
    before = copy.deepcopy(sample)
    mapped = mapper(T.HFlipTransform(WIDTH))(sample)
    assert sample == before
    assert set(mapped) == {"file_name", "height", "width", "image_id", "image", "instances"}
    assert mapped["image"].dtype == torch.uint8
    assert np.array_equal(mapped["image"].numpy(), pixels[:, ::-1].transpose(2, 0, 1))
    instances = mapped["instances"]
    assert instances.image_size == (HEIGHT, WIDTH)
    assert instances.gt_boxes.tensor.tolist() == [[11, 2, 15, 6], [2, 6, 10, 11]]
    assert isinstance(instances.gt_masks, BitMasks)
    assert instances.gt_masks.tensor[0, 2:6, 11:15].all()
    assert instances.gt_masks.tensor.sum().item() == 16 + 40


def test_what_testing_is_given(sample: dict[str, Any], pixels: np.ndarray) -> None:
    mapped = mapper(is_train=False, image_format="BGR")(sample)
    assert set(mapped) == {"file_name", "height", "width", "image_id", "image"}
    assert np.array_equal(mapped["image"].numpy(), pixels[:, :, ::-1].transpose(2, 0, 1))


def test_height_and_width_stay_those_of_the_file(sample: dict[str, Any]) -> None:
    mapped = mapper(T.Resize((24, 32)))(sample)
    assert (mapped["height"], mapped["width"]) == (HEIGHT, WIDTH)
    assert mapped["image"].shape == (3, 24, 32)
    assert mapped["instances"].image_size == (24, 32)
    del sample["height"]
    del sample["width"]
    mapped = mapper(T.Resize((24, 32)))(sample)
    assert (mapped["height"], mapped["width"]) == (HEIGHT, WIDTH)


def test_crowds_and_empty_instances_are_left_out(sample: dict[str, Any]) -> None:
    sample["annotations"].append(cell(0, 0, 2, 2, iscrowd=1))
    mapped = mapper(T.CropTransform(0, 0, 5, HEIGHT))(sample)
    assert mapped["instances"].gt_boxes.tensor.tolist() == [[1, 2, 5, 6]]


def test_boxes_are_recomputed_from_cut_masks(sample: dict[str, Any]) -> None:
    corner = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    corner[2, 3:9] = corner[2:9, 3] = 1  # an L whose arm leaves the crop
    sample["annotations"] = [cell(3, 2, 9, 9, segmentation=mask_util.encode(corner))]
    crop = T.CropTransform(4, 0, 8, HEIGHT)
    kept = mapper(crop)(sample)["instances"]
    assert kept.gt_boxes.tensor.tolist() == [[0, 2, 5, 9]]
    tight = mapper(crop, recompute_boxes=True)(sample)["instances"]
    assert tight.gt_boxes.tensor.tolist() == [[0, 2, 5, 3]]
    with pytest.raises(AssertionError):
        mapper(crop, recompute_boxes=True, use_instance_mask=False)


def test_images_without_cells(sample: dict[str, Any]) -> None:
    sample["annotations"] = []
    instances = mapper(T.RandomFlip())(sample)["instances"]
    assert len(instances) == 0
    assert not instances.has("gt_masks")


@pytest.mark.embedded_only
def test_images_without_cells_under_a_crop(sample: dict[str, Any]) -> None:
    sample["annotations"] = []
    crop = T.RandomCrop("relative", (0.5, 0.5))
    assert len(mapper(crop, recompute_boxes=True)(sample)["instances"]) == 0


def test_images_without_annotations(sample: dict[str, Any]) -> None:
    del sample["annotations"]
    assert "instances" not in mapper()(sample)


def test_masks_can_be_left_out(sample: dict[str, Any]) -> None:
    instances = mapper(use_instance_mask=False)(sample)["instances"]
    assert set(instances.get_fields()) == {"gt_boxes", "gt_classes"}


def test_polygons_stay_polygons(sample: dict[str, Any]) -> None:
    sample["annotations"] = [cell(1, 2, 5, 6, segmentation=[[1.0, 2.0, 5.0, 2.0, 5.0, 6.0]])]
    mapped = mapper(T.HFlipTransform(WIDTH), instance_mask_format="polygon")(sample)
    assert mapped["instances"].gt_masks.polygons[0][0].tolist() == [15, 2, 11, 2, 11, 6]


def test_a_segmentation_of_the_whole_image(sample: dict[str, Any], tmp_path: Path) -> None:
    classes = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    Image.fromarray(classes).save(tmp_path / "classes.png")
    sample["sem_seg_file_name"] = str(tmp_path / "classes.png")
    mapped = mapper(T.CropTransform(3, 2, 5, 4))(sample)
    assert mapped["sem_seg"].dtype == torch.int64
    assert np.array_equal(mapped["sem_seg"].numpy(), classes[2:6, 3:8])
    assert "sem_seg_file_name" not in mapped


def test_a_size_that_does_not_fit(sample: dict[str, Any]) -> None:
    sample["width"] += 1
    with pytest.raises(ValueError, match=r"cells\.png"):
        mapper()(sample)


def test_from_a_config(cfg: CfgNode, sample: dict[str, Any], pixels: np.ndarray) -> None:
    training = DatasetMapper(cfg, is_train=True)
    resize, flip = training.augmentations.augs
    assert isinstance(resize, T.ResizeShortestEdge)
    assert isinstance(flip, T.RandomFlip)
    assert (training.use_instance_mask, training.recompute_boxes) == (True, False)
    assert training(sample)["image"].shape == (3, 24, 32)
    testing = DatasetMapper(cfg, False)
    assert len(testing.augmentations.augs) == 1
    assert testing(sample)["image"].shape == (3, 18, 24)


def test_crops_from_a_config(cfg: CfgNode) -> None:
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.TYPE = "absolute"
    cfg.INPUT.CROP.SIZE = [5, 6]
    crop = DatasetMapper(cfg, True).augmentations.augs[0]
    assert (crop.crop_type, list(crop.crop_size)) == ("absolute", [5, 6])
    assert DatasetMapper(cfg, True).recompute_boxes
    assert not isinstance(DatasetMapper(cfg, False).augmentations.augs[0], T.RandomCrop)
    assert not DatasetMapper(cfg, False).recompute_boxes


def test_arguments_override_a_config(cfg: CfgNode, sample: dict[str, Any]) -> None:
    plain = DatasetMapper(cfg, is_train=True, augmentations=[], image_format="L")
    assert plain(sample)["image"].shape == (1, HEIGHT, WIDTH)


def test_same_seed_same_samples(cfg: CfgNode, sample: dict[str, Any]) -> None:
    cfg.INPUT.MIN_SIZE_TRAIN = (20, 24, 30)
    cfg.INPUT.CROP.ENABLED = True
    training = DatasetMapper(cfg, True)
    runs = []
    for _ in range(2):
        np.random.seed(4)
        runs.append([training(sample) for _ in range(5)])
    for first, second in zip(*runs):
        assert torch.equal(first["image"], second["image"])
        assert torch.equal(first["instances"].gt_masks.tensor, second["instances"].gt_masks.tensor)
    assert len({tuple(each["image"].shape) for each in runs[0]}) > 1


@pytest.mark.embedded_only
@pytest.mark.parametrize("key", ["MODEL.KEYPOINT_ON", "MODEL.LOAD_PROPOSALS"])
def test_left_out_parts_are_refused(cfg: CfgNode, key: str) -> None:
    cfg.merge_from_list([key, True])
    with pytest.raises(NotImplementedError, match=key):
        DatasetMapper(cfg, True)
