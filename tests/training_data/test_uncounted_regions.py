"""Crowd regions on their way through the mapper, and the field that carries them."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
from cellseg.cells.labels import bitmap_to_rle
from cellseg.errors import LabelError
from cellseg.training_data.augmentations import CopyPaste, annotations_to_labelled_image
from cellseg.training_data.augmentations.geometry import RandomRotate90
from cellseg.training_data.mapper import CellDatasetMapper
from cellseg.training_data.shared_memory import tensor_bytes
from cellseg.training_data.uncounted_regions import UncountedRegions
from detectron2.data import transforms as T
from detectron2.structures import Boxes, BoxMode, Instances
from numpy.typing import NDArray

IMAGE_HW = (20, 30)
CELL = builders.rectangle(IMAGE_HW, 3, 4, 8, 10)
CROWD = builders.rectangle(IMAGE_HW, 15, 0, 30, 12)


def annotation(mask: NDArray[np.bool_], *, crowd: bool = False) -> dict[str, Any]:
    rows, cols = np.nonzero(mask)
    box = [int(v) for v in (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)]
    return {
        "bbox": box,
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": 0,
        "segmentation": bitmap_to_rle(mask),
        "iscrowd": int(crowd),
    }


@pytest.fixture
def entry(tmp_path: Path) -> dict[str, Any]:
    """One cell, and a crowd region in the upper right."""
    image = builders.scene_of_masks([CELL, CROWD], IMAGE_HW).image
    builders.write_png(tmp_path / "a.png", image)
    return {
        "file_name": str(tmp_path / "a.png"),
        "image_id": "a",
        "annotations": [annotation(CROWD, crowd=True), annotation(CELL)],
    }


def mapped(entry: dict[str, Any], *chain: Any, **options: Any) -> Instances:
    instances: Instances = CellDatasetMapper(True, augmentations=chain, **options)(entry)[
        "instances"
    ]
    return instances


def test_a_crowd_is_no_cell_and_stands_beside_the_cells(entry: dict[str, Any]) -> None:
    before = copy.deepcopy(entry)
    instances = mapped(entry)
    assert entry == before
    assert instances.gt_boxes.tensor.tolist() == [[3, 4, 8, 10]]
    assert len(instances.uncounted) == 1
    assert np.array_equal(instances.uncounted.mask.numpy(), CROWD)
    assert "uncounted" not in mapped(entry, ignore_uncounted=False).get_fields()


CHAINS: list[tuple[Any, Any]] = [
    (T.HFlipTransform(30), lambda mask: mask[:, ::-1]),
    (T.VFlipTransform(20), lambda mask: mask[::-1]),
    (T.CropTransform(10, 5, 12, 9), lambda mask: mask[5:14, 10:22]),
    (T.ResizeTransform(20, 30, 40, 60), lambda mask: mask.repeat(2, 0).repeat(2, 1)),
    # what lies beyond the image is no region, and holds no cell
    (T.PadTransform(1, 2, 3, 4), lambda mask: np.pad(mask, ((2, 4), (1, 3)))),
]


@pytest.mark.parametrize(("transform", "expected"), CHAINS)
def test_regions_move_with_the_pixels(entry: dict[str, Any], transform: Any, expected: Any) -> None:
    found = mapped(entry, transform).uncounted.mask.numpy()
    assert np.array_equal(found, expected(CROWD))


def test_regions_turn_with_the_image(entry: dict[str, Any]) -> None:
    np.random.seed(0)  # noqa: NPY002
    given = CellDatasetMapper(True, augmentations=[RandomRotate90(1.0)])(entry)
    bright = given["image"][0].numpy() > builders.BACKGROUND
    found = given["instances"].uncounted.mask.numpy()
    assert found.sum() == CROWD.sum()
    assert np.array_equal(found, bright & ~given["instances"].gt_masks.tensor[0].numpy())


def test_a_padding_of_masks_with_ones_is_no_region(entry: dict[str, Any]) -> None:
    instances = mapped(entry, T.FixedSizeCrop((30, 40)))
    assert np.array_equal(instances.uncounted.mask.numpy(), np.pad(CROWD, ((0, 10), (0, 10))))


def test_a_crop_without_a_region_is_as_without_one(entry: dict[str, Any]) -> None:
    assert not mapped(entry, T.CropTransform(0, 0, 15, 20)).has("uncounted")


@pytest.mark.parametrize("use_masks", [True, False])
def test_an_image_with_nothing_but_a_crowd(entry: dict[str, Any], use_masks: bool) -> None:
    entry["annotations"] = entry["annotations"][:1]
    instances = mapped(entry, use_masks=use_masks, recompute_boxes=use_masks)
    assert len(instances) == len(instances.uncounted) == 0
    assert instances.uncounted.mask.sum() == CROWD.sum()


def test_polygons_and_boxes_are_regions_too(entry: dict[str, Any]) -> None:
    outline = [[15.0, 0.0, 30.0, 0.0, 30.0, 12.0, 15.0, 12.0]]
    crop = T.CropTransform(0, 0, 30, 19)  # of polygons themselves it needs a package more
    for crowd in ({"segmentation": outline}, {"segmentation": []}):
        entry["annotations"][0] |= crowd
        assert np.array_equal(mapped(entry, crop).uncounted.mask.numpy(), CROWD[:19])
    del entry["annotations"][0]["segmentation"]
    assert np.array_equal(mapped(entry).uncounted.mask.numpy(), CROWD)


def test_what_is_annotated_in_a_region_is_counted(entry: dict[str, Any]) -> None:
    inside = builders.rectangle(IMAGE_HW, 20, 2, 24, 6)
    entry["annotations"].append(annotation(inside))
    assert np.array_equal(mapped(entry).uncounted.mask.numpy(), CROWD & ~inside)


def test_pasted_cells_cover_what_nobody_counted(entry: dict[str, Any]) -> None:
    pasted = builders.rectangle(IMAGE_HW, 13, 5, 19, 9)
    other = annotations_to_labelled_image(np.zeros((*IMAGE_HW, 3), np.uint8), [annotation(pasted)])
    paste = CopyPaste(lambda classes: other, prob=1.0, num_cells=(1, 1), flip=False, shift=0.0)
    instances = mapped(entry, copy_paste=paste)
    assert len(instances) == len(instances.uncounted) == 2
    assert np.array_equal(instances.uncounted.mask.numpy(), CROWD & ~pasted)


def test_a_cell_that_a_crop_cuts_away_leaves_the_regions(entry: dict[str, Any]) -> None:
    instances = mapped(entry, T.CropTransform(10, 0, 20, 20))
    assert len(instances) == len(instances.uncounted) == 0
    assert np.array_equal(instances.uncounted.mask.numpy(), CROWD[:, 10:])


def regions(num_cells: int = 3) -> UncountedRegions:
    return UncountedRegions.of_cells(torch.from_numpy(CROWD), num_cells)


@pytest.mark.parametrize(
    ("item", "count"),
    [
        (slice(1, None), 2),
        (torch.tensor([True, False, False]), 1),
        (torch.tensor([2, 0, 0, 1]), 4),
        (torch.tensor([], dtype=torch.int64), 0),
        ([0, 2], 2),
    ],
)
def test_the_field_counts_cells(item: Any, count: int) -> None:
    chosen = regions()[item]
    assert len(chosen) == count
    assert chosen.mask is not None
    assert torch.equal(chosen.mask, regions().mask)


def test_the_field_in_instances() -> None:
    def instances(count: int) -> Instances:
        boxes = Boxes(torch.zeros(count, 4))
        return Instances(IMAGE_HW, gt_boxes=boxes, uncounted=regions(count))

    both = Instances.cat([instances(2), instances(3)])
    assert len(both) == len(both.uncounted) == 5
    assert len(instances(2)[1].uncounted) == 1
    moved = instances(0).to("meta")
    assert (moved.uncounted.mask.device.type, len(moved.uncounted)) == ("meta", 0)
    back = pickle.loads(pickle.dumps(instances(2)))
    assert torch.equal(back.uncounted.mask, regions().mask)
    assert "num_instances=2" in repr(back.uncounted)
    # an image's mask, and what a loader's process makes room for
    assert tensor_bytes({"instances": regions(50)}) == 20 * 30


def test_on_the_same_device_nothing_is_copied() -> None:
    one = regions()
    assert one.to("cpu") is one


def test_another_kind_of_mask_is_refused() -> None:
    with pytest.raises(LabelError, match=r"bool \[H, W\]; found torch.uint8 \[2, 2\]"):
        UncountedRegions.of_cells(torch.zeros(2, 2, dtype=torch.uint8), 1)


BOXES = {  # the region is x 15 to 30, y 0 to 12 of 30 x 20
    "inside": ([16, 1, 20, 5], True),
    "half": ([11, 0, 19, 4], True),
    "less than half": ([10, 0, 19, 4], False),
    "a corner": ([13, 10, 17, 14], False),
    "beyond the image": ([25, -9, 39, 3], True),  # all of it that is in the image
    "outside of the image": ([31, 0, 40, 9], False),
    "fractions": ([16.2, 1.5, 16.4, 1.9], True),  # of one pixel
    "nothing": ([16, 1, 16, 1], False),
    "all": ([-50, -50, 50, 50], False),  # 180 of 600 pixels
}


@pytest.mark.parametrize("name", BOXES)
def test_boxes_by_hand(name: str) -> None:
    box, expected = BOXES[name]
    assert regions().hold(torch.tensor([box], dtype=torch.float32)).tolist() == [expected]


def test_boxes_equal_counting_pixels() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((37, 53)) < 0.5
    corners = np.sort(rng.integers(-10, 60, (500, 2, 2)), axis=1).reshape(-1, 4)
    found = UncountedRegions.of_cells(torch.from_numpy(mask), 0).hold(torch.tensor(corners).float())
    for (x0, y0, x1, y1), held in zip(corners.clip(0), found.tolist()):
        window = mask[y0:y1, x0:x1]
        assert held == (window.size > 0 and window.mean() >= 0.5)
