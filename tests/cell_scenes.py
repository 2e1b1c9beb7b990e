"""Scenes for the tests of the evaluation: bitmaps that everything can be recomputed from."""

from __future__ import annotations

import numpy as np
from cellseg.cells.instances import CellInstances


def random_bitmaps(rng: np.random.Generator, count: int, image_hw: tuple[int, int]) -> np.ndarray:
    """bool[count, H, W]: rectangles that may overlap, touch the border, have a hole or no pixel."""
    height, width = image_hw
    bitmaps = np.zeros((count, height, width), dtype=bool)
    for bitmap in bitmaps:
        row, col = rng.integers(0, height), rng.integers(0, width)
        bitmap[row : row + rng.integers(0, 9), col : col + rng.integers(1, 9)] = True
        if rng.random() < 0.3:
            bitmap[row + 2 : row + 4, col + 2 : col + 4] = False
    return bitmaps


def shift_some(rng: np.random.Generator, bitmaps: np.ndarray) -> np.ndarray:
    """Each bitmap moved by at most one pixel, some lost, in another order."""
    moved = [np.roll(b, rng.integers(-1, 2, size=2), axis=(0, 1)) for b in bitmaps]
    kept = rng.permutation(len(moved))[: rng.integers(0, len(moved) + 1)]
    return np.array([moved[k] for k in kept], dtype=bool).reshape(-1, *bitmaps.shape[1:])


def bars(*spans: tuple[int, int], length: int = 60) -> CellInstances:
    """Cells in an image of one row: half-open column spans."""
    bitmaps = np.zeros((len(spans), 1, length), dtype=bool)
    for bitmap, (start, stop) in zip(bitmaps, spans):
        bitmap[0, start:stop] = True
    return CellInstances.from_bitmaps(bitmaps)
