"""Records to write in every format, and what makes two lists of them the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import builders
import numpy as np
import pytest
from cell_records import contents_of
from cellseg.cells.records import ImageRecord
from cellseg.io import read_records


@pytest.fixture(scope="session")
def scene_records(tmp_path_factory: pytest.TempPathFactory) -> list[ImageRecord]:
    """All scenes of `builders`, of one class."""
    root = tmp_path_factory.mktemp("scenes")
    builders.write_instance_masks(root, "train", builders.all_scenes())
    return read_records("instance_masks", root, "train")


@pytest.fixture(scope="session")
def two_class_records(scene_records: list[ImageRecord]) -> list[ImageRecord]:
    """The same with two classes by turns."""
    return [
        replace(record, cells=record.cells.replace(classes=np.arange(len(record.cells)) % 2))
        for record in scene_records
    ]


@pytest.fixture(scope="session")
def crowd_record(scene_records: list[ImageRecord]) -> ImageRecord:
    """An image with a cell and a region of uncounted cells."""
    (record,) = (record for record in scene_records if record.image_id == "touching")
    return replace(record, cells=record.cells.replace(is_crowd=[False, True]))


@pytest.fixture(scope="session")
def same() -> Callable[[Sequence[ImageRecord], Sequence[ImageRecord]], None]:
    """Everything but the place of the images: ids, sizes, cells in their order, images' bytes."""

    def check(found: Sequence[ImageRecord], expected: Sequence[ImageRecord]) -> None:
        assert [record.image_id for record in found] == [record.image_id for record in expected]
        for one, other in zip(contents_of(found), contents_of(expected), strict=True):
            assert one == other
        for record, wanted in zip(found, expected):
            assert record.image_path is not None
            assert wanted.image_path is not None
            assert record.image_path.read_bytes() == wanted.image_path.read_bytes()

    return check
