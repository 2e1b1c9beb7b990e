from __future__ import annotations

import cv2
import numpy as np
import pytest
from cellseg.cells.drawing import (
    colour_neighbours,
    draw_comparison,
    draw_overlay,
    stretch_contrast,
    write_picture,
)
from cellseg.cells.instances import CellInstances
from cellseg.errors import LabelError

RED = (255, 40, 40)


def square_cell(image_hw: tuple[int, int] = (20, 30)) -> CellInstances:
    return CellInstances.from_crops([np.ones((6, 8), bool)], [(3, 4)], image_hw)


def is_coloured(picture: np.ndarray) -> np.ndarray:
    return picture.max(axis=-1) != picture.min(axis=-1)


def test_outline_is_the_inner_border():
    picture = draw_overlay(np.zeros((20, 30), np.uint8), square_cell(), scale=1)
    expected = np.zeros((20, 30), bool)
    expected[3:9, 4:12] = True
    expected[4:8, 5:11] = False
    np.testing.assert_array_equal(is_coloured(picture), expected)


def test_holes_and_borders_are_outlined():
    cell = np.ones((9, 9), bool)
    cell[4, 4] = False
    cells = CellInstances.from_crops([cell], [(0, 0)], (9, 9))
    coloured = is_coloured(draw_overlay(np.zeros((9, 9), np.uint8), cells, scale=1))
    assert coloured[0].all()
    assert coloured[:, 8].all()
    assert coloured[3:6, 3:6].sum() == 8
    assert not coloured[4, 4]
    assert not coloured[2, 2]


def test_enlarged_outline_stays_within_the_cell():
    cells = square_cell()
    coloured = is_coloured(draw_overlay(np.zeros((20, 30), np.uint8), cells, scale=4))
    inside = np.kron(cells.to_bitmaps()[0], np.ones((4, 4), bool))
    assert not (coloured & ~inside).any()
    # Corners are rounded by enlarging; halfway down, the sides are where they were.
    assert np.flatnonzero(coloured[24]).tolist() == [16, 17, 46, 47]


@pytest.mark.parametrize(
    ("image_hw", "scale"), [((80, 80), 8), ((256, 200), 3), ((520, 700), 1), ((20, 30), 8)]
)
def test_small_images_are_enlarged(image_hw, scale):
    picture = draw_overlay(np.zeros(image_hw, np.uint8), CellInstances.empty(image_hw))
    assert picture.shape == (scale * image_hw[0], scale * image_hw[1], 3)


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_one_pixel_cells_and_pixelless_ones_are_fine(scale):
    cells = CellInstances.from_crops(
        [np.ones((1, 1), bool), np.zeros((0, 0), bool)], [(5, 5), (0, 0)], (12, 12)
    )
    coloured = is_coloured(draw_overlay(np.zeros((12, 12), np.uint8), cells, scale=scale))
    assert coloured.any()
    assert not coloured[: 5 * scale].any()


def test_cells_of_another_image_size():
    with pytest.raises(LabelError, match=r"\(20, 30\).*\(30, 20\)"):
        draw_overlay(np.zeros((30, 20), np.uint8), square_cell())


def test_neighbours_differ():
    # A 12 x 12 checker of touching cells: each has up to eight neighbours, six colours are enough.
    labels = np.kron(np.arange(1, 145).reshape(12, 12), np.ones((5, 5), int))
    numbers = np.array(colour_neighbours(CellInstances.from_label_image(labels), 6))
    grid = numbers.reshape(12, 12)
    assert (grid[1:] != grid[:-1]).all()
    assert (grid[:, 1:] != grid[:, :-1]).all()
    assert set(numbers.tolist()) == set(range(6))
    assert colour_neighbours(CellInstances.empty((5, 5)), 6) == []


def test_comparison_marks_missed_and_false_cells():
    crop = np.ones((8, 8), bool)
    true = CellInstances.from_crops([crop, crop], [(2, 2), (2, 20)], (40, 40))
    pred = CellInstances.from_crops([crop, crop], [(2, 3), (30, 30)], (40, 40))
    picture = draw_comparison(np.zeros((40, 40), np.uint8), true, pred, scale=1)
    left, right = picture[-40:, :40], picture[-40:, -40:]

    def colours(part: np.ndarray) -> set[tuple[int, ...]]:
        return {tuple(colour) for colour in part[is_coloured(part)].tolist()}

    assert colours(left[:, 15:]) == colours(right[25:]) == {RED}
    matched = colours(left[:, :15])
    assert matched == colours(right[:25])
    assert len(matched) == 1
    assert RED not in matched
    same = draw_overlay(np.zeros((40, 40), np.uint8), pred, true_cells=true, scale=1)
    np.testing.assert_array_equal(picture, same)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
def test_dim_images_are_stretched(dtype):
    ramp = np.arange(64).reshape(8, 8).astype(dtype)
    picture = stretch_contrast(ramp)
    assert picture.dtype == np.uint8
    assert picture.shape == (8, 8, 3)
    assert picture.min() == 0
    assert picture.max() == 255
    assert (np.diff(picture[..., 0].ravel().astype(int)) >= 0).all()


def test_sixteen_bit_range_and_colour():
    rgb = np.zeros((10, 10, 3), np.uint16)
    rgb[:, 5:, 0] = 40_000
    rgb[:, 5:, 1] = 20_000
    picture = stretch_contrast(rgb)
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert picture[0, 9].tolist() == pytest.approx([255, 127.5, 0], abs=0.51)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_any_number_of_channels(channels):
    image = np.random.default_rng(0).random((6, 7, channels))
    picture = stretch_contrast(image)
    assert picture.shape == (6, 7, 3)
    if channels == 1:
        assert (picture[..., 0] == picture[..., 2]).all()
    if channels == 2:
        assert not picture[..., 2].any()


def test_flat_and_not_finite_images():
    assert not stretch_contrast(np.full((4, 4), 7)).any()
    assert not stretch_contrast(np.full((4, 4), np.nan)).any()
    spot = np.zeros((100, 100))
    spot[5, 5] = 3
    spot[6, 6] = np.inf
    picture = stretch_contrast(spot)
    assert picture[5, 5].tolist() == [255, 255, 255]
    assert picture.sum() == 3 * 255


def test_more_than_a_hundred_cells_on_a_bright_image():
    labels = np.kron(np.arange(1, 401).reshape(20, 20), np.ones((6, 6), int))
    cells = CellInstances.from_label_image(labels)
    image = np.full((120, 120, 3), 240, np.uint8)
    image[::2] = 250
    picture = draw_overlay(image, cells, scale=1)
    assert is_coloured(picture).sum() == 400 * 20


def test_picture_on_disk(tmp_path):
    rgb = np.zeros((4, 6, 3), np.uint8)
    rgb[..., 0] = 200
    write_picture(tmp_path / "new" / "picture.png", rgb)
    read = cv2.imread(str(tmp_path / "new" / "picture.png"))
    np.testing.assert_array_equal(read[..., ::-1], rgb)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["picture.png"]
