"""The order of cells in an image: by their first pixel, row by row."""

from __future__ import annotations

import numpy as np
from builders import all_scenes
from cellseg.cells.instances import CellInstances


def in_order(cells: CellInstances) -> list[int]:
    """Numbers of the cells, found pixel by pixel."""
    bitmaps = [bitmap.ravel() for bitmap in cells.to_bitmaps()]
    first = [int(flat.argmax()) if flat.any() else flat.size for flat in bitmaps]
    return sorted(range(len(cells)), key=lambda k: (first[k], -cells.scores[k], k))


def forms(cells: CellInstances) -> list[CellInstances]:
    """The same cells as tight windows, as loose ones and as runs."""
    values = {"scores": cells.scores, "classes": cells.classes, "boxes_xyxy": cells.boxes_xyxy}
    whole = list(cells.to_bitmaps())
    loose = CellInstances.from_crops(whole, np.zeros((len(whole), 2)), cells.image_hw, **values)
    return [cells, loose, CellInstances.from_runs(cells.runs, len(cells), cells.image_hw, **values)]


def assert_sorted(cells: CellInstances) -> None:
    expected = cells[np.array(in_order(cells), np.int64)]
    for form in forms(cells):
        assert form.sort_by_position().equals(expected)
        assert form.first_pixels.tolist() == cells.first_pixels.tolist()


def test_every_scene() -> None:
    for scene in all_scenes().values():
        assert_sorted(
            CellInstances.from_bitmaps(np.array(scene.masks).reshape(-1, *scene.image.shape[:2]))
        )


def test_random_cells_of_any_shape_some_empty_some_with_the_same_first_pixel() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        number, hw = int(rng.integers(0, 20)), rng.integers(1, 12, 2)
        bitmaps = rng.random((number, *hw)) < rng.choice([0.05, 0.3, 0.9], (number, 1, 1))
        bitmaps[: number // 3] = bitmaps[:1]
        scores = rng.integers(0, 3, number) / 2
        assert_sorted(CellInstances.from_bitmaps(bitmaps, scores, rng.integers(0, 3, number)))


def test_a_run_that_goes_on_in_the_next_column_begins_in_its_first_row() -> None:
    labels = np.array([[0, 1, 2], [0, 1, 0], [1, 1, 0]])
    cells = CellInstances.from_label_image(labels)
    assert len(cells.runs.cells) == 2
    assert cells.first_pixels.tolist() == [1, 2]


def test_no_form_is_made_of_the_other() -> None:
    runs = CellInstances.from_label_image([[1, 2], [3, 0]])
    assert runs.sort_by_position()._crops is None
    crops = CellInstances.from_crops([np.ones((1, 1), bool)] * 2, [(1, 1), (0, 0)], (2, 2))
    assert crops.sort_by_position()._runs is None
    assert crops._runs is None


def test_labels_count_from_the_top_left_corner() -> None:
    squares = [(5, 0), (0, 6), (0, 1), (2, 3)]
    cells = CellInstances.from_crops([np.ones((2, 2), bool)] * 4, squares, (8, 8))
    labels = cells.sort_by_position().to_label_image()
    assert [int(labels[at]) for at in squares] == [4, 2, 1, 3]
