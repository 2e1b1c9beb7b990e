"""Made-up cells: exact, seeded, and as the options say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cellseg.cells.synthetic import MIN_AREA_PX, make_cells
from cellseg.errors import DatasetError
from scipy import ndimage


@pytest.mark.parametrize("seed", range(12))
def test_labels_are_whole_and_numbered(seed: int) -> None:
    cells = make_cells(seed, (90, 140))
    assert cells.image.shape == cells.labels.shape == (90, 140)
    assert cells.image.dtype == np.uint8
    assert cells.labels.dtype == np.uint16
    areas = np.bincount(cells.labels.ravel())[1:]
    assert len(areas) == len(cells.classes) > 0
    assert areas.min() >= MIN_AREA_PX
    for label in range(1, len(areas) + 1):
        assert ndimage.label(cells.labels == label)[1] == 1
    assert not cells.classes.any()


def test_cells_are_brighter_than_what_is_around_them() -> None:
    cells = make_cells(3)
    ratios = []
    for label in range(1, len(cells.classes) + 1):
        mask = cells.labels == label
        ring = ndimage.binary_dilation(mask, iterations=4) & (cells.labels == 0)
        ratios.append(cells.image[mask].mean() / max(cells.image[ring].mean(), 1))
    assert min(ratios) > 1.2


def test_same_seed_same_image() -> None:
    first, again, other = make_cells(5), make_cells(5), make_cells(6)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.image, other.image)
    assert np.array_equal(make_cells(np.random.default_rng(5)).image, first.image)


def touching_pairs(labels: np.ndarray) -> int:
    pairs = set()
    for a, b in (
        (labels[1:], labels[:-1]),
        (labels[:, 1:], labels[:, :-1]),
        (labels[1:, 1:], labels[:-1, :-1]),
        (labels[1:, :-1], labels[:-1, 1:]),
    ):
        meet = (a != b) & (a > 0) & (b > 0)
        pairs |= {tuple(sorted(pair)) for pair in zip(a[meet], b[meet])}
    return len(pairs)


def test_touching_neighbours_on_request() -> None:
    for seed in range(8):
        assert touching_pairs(make_cells(seed, num_cells=25, touching=0).labels) == 0
        assert touching_pairs(make_cells(seed, num_cells=25, touching=0.8).labels) > 3


def test_two_sizes() -> None:
    cells = make_cells(1, (256, 256), num_cells=60, size_classes=True, touching=0)
    areas = np.bincount(cells.labels.ravel())[1:]
    assert set(cells.classes) == {0, 1}
    assert np.median(areas[cells.classes == 1]) > 2 * np.median(areas[cells.classes == 0])
    assert set(make_cells(1, small_share=1, size_classes=True).classes) == {0}


def test_number_of_cells() -> None:
    assert not make_cells(0, num_cells=0).labels.any()
    assert make_cells(0, num_cells=0).image.any()
    assert len(make_cells(0, (256, 256), num_cells=9, touching=0).classes) == 9
    crowded = make_cells(0, (40, 40), num_cells=500)
    assert 3 <= len(crowded.classes) < 100
    assert len(make_cells(0, (512, 512)).classes) > 100


def test_tiny_and_narrow_images() -> None:
    assert make_cells(0, (1, 1)).image.shape == (1, 1)
    assert make_cells(0, (3, 400)).labels.shape == (3, 400)


def test_16_bit_uses_the_range_of_a_camera() -> None:
    image = make_cells(2, dtype="uint16").image
    assert image.dtype == np.uint16
    assert 255 < image.max() <= 4095


@pytest.mark.parametrize(
    "options",
    [
        {"image_hw": (0, 5)},
        {"num_cells": -1},
        {"num_cells": 70_000},
        {"touching": 1.5},
        {"small_share": -0.1},
        {"dtype": "float32"},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match=next(iter(options))):
        make_cells(0, **options)
