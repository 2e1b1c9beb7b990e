# ruff: noqa: NPY002 (augmentations draw from numpy's global generator)
"""Copy-paste: pixels, labels, occlusion and layers by hand."""

from __future__ import annotations

import cellseg.training_data.augmentations as A
import numpy as np
import pytest
from builders import overlapping, rectangle
from cellseg.cells.label_planes import LabelPlanes
from cellseg.cells.synthetic import make_cells
from cellseg.errors import InputValueError

HW = (20, 30)


def _image_of(
    *boxes: tuple[int, int, int, int], value: float = 100, classes: list[int] | None = None
) -> A.LabelledImage:
    """Rectangles of `value` on 10, which may overlap."""
    masks = [rectangle(HW, *box) for box in boxes]
    crops = [mask[y0:y1, x0:x1] for mask, (x0, y0, x1, y1) in zip(masks, boxes)]
    cells = LabelPlanes.from_crops(crops, [(y0, x0) for x0, y0, _, _ in boxes], HW)
    image = np.full((*HW, 3), 10, np.uint8)
    for mask in masks:
        image[mask] = value
    return A.LabelledImage(image, cells, np.array(classes or [0] * len(boxes), np.int64))


def _paste(
    target: A.LabelledImage, other: A.LabelledImage | None, seed: int = 0, **options: object
) -> A.LabelledImage:
    """All cells of `other`, in their places and with a hard edge, where nothing else is asked."""
    np.random.seed(seed)
    settings = {"prob": 1.0, "num_cells": (99, 99), "flip": False, "shift": 0.0}
    settings |= {"edge_sigma_px": 0.0, "min_visible": 0.5, "min_area_px": 4, **options}
    return A.CopyPaste(lambda classes: other, **settings)(target)


def _bitmaps(image: A.LabelledImage) -> np.ndarray:
    planes, layers = image.cells.planes, image.cells.layers
    cells = [planes[layer] == k + 1 for k, layer in enumerate(layers.tolist())]
    return np.array(cells, bool).reshape(-1, *image.cells.image_hw)


def test_cells_are_pasted_in_front_and_cut_what_they_cover() -> None:
    target = _image_of((2, 2, 12, 8), (20, 12, 25, 16))
    other = _image_of((8, 4, 14, 10), value=200)
    found = _paste(target, other)
    front = rectangle(HW, 8, 4, 14, 10)
    cut = rectangle(HW, 2, 2, 12, 8) & ~front
    np.testing.assert_array_equal(_bitmaps(found), [cut, rectangle(HW, 20, 12, 25, 16), front])
    expected = target.image.copy()
    expected[front] = 200
    np.testing.assert_array_equal(found.image, expected)
    assert found.classes.tolist() == [0, 0, 0]
    assert len(found.cells.planes) == 1
    assert found.image.dtype == np.uint8
    np.testing.assert_array_equal(target.image, _image_of((2, 2, 12, 8), (20, 12, 25, 16)).image)
    assert target.cells.areas_px.tolist() == [60, 20]  # the argument is left as it was


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"min_visible": 0.5}, [12]),  # 12 of 24 pixels are left
        ({"min_visible": 0.51}, []),
        ({"min_visible": 0.1, "min_area_px": 12}, [12]),
        ({"min_visible": 0.1, "min_area_px": 13}, []),
    ],
)
def test_a_cell_with_too_little_left_is_dropped(options: dict[str, float], left: list[int]) -> None:
    target = _image_of((2, 2, 8, 6), (20, 12, 23, 13), classes=[0, 0])  # 24 pixels, and 3
    found = _paste(target, _image_of((5, 2, 15, 8), value=200), **options)
    # the one of 3 pixels lost none, so it stays
    assert found.cells.areas_px.tolist() == [*left, 3, 60]


