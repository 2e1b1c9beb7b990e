"""Random scenes for the tests of `score`: label images and instances with every kind of error."""

from __future__ import annotations

import numpy as np
from cell_scenes import random_bitmaps, shift_some
from cellseg.cells.instances import CellInstances

SCENES = 200


def label_scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted label image [H, W]: moved, split, merged, lost, spurious, no cells."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(24, 44, 2)
    true = np.zeros((height, width), np.uint16)
    labels = rng.choice(np.arange(1, 500), 30, replace=False)
    cells = 0 if seed % 17 == 0 else int(rng.integers(1, 14))
    for label in labels[:cells]:
        row, col = rng.integers(0, height), rng.integers(0, width)
        true[row : row + rng.integers(2, 11), col : col + rng.integers(2, 11)] = label
    pred = np.roll(true, rng.integers(-1, 2, 2), axis=(0, 1))
    here = np.unique(true[true > 0])
    for label in here:
        _spoil(rng, pred, int(label), int(rng.choice(here)), int(rng.integers(1000, 9000)))
    if rng.random() < 0.5:
        pred[rng.integers(0, height) :, rng.integers(0, width) :] = 9999
    if seed % 13 == 0:
        pred[:] = 0
    return true, pred


def _spoil(
    rng: np.random.Generator, pred: np.ndarray, label: int, other: int, new_label: int
) -> None:
    rows = np.flatnonzero((pred == label).any(axis=1))
    what = rng.choice(["keep", "split", "merge", "lose"], p=[0.55, 0.2, 0.15, 0.1])
    if what == "split" and len(rows) > 1:
        below = np.arange(len(pred))[:, None] >= rows[rng.integers(1, len(rows))]
        pred[(pred == label) & below] = new_label
    elif what == "merge":
        pred[pred == label] = other
    elif what == "lose":
        pred[pred == label] = 0


def instance_scene(
    seed: int, *, num_classes: int = 1, image_hw: tuple[int, int] = (26, 31)
) -> tuple[CellInstances, CellInstances]:
    """True and predicted cells that overlap, with scores of which several are the same."""
    rng = np.random.default_rng(seed)
    true = random_bitmaps(rng, int(rng.integers(0, 15)), image_hw)
    pred = np.concatenate(
        [shift_some(rng, true), random_bitmaps(rng, int(rng.integers(0, 6)), image_hw)]
    )
    if seed % 11 == 0:
        true = true[:0]
    if seed % 13 == 0:
        pred = pred[:0]
    true = true[true.any(axis=(1, 2))]
    pred = pred[pred.any(axis=(1, 2))]
    sides = []
    for bitmaps in (true, pred):
        scores = np.round(rng.random(len(bitmaps)), 1)
        classes = rng.integers(0, num_classes, len(bitmaps))
        sides.append(CellInstances.from_bitmaps(bitmaps, scores=scores, classes=classes))
    return sides[0], sides[1]


def to_bitmaps(labels: np.ndarray) -> np.ndarray:
    """bool [N, H, W] of the labels in ascending order."""
    values = np.unique(labels)
    return labels[None] == values[values > 0][:, None, None]


def renumber(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """The same cells with other labels, in another order."""
    values = np.unique(labels)
    values = values[values > 0]
    renumbered = np.zeros(labels.shape, np.int64)
    for label, new in zip(values, rng.permutation(len(values)) * 3 + 1):
        renumbered[labels == label] = new
    return renumbered
