"""What hypothesis makes up for property tests: cells of any shape in images of any size."""

from __future__ import annotations

from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

settings.register_profile("cellseg", deadline=None, derandomize=True, database=None)
settings.load_profile("cellseg")

shapes_hw = array_shapes(min_dims=2, max_dims=2, max_side=14)


def bitmaps(hw: tuple[int, int], most: int = 4) -> st.SearchStrategy[Any]:
    """Up to `most` cells that may overlap, be in pieces, have holes or no pixel: bool [N, H, W]."""
    return st.integers(0, most).flatmap(lambda count: arrays(bool, (count, *hw)))


def label_images(hw: tuple[int, int], most: int = 4) -> st.SearchStrategy[Any]:
    """Label images, uint16 [H, W], whose labels have gaps."""
    return arrays(np.uint16, hw, elements=st.integers(0, most))


any_bitmaps = shapes_hw.flatmap(bitmaps)
any_label_image = shapes_hw.flatmap(label_images)


@st.composite
def cells(draw: st.DrawFn, classes: int = 1, most: int = 4) -> CellInstances:
    """Cells with a pixel each, with scores and classes."""
    masks = draw(shapes_hw.flatmap(lambda hw: bitmaps(hw, most)))
    masks = masks[masks.any(axis=(1, 2))]
    ranks = draw(st.permutations(range(len(masks))))
    kinds = draw(st.lists(st.integers(0, classes - 1), min_size=len(masks), max_size=len(masks)))
    scores = (np.asarray(ranks, float) + 1) / (len(masks) + 1)
    return CellInstances.from_bitmaps(masks, scores, np.asarray(kinds, int))
