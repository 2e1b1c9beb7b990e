"""Pixels to outlines and back, against outlines known by hand and a fill by brute force."""

from __future__ import annotations

import builders
import numpy as np
import pytest
from cellseg.cells.polygons import (
    crop_to_rings,
    crops_to_rings,
    group_rings,
    ring_area,
    rings_to_crop,
)
from cellseg.errors import LabelError
from numpy.typing import NDArray
from scipy import ndimage

SCENES = builders.all_scenes()
Bitmap = NDArray[np.bool_]


def picture(*rows: str) -> Bitmap:
    return np.array([[letter == "#" for letter in row] for row in rows])


def paste(crop: Bitmap, offset_rc: tuple[int, int], image_hw: tuple[int, int]) -> Bitmap:
    bitmap = np.zeros(image_hw, bool)
    row, col = offset_rc
    bitmap[row : row + crop.shape[0], col : col + crop.shape[1]] = crop
    return bitmap


def points(rings: list[NDArray[np.int64]]) -> list[list[list[int]]]:
    return [ring.tolist() for ring in rings]


def test_outline_of_one_pixel() -> None:
    assert points(crop_to_rings([[True]], (5, 7))) == [[[7, 5], [8, 5], [8, 6], [7, 6]]]


def test_outline_with_a_hole() -> None:
    outer, hole = crop_to_rings(picture("###", "#.#", "###"))
    assert outer.tolist() == [[0, 0], [3, 0], [3, 3], [0, 3]]
    assert sorted(hole.tolist()) == [[1, 1], [1, 2], [2, 1], [2, 2]]
    assert (ring_area(outer), ring_area(hole)) == (9, -1)


def test_pixels_that_touch_at_a_corner_are_two_rings() -> None:
    for crop in (picture("#.", ".#"), picture(".#", "#.")):
        rings = crop_to_rings(crop)
        assert [len(ring) for ring in rings] == [4, 4]
        assert [ring_area(ring) for ring in rings] == [1, 1]


def test_a_ring_never_meets_itself() -> None:
    """A tip that touches the other end at a corner, and two holes that do."""
    for crop, holes in ((picture("####", "#..#", "#.#.", "###."), 1), (~picture(*8 * ["."]), 0)):
        rings = crop_to_rings(crop)
        assert [ring_area(ring) > 0 for ring in rings].count(False) == holes
        assert all(len({tuple(point) for point in ring.tolist()}) == len(ring) for ring in rings)
    two_holes = picture("####", "#.##", "##.#", "####")
    assert sorted(ring_area(ring) for ring in crop_to_rings(two_holes)) == [-1, -1, 16]


def test_no_cells_and_empty_crops() -> None:
    assert crops_to_rings([], np.zeros((0, 2))) == []
    assert crop_to_rings(np.zeros((0, 0), bool)) == []
    assert crop_to_rings(np.zeros((3, 4), bool)) == []
    assert group_rings([]) == []
    crop, offset_rc = rings_to_crop([], (5, 6))
    assert (crop.shape, offset_rc) == ((0, 0), (0, 0))


@pytest.mark.parametrize("seed", range(300))
def test_random_blobs_there_and_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image_hw = (int(rng.integers(1, 25)), int(rng.integers(1, 25)))
    noise = ndimage.gaussian_filter(rng.random(image_hw), rng.choice([0, 0.5, 1.5]))
    bitmap = noise > np.quantile(noise, rng.random())
    rings = crop_to_rings(bitmap)
    crop, offset_rc = rings_to_crop(rings, image_hw)
    assert np.array_equal(paste(crop, offset_rc, image_hw), bitmap)
    pieces, num_pieces = ndimage.label(bitmap)
    assert sum(ring_area(ring) for ring in rings) == bitmap.sum()
    assert sum(ring_area(ring) > 0 for ring in rings) == num_pieces
    groups = group_rings(rings)
    assert len(groups) == num_pieces
    areas = sorted(sum(ring_area(ring) for ring in group) for group in groups)
    assert areas == sorted(np.bincount(pieces.ravel())[1:])


