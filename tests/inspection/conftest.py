"""Datasets of hand-made scenes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from builders import write_png
from cellseg.inspection.report import Inspection, inspect_splits
from cellseg.inspection.sources import Split
from inspection_scenes import Image, Masks, make_record, texture


@pytest.fixture
def make_split(tmp_path: Path) -> Callable[..., Split]:
    """Write images, given with their masks by id, and make a split of them."""

    def make(
        name: str, content: Mapping[str, tuple[Image, Masks]], classes: tuple[str, ...] = ("cell",)
    ) -> Split:
        records = []
        for image_id, (image, masks) in content.items():
            path = write_png(tmp_path / name / f"{image_id}.png", image)
            hw = (image.shape[0], image.shape[1])
            records.append(make_record(image_id, path, hw, masks))
        return Split(name, classes, tuple(records))

    return make


@pytest.fixture
def inspect_one(make_split: Callable[..., Split]) -> Callable[..., Inspection]:
    """Inspection of one image with the given masks."""

    def inspect(masks: Masks, image: Image | None = None) -> Inspection:
        return inspect_splits(
            [make_split("one", {"a": (texture(1) if image is None else image, masks)})]
        )

    return inspect