def test_a_cell_that_is_covered_whole_is_dropped_whatever_the_thresholds() -> None:
    target = _image_of((6, 6, 9, 9))
    found = _paste(target, _image_of((5, 5, 12, 12)), min_visible=0.0, min_area_px=0)
    assert found.cells.areas_px.tolist() == [49]


def test_only_whole_cells_of_the_same_class_are_pasted() -> None:
    target = _image_of((2, 2, 6, 6), classes=[1])
    boxes = ((10, 2, 14, 6), (16, 2, 20, 6), (0, 12, 5, 16), (20, 12, 30, 16), (8, 15, 12, 20))
    other = _image_of(*boxes, value=200, classes=[1, 0, 1, 1, 1])  # the last three are cut
    found = _paste(target, other)
    assert found.classes.tolist() == [1, 1]
    np.testing.assert_array_equal(_bitmaps(found)[1], rectangle(HW, 10, 2, 14, 6))


def test_layers_of_overlapping_cells_stay_consistent() -> None:
    scene = overlapping(HW)
    crops = [mask[:16, :16] for mask in scene.masks]
    other = A.LabelledImage(
        np.full((*HW, 3), 200, np.uint8),
        LabelPlanes.from_crops(crops, [(0, 0)] * 2, HW),
        np.zeros(2, np.int64),
    )
    target = _image_of((9, 9, 20, 18), (16, 2, 20, 6))
    found = _paste(target, other)
    front = scene.masks.any(axis=0)
    expected = [rectangle(HW, 9, 9, 20, 18) & ~front, rectangle(HW, 16, 2, 20, 6), *scene.masks]
    np.testing.assert_array_equal(_bitmaps(found), expected)
    assert len(found.cells.planes) == 2
    back = _paste(found, _image_of((15, 1, 21, 7)))
    assert back.cells.areas_px[-1] == 36
    assert len(back.cells) == 4  # the small square is covered, the pasted one is in


def test_shift_and_flip_move_image_and_labels_together() -> None:
    """Cells of the other image are 200, so its pixels tell where its labels must be."""
    target = _image_of((1, 1, 4, 4))
    other = _image_of((6, 5, 12, 9), (14, 8, 20, 15), value=200)
    places = set()
    for seed in range(40):
        found = _paste(target, other, seed, flip=True, shift=0.5, min_visible=0.3)
        pasted = _bitmaps(found)[int(found is not target and (found.image[2, 2] == 100).all()) :]
        np.testing.assert_array_equal(pasted.any(axis=0), (found.image == 200).all(axis=-1))
        places.add(tuple(found.cells.boxes_xyxy[-1].tolist()))
        assert set(np.unique(found.cells.planes)) == set(range(len(found.cells) + 1))
    assert len(places) > 20


def test_a_pasted_cell_that_the_border_cuts_too_far_is_left_out() -> None:
    target, other = _image_of((1, 1, 4, 4)), _image_of((10, 6, 20, 14), value=200)
    areas = [
        _paste(target, other, seed, shift=1.0, min_visible=0.5).cells.areas_px[-1]
        for seed in range(60)
    ]
    assert {9} < set(areas)  # not pasted
    assert all(area == 9 or area >= 40 for area in areas)
    assert any(40 <= area < 80 for area in areas)  # pasted, and cut


def test_images_of_other_sizes() -> None:
    target = _image_of((1, 1, 4, 4))
    scene = make_cells(3, (60, 45), num_cells=12)
    big = A.LabelledImage(
        np.repeat(scene.image[..., None], 3, axis=2),
        LabelPlanes.from_label_image(scene.labels),
        np.zeros(scene.labels.max(), np.int64),
    )
    for seed in range(10):
        assert _paste(target, big, seed, shift=0.2).cells.image_hw == HW
        found = _paste(big, target, seed, flip=True)
        assert found.cells.image_hw == (60, 45)
        assert 9 in found.cells.areas_px  # it lies within


