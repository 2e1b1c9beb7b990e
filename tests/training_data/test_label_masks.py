"""LabelMasks, beside the engine's BitMasks of the same cells."""

from __future__ import annotations

import pickle
from typing import Any

import builders
import numpy as np
import pytest
import torch
from cellseg.cells.label_planes import EVERY_CELL
from cellseg.errors import LabelError
from cellseg.training_data import label_masks
from cellseg.training_data.label_masks import LabelMasks
from detectron2.structures import BitMasks, Boxes, Instances
from torch import Tensor


def some_cells(seed: int, image_hw: tuple[int, int] = (40, 55), count: int = 9) -> BitMasks:
    """Ragged cells that overlap, touch the border, and one without pixels."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, *image_hw), bool)
    for mask in masks[:-1]:
        rows, cols = (np.sort(rng.integers(0, length + 1, 2)) for length in image_hw)
        window = mask[slice(*rows), slice(*cols)]
        window[:] = rng.random(window.shape) < rng.choice([0.7, 1])
    return BitMasks(torch.from_numpy(masks))


def some_boxes(seed: int, count: int, image_hw: tuple[int, int]) -> Tensor:
    """Small, large, without area, reversed, on whole pixels, across the border and outside."""
    rng = np.random.default_rng(seed)
    height, width = image_hw
    centre = rng.random((count, 2)) * (1.6 * width, 1.6 * height) - (0.3 * width, 0.3 * height)
    size = rng.random((count, 2)) * rng.choice([0, 2, 30, 150], (count, 1))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    boxes[::4] = boxes[::4].round()
    boxes[::17] = -boxes[::17]  # right of left, and outside
    return torch.from_numpy(boxes).float()


@pytest.mark.parametrize("seed", range(12))
def test_crop_and_resize_to_the_bit(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed % 2:  # every box and every row of samples by itself
        monkeypatch.setattr(label_masks, "_SAMPLES_AT_ONCE", 1000)
    bitmasks = some_cells(seed)
    masks = LabelMasks.from_bitmasks(bitmasks)
    which = torch.from_numpy(np.random.default_rng(seed).integers(0, len(masks), 60))
    boxes = some_boxes(seed, 60, (40, 55))
    boxes = boxes[((boxes[:, 2:] > boxes[:, :2]).all(1)) | ((boxes[:, 2:] <= boxes[:, :2]).all(1))]
    which = which[: len(boxes)]
    for side in (1, 7, 28):
        expected = bitmasks[which].crop_and_resize(boxes, side)
        found = masks[which].crop_and_resize(boxes, side)
        assert found.dtype == torch.bool
        assert torch.equal(found, expected)


def test_crop_and_resize_of_few_large_and_no_boxes() -> None:
    bitmasks = some_cells(3)
    masks = LabelMasks.from_bitmasks(bitmasks)
    huge = torch.tensor([[-900.0, -1200.0, 1000.0, 800.0], [0.0, 0.0, 55.0, 3000.0]])
    expected = bitmasks[:2].crop_and_resize(huge, 14)
    assert torch.equal(masks[:2].crop_and_resize(huge, 14), expected)
    assert masks[:0].crop_and_resize(torch.zeros(0, 4), 28).shape == (0, 28, 28)
    # of a height but no width: torchvision has no such box
    assert not masks[:1].crop_and_resize(torch.tensor([[9.0, 0.0, 5.0, 9.0]]), 4).any()
    with pytest.raises(LabelError, match="9 masks need boxes"):
        masks.crop_and_resize(torch.zeros(2, 4), 28)


def test_crop_and_resize_of_a_cell_by_hand() -> None:
    masks = LabelMasks.from_label_image([[0, 0, 0, 0], [0, 7, 7, 0], [0, 7, 0, 0], [0, 0, 0, 0]])
    found = masks.crop_and_resize(torch.tensor([[1.0, 1.0, 3.0, 3.0]]), 2)
    assert found.tolist() == [[[True, True], [True, False]]]


@pytest.mark.parametrize("name", sorted(builders.all_scenes()))
def test_areas_boxes_and_bitmaps(name: str) -> None:
    bitmasks = BitMasks(torch.from_numpy(builders.all_scenes()[name].masks))
    masks = LabelMasks.from_bitmasks(bitmasks)
    assert torch.equal(masks.to_bitmasks().tensor, bitmasks.tensor)
    assert masks.area().tolist() == bitmasks.tensor.sum(dim=(1, 2)).tolist()
    assert torch.equal(masks.nonempty(), bitmasks.nonempty())
    boxes = masks.get_bounding_boxes()
    assert isinstance(boxes, Boxes)
    assert torch.equal(boxes.tensor, bitmasks.get_bounding_boxes().tensor)
    assert tuple(masks.image_size) == tuple(bitmasks.image_size)
    assert repr(masks) == f"LabelMasks(num_instances={len(bitmasks)})"


INDICES: list[Any] = [
    3,
    -1,
    slice(2, 7),
    slice(None, None, 2),
    torch.tensor([4, 4, 0, 8]),
    torch.tensor([1, 2], dtype=torch.int32),
    torch.arange(9) % 2 == 0,
    torch.zeros(9, dtype=torch.bool),
    np.array([5, 1]),
    np.arange(9) > 6,
    [0, 2],
    [True] * 4 + [False] * 5,
    [],
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_selecting_shares_the_planes(index: Any) -> None:
    bitmasks = some_cells(5)
    masks = LabelMasks.from_bitmasks(bitmasks)
    expected = bitmasks[index] if not isinstance(index, np.ndarray) else bitmasks[index.tolist()]
    chosen = masks[index]
    assert len(chosen) == len(expected)
    assert torch.equal(chosen.tensor, expected.tensor)
    assert torch.equal(chosen.nonempty(), expected.nonempty())
    assert torch.equal(chosen.get_bounding_boxes().tensor, expected.get_bounding_boxes().tensor)
    assert chosen.planes.data_ptr() == masks.planes.data_ptr()


def test_an_int_of_numpy_and_wrong_indices() -> None:
    masks = LabelMasks.from_bitmasks(some_cells(5))
    assert len(masks[np.int64(2)]) == 1
    for wrong in (9, torch.zeros(3, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.int64)):
        with pytest.raises(IndexError):
            masks[wrong]


def test_iterating_gives_bitmaps() -> None:
    bitmasks = some_cells(6)
    found = list(LabelMasks.from_bitmasks(bitmasks))
    assert all(torch.equal(a, b) for a, b in zip(found, bitmasks, strict=True))


def test_cat_joins_and_keeps_shared_planes_once() -> None:
    first, second = some_cells(1), some_cells(2)
    masks = LabelMasks.from_bitmasks(first)
    joined = LabelMasks.cat([masks[:3], LabelMasks.from_bitmasks(second), masks[5:]])
    expected = BitMasks.cat([first[:3], second, first[5:]])
    assert torch.equal(joined.tensor, expected.tensor)
    assert torch.equal(joined.nonempty(), expected.nonempty())
    assert torch.equal(joined.get_bounding_boxes().tensor, expected.get_bounding_boxes().tensor)
    assert LabelMasks.cat([masks[:1], masks[1:]]).planes is masks.planes
    with pytest.raises(LabelError, match="image size"):
        LabelMasks.cat([masks, LabelMasks.from_label_image(np.ones((2, 2), int))])
    with pytest.raises(LabelError, match="image size"):
        LabelMasks.cat([])


def test_in_instances_and_through_pickle() -> None:
    bitmasks = some_cells(7)
    instances = Instances((40, 55), gt_masks=LabelMasks.from_bitmasks(bitmasks))
    chosen = instances[torch.tensor([1, 1, 4])].to("cpu")
    both = Instances.cat([chosen, instances[2]])
    assert torch.equal(both.gt_masks.tensor, bitmasks.tensor[[1, 1, 4, 2]])
    again = pickle.loads(pickle.dumps(both)).gt_masks
    assert torch.equal(again.tensor, both.gt_masks.tensor)


def test_to_moves_and_keeps_the_labels() -> None:
    masks = LabelMasks.from_bitmasks(some_cells(7))
    assert masks.to("cpu") is masks
    assert masks.to(torch.float32).planes.dtype == torch.int16
    moved = masks.to(device="meta")
    assert moved.device.type == moved.labels.device.type == moved.layers.device.type == "meta"


def test_more_cells_than_int16_holds() -> None:
    labels = builders.labels_beyond_uint16()
    masks = LabelMasks.from_label_image(torch.from_numpy(labels.astype(np.int64)))
    assert masks.planes.dtype == torch.int32
    last = masks[-1]
    assert last.get_bounding_boxes().tensor.tolist() == [[219, 299, 220, 300]]
    box = torch.tensor([[218.0, 298.0, 220.0, 300.0]])
    assert last.crop_and_resize(box, 2).tolist() == [[[False, False], [False, True]]]


def test_pixels_of_every_cell_count_for_each() -> None:
    plane = torch.tensor([[[0, 1, 2], [0, EVERY_CELL, 0]]], dtype=torch.int16)
    masks = LabelMasks(plane, torch.tensor([1, 2]), torch.tensor([0, 0]))
    bitmasks = BitMasks(torch.tensor([[[0, 1, 0], [0, 1, 0]], [[0, 0, 1], [0, 1, 0]]]))
    assert torch.equal(masks.tensor, bitmasks.tensor)
    assert masks.area().tolist() == [2, 2]
    assert torch.equal(masks.get_bounding_boxes().tensor, bitmasks.get_bounding_boxes().tensor)
    boxes = torch.tensor([[0.0, 0.0, 3.0, 2.0]]).repeat(2, 1)
    assert torch.equal(masks.crop_and_resize(boxes, 6), bitmasks.crop_and_resize(boxes, 6))


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(LabelError, match="planes"):
        LabelMasks(torch.zeros(2, 3), torch.zeros(0), torch.zeros(0))
    with pytest.raises(LabelError, match="bitmaps"):
        LabelMasks.from_bitmasks(torch.zeros(2, 3))
