"""detectron2.structures: BitMasks, PolygonMasks, ROIMasks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, PolygonMasks, ROIMasks, polygons_to_bitmask

RECTANGLE = [2.0, 1.0, 6.0, 1.0, 6.0, 4.0, 2.0, 4.0]  # x 2..6, y 1..4
TRIANGLE = [0.0, 0.0, 8.0, 0.0, 0.0, 8.0]


def rectangle_bitmap(height: int = 8, width: int = 10) -> np.ndarray:
    bitmap = np.zeros((height, width), dtype=bool)
    bitmap[1:4, 2:6] = True
    return bitmap


def sampled_crop(bitmap: np.ndarray, box: list[float], size: int) -> np.ndarray:
    """Aligned ROIAlign by its definition, one number after the other."""
    height, width = bitmap.shape
    bin_w, bin_h = (box[2] - box[0]) / size, (box[3] - box[1]) / size
    samples_x, samples_y = max(1, int(np.ceil(bin_w))), max(1, int(np.ceil(bin_h)))

    def bilinear(y: float, x: float) -> float:
        if not (-1 <= y <= height and -1 <= x <= width):
            return 0.0
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        y0, x0 = int(y), int(x)
        y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
        top = bitmap[y0, x0] * (x0 + 1 - x) + bitmap[y0, x1] * (x - x0)
        bottom = bitmap[y1, x0] * (x0 + 1 - x) + bitmap[y1, x1] * (x - x0)
        return float(top * (y0 + 1 - y) + bottom * (y - y0))

    result = np.zeros((size, size))
    for row in range(size):
        for col in range(size):
            values = [
                bilinear(
                    box[1] - 0.5 + (row + (i + 0.5) / samples_y) * bin_h,
                    box[0] - 0.5 + (col + (j + 0.5) / samples_x) * bin_w,
                )
                for i in range(samples_y)
                for j in range(samples_x)
            ]
            result[row, col] = sum(values) / len(values)
    return result


def test_polygons_to_bitmask() -> None:
    assert (polygons_to_bitmask([np.array(RECTANGLE)], 8, 10) == rectangle_bitmap()).all()
    both = polygons_to_bitmask([np.array(RECTANGLE), np.array(RECTANGLE) + 3], 8, 10)
    shifted = np.roll(rectangle_bitmap(), (3, 3), axis=(0, 1))
    assert (both == (rectangle_bitmap() | shifted)).all()
    assert both.dtype == bool
    empty = polygons_to_bitmask([], 3, 5)
    assert empty.shape == (3, 5)
    assert not empty.any()


def test_bitmasks_construction_and_indexing() -> None:
    masks = BitMasks(np.stack([rectangle_bitmap(), ~rectangle_bitmap(), rectangle_bitmap()]))
    assert masks.tensor.dtype == torch.bool
    assert tuple(masks.image_size) == (8, 10)
    assert len(masks) == 3
    assert masks[1].tensor.shape == (1, 8, 10)
    assert masks[1:].tensor.shape == (2, 8, 10)
    assert torch.equal(masks[torch.tensor([False, True, False])].tensor, masks[1].tensor)
    assert torch.equal(masks[torch.tensor([2, 1])].tensor[1], masks.tensor[1])
    assert [mask.shape for mask in masks] == [(8, 10)] * 3
    assert masks.to("cpu").device == torch.device("cpu")
    assert "num_instances=3" in repr(masks)
    assert BitMasks(torch.tensor([[[0, 7]]])).tensor.tolist() == [[[False, True]]]
    with pytest.raises(AssertionError):
        BitMasks(torch.zeros(4, 4))
    with pytest.raises(AssertionError):
        masks[torch.tensor(1)]


def test_bitmasks_boxes_and_nonempty() -> None:
    single_pixel = np.zeros((8, 10), dtype=bool)
    single_pixel[7, 9] = True
    nothing = np.zeros((8, 10), dtype=bool)
    masks = BitMasks(np.stack([rectangle_bitmap(), nothing, single_pixel, ~nothing]))
    assert masks.nonempty().tolist() == [True, False, True, True]
    assert masks.get_bounding_boxes().tensor.tolist() == [
        [2, 1, 6, 4],
        [0, 0, 0, 0],
        [9, 7, 10, 8],
        [0, 0, 10, 8],
    ]
    none = BitMasks(torch.zeros(0, 8, 10))
    assert none.get_bounding_boxes().tensor.shape == (0, 4)
    assert none.nonempty().shape == (0,)


def test_bitmasks_crop_and_resize_against_the_definition() -> None:
    rng = np.random.default_rng(0)
    bitmaps = rng.random((4, 16, 20)) < 0.5
    boxes = [[0, 0, 20, 16], [3.3, 2.7, 9.1, 14.2], [-4, -3, 6, 6], [18, 10, 26, 20]]
    crops = BitMasks(bitmaps).crop_and_resize(torch.tensor(boxes), 7)
    assert crops.shape == (4, 7, 7)
    assert crops.dtype == torch.bool
    for crop, bitmap, box in zip(crops.numpy(), bitmaps, boxes):
        expected = sampled_crop(bitmap, box, 7)
        clear = abs(expected - 0.5) > 1e-5
        assert (crop == (expected >= 0.5))[clear].all()
        assert clear.mean() > 0.8


def test_bitmasks_crop_of_a_box_that_fits_the_pixels_is_exact() -> None:
    bitmap = np.zeros((12, 12), dtype=bool)
    bitmap[3:9, 2:8] = np.random.default_rng(1).random((6, 6)) < 0.5
    crop = BitMasks(bitmap[None]).crop_and_resize(torch.tensor([[2.0, 3.0, 8.0, 9.0]]), 6)
    assert (crop[0].numpy() == bitmap[3:9, 2:8]).all()


@pytest.mark.embedded_only
def test_bitmasks_crop_in_portions_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    masks = BitMasks(rng.random((5, 16, 20)) < 0.5)
    boxes = torch.from_numpy(rng.random((5, 4), dtype=np.float32)) * 8 + torch.tensor([0, 0, 9, 8])
    at_once = masks.crop_and_resize(boxes, 9)
    monkeypatch.setattr("detectron2.structures.masks.MAX_PIXELS_AT_ONCE", 16 * 20 * 2)
    assert torch.equal(masks.crop_and_resize(boxes, 9), at_once)


def test_bitmasks_crop_without_masks_and_with_too_few_boxes() -> None:
    none = BitMasks(torch.zeros(0, 8, 10))
    assert none.crop_and_resize(torch.zeros(0, 4), 5).shape == (0, 5, 5)
    with pytest.raises(AssertionError):
        BitMasks(rectangle_bitmap()[None]).crop_and_resize(torch.zeros(2, 4), 5)


def test_bitmasks_cat_and_from_polygons() -> None:
    polygons = PolygonMasks([[RECTANGLE], [TRIANGLE, RECTANGLE]])
    masks = BitMasks.from_polygon_masks(polygons, 8, 10)
    assert masks.tensor.shape == (2, 8, 10)
    assert (masks.tensor[0].numpy() == rectangle_bitmap()).all()
    assert masks.tensor[1, 0, 0]
    assert torch.equal(
        BitMasks.from_polygon_masks([[np.array(RECTANGLE)]], 8, 10).tensor, masks[0].tensor
    )
    assert BitMasks.from_polygon_masks([], 8, 10).tensor.shape == (0, 8, 10)
    joined = BitMasks.cat([masks, masks[:1]])
    assert joined.tensor.tolist() == [*masks.tensor.tolist(), masks.tensor[0].tolist()]
    with pytest.raises(AssertionError):
        BitMasks.cat([])
    with pytest.raises(AssertionError):
        BitMasks.cat([masks.tensor])


def test_polygons_construction() -> None:
    masks = PolygonMasks([[torch.tensor(TRIANGLE)], [np.array(RECTANGLE), RECTANGLE], []])
    assert len(masks) == 3
    assert all(p.dtype == np.float64 for instance in masks for p in instance)
    assert masks.nonempty().tolist() == [True, True, False]
    assert masks.to("cpu") is masks
    assert masks.device == torch.device("cpu")
    assert "num_instances=3" in repr(masks)
    for wrong in ([[[1.0, 2.0, 3.0, 4.0]]], [[[1.0] * 7]], np.zeros((1, 1, 6)), [np.zeros((1, 6))]):
        with pytest.raises(ValueError):  # noqa: PT011  # the texts of the engines differ
            PolygonMasks(wrong)


def test_polygons_indexing_and_cat() -> None:
    masks = PolygonMasks([[TRIANGLE], [RECTANGLE], []])

    def points(chosen: PolygonMasks) -> list[int]:
        return [sum(len(p) // 2 for p in instance) for instance in chosen]

    assert points(masks[1]) == [4]
    assert points(masks[1:]) == [4, 0]
    assert points(masks[[2, 0]]) == [0, 3]
    assert points(masks[torch.tensor([1, 0])]) == [4, 3]
    assert points(masks[torch.tensor([True, False, True])]) == [3, 0]
    assert points(masks[torch.zeros(0, dtype=torch.int64)]) == []
    assert points(PolygonMasks.cat([masks, masks[:1]])) == [3, 4, 0, 3]
    with pytest.raises(ValueError):  # noqa: PT011
        masks[torch.tensor([0.0])]
    with pytest.raises(AssertionError):
        masks[torch.ones(3, 1, dtype=torch.bool)]
    with pytest.raises(AssertionError):
        PolygonMasks.cat([])


def test_polygons_area_and_boxes() -> None:
    masks = PolygonMasks([[TRIANGLE], [RECTANGLE, (np.array(RECTANGLE) + 10).tolist()]])
    assert masks.area().tolist() == [32, 24]
    assert masks.get_bounding_boxes().tensor.tolist() == [[0, 0, 8, 8], [2, 1, 16, 14]]
    assert PolygonMasks([]).get_bounding_boxes().tensor.shape == (0, 4)
    left_of_image = PolygonMasks([[[-5.0, -6.0, -1.0, -6.0, -1.0, 3.0]], []])
    assert left_of_image.get_bounding_boxes().tensor.tolist() == [
        [-5, -6, 0, 3],
        [torch.inf, torch.inf, 0, 0],
    ]


def test_polygons_crop_and_resize() -> None:
    masks = PolygonMasks([[RECTANGLE], [RECTANGLE], []])
    boxes = torch.tensor([[2.0, 1.0, 6.0, 4.0], [0.0, 1.0, 8.0, 7.0], [0.0, 0.0, 4.0, 4.0]])
    crops = masks.crop_and_resize(boxes, 8)
    assert crops.dtype == torch.bool
    assert crops[0].all()  # the box is the rectangle
    expected = np.zeros((8, 8), dtype=bool)
    expected[0:4, 2:6] = True  # x 2..6 of 8 px -> columns 2..6; y 1..4 of 6 px -> rows 0..4
    assert (crops[1].numpy() == expected).all()
    assert not crops[2].any()
    assert PolygonMasks([]).crop_and_resize(torch.zeros(0, 4), 8).shape == (0, 8, 8)
    with pytest.raises(AssertionError):
        masks.crop_and_resize(boxes[:2], 8)


def test_polygons_are_not_changed_by_cropping() -> None:
    masks = PolygonMasks([[RECTANGLE]])
    masks.crop_and_resize(torch.tensor([[1.0, 1.0, 1.0, 5.0]]), 4)  # a box without width
    assert masks.polygons[0][0].tolist() == RECTANGLE


def test_roi_masks() -> None:
    masks = ROIMasks(torch.rand(3, 4, 4))
    assert len(masks) == 3
    assert len(masks[torch.tensor([True, False, True])]) == 2
    assert masks.to(torch.device("cpu")).device == torch.device("cpu")
    assert "num_instances=3" in repr(masks)
    with pytest.raises(ValueError):  # noqa: PT011
        ROIMasks(torch.rand(4, 4))
    with pytest.raises(ValueError):  # noqa: PT011
        masks[1]


def test_roi_masks_pasted() -> None:
    bitmaps = ROIMasks(torch.ones(1, 4, 4)).to_bitmasks(Boxes([[2, 1, 6, 4]]), 8, 10)
    assert (bitmaps.tensor[0].numpy() == rectangle_bitmap()).all()