def test_a_soft_edge_mixes_and_a_hard_one_does_not() -> None:
    target, other = _image_of((1, 1, 4, 4)), _image_of((10, 6, 20, 14), value=210)
    soft = _paste(target, other, edge_sigma_px=1.0)
    hard = _paste(target, other)
    np.testing.assert_array_equal(soft.cells.planes, hard.cells.planes)
    assert (soft.image[10, 14] == 210).all()  # inside
    # Left edge: the background is 10 in both images. The first pixel of the cell lies half a pixel
    # inside the edge, where a Gaussian of deviation 1 has reached 0.69.
    assert soft.image[10, 9, 0] == 10
    assert soft.image[10, 10, 0] == pytest.approx(10 + 200 * 0.69, abs=3)
    np.testing.assert_array_equal(soft.image[:4], target.image[:4])  # far away: bit for bit
    assert set(np.unique(hard.image)) == {10, 100, 210}


def test_float_images_keep_their_dtype_and_channels_must_agree() -> None:
    target, other = _image_of((1, 1, 4, 4)), _image_of((10, 6, 20, 14), value=210)
    as_float = A.LabelledImage(target.image.astype(np.float32), target.cells, target.classes)
    for edge in (0.0, 1.0):
        assert _paste(as_float, other, edge_sigma_px=edge).image.dtype == np.float32
        assert _paste(target, as_float, edge_sigma_px=edge).image.dtype == np.uint8
    two_channels = A.LabelledImage(other.image[..., :2], other.cells, other.classes)
    with pytest.raises(InputValueError, match="channels differ"):
        _paste(target, two_channels)


def test_number_of_cells_is_drawn_from_the_range() -> None:
    boxes = [(5 * k + 1, 10, 5 * k + 4, 13) for k in range(5)]
    target, other = _image_of((1, 1, 4, 4)), _image_of(*boxes)
    counts = {len(_paste(target, other, seed, num_cells=(1, 3)).cells) - 1 for seed in range(40)}
    assert counts == {1, 2, 3}
    assert _paste(target, other, num_cells=(0, 0)) is target


def test_nothing_to_paste_gives_the_very_same_object() -> None:
    target, other = _image_of((1, 1, 4, 4)), _image_of((10, 6, 20, 14))
    empty = A.LabelledImage(target.image, LabelPlanes.empty(HW), np.zeros(0, np.int64))
    assert _paste(target, other, prob=0.0) is target
    assert _paste(target, None) is target
    assert _paste(target, empty) is target
    assert _paste(empty, other) is empty
    assert _paste(target, _image_of((10, 6, 20, 14), classes=[1])) is target


def test_the_same_seed_pastes_alike() -> None:
    target, other = _image_of((1, 1, 4, 4)), _image_of((6, 5, 12, 9), (14, 8, 20, 15), value=200)
    first, second = (_paste(target, other, 7, flip=True, shift=0.5) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.cells.planes, second.cells.planes)


def _entry(name: str, *classes: int, crowd: int = 0) -> dict[str, object]:
    cells = [{"category_id": number, "iscrowd": crowd} for number in classes]
    return {"file_name": name, "annotations": cells}


def test_other_images_are_drawn_by_class_and_read_late() -> None:
    entries = [_entry("a", 0, 0), _entry("b", 1), _entry("c", 0, 1), _entry("d"),
               _entry("e", 1, crowd=1)]  # fmt: skip
    asked: list[int] = []

    def get_entries() -> list[dict[str, object]]:
        asked.append(1)
        return entries

    others = A.SameClassImages(get_entries, lambda entry: entry["file_name"])
    assert not asked
    np.random.seed(0)
    assert {others(np.array([0])) for _ in range(40)} == {"a", "c"}
    assert {others(np.array([1, 1])) for _ in range(40)} == {"b", "c"}
    assert {others(np.array([0, 1, 5])) for _ in range(40)} == {"a", "b", "c"}
    assert others(np.array([5])) is None
    assert len(asked) == 1
