"""Made-up cells of three types: exact, seeded, told apart by shape and by texture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cellseg.cells.synthetic_types import TYPES, make_typed_cells
from cellseg.datasets.declarations import read_declarations
from cellseg.errors import DatasetError
from cellseg.io import read_records
from scipy import ndimage

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("seed", range(8))
def test_labels_are_whole_and_numbered(seed: int) -> None:
    cells = make_typed_cells(seed, (90, 140))
    assert cells.image.shape == cells.labels.shape == (90, 140)
    assert (cells.image.dtype, cells.labels.dtype) == (np.uint8, np.uint16)
    assert len(cells.classes) == cells.labels.max() > 0
    assert set(cells.classes) <= set(range(len(TYPES)))
    for label in range(1, cells.labels.max() + 1):
        assert ndimage.label(cells.labels == label)[1] == 1


def test_same_seed_same_image() -> None:
    first, again, other = (make_typed_cells(seed) for seed in (5, 5, 6))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.labels, again.labels)
    assert not np.array_equal(first.image, other.image)


def test_one_type_per_image() -> None:
    types = [make_typed_cells(seed, one_type_per_image=True).classes for seed in range(12)]
    assert all(len(set(of_image)) == 1 for of_image in types)
    assert {of_image[0] for of_image in types} == {0, 1, 2}
    assert len(set(make_typed_cells(0).classes)) == 3


def figures_of_cells(options: dict[str, Any]) -> dict[int, np.ndarray]:
    """Per type, of each cell: area, length over width, contrast of inside and of halo."""
    found: dict[int, list[list[float]]] = {0: [], 1: [], 2: []}
    for seed in range(10):
        cells = make_typed_cells(seed, **options)
        background = np.median(cells.image[cells.labels == 0])
        for label, kind in enumerate(cells.classes, 1):
            mask = cells.labels == label
            axes = np.sqrt(np.linalg.eigvalsh(np.cov(np.nonzero(mask))))
            ring = ndimage.binary_dilation(mask, iterations=2) & (cells.labels == 0)
            inside = cells.image[mask].mean() - background
            halo = cells.image[ring].mean() - background
            found[kind].append([mask.sum(), axes[1] / axes[0], inside, halo])
    return {kind: np.array(rows) for kind, rows in found.items()}


def test_types_differ_as_described() -> None:
    found = figures_of_cells({"num_cells": 5})
    area, stretch, inside, halo = (
        [float(np.median(found[kind][:, k])) for kind in range(3)] for k in range(4)
    )
    assert area[1] > 2.5 * max(area[0], area[2])
    assert stretch[2] > 2 * max(stretch[0], stretch[1])
    assert inside[1] < inside[2]
    assert halo[0] > 5 > halo[1] > halo[2]
    assert inside[2] > 5


def test_number_of_cells_and_sizes() -> None:
    assert not make_typed_cells(0, num_cells=0).labels.any()
    assert len(make_typed_cells(0, (256, 256), num_cells=4).classes) == 4
    assert make_typed_cells(0, (1, 1)).image.shape == (1, 1)
    assert len(make_typed_cells(0, (40, 40), num_cells=500).classes) < 50
    assert make_typed_cells(0, dtype="uint16").image.max() > 255
    with pytest.raises(DatasetError, match="num_cells"):
        make_typed_cells(0, num_cells=-1)


def read(classes: tuple[str, ...], **options: Any) -> list[Any]:
    split = {"images": 3, "seed": 4}
    options = {"image_hw": [64, 64], **options}
    return read_records("synthetic", Path(), split, classes=classes, **options)


def test_as_a_dataset() -> None:
    records = read(("a", "b", "c"), types=3, one_type_per_image=True)
    classes = [set(record.cells.classes.tolist()) for record in records]
    assert len(records) == 3
    assert all(len(of_image) == 1 for of_image in classes)
    mixed = read(("a", "b", "c"), types=3, num_cells=9)
    assert {number for record in mixed for number in record.cells.classes.tolist()} == {0, 1, 2}


@pytest.mark.parametrize(
    ("classes", "options", "message"),
    [
        (("a", "b"), {"types": 3}, "round, flat, spindle.* declared are a, b"),
        (("a", "b", "c"), {}, "or with `types: 3` three; declared are a, b, c"),
        (("a", "b", "c"), {"types": 3, "touching": 0.5}, "with `types` have no touching"),
        (("a",), {"one_type_per_image": True}, "without `types` have no one_type_per_image"),
    ],
)
def test_refuses(classes: tuple[str, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read(classes, **options)


def test_declared_datasets() -> None:
    declared = {one.name: one for one in read_declarations(REPOSITORY / "datasets/synthetic.yaml")}
    assert declared["synthetic_types_train"].split["images"] == 96
    assert declared["synthetic_dishes_val"].options["one_type_per_image"]
    assert declared["synthetic_dishes_val"].classes == TYPES
