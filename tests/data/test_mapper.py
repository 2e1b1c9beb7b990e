"""CellDatasetMapper, beside Detectron2's own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
from cellseg.data.formats import read_records
from cellseg.data.images import normalize_image
from cellseg.data.mapper import CellDatasetMapper
from cellseg.data.records import record_to_detectron2_dict
from cellseg.data.synthetic import make_cells
from cellseg.errors import ImageReadError
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T

SCENES = builders.all_scenes()


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Dataset entries by image id: all scenes, and one picture of cells in colour."""
    drawn = make_cells(4, (60, 90))
    colour = np.dstack([drawn.image, drawn.image // 2, 255 - drawn.image])
    masks = np.array([drawn.labels == k + 1 for k in range(len(drawn.classes))])
    scenes = {**SCENES, "colour": builders.Scene(colour, drawn.labels, masks)}
    root = builders.write_label_images(tmp_path_factory.mktemp("mapper"), "s", scenes)
    records = read_records("label_images", root, "s")
    return {record.image_id: record_to_detectron2_dict(record, ["cell"]) for record in records}


def make_cfg(**overrides: Any) -> CfgNode:
    """A config with the keys that the mapper reads; overrides use __ for the dot."""
    cfg = get_cfg()
    cfg.CELLSEG = CfgNode({"INPUT": {"NORMALIZE": "none", "PERCENTILES": [1.0, 99.8]}})
    cfg.MODEL.MASK_ON = True
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.INPUT.MIN_SIZE_TRAIN = (48, 70)
    cfg.INPUT.MIN_SIZE_TEST = 50
    pairs = [x for key, value in overrides.items() for x in (key.replace("__", "."), value)]
    cfg.merge_from_list(pairs)
    return cfg


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert set(ours) == set(theirs)
    assert ours["image"].dtype == theirs["image"].dtype
    assert torch.equal(ours["image"], theirs["image"])
    for key in ("file_name", "image_id", "height", "width"):
        assert ours[key] == theirs[key]
    if "instances" in theirs:
        a, b = ours["instances"], theirs["instances"]
        assert a.image_size == b.image_size
        assert set(a.get_fields()) == set(b.get_fields())
        assert torch.equal(a.gt_classes, b.gt_classes)
        assert torch.equal(a.gt_boxes.tensor, b.gt_boxes.tensor)
        if b.has("gt_masks"):
            assert torch.equal(a.gt_masks.tensor, b.gt_masks.tensor)


EIGHT_BIT = [*sorted(set(SCENES) - {"sixteen_bit"}), "colour"]


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("image_id", EIGHT_BIT)
def test_equals_detectron2_for_8_bit_images(
    entries: dict[str, dict[str, Any]], image_id: str, is_train: bool
) -> None:
    cfg = make_cfg(INPUT__FORMAT="RGB" if image_id == "colour" else "BGR")
    ours, theirs = CellDatasetMapper(cfg, is_train=is_train), DatasetMapper(cfg, is_train)
    for seed in range(2):
        np.random.seed(seed)  # noqa: NPY002  (what Detectron2's augmentations draw from)
        one = ours(entries[image_id])
        np.random.seed(seed)  # noqa: NPY002
        assert_same(one, theirs(entries[image_id]))
        assert ("instances" in one) == is_train


def test_equals_detectron2_with_crops(entries: dict[str, dict[str, Any]]) -> None:
    cfg = make_cfg(INPUT__CROP__ENABLED=True, INPUT__CROP__SIZE=[0.5, 0.6])
    ours, theirs = CellDatasetMapper(cfg, is_train=True), DatasetMapper(cfg, True)
    for seed in range(4):
        for image_id in ("colour", "many_cells", "on_border"):
            np.random.seed(seed)  # noqa: NPY002
            one = ours(entries[image_id])
            np.random.seed(seed)  # noqa: NPY002
            assert_same(one, theirs(entries[image_id]))


def test_auto_leaves_8_bit_as_none_does(entries: dict[str, dict[str, Any]]) -> None:
    found = [
        CellDatasetMapper(make_cfg(CELLSEG__INPUT__NORMALIZE=mode), is_train=False)(
            entries["colour"]
        )
        for mode in ("auto", "none")
    ]
    assert torch.equal(found[0]["image"], found[1]["image"])


def test_16_bit_is_normalised_and_not_clipped(entries: dict[str, dict[str, Any]]) -> None:
    mapper = CellDatasetMapper(True, augmentations=[], normalize="auto")
    out = mapper(entries["sixteen_bit"])
    scene = SCENES["sixteen_bit"]
    expected = np.where(scene.labels > 0, 255.0, 0.0)
    assert out["image"].dtype == torch.float32
    assert out["image"].shape == (3, 20, 30)
    assert all(np.array_equal(plane, expected) for plane in out["image"].numpy())
    assert out["instances"].gt_masks.tensor.numpy().tolist() == scene.masks.tolist()


def test_percentiles_come_from_the_config(tmp_path: Path) -> None:
    image = np.arange(600, dtype=np.uint16).reshape(20, 30) * 50
    builders.write_png(tmp_path / "a.png", image)
    cfg = make_cfg(
        CELLSEG__INPUT__NORMALIZE="percentile",
        CELLSEG__INPUT__PERCENTILES=[10.0, 80.0],
        INPUT__MIN_SIZE_TEST=20,
    )
    out = CellDatasetMapper(cfg, is_train=False)({"file_name": str(tmp_path / "a.png")})
    expected = normalize_image(image, "percentile", (10, 80))
    assert np.allclose(out["image"][0].numpy(), expected, atol=1e-3)
    assert (out["height"], out["width"]) == (20, 30)


def test_the_entry_stays_as_it_was(entries: dict[str, dict[str, Any]]) -> None:
    before = copy.deepcopy(entries["touching"])
    for is_train in (True, False):
        CellDatasetMapper(make_cfg(), is_train=is_train)(entries["touching"])
    assert entries["touching"] == before


def test_images_without_cells_stay_in_training(entries: dict[str, dict[str, Any]]) -> None:
    for crop in (False, True):  # Detectron2's own mapper fails with crops here
        cfg = make_cfg(INPUT__CROP__ENABLED=crop)
        out = CellDatasetMapper(cfg, is_train=True)(entries["no_cells"])
        assert len(out["instances"]) == 0
        assert out["instances"].gt_boxes.tensor.shape == (0, 4)


def test_without_masks_and_without_crowds(entries: dict[str, dict[str, Any]]) -> None:
    entry = copy.deepcopy(entries["touching"])
    entry["annotations"][0]["iscrowd"] = 1
    mapper = CellDatasetMapper(True, augmentations=[], use_masks=False, recompute_boxes=True)
    instances = mapper(entry)["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[8, 4, 12, 10]]
    assert not instances.has("gt_masks")


def test_boxes_are_tight_after_a_crop(entries: dict[str, dict[str, Any]]) -> None:
    # The cell of two pieces spans x 2..24; cropped to x >= 10 only x 20..24 is left of it.
    crop = T.CropTransform(10, 0, 20, 20)
    for recompute, x0 in ((True, 10), (False, 0)):
        mapper = CellDatasetMapper(True, augmentations=[crop], recompute_boxes=recompute)
        instances = mapper(entries["two_pieces"])["instances"]
        assert instances.gt_boxes.tensor[0, 0] == x0
        assert instances.gt_boxes.tensor[0, 2] == 14


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    mapper = CellDatasetMapper(False, augmentations=[])
    with pytest.raises(ImageReadError, match=r"a\.png"):
        mapper({"file_name": str(tmp_path / "a.png")})


def test_an_image_of_another_size_than_declared(entries: dict[str, dict[str, Any]]) -> None:
    entry = {**entries["touching"], "height": 21}
    with pytest.raises(Exception, match=r"touching\.png"):
        CellDatasetMapper(False, augmentations=[])(entry)
