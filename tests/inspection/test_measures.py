"""Measures of cells and images against numbers counted by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import builders
import numpy as np
import pytest
from builders import rectangle, write_png
from cell_records import boxes_of
from cellseg.inspection.measures import ImageMeasures, measure_image
from cellseg.inspection.sources import dict_to_record
from detectron2.structures import BoxMode
from inspection_scenes import make_record


def measure_scene(scene: builders.Scene, folder: Path) -> ImageMeasures:
    path = write_png(folder / "a.png", scene.image)
    hw = (scene.image.shape[0], scene.image.shape[1])
    return measure_image(make_record("a", path, hw, list(scene.masks)), "s", ["cell"])


def test_touching_cells(tmp_path: Path) -> None:
    found = measure_scene(builders.touching(), tmp_path)
    cells = found.cells
    assert cells.area_px.tolist() == [30, 24]
    assert cells.width_px.tolist() == [5, 4]
    assert cells.height_px.tolist() == [6, 6]
    assert (cells.x_px.tolist(), cells.y_px.tolist()) == ([3, 8], [4, 4])
    assert cells.aspect_ratio.tolist() == [1.2, 1.5]
    assert cells.diameter_px == pytest.approx(2 * np.sqrt(np.array([30, 24]) / np.pi))
    assert cells.mean.tolist() == [builders.FOREGROUND + 1, builders.FOREGROUND + 2]
    assert not cells.on_border.any()
    assert (found.covered_px, found.overlap_px) == (54, 0)


def test_overlapping_cells(tmp_path: Path) -> None:
    found = measure_scene(builders.overlapping(), tmp_path)
    assert found.overlap_px == 16
    assert found.cells.overlap_px.tolist() == [16, 16]
    assert found.covered_px == 64 + 64 - 16
    assert found.same_cells == ()


def test_a_hole_with_a_cell_in_it(tmp_path: Path) -> None:
    cells = measure_scene(builders.with_hole(), tmp_path).cells
    assert cells.holes.tolist() == [1, 0]
    assert cells.hole_px.tolist() == [9, 0]
    assert cells.overlap_px.tolist() == [0, 0]


def test_a_notch_is_no_hole_and_a_corner_joins(tmp_path: Path) -> None:
    notched = rectangle((20, 30), 2, 2, 8, 8) & ~rectangle((20, 30), 4, 2, 5, 6)
    corner = rectangle((20, 30), 12, 2, 15, 5) | rectangle((20, 30), 15, 5, 18, 8)
    scene = builders.scene_of_masks([notched, corner], (20, 30))
    cells = measure_scene(scene, tmp_path).cells
    assert cells.holes.tolist() == [0, 0]
    assert cells.pieces.tolist() == [1, 1]


def test_pieces(tmp_path: Path) -> None:
    assert measure_scene(builders.two_pieces(), tmp_path).cells.pieces.tolist() == [2]


def test_cells_on_the_border(tmp_path: Path) -> None:
    cells = measure_scene(builders.on_border(), tmp_path).cells
    assert cells.on_border.tolist() == [True] * 5


def test_no_cells_and_one_pixel(tmp_path: Path) -> None:
    assert len(measure_scene(builders.no_cells(), tmp_path).cells) == 0
    cells = measure_scene(builders.one_pixel(), tmp_path / "b").cells
    assert (cells.area_px.tolist(), cells.pieces.tolist()) == ([1], [1])


def test_sixteen_bit_values(tmp_path: Path) -> None:
    values = measure_scene(builders.sixteen_bit(), tmp_path).intensities
    assert values is not None
    assert (values.dtype, values.low, values.high, values.bits) == ("uint16", 1000, 4000, 12)
    assert values.channels == 1


def test_grey_written_three_times_is_grey(tmp_path: Path) -> None:
    image = np.repeat(builders.touching().image[..., None], 3, axis=2)
    path = write_png(tmp_path / "a.png", image)
    found = measure_image(make_record("a", path, (20, 30), []), "s", ["cell"])
    assert found.intensities is not None
    assert found.intensities.channels == 1


def test_edges_on_a_grid(tmp_path: Path) -> None:
    hw = (32, 40)
    masks = [rectangle(hw, 8 * k, 4, 8 * k + 4, 12) for k in range(5)]
    scene = builders.scene_of_masks(masks, hw)
    assert measure_scene(scene, tmp_path).edge_step_px == 4
    shifted = builders.scene_of_masks([*masks, rectangle(hw, 5, 21, 8, 24)], hw)
    assert measure_scene(shifted, tmp_path / "b").edge_step_px == 1


def test_many_cells_equal_one_by_one(tmp_path: Path) -> None:
    found = measure_scene(builders.many_cells(), tmp_path)
    assert found.cells.area_px.tolist() == [9] * 156


def test_crowd_regions_are_left_out(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", builders.touching().image)
    record = make_record("a", path, (20, 30), list(builders.touching().masks))
    record = replace(record, cells=record.cells.replace(is_crowd=[True, False]))
    found = measure_image(record, "s", ["cell"])
    assert found.cells.index.tolist() == [1]


def test_polygons_boxes_and_bitmaps_of_other_datasets() -> None:
    entry = {
        "file_name": "a.png", "height": 20, "width": 30, "image_id": 7,
        "annotations": [
            {
                "bbox": [3, 4, 5, 6], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1,
                "segmentation": shape,
            }
            for shape in ([[3, 4, 8, 4, 8, 10, 3, 10]], None, rectangle((20, 30), 3, 4, 8, 10))
        ],
    }  # fmt: skip
    record, bad = dict_to_record(entry, ["a", "b"])
    assert bad == {}
    assert record.image_id == "7"
    assert boxes_of(record) == [(3.0, 4.0, 8.0, 10.0)] * 3
    assert record.cells.classes.tolist() == [1, 1, 1]
    found = measure_image(record, "s", ["a", "b"])
    assert found.cells.area_px.tolist() == [30, 30, 30]
    assert found.intensities is None
