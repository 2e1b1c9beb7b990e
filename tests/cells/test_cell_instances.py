"""CellInstances: every way in and out, and what it refuses."""

from __future__ import annotations

from typing import Any

import builders
import numpy as np
import pytest
from cellseg.cells.instances import CellInstances
from cellseg.errors import LabelError
from pycocotools import mask as coco_mask

SCENES = builders.all_scenes()


@pytest.mark.parametrize("name", SCENES)
def test_bitmaps_rles_and_back(name: str) -> None:
    masks = SCENES[name].masks
    cells = CellInstances.from_bitmaps(masks)
    assert len(cells) == len(masks)
    assert cells.image_hw == masks.shape[1:]
    assert np.array_equal(cells.to_bitmaps(), masks)
    assert cells.areas_px.tolist() == masks.sum(axis=(1, 2)).tolist()
    rles = cells.to_rles()
    for rle, mask in zip(rles, masks):
        expected = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        assert rle["counts"] == expected["counts"].decode()
    again = CellInstances.from_rles(rles, cells.image_hw)
    assert np.array_equal(again.to_bitmaps(), masks)
    assert np.array_equal(again.boxes_xyxy, cells.boxes_xyxy)


@pytest.mark.parametrize("name", SCENES)
def test_label_image_and_back(name: str) -> None:
    scene = SCENES[name]
    cells = CellInstances.from_label_image(scene.labels)
    assert np.array_equal(cells.to_label_image(), scene.labels)
    assert cells.to_label_image().dtype == np.uint16
    whole = CellInstances.from_bitmaps(scene.masks)
    assert np.array_equal(whole.to_label_image(), scene.labels)


def test_defaults_by_hand() -> None:
    cells = CellInstances.from_label_image(builders.touching().labels)
    assert cells.boxes_xyxy.tolist() == [[3, 4, 8, 10], [8, 4, 12, 10]]
    assert cells.scores.tolist() == [1, 1]
    assert cells.classes.tolist() == [0, 0]
    assert cells.offsets_rc.tolist() == [[4, 3], [4, 8]]
    assert cells.areas_px.tolist() == [30, 24]
    assert [cells.boxes_xyxy.dtype, cells.scores.dtype] == [np.float32, np.float32]
    assert [cells.classes.dtype, cells.offsets_rc.dtype] == [np.int64, np.int64]
    assert repr(cells) == "CellInstances(2 cells, image 20 x 30)"


def test_no_cells() -> None:
    cells = CellInstances.empty((5, 7))
    assert len(cells) == 0
    assert cells.boxes_xyxy.shape == (0, 4)
    assert cells.offsets_rc.shape == (0, 2)
    assert cells.to_bitmaps().shape == (0, 5, 7)
    assert cells.to_rles() == []
    assert cells.areas_px.shape == (0,)
    assert not cells.to_label_image().any()
    assert len(cells[[]]) == len(cells.sort_by_score()) == len(cells[:3]) == 0
    assert len(CellInstances.from_rles([], (5, 7))) == 0
    assert len(CellInstances.from_bitmaps(np.zeros((0, 5, 7)))) == 0


def test_a_detection_without_pixels() -> None:
    masks = np.zeros((2, 5, 7), bool)
    masks[1, 2, 3] = True
    boxes = [[1, 1, 4.5, 4], [3, 2, 4, 3]]
    cells = CellInstances.from_bitmaps(masks, scores=[0.9, 0.8], boxes_xyxy=boxes)
    assert cells.areas_px.tolist() == [0, 1]
    assert cells.boxes_xyxy.tolist() == boxes
    assert np.array_equal(cells.to_bitmaps(), masks)
    assert cells.to_label_image().max() == 2
    assert coco_mask.area(cells.to_rles()).tolist() == [0, 1]
    tight = CellInstances.from_bitmaps(masks)
    assert tight.boxes_xyxy.tolist() == [[0, 0, 0, 0], [3, 2, 4, 3]]


def test_choosing_cells() -> None:
    cells = CellInstances.from_label_image(
        builders.many_cells().labels, classes=np.arange(156) % 3, scores=np.arange(156) / 156
    )
    for index in ([5, 2], np.array([5, 2]), slice(2, 6, 3)):
        chosen = cells[index]
        order = [5, 2] if not isinstance(index, slice) else [2, 5]
        assert chosen.classes.tolist() == [k % 3 for k in order]
        assert np.array_equal(chosen.to_bitmaps(), cells.to_bitmaps()[order])
        assert np.array_equal(chosen.boxes_xyxy, cells.boxes_xyxy[order])
    assert len(cells[cells.classes == 1]) == 52
    assert len(cells[np.zeros(156, bool)]) == 0
    assert len(cells[7]) == 1
    with pytest.raises(IndexError):
        cells[[156]]


def test_scores_decide_on_overlaps() -> None:
    masks = builders.overlapping().masks
    cells = CellInstances.from_bitmaps(masks, scores=[0.5, 0.9])
    by_score, by_number = cells.to_label_image(), cells.to_label_image(by_score=False)
    assert by_score[7, 7] == 2
    assert by_number[7, 7] == 1
    assert (by_score == 1).sum() == (by_number == 2).sum() == 48
    ordered = cells.sort_by_score()
    assert ordered.scores.tolist() == pytest.approx([0.9, 0.5])
    assert np.array_equal(ordered.to_bitmaps(), masks[::-1])
    ties = CellInstances.from_bitmaps(masks, classes=[4, 3]).sort_by_score()
    assert ties.classes.tolist() == [4, 3]


