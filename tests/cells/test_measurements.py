"""Measurements of cells, against scikit-image's and against brute force over whole bitmaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
from cell_scenes import random_bitmaps
from cells_in_pieces import in_pieces
from cellseg.cells import measurements
from cellseg.cells.instances import CellInstances
from cellseg.cells.measurements import MeasurementSettings, Table, measure_cells
from cellseg.cells.records import ImageRecord, PlaceInFile
from cellseg.errors import LabelError
from cellseg.images import read_label_image
from scipy import ndimage
from scipy.spatial.distance import cdist

skimage_measure = pytest.importorskip("skimage.measure")

OBLONG = (0.5, 0.2)
SAME_NAME = {
    "area_px": "area",
    "centroid_y_px": "centroid-0",
    "centroid_x_px": "centroid-1",
    "box_y0_px": "bbox-0",
    "box_x0_px": "bbox-1",
    "box_y1_px": "bbox-2",
    "box_x1_px": "bbox-3",
    "equivalent_diameter_px": "equivalent_diameter_area",
    "major_axis_px": "axis_major_length",
    "minor_axis_px": "axis_minor_length",
    "feret_max_px": "feret_diameter_max",
    "perimeter_px": "perimeter",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
}


def measure(cells: CellInstances, image: np.ndarray | None = None, **more: Any) -> Table:
    """The table of cells that come in one batch."""
    record = ImageRecord("a", cells, place=PlaceInFile(pixel_size_um=more.pop("um", None)))
    read = None if image is None else lambda rows, columns: image[:, rows, columns]
    (table,) = measure_cells(record, read_channels=read, **more)
    return table


def blobs(seed: int, image_hw: tuple[int, int] = (120, 150)) -> np.ndarray:
    """A label image of shapes of all kinds: with holes and bays, thin, of a single pixel."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(image_hw), 2)
    return skimage_measure.label(noise > 0.51, connectivity=2)


def assert_orientations(found: np.ndarray, regions: list, minor: str, major: str) -> None:
    """Equal up to half a turn, where there is a major axis at all."""
    for angle, region in zip(found, regions):
        if getattr(region, minor) < 0.99 * getattr(region, major):
            turn = abs(angle - np.degrees(region.orientation)) % 180
            assert min(turn, 180 - turn) < 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_measures_are_those_of_regionprops(seed: int) -> None:
    labels = blobs(seed)
    image = np.random.default_rng(seed).integers(0, 60_000, (2, *labels.shape)).astype(np.uint16)
    table = measure(CellInstances.from_label_image(labels), image, channel_names=("A", "B"))
    names = [name.partition("-")[0] for name in SAME_NAME.values()]
    names += [f"intensity_{what}" for what in ("mean", "std", "min", "max")]
    props = skimage_measure.regionprops_table(
        labels, image.transpose(1, 2, 0), properties=("label", *dict.fromkeys(names))
    )
    assert len(table["label"]) > 30
    assert table["label"].tolist() == props["label"].tolist()
    for ours, theirs in SAME_NAME.items():
        np.testing.assert_allclose(table[ours], props[theirs], rtol=1e-9, atol=2e-6, err_msg=ours)
    for number, channel in enumerate("AB"):
        for what in ("mean", "std", "min", "max"):
            expected = props[f"intensity_{what}-{number}"]
            np.testing.assert_allclose(table[f"{channel}_{what}"], expected, rtol=1e-12)
    regions = skimage_measure.regionprops(labels)
    assert_orientations(table["orientation_deg"], regions, "axis_minor_length", "axis_major_length")


def test_pixels_that_are_not_square() -> None:
    labels = blobs(7)
    table = measure(CellInstances.from_label_image(labels), um=OBLONG)
    regions = skimage_measure.regionprops(labels, spacing=OBLONG)
    for ours, theirs in {
        "area_um2": "area",
        "equivalent_diameter_um": "equivalent_diameter_area",
        "major_axis_um": "axis_major_length",
        "minor_axis_um": "axis_minor_length",
        "feret_max_um": "feret_diameter_max",
        "eccentricity": "eccentricity",
        "solidity": "solidity",
    }.items():
        expected = [getattr(region, theirs) for region in regions]
        np.testing.assert_allclose(table[ours], expected, rtol=1e-9, atol=2e-6, err_msg=ours)
    centres = np.stack([table["centroid_y_um"], table["centroid_x_um"]], axis=1)
    np.testing.assert_allclose(centres, [region.centroid for region in regions])
    assert_orientations(table["orientation_deg"], regions, "axis_minor_length", "axis_major_length")
    distances = cdist(centres, centres) + np.diag(np.full(len(centres), np.inf))
    np.testing.assert_allclose(table["nearest_distance_um"], distances.min(axis=0))


