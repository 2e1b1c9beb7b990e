"""For cells of any shape: what a format holds is what comes back from its files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import write_png
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.io import FORMATS, read_records
from hypothesis import given, settings
from strategies import any_label_image, cells

WRITTEN = sorted(name for name, one in FORMATS.items() if one.write is not None)
OVERLAPPING = [name for name in WRITTEN if "overlaps" in FORMATS[name].holds]


def write_and_read(found: CellInstances, name: str) -> CellInstances:
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "a.png")
        write_png(image, np.zeros(found.image_hw, np.uint8))
        record = ImageRecord("a", found, image)
        FORMATS[name].write([record], Path(folder, "set"), "train", ("cell",), {})
        (back,) = read_records(name, Path(folder, "set"), "train")
        return back.cells


def masks_of(found: CellInstances) -> list[Any]:
    """All masks, in an order that does not depend on that of the cells."""
    return sorted(mask.tolist() for mask in found.to_bitmaps())


@pytest.mark.parametrize("name", WRITTEN)
@settings(max_examples=25)
@given(labels=any_label_image)
def test_cells_that_share_no_pixel(name: str, labels: Any) -> None:
    found = CellInstances.from_label_image(labels)
    assert masks_of(write_and_read(found, name)) == masks_of(found)


@pytest.mark.parametrize("name", OVERLAPPING)
@settings(max_examples=25)
@given(found=cells())
def test_cells_that_overlap(name: str, found: CellInstances) -> None:
    assert masks_of(write_and_read(found, name)) == masks_of(found)
