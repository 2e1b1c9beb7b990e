"""Small files that reports made us look at, each with its right value."""

from __future__ import annotations

import numpy as np
from cellseg.evaluation.tables import Sides, evaluate
from cellseg.images import ImageInput, open_planes, read_image, read_image_hw
from cellseg.inspection.report import inspect_splits
from cellseg.inspection.sources import Split
from cellseg.io import read_records
from cellseg.io.segmentations import pair_up, read_segmentations
from image_files import shared_case


def test_an_image_that_was_missed_wholly_counts() -> None:
    folder = shared_case("mixed_names")
    sides = [read_segmentations(folder / name, "labels") for name in ("truth", "prediction")]
    paired = pair_up(*sides)
    assert paired[0] == ["a", "b"]
    found = evaluate(Sides(*paired, ()), ["recall@0.50"], False)
    assert found["metrics"]["recall@0.50"] == 0.5


def test_ome_tiff_beside_a_label_image() -> None:
    (record,) = read_records("label_images", shared_case("ome_names"), "train")
    assert record.image_id == "a"
    assert len(record.cells) > 0


def test_lsm_with_three_channels_and_a_thumbnail() -> None:
    path = shared_case("three_channels_and_thumbnail.lsm")
    assert read_image_hw(path) == (64, 64)
    assert read_image(path, channels=[0]).shape == (64, 64)
    assert read_image(path, channels=[0, 1, 2]).shape == (64, 64, 3)
    with open_planes(path, channels=[1]) as planes:
        assert [plane.suffix for plane in planes] == [""]


def test_two_channels_are_inspected_as_training_reads_them() -> None:
    (record,) = read_records("label_images", shared_case("two_channels"), "train")
    split = Split("two", ("cell",), (record,))
    assert record.image_path is not None
    for number in (0, 1):
        chosen = ImageInput(channels=[number])
        found = inspect_splits([split], image_input=chosen)
        assert not found.has_errors
        measured = found.images[0].intensities
        assert measured is not None
        assert measured.high == np.max(chosen.read(record.image_path))
    assert [one.kind for one in inspect_splits([split]).findings] == ["choice_needed"]