def test_more_than_65535_cells() -> None:
    labels = builders.labels_beyond_uint16()
    cells = CellInstances.from_label_image(labels)
    drawn = cells.to_label_image()
    assert drawn.dtype == np.uint32
    assert np.array_equal(drawn, labels)


ONE_CELL: dict[str, Any] = {
    "image_hw": (5, 7),
    "boxes_xyxy": [[0, 0, 2, 2]],
    "scores": [1.0],
    "classes": [0],
    "crops": [np.ones((2, 2), bool)],
    "offsets_rc": [[0, 0]],
}


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("scores", [1.0, 2.0], r"scores has shape \[2\]; 1 crops need \[1\]"),
        ("boxes_xyxy", [[0, 0, 2]], "boxes_xyxy has shape"),
        ("classes", [-1], "-1"),
        ("scores", [np.nan], "not finite"),
        ("boxes_xyxy", [[0, 0, np.inf, 2]], "not finite"),
        ("offsets_rc", [[4, 0]], "beyond the image"),
        ("crops", [np.ones((2, 2), np.uint8)], "boolean"),
        ("crops", [np.ones(4, bool)], "boolean"),
        ("crops", [[[True]]], "boolean"),
        ("image_hw", (-1, 7), "negative"),
    ],
)
def test_inconsistent_cells(field: str, value: Any, says: str) -> None:
    with pytest.raises(LabelError, match=says):
        CellInstances(**{**ONE_CELL, field: value})


def test_replaced_cells_are_checked_too() -> None:
    cells = CellInstances(**ONE_CELL)
    with pytest.raises(LabelError):
        cells.replace(classes=[-1])


def test_rles_of_another_image() -> None:
    rles = CellInstances(**ONE_CELL).to_rles()
    with pytest.raises(LabelError, match=r"RLE of size \[5, 7\] in an image of \[7, 5\]"):
        CellInstances.from_rles(rles, (7, 5))


def test_bitmaps_of_another_dimension() -> None:
    with pytest.raises(LabelError, match=r"\[N, H, W\]"):
        CellInstances.from_bitmaps(np.zeros((5, 7)))


@pytest.mark.parametrize("seed", range(20))
def test_both_forms_of_masks_agree(seed: int) -> None:
    """Cells made of runs and cells made of windows are the same, in every view and selection."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 9, 2)
    bitmaps = rng.random((6, height, width)) < rng.choice([0.1, 0.6, 1.0], (6, 1, 1))
    crowd = rng.random(6) < 0.3
    windows = CellInstances.from_bitmaps(bitmaps).replace(is_crowd=crowd)
    runs = CellInstances.from_rles(windows.to_rles(), (height, width), is_crowd=crowd)
    for chosen in (slice(None), [4, 0, 4], bitmaps.any(axis=(1, 2)), []):
        expected = bitmaps[chosen]
        for cells in (windows[chosen], runs[chosen]):
            assert len(cells) == len(expected)
            assert (cells.to_bitmaps() == expected).all()
            assert cells.areas_px.tolist() == expected.sum(axis=(1, 2)).tolist()
            assert cells.is_crowd.tolist() == crowd[chosen].tolist()
            assert CellInstances.from_rles(cells.to_rles(), (height, width)).areas_px.tolist() == (
                cells.areas_px.tolist()
            )
    assert (runs.to_label_image() == windows.to_label_image()).all()
    assert [crop.shape for crop in runs.crops] == [crop.shape for crop in windows.crops]
    assert runs.boxes_xyxy.tolist() == windows.boxes_xyxy.tolist()


def test_crowd_regions_stand_beside_the_cells() -> None:
    cells = CellInstances.from_label_image([[1, 2], [3, 3]]).replace(is_crowd=[False, True, False])
    assert cells.counted.areas_px.tolist() == [1, 2]
    assert cells.crowds.areas_px.tolist() == [1]
    assert cells.to_label_image().tolist() == [[1, 0], [3, 3]]
    assert len(CellInstances.empty((2, 2)).crowds) == 0


@pytest.mark.parametrize("as_runs", [True, False])
def test_parts_joined_are_the_whole(as_runs):
    labels = np.zeros((9, 12), np.uint16)
    labels[1:4, 2:5], labels[5:8, 0:3], labels[2:9, 8:11] = 1, 2, 3
    whole = CellInstances.from_label_image(labels, classes=[0, 2, 1], scores=[0.5, 0.25, 1])
    if not as_runs:
        whole = CellInstances.from_crops(
            whole.crops, whole.offsets_rc, (9, 12), classes=whole.classes, scores=whole.scores
        )
    parts = [whole[:1], whole[1:1], whole[1:]]
    assert CellInstances.concatenate(parts, (9, 12)).equals(whole)
    assert len(CellInstances.concatenate([], (9, 12))) == 0
    with pytest.raises(LabelError, match="cannot be joined"):
        CellInstances.concatenate(parts, (9, 13))
