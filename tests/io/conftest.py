"""Records to write in every format, and what makes two lists of them the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import builders
import pytest
from cellseg.io import read_records
from cellseg.io.records import CellRecord

CLASSES = ("round", "long")


def content(records: Sequence[CellRecord]) -> list[tuple[Any, ...]]:
    """Everything but the place of the images: ids, sizes, cells in their order, images' bytes."""
    return [(r.image_id, r.image_hw, r.cells, r.image_path.read_bytes()) for r in records]


@pytest.fixture(scope="session")
def scene_records(tmp_path_factory: pytest.TempPathFactory) -> list[CellRecord]:
    """All scenes of `builders`, of one class."""
    root = tmp_path_factory.mktemp("scenes")
    builders.write_instance_masks(root, "train", builders.all_scenes())
    return read_records("instance_masks", root, "train")


@pytest.fixture(scope="session")
def two_class_records(scene_records: list[CellRecord]) -> list[CellRecord]:
    """The same with classes round and long by turns."""
    return [
        replace(
            record,
            cells=tuple(
                replace(cell, class_name=CLASSES[number % 2])
                for number, cell in enumerate(record.cells)
            ),
        )
        for record in scene_records
    ]


@pytest.fixture(scope="session")
def crowd_record(scene_records: list[CellRecord]) -> CellRecord:
    """An image with a cell and a region of uncounted cells."""
    (record,) = (record for record in scene_records if record.image_id == "touching")
    cell, region = record.cells
    return replace(record, cells=(cell, replace(region, is_crowd=True)))


@pytest.fixture(scope="session")
def same() -> Callable[[Sequence[CellRecord], Sequence[CellRecord]], None]:
    def check(found: Sequence[CellRecord], expected: Sequence[CellRecord]) -> None:
        assert [record.image_id for record in found] == [record.image_id for record in expected]
        for one, other in zip(content(found), content(expected), strict=True):
            assert one == other

    return check
