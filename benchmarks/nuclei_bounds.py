"""What bounds accuracy: how well annotations agree with themselves, a little changed, or redone."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage
from skimage.segmentation import expand_labels

CROSS = ndimage.generate_binary_structure(2, 1)


def erode_labels(labels: Any) -> Any:
    """Take from each cell the pixels with another one above, below, left or right of them.

    Beyond the image's edge the cells go on.

    Args:
        labels: integers [H, W], 0 is background.

    Returns:
        The like; a cell of one or two pixels' width is gone.
    """
    lowest = ndimage.minimum_filter(labels, footprint=CROSS, mode="nearest")
    highest = ndimage.maximum_filter(labels, footprint=CROSS, mode="nearest")
    return np.where(lowest == highest, labels, 0)


def dilate_labels(labels: Any) -> Any:
    """Give each cell the background above, below, left and right of it; cells stay apart."""
    return expand_labels(labels, distance=1)


def shift_labels(labels: Any) -> Any:
    """Move all cells down and right by a pixel; those at the upper and left edge grow."""
    return np.pad(labels, ((1, 0), (1, 0)), mode="edge")[:-1, :-1]


def halve_pixels(labels: Any) -> Any:
    """The same cells in pixels of half the size, [2 H, 2 W]."""
    return labels.repeat(2, axis=0).repeat(2, axis=1)


OUTLINES = {
    "half a pixel smaller": (halve_pixels, erode_labels),
    "half a pixel larger": (halve_pixels, dilate_labels),
    "a pixel smaller": (None, erode_labels),
    "a pixel larger": (None, dilate_labels),
    "half a pixel down and right": (halve_pixels, shift_labels),
}


def redraw_outlines(labels: Any, name: str) -> tuple[Any, Any]:
    """A label image and the one that `OUTLINES` makes of it, both in the same pixels."""
    before, change = OUTLINES[name]
    same = before(labels) if before else labels
    return same, change(same)


TWICE = {
    (
        "5e263abff938acba1c0cff698261c7c00c23d7376e3ceacc3d5d4a655216b16d",
        "8f94a80b95a881d0efdec36affc915dca9609f4cba8134c4a91b219d418778aa",
    ): (-418, 263),
}
"""Images of DSB2018 that show one field of view in part and were annotated apart, and where the
upper left corner of the second lies in the first (row, column), found by phase correlation."""


def cut_shared(first: Any, second: Any, corner: tuple[int, int]) -> tuple[Any, Any]:
    """What two arrays of one shape show both.

    Args:
        first, second: [H, W].
        corner: (row, column) of the first that the second's upper left pixel lies at.

    Example:
        >>> cut_shared(np.array([[1, 2, 3]]), np.array([[2, 3, 4]]), (0, 1))
        (array([[2, 3]]), array([[2, 3]]))
    """
    pairs = [
        (slice(max(0, at), size + min(0, at)), slice(max(0, -at), size - max(0, at)))
        for at, size in zip(corner, first.shape)
    ]
    return first[pairs[0][0], pairs[1][0]], second[pairs[0][1], pairs[1][1]]
