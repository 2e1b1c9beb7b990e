"""Images that are like no other, records of masks, and short forms of findings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.inspection.report import Inspection
from numpy.typing import NDArray

Image = NDArray[Any]
Masks = Sequence[NDArray[np.bool_]]


def texture(seed: int, image_hw: tuple[int, int] = (48, 64), dtype: type = np.uint8) -> Image:
    """An image of smooth noise that is like no other seed's."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(20, 200, (image_hw[0] // 4, image_hw[1] // 4))
    return (np.kron(coarse, np.ones((4, 4))) + rng.integers(0, 20, image_hw)).astype(dtype)


def make_record(image_id: str, path: Path, image_hw: tuple[int, int], masks: Masks) -> ImageRecord:
    bitmaps = np.array(masks, bool).reshape(-1, *image_hw)
    return ImageRecord(image_id, CellInstances.from_bitmaps(bitmaps), path)


def kinds(inspection: Inspection) -> list[tuple[str, str]]:
    return [(finding.severity, finding.kind) for finding in inspection.findings]