def test_many_cells_at_once_equal_one_by_one() -> None:
    rng = np.random.default_rng(1)
    crops = [rng.random(rng.integers(0, 9, 2)) < 0.6 for _ in range(200)]
    offsets_rc = rng.integers(0, 50, (200, 2))
    together = crops_to_rings(crops, offsets_rc)
    for rings, crop, offset_rc in zip(together, crops, offsets_rc, strict=True):
        assert points(rings) == points(crop_to_rings(crop, offset_rc))


@pytest.mark.parametrize("name", SCENES)
def test_scenes(name: str) -> None:
    for mask in SCENES[name].masks:
        crop, offset_rc = rings_to_crop(crop_to_rings(mask), mask.shape)
        assert np.array_equal(paste(crop, offset_rc, mask.shape), mask)
        assert offset_rc == tuple(np.argwhere(mask).min(axis=0))  # the crop is tight


def brute_force(rings: list[NDArray[np.float64]], image_hw: tuple[int, int]) -> Bitmap:
    """Count, for each pixel's centre, the edges that a ray to the left crosses."""
    bitmap = np.zeros(image_hw, bool)
    for row, col in np.ndindex(image_hw):
        x, y, crossings = col + 0.5, row + 0.5, 0
        for ring in rings:
            for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0)):
                if (y0 <= y) != (y1 <= y):
                    crossings += x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x
        bitmap[row, col] = crossings % 2
    return bitmap


@pytest.mark.parametrize("seed", range(40))
def test_hand_drawn_outlines_also_beyond_the_image(seed: int) -> None:
    rng = np.random.default_rng(seed)
    image_hw = (int(rng.integers(3, 12)), int(rng.integers(3, 12)))
    rings = [rng.uniform(-5, 16, (rng.integers(1, 9), 2)) for _ in range(rng.integers(1, 4))]
    if seed % 2:  # half pixels, so that centres lie on corners and edges
        rings = [np.round(2 * ring) / 2 for ring in rings]
    crop, offset_rc = rings_to_crop(rings, image_hw)
    assert np.array_equal(paste(crop, offset_rc, image_hw), brute_force(rings, image_hw))


def test_a_common_edge_belongs_to_one_of_two_cells() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        top, bottom = rng.integers(0, 41, 2) / 2  # often through the centres of pixels
        edge = [[top, -0.5], [bottom, 20.5]]
        left = [[-9, -0.5], *edge, [-9, 20.5]]
        right = [*edge[::-1], [50, -0.5], [50, 20.5]]
        both = [paste(*rings_to_crop([ring], (20, 20)), (20, 20)) for ring in (left, right)]
        assert np.array_equal(both[0], ~both[1])


def test_closing_point_may_be_repeated() -> None:
    ring = [[1, 1], [4, 1], [4, 3], [1, 3]]
    expected, at = rings_to_crop([ring], (9, 9))
    crop, offset_rc = rings_to_crop([[*ring, ring[0]]], (9, 9))
    assert at == offset_rc == (1, 1)
    assert crop.shape == expected.shape == (2, 3)
    assert crop.all()


@pytest.mark.parametrize(
    "ring",
    [
        [],
        [[3, 3]],
        [[1, 1], [8, 8]],
        [[1, 1], [5, 1], [3, 1]],
        [[1.1, 1.1], [1.3, 1.1], [1.3, 1.4]],  # between the centres
        [[100, 100], [200, 100], [200, 200]],
        [[-9, -9], [-1, -9], [-1, -1]],
        [[1e300, 0], [1e300, 9], [2e300, 9]],
    ],
)
def test_rings_without_a_pixel(ring: list[list[float]]) -> None:
    crop, offset_rc = rings_to_crop([ring], (9, 9))
    assert (crop.shape, offset_rc) == ((0, 0), (0, 0))


@pytest.mark.parametrize(
    ("ring", "says"),
    [
        ([1, 2, 3], r"found shape \[3\]"),
        ([[1, 2, 3]], r"found shape \[1, 3\]"),
        ([[1, 2], [3]], "a list of points"),
        ([["a", "b"]], "a list of points"),
        ([[0, 0], [np.nan, 1], [1, 1]], "not finite"),
        ([[0, 0], [np.inf, 1], [1, 1]], "not finite"),
    ],
)
def test_what_is_no_ring(ring: object, says: str) -> None:
    with pytest.raises(LabelError, match=says):
        rings_to_crop([ring], (9, 9))  # type: ignore[list-item]