def test_micrometres_are_pixels_times_the_pixel_size() -> None:
    table = measure(CellInstances.from_label_image(blobs(3)), um=(0.25, 0.25))
    pixels = [
        name for name in table if name.endswith("_px") and name.replace("_px", "_um") in table
    ]
    assert len(pixels) == 9
    for name in pixels:
        np.testing.assert_allclose(table[name.replace("_px", "_um")], table[name] / 4, err_msg=name)
    np.testing.assert_allclose(table["area_um2"], table["area_px"] / 16)
    assert not [name for name in measure(CellInstances.from_label_image(blobs(3))) if "um" in name]


def test_perimeter_of_a_rectangle_of_oblong_pixels() -> None:
    cells = CellInstances.from_bitmaps([builders.rectangle((20, 30), 5, 4, 12, 9)])
    table = measure(cells, um=OBLONG)
    assert table["perimeter_px"].tolist() == [2 * (6 + 4)]
    assert table["perimeter_um"] == pytest.approx(2 * (6 * 0.2 + 4 * 0.5))


def test_least_feret_diameter_is_the_narrowest_of_all_directions() -> None:
    """Against the width of the hull's pixels, seen from 720 directions."""
    labels = blobs(11)
    table = measure(CellInstances.from_label_image(labels))
    angles = np.radians(np.arange(0, 180, 0.25))
    directions = np.stack([np.cos(angles), np.sin(angles)])
    for region, shortest in zip(skimage_measure.regionprops(labels), table["feret_min_px"]):
        pixels = np.argwhere(region.image_convex)
        tips = [pixels + step for step in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))]
        seen = np.concatenate(tips) @ directions
        widths = seen.max(axis=0) - seen.min(axis=0)
        assert shortest <= widths.min() + 1e-9
        assert shortest == pytest.approx(widths.min(), rel=2e-3)


def test_overlapping_cells_are_measured_by_their_own_masks() -> None:
    scene = builders.overlapping()
    image = scene.image[None].astype(np.float32)
    table = measure(CellInstances.from_bitmaps(scene.masks), image)
    assert table["area_px"].tolist() == [64, 64]
    for mask, mean, least in zip(scene.masks, table["channel_0_mean"], table["channel_0_min"]):
        assert mean == pytest.approx(scene.image[mask].mean())
        assert least == scene.image[mask].min()


def expected_backgrounds(
    masks: np.ndarray, image: np.ndarray, occupied: np.ndarray, gap: float, reach: float
) -> list[float]:
    """Median of the free pixels in each ring, by distances over the whole image."""
    medians = []
    for mask in masks:
        distance = ndimage.distance_transform_edt(~mask)
        ring = (distance > gap) & (distance <= reach) & ~occupied
        medians.append(float(np.median(image[ring])) if ring.any() else np.nan)
    return medians


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(("gap", "width"), [(2, 5), (0, 1), (1.5, 2.7)])
def test_background_is_the_median_of_a_ring_without_cells(
    dtype: type, gap: float, width: float
) -> None:
    rng = np.random.default_rng(5)
    masks = random_bitmaps(rng, 25, (60, 70))
    masks = masks[masks.any(axis=(1, 2))]
    image = (rng.random((2, 60, 70)) * 250).astype(dtype)
    settings = MeasurementSettings(ring_gap_px=gap, ring_width_px=width)
    table = measure(CellInstances.from_bitmaps(masks), image, settings=settings)
    for number, channel in enumerate(image):
        expected = expected_backgrounds(masks, channel, masks.any(axis=0), gap, gap + width)
        np.testing.assert_allclose(table[f"channel_{number}_background"], expected)


def test_no_background_where_all_is_cells() -> None:
    cells = CellInstances.from_label_image(np.repeat([[1, 2]], 5, axis=0))
    assert np.isnan(measure(cells, np.ones((1, 5, 2)))["channel_0_background"]).all()


def test_crowd_regions_have_no_row_and_are_no_background() -> None:
    masks = [builders.rectangle((20, 40), *sides) for sides in ((2, 5, 6, 9), (9, 0, 40, 20))]
    image = np.where(masks[1], 99, 7)[None]
    cells = CellInstances.from_bitmaps(masks)
    assert np.isnan(measure(cells[:1])["nearest_distance_px"]).all()
    table = measure(cells.replace(is_crowd=[False, True]), image)
    assert table["label"].tolist() == [1]
    assert table["channel_0_background"].tolist() == [7]
    assert np.isnan(table["nearest_distance_px"]).all()


def test_neighbours_by_their_centroids() -> None:
    places = [(0, 0), (0, 10), (0, 25), (30, 0)]
    masks = [builders.rectangle((40, 40), x, y, x + 1, y + 1) for x, y in places]
    order = [0, 3, 1, 2]  # by position
    cells = CellInstances.from_bitmaps(masks)[order]
    table = measure(cells, settings=MeasurementSettings(neighbour_distance_px=15))
    assert table["neighbours"].tolist() == [1, 0, 2, 1]
    assert table["nearest_distance_px"].tolist() == [10, 30, 10, 15]


def test_cells_on_the_border() -> None:
    cells = CellInstances.from_bitmaps(
        [*builders.on_border().masks, builders.rectangle((20, 30), 1, 1, 29, 19)]
    )
    assert measure(cells)["touches_border"].tolist() == [True] * 5 + [False]


