"""LabelPlanes, against full bitmaps; and RLEs of an image parsed all at once."""

from __future__ import annotations

import builders
import numpy as np
import pycocotools.mask as coco_mask
import pytest
from cellseg.cells import runs
from cellseg.cells.label_planes import EVERY_CELL, LabelPlanes
from cellseg.cells.run_lengths import rles_to_runs
from cellseg.errors import LabelError
from numpy.typing import NDArray

Bitmaps = NDArray[np.bool_]


def bitmaps_of(planes: LabelPlanes) -> Bitmaps:
    """[N, H, W], by the definition of the class."""
    found = [planes.planes[layer] == k + 1 for k, layer in enumerate(planes.layers)]
    return np.array(found, bool).reshape(-1, *planes.image_hw)


def encode(masks: Bitmaps) -> list[dict]:
    """By pycocotools."""
    return [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]


def random_cells(seed: int) -> Bitmaps:
    """Up to 12 ragged cells in a small image: overlapping, on the border, some without pixels."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 30, 2)
    masks = np.zeros((rng.integers(0, 13), height, width), bool)
    for mask in masks:
        y0, y1 = np.sort(rng.integers(0, height + 1, 2))
        x0, x1 = np.sort(rng.integers(0, width + 1, 2))
        mask[y0:y1, x0:x1] = rng.random((y1 - y0, x1 - x0)) < rng.choice([0.5, 1])
    return masks


def greedy_layers(masks: Bitmaps) -> list[int]:
    """Each cell to the first layer where its pixels are free, pixel by pixel."""
    taken: list[Bitmaps] = []
    layers = []
    for mask in masks:
        layer = next((k for k, used in enumerate(taken) if not (used & mask).any()), len(taken))
        if layer == len(taken):
            taken.append(np.zeros_like(mask))
        taken[layer] = taken[layer] | mask
        layers.append(layer)
    return layers


@pytest.mark.parametrize("seed", range(40))
def test_from_rles_is_what_pycocotools_decodes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_PAIRS_AT_ONCE", 3)
    masks = random_cells(seed)
    planes = LabelPlanes.from_rles(encode(masks), masks.shape[1:])
    assert np.array_equal(bitmaps_of(planes), masks)
    assert planes.layers.tolist() == greedy_layers(masks)
    assert len(planes.planes) == (max(greedy_layers(masks)) + 1 if len(masks) else 0)
    assert planes.planes.dtype == np.int32
    assert planes.areas_px.tolist() == masks.sum(axis=(1, 2)).tolist()


@pytest.mark.parametrize("name", sorted(builders.all_scenes()))
def test_boxes_and_crops(name: str) -> None:
    scene = builders.all_scenes()[name]
    planes = LabelPlanes.from_rles(encode(scene.masks), scene.labels.shape)
    crops, offsets = planes.crops()
    assert len(planes) == len(crops) == len(scene.masks)
    for mask, box, crop, (row, col) in zip(scene.masks, planes.boxes_xyxy, crops, offsets):
        rows, cols = np.nonzero(mask)
        assert box.tolist() == [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]
        drawn = np.zeros_like(mask)
        drawn[row : row + crop.shape[0], col : col + crop.shape[1]] = crop
        assert np.array_equal(drawn, mask)
    again = LabelPlanes.from_crops(crops, offsets, planes.image_hw)
    assert np.array_equal(bitmaps_of(again), scene.masks)


def test_a_cell_without_pixels_has_no_box() -> None:
    planes = LabelPlanes.from_rles([{"size": [3, 4], "counts": [12]}], (3, 4))
    assert (len(planes), planes.areas_px.tolist()) == (1, [0])
    assert planes.boxes_xyxy.tolist() == [[0, 0, 0, 0]]
    assert planes.crops()[0][0].shape == (0, 0)


def test_forms_of_rle_may_be_mixed() -> None:
    plain = {"size": [2, 3], "counts": [1, 2, 3]}
    text = coco_mask.frPyObjects({"size": [2, 3], "counts": [3, 3]}, 2, 3)
    as_str = {**text, "counts": text["counts"].decode()}
    planes = LabelPlanes.from_rles([plain, text, as_str], (2, 3))
    expected = [[[0, 1, 0], [1, 0, 0]], [[0, 0, 1], [0, 1, 1]], [[0, 0, 1], [0, 1, 1]]]
    assert bitmaps_of(planes).astype(int).tolist() == expected
    assert planes.layers.tolist() == [0, 0, 1]


def test_from_label_image() -> None:
    for high in (9, 10**9):  # the second is far above the number of pixels
        labels = np.array([[0, high, 2], [2, 0, 5]], np.uint32)
        planes = LabelPlanes.from_label_image(labels)
        assert planes.planes.tolist() == [[[0, 3, 1], [1, 0, 2]]]
        assert planes.layers.tolist() == [0, 0, 0]
    assert len(LabelPlanes.from_label_image(builders.labels_beyond_uint16())) == 66_000
    assert LabelPlanes.from_label_image(np.zeros((2, 3), int)).planes.shape == (0, 2, 3)
    assert LabelPlanes.from_label_image(np.zeros((0, 3), int)).image_hw == (0, 3)


def test_select_renumbers_and_drops_layers() -> None:
    scene = builders.overlapping()
    planes = LabelPlanes.from_rles(encode(scene.masks), scene.labels.shape)
    assert len(planes.planes) > 1
    backwards = planes.select(np.arange(len(planes))[::-1])
    assert np.array_equal(bitmaps_of(backwards), scene.masks[::-1])
    one = planes.select(np.arange(len(planes)) == 1)
    assert np.array_equal(bitmaps_of(one), scene.masks[1:2])
    assert one.planes.shape[0] == 1
    assert planes.select([]).planes.shape == (0, *scene.labels.shape)
    with pytest.raises(LabelError, match="once"):
        planes.select([0, 0])


def test_pixels_that_belong_to_every_cell() -> None:
    plane = np.array([[0, 1, 2], [0, EVERY_CELL, 0]], np.int32)
    planes = LabelPlanes(plane[None], np.array([0, 0, 0]))
    assert planes.areas_px.tolist() == [2, 2, 1]
    assert planes.boxes_xyxy.tolist() == [[1, 0, 2, 2], [1, 0, 3, 2], [1, 1, 2, 2]]
    assert planes.crops()[0][1].tolist() == [[False, True], [True, False]]
    assert planes.select([1]).planes.tolist() == [[[0, 0, 1], [0, EVERY_CELL, 0]]]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([4, 1], "cell 1.*add up to 5"),
        ([7, -1], "cell 1.*negative"),
        ("", "cell 1.*without"),
        ("P", "cell 1.*middle"),
        (None, "cell 1"),
        ("é", "cell 1"),
    ],
)
def test_a_broken_rle_is_named(counts: object, message: str) -> None:
    good = {"size": [2, 3], "counts": [1, 2, 3]}
    with pytest.raises(LabelError, match=message):
        rles_to_runs([good, {"size": [2, 3], "counts": counts}], (2, 3))
    with pytest.raises(LabelError, match=r"cell 1.*\[3, 2\]"):
        rles_to_runs([good, {**good, "size": [3, 2]}], (2, 3))


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(LabelError, match="shape"):
        LabelPlanes(np.zeros((2, 3), np.int32), np.zeros(0))
    with pytest.raises(LabelError, match="layers 0 to 1 of 1"):
        LabelPlanes(np.zeros((1, 2, 3), np.int32), np.array([0, 1]))
    with pytest.raises(LabelError, match="beyond"):
        LabelPlanes.from_crops([np.ones((2, 2), bool)], [(1, 0)], (2, 3))
