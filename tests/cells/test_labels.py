"""Labels, crops and run lengths, against pycocotools on full bitmaps."""

from __future__ import annotations

from typing import Any

import builders
import numpy as np
import pytest
from cellseg.cells import labels as cl
from cellseg.cells.instances import CellInstances
from cellseg.cells.runs import runs_to_boxes, runs_to_crops
from cellseg.errors import LabelError
from pycocotools import mask as coco_mask

SCENES = builders.all_scenes()


def encode(bitmap: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def ids_and_boxes(labels: Any) -> tuple[np.ndarray, np.ndarray]:
    ids, runs = cl.label_image_to_runs(labels)
    return ids, runs_to_boxes(runs, len(ids), len(labels))


def ids_crops_and_offsets(labels: Any) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    ids, runs = cl.label_image_to_runs(labels)
    return ids, *runs_to_crops(runs, runs_to_boxes(runs, len(ids), len(labels)), len(labels))


def decode(rle: dict[str, Any]) -> CellInstances:
    return CellInstances.from_rles([rle], rle["size"])


def encode_crop(crop: np.ndarray, offset_rc: tuple[int, int], image_hw: tuple[int, int]) -> Any:
    return cl.crops_to_rles([crop.astype(bool)], [offset_rc], image_hw)[0]


def random_label_images(count: int, seed: int) -> list[np.ndarray]:
    """Label images of all small sizes, dense and sparse, some with holes between the labels."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        height, width = rng.integers(1, 12, 2)
        labels = rng.integers(0, rng.integers(2, 6), (height, width))
        labels[rng.random(labels.shape) < rng.random()] = 0
        images.append(labels * rng.choice([1, 3, 100_003]))
    return images


@pytest.mark.parametrize("name", SCENES)
def test_cells_of_a_scene(name: str) -> None:
    scene = SCENES[name]
    ids, boxes = ids_and_boxes(scene.labels)
    assert ids.tolist() == list(range(1, len(scene.masks) + 1))
    for label, (x0, y0, x1, y1) in zip(ids, boxes):
        rows, cols = np.nonzero(scene.labels == label)
        assert (x0, y0, x1, y1) == (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)


def test_boxes_by_hand() -> None:
    ids, boxes = ids_and_boxes(builders.touching().labels)
    assert ids.tolist() == [1, 2]
    assert boxes.tolist() == [[3, 4, 8, 10], [8, 4, 12, 10]]
    assert ids.dtype == boxes.dtype == np.int64


def test_rle_by_hand() -> None:
    # 3 rows, 2 columns; column-major the pixels are 0 1 1 | 1 0 0
    bitmap = np.array([[0, 1], [1, 0], [1, 0]])
    plain = {"size": [3, 2], "counts": [1, 3, 2]}
    assert np.array_equal(decode(plain).to_bitmaps()[0], bitmap)
    assert cl.bitmap_to_rle(bitmap) == {"size": [3, 2], "counts": "132"}
    assert decode(plain).areas_px[0] == 3
    assert np.array_equal(decode(plain).crops[0], bitmap)
    assert decode(plain).offsets_rc.tolist() == [[0, 0]]


@pytest.mark.parametrize("seed", range(8))
def test_every_way_agrees_with_pycocotools(seed: int) -> None:
    for labels in random_label_images(50, seed):
        ids, rles = cl.label_image_to_rles(labels)
        crop_ids, crops, offsets = ids_crops_and_offsets(labels)
        assert ids.tolist() == crop_ids.tolist() == sorted(set(labels.ravel().tolist()) - {0})
        assert cl.crops_to_rles(crops, offsets, labels.shape) == rles
        for label, rle, crop, offset in zip(ids, rles, crops, offsets):
            bitmap = labels == label
            assert rle == encode(bitmap)
            assert cl.bitmap_to_rle(bitmap) == rle
            assert crop.any(axis=0)[[0, -1]].all()
            assert crop.any(axis=1)[[0, -1]].all()
            assert np.array_equal(decode(rle).crops[0], crop)
            assert decode(rle).offsets_rc[0].tolist() == list(offset)
            assert np.array_equal(decode(rle).to_bitmaps()[0], bitmap)
            assert decode(rle).areas_px[0] == bitmap.sum()


@pytest.mark.parametrize("seed", range(8))
def test_long_runs_and_bytes_and_lists_decode(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bitmap = np.zeros((700, 900), bool)  # runs of up to 630,000 pixels: four characters and more
    for _ in range(rng.integers(1, 6)):
        row, col = rng.integers(0, 600, 2)
        bitmap[row : row + rng.integers(1, 700), col : col + rng.integers(1, 300)] ^= True
    rle = encode(bitmap)
    assert cl.bitmap_to_rle(bitmap) == rle
    as_bytes = {**rle, "counts": rle["counts"].encode()}
    flat = bitmap.ravel(order="F").astype(np.int8)
    borders = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
    runs = np.diff([0, *borders, flat.size]).tolist()
    for variant in (rle, as_bytes, {**rle, "counts": runs}):
        assert np.array_equal(decode(variant).to_bitmaps()[0], bitmap)
        crop, (row, col) = decode(variant).crops[0], decode(variant).offsets_rc[0]
        assert crop.sum() == bitmap.sum()
        assert np.array_equal(bitmap[row : row + crop.shape[0], col : col + crop.shape[1]], crop)


def test_masks_without_pixels() -> None:
    empty = np.zeros((4, 6), bool)
    rle = cl.bitmap_to_rle(empty)
    assert rle == encode(empty)
    assert decode(rle).crops[0].shape == (0, 0)
    assert decode(rle).offsets_rc.tolist() == [[0, 0]]
    assert decode(rle).areas_px[0] == 0
    assert not decode(rle).to_bitmaps()[0].any()
    assert encode_crop(np.zeros((0, 0)), (0, 0), (4, 6)) == rle
    assert encode_crop(np.zeros((2, 3)), (1, 1), (4, 6)) == rle


def test_a_full_mask_and_crops_that_are_not_tight() -> None:
    full = np.ones((4, 6), bool)
    assert encode_crop(full, (0, 0), (4, 6)) == encode(full)
    loose = np.zeros((4, 6), bool)
    loose[1:4, 2:4] = True
    assert encode_crop(loose[:, 1:5], (0, 1), (4, 6)) == encode(loose)


def test_no_cells() -> None:
    for labels in (np.zeros((3, 5), np.uint8), np.zeros((0, 5), np.uint16)):
        ids, crops, offsets = ids_crops_and_offsets(labels)
        assert ids.shape == (0,)
        assert crops == []
        assert offsets.shape == (0, 2)
        assert ids_and_boxes(labels)[1].shape == (0, 4)
        assert cl.label_image_to_rles(labels)[1] == []
        assert cl.relabel_sequential(labels)[1].shape == (0,)
    assert cl.crops_to_rles([], [], (3, 5)) == []
    assert cl.crops_to_label_image([], [], (3, 5)).dtype == np.uint16


def test_more_labels_than_uint16_holds() -> None:
    labels = builders.labels_beyond_uint16()
    ids, crops, offsets = ids_crops_and_offsets(labels)
    assert len(ids) == 66_000
    drawn = cl.crops_to_label_image(crops, offsets, labels.shape)
    assert drawn.dtype == np.uint32
    assert np.array_equal(drawn, labels)
    _, rles = cl.label_image_to_rles(labels)
    assert rles[65_999] == encode(labels == 66_000)
    assert rles == cl.crops_to_rles(crops, offsets, labels.shape)


def test_huge_labels_need_no_table_up_to_them() -> None:
    labels = np.zeros((4, 5), np.uint64)
    labels[1, 1:3], labels[3, 4] = 2**40, 7
    ids, boxes = ids_and_boxes(labels)
    assert ids.tolist() == [7, 2**40]
    assert boxes.tolist() == [[4, 3, 5, 4], [1, 1, 3, 2]]
    _, crops, _ = ids_crops_and_offsets(labels)
    assert [int(crop.sum()) for crop in crops] == [1, 2]


def test_relabel_sequential() -> None:
    new, ids = cl.relabel_sequential([[0, 9, 9], [4, 0, 70_000]])
    assert new.tolist() == [[0, 2, 2], [1, 0, 3]]
    assert new.dtype == np.uint16
    assert ids.tolist() == [4, 9, 70_000]
    full, ids = cl.relabel_sequential([[5, 6]])
    assert full.tolist() == [[1, 2]]
    assert ids.tolist() == [5, 6]
    assert cl.relabel_sequential(builders.labels_beyond_uint16())[0].dtype == np.uint32


def test_precedence_where_cells_overlap() -> None:
    crops = [np.ones((2, 2), bool), np.ones((2, 2), bool)]
    offsets = [(0, 0), (0, 1)]
    assert cl.crops_to_label_image(crops, offsets, (2, 3)).tolist() == [[1, 1, 2], [1, 1, 2]]
    second_first = cl.crops_to_label_image(crops, offsets, (2, 3), order=[1, 0])
    assert second_first.tolist() == [[1, 2, 2], [1, 2, 2]]


def test_boolean_label_image_is_one_cell() -> None:
    ids, boxes = ids_and_boxes(builders.with_hole().masks[0])
    assert ids.tolist() == [1]
    assert boxes.tolist() == [[4, 4, 13, 13]]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.zeros((2, 3, 3), int), r"shape \[2, 3, 3\]"),
        (np.zeros((2, 3)), "float64"),
        (np.array([[0, -4]]), "-4"),
    ],
)
def test_what_is_no_label_image(labels: np.ndarray, says: str) -> None:
    with pytest.raises(LabelError, match=says):
        ids_and_boxes(labels)


@pytest.mark.parametrize(
    ("crop", "offset"),
    [(np.ones((3, 3), bool), (2, 0)), (np.ones((3, 3), bool), (0, 4)), (np.ones((1, 1)), (-1, 0))],
)
def test_crop_beyond_the_image(crop: np.ndarray, offset: tuple[int, int]) -> None:
    with pytest.raises(LabelError, match="beyond the image"):
        encode_crop(crop, offset, (4, 6))
    with pytest.raises(LabelError, match="beyond the image"):
        cl.crops_to_label_image([crop.astype(bool)], [offset], (4, 6))


def test_crops_and_offsets_pair_up() -> None:
    with pytest.raises(LabelError, match="1 crops but 2 offsets"):
        cl.crops_to_rles([np.ones((1, 1), bool)], [(0, 0), (1, 1)], (4, 6))


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [3, 2], "counts": [1, 3]},
        {"size": [3, 2], "counts": [1, 3, 2, 9]},
        {"size": [3, 2], "counts": [8, -2]},
        {"size": [3, 2], "counts": []},
        {"size": [3, 2], "counts": ""},
        {"size": [3, 2], "counts": "13R"},  # ends in the middle of a number
        {"size": [3, 2], "counts": "ö"},
        {"size": [3], "counts": [6]},
        {"counts": [6]},
        "132",
    ],
)
def test_what_is_no_rle(rle: Any) -> None:
    with pytest.raises(LabelError, match="RLE"):
        CellInstances.from_rles([rle], (3, 2))


def test_bitmap_of_another_dimension() -> None:
    with pytest.raises(LabelError, match=r"\[H, W\]"):
        cl.bitmap_to_rle(np.zeros((2, 3, 4)))


def test_box_of_an_rle() -> None:
    pieces = decode(cl.bitmap_to_rle(builders.two_pieces().masks[0]))
    assert pieces.boxes_xyxy.tolist() == [[2, 2, 24, 15]]
    assert decode(cl.bitmap_to_rle(np.zeros((3, 3)))).boxes_xyxy.tolist() == [[0, 0, 0, 0]]