def test_labels_skip_cells_without_a_pixel() -> None:
    masks = [np.zeros((9, 9), bool), builders.rectangle((9, 9), 1, 1, 3, 3), np.zeros((9, 9), bool)]
    table = measure(CellInstances.from_bitmaps(masks, classes=[1, 1, 0]), classes=("a", "b"))
    assert table["label"].tolist() == [2]
    assert table["class"].tolist() == ["b"]


def test_without_cells_there_are_the_same_columns() -> None:
    image = np.zeros((2, 20, 30), np.uint8)
    some = measure(CellInstances.from_bitmaps(builders.touching().masks), image, um=(1, 1))
    none = measure(CellInstances.empty((20, 30)), image, um=(1, 1))
    assert list(none) == list(some)
    assert {name: column.dtype.kind for name, column in none.items()} == {
        name: column.dtype.kind for name, column in some.items()
    }
    assert {len(column) for column in none.values()} == {0}


@pytest.mark.parametrize("sizes", [[40], [1] * 40, [3, 0, 17, 20], [0, 39, 1, 0], [13, 14, 13]])
@pytest.mark.parametrize("pixels_at_once", [1 << 23, 4000, 1])
def test_pieces_give_what_the_whole_gives(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], pixels_at_once: int
) -> None:
    """With a cell as tall as the image, whose pixels are near those of every batch."""
    rng = np.random.default_rng(2)
    masks = random_bitmaps(rng, 60, (90, 80))
    tall = builders.rectangle((90, 80), 30, 1, 33, 89)
    found = CellInstances.from_bitmaps([tall, *masks[masks.any(axis=(1, 2))][:39]])
    cells = found.sort_by_position()
    image = rng.integers(0, 255, (1, 90, 80)).astype(np.uint8)
    whole = measure(cells, image)

    monkeypatch.setattr(measurements, "PIXELS_AT_ONCE", pixels_at_once)
    tables = list(measure_cells(in_pieces(cells, sizes), read_channels=lambda r, c: image[:, r, c]))
    assert len(tables) == sum(size > 0 for size in sizes)
    for name, column in whole.items():
        pieces = np.concatenate([table[name] for table in tables])
        np.testing.assert_array_equal(pieces, column, err_msg=name)


def test_only_windows_with_cells_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurements, "PIXELS_AT_ONCE", 3000)
    squares = [(x, y) for y in range(20, 1000, 100) for x in (30, 60)]
    cells = CellInstances.from_crops(
        [np.ones((9, 9), bool)] * 20, [(y, x) for x, y in squares], (1000, 100)
    )
    read = []

    def read_channels(rows: slice, columns: slice) -> np.ndarray:
        read.append((rows.stop - rows.start, columns.stop - columns.start))
        return np.zeros((1, *read[-1]))

    list(measure_cells(ImageRecord("a", cells), read_channels=read_channels))
    assert read == [(9 + 14, 30 + 9 + 14)] * 10


def test_cells_in_any_order_keep_it() -> None:
    cells = CellInstances.from_label_image(blobs(1))
    order = np.random.default_rng(0).permutation(len(cells))
    mixed, straight = measure(cells[order]), measure(cells)
    assert mixed["label"].tolist() == list(range(1, len(cells) + 1))
    assert mixed["area_px"].tolist() == straight["area_px"][order].tolist()


def test_scores_are_written_as_they_were_meant() -> None:
    cells = CellInstances.from_label_image([[1, 2]]).replace(scores=[0.9, 0.123456])
    assert measure(cells)["score"].tolist() == [0.9, 0.123456]


@pytest.mark.parametrize("names", [(), ("A",), ("A", "A"), ("A", "")])
def test_channels_without_names_of_their_own_are_numbered(names: tuple[str, ...]) -> None:
    table = measure(
        CellInstances.from_label_image([[1, 0]]), np.ones((2, 1, 2)), channel_names=names
    )
    assert list(table)[-12::6] == ["channel_0_mean", "channel_1_mean"]


def test_what_cannot_be_measured_is_said() -> None:
    cells = CellInstances.from_label_image([[1]]).replace(classes=[3])
    with pytest.raises(LabelError, match=r"class 3 \(from 0\); there are 1: cell"):
        measure(cells)
    with pytest.raises(LabelError, match="positive numbers of pixels"):
        MeasurementSettings(ring_width_px=0)


def test_real_cells(real_datasets: Path) -> None:
    paths = sorted((real_datasets / "bbbc039").rglob("labels/*"))[:3]
    assert paths
    for path in paths:
        labels = read_label_image(path)
        table = measure(CellInstances.from_label_image(labels))
        ours = ("area_px", "perimeter_px", "solidity", "eccentricity", "feret_max_px")
        theirs = [SAME_NAME[name] for name in ours]
        props = skimage_measure.regionprops_table(labels, properties=theirs)
        for name in ours:
            np.testing.assert_allclose(table[name], props[SAME_NAME[name]], rtol=1e-9, atol=2e-6)
