"""Masks of one piece and without holes, and cells at the edge of the image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from cellseg.cells import cleaning
from cellseg.cells.cleaning import clean_masks, fill_holes, largest_component, touches_border
from cellseg.cells.instances import CellInstances
from scipy import ndimage


def bitmap(*rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows])


def test_the_largest_piece_is_kept() -> None:
    found = largest_component(bitmap("##.#", "...#", "#..#"))
    assert np.array_equal(found, bitmap("...#", "...#", "...#"))


def test_a_corner_joins_pieces() -> None:
    mask = bitmap("#...", ".#..", "..#.")
    assert largest_component(mask) is mask


def test_of_equal_pieces_the_first_row_by_row_is_kept() -> None:
    """In two blocks of 2 x 2, on which OpenCV numbers pieces, the lower left one comes first."""
    mask = bitmap("...#", "#..#", "#...")
    assert np.array_equal(largest_component(mask), bitmap("...#", "...#", "...."))


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (1, 1), (3, 4)])
def test_nothing_to_do(shape: tuple[int, int]) -> None:
    for value in (False, True):
        mask = np.full(shape, value)
        assert largest_component(mask) is mask
        assert fill_holes(mask) is mask


def test_holes_are_filled_and_a_corner_is_no_way_out() -> None:
    mask = bitmap("###.", "#.##", "##.#", ".###")
    assert np.array_equal(fill_holes(mask), bitmap("###.", "####", "####", ".###"))
    open_below = bitmap("###", "#.#", "#.#")
    assert fill_holes(open_below) is open_below


def test_as_scipy_on_random_masks_of_any_layout() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        mask = rng.random(rng.integers(1, 12, 2)) < 0.6
        mask = mask if rng.random() < 0.5 else mask.T
        assert np.array_equal(fill_holes(mask), ndimage.binary_fill_holes(mask))
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        found = largest_component(mask)
        areas = ndimage.sum_labels(mask, labels, range(1, count + 1))
        assert found.sum() == max(areas, default=0)
        assert len(np.unique(labels[found])) <= 1


def test_only_those_that_are_asked_for_and_need_it_are_changed() -> None:
    masks = np.zeros((4, 8, 10), bool)
    masks[:, 1:4, 2:5] = True
    masks[1:, 6, 7] = True  # a second piece
    masks[2:, 2, 3] = False  # a hole
    cells = CellInstances.from_bitmaps(masks, scores=[0.4, 0.3, 0.2, 0.1], classes=[3, 2, 1, 0])
    yes, no = np.ones(4, bool), np.zeros(4, bool)
    found, changed = clean_masks(cells, yes, no)
    assert changed.tolist() == [False, True, True, True]
    assert found.areas_px.tolist() == [9, 9, 8, 8]
    assert found.crops[1].shape == (3, 3)
    assert found.offsets_rc.tolist() == [[1, 2]] * 4
    assert found.crops[0] is cells.crops[0]
    for name in ("boxes_xyxy", "scores", "classes", "is_crowd"):
        assert np.array_equal(getattr(found, name), getattr(cells, name))
    found, changed = clean_masks(cells, no, np.array([True, True, True, False]))
    assert changed.tolist() == [False, False, True, False]
    assert found.areas_px.tolist() == [9, 10, 10, 9]
    assert clean_masks(cells, no, no)[0] is cells
    assert cells.areas_px.tolist() == [9, 10, 9, 9]


def test_a_mask_is_looked_at_once_per_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: no further labelling where a mask is of one piece, none of the others."""
    calls: list[tuple[int, ...]] = []
    original = cv2.connectedComponents

    def counting(image: np.ndarray, **options: object) -> object:
        calls.append(image.shape)
        return original(image, **options)

    monkeypatch.setattr(cleaning.cv2, "connectedComponents", counting)
    masks = np.zeros((5, 50, 60), bool)
    masks[:, 10:14, 10:13] = True
    cells = CellInstances.from_bitmaps(masks)
    some = np.array([True, False, True, False, False])
    clean_masks(cells, some, np.zeros(5, bool))
    assert calls == [(4, 3)] * 2  # windows, not images
    calls.clear()
    clean_masks(cells, np.zeros(5, bool), some)
    assert calls == [(6, 5)] * 2


def test_cells_at_the_border() -> None:
    masks = np.zeros((7, 6, 9), bool)
    masks[0, 0, 4] = masks[1, 3, 0] = masks[2, 5, 4] = masks[3, 3, 8] = True
    masks[4, 1:5, 1:8] = True
    masks[6] = True
    expected = [True, True, True, True, False, False, True]
    assert touches_border(CellInstances.from_bitmaps(masks)).tolist() == expected
    loose = CellInstances.from_crops(list(masks), np.zeros((7, 2)), (6, 9))
    assert touches_border(loose).tolist() == expected
    assert touches_border(CellInstances.empty((0, 0))).tolist() == []
