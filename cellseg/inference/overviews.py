"""The picture of an image with its cells; of a large one a smaller picture, made band by band."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from cellseg.cells.drawing import Picture, draw_overlay, label_colours, make_readable
from cellseg.cells.label_bands import label_bands
from cellseg.images import PlaneImage
from numpy.typing import NDArray

LONGEST_SIDE_PX = 4096
"""Images with a longer side are drawn smaller."""
_BAND_ROWS = 64


def draw_overview(image: PlaneImage, record: Any) -> Picture:
    """Draw the outlines of an image's cells, in a picture of at most 4,096 x 4,096 pixels.

    Args:
        image: the plane; a large one is read in bands of rows.
        record: its cells; a large image's are gone through in pieces.

    Returns:
        RGB uint8: as `draw_overlay` draws it, or smaller by a whole number.
    """
    step = -(-max(record.image_hw) // LONGEST_SIDE_PX)
    if step == 1:
        return draw_overlay(image.read_whole(), record.cells)
    picture, is_bright = make_readable(_shrink(image, step))
    labels = _sample_labels(record, step)
    line = _outlines(labels)
    picture[line] = label_colours(labels[line], is_bright)
    return picture


def _outlines(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels of cells beside a pixel that is not of the same cell."""
    line = np.zeros(labels.shape, bool)
    for side in (line, line.T):
        ours = labels if side is line else labels.T
        differs = ours[1:] != ours[:-1]
        side[1:] |= differs
        side[:-1] |= differs
    return line & (labels > 0)


def _shrink(image: PlaneImage, step: int) -> NDArray[Any]:
    """The image with each `step` x `step` pixels as one; what is left over at the edges is cut."""
    height, width = image.image_hw
    shrunk = []
    for top in range(0, height - step + 1, _BAND_ROWS * step):
        bottom = min(top + _BAND_ROWS * step, height // step * step)
        band = image.read(slice(top, bottom), slice(0, width // step * step))
        size_wh = (band.shape[1] // step, band.shape[0] // step)
        shrunk.append(cv2.resize(band.astype(np.float32), size_wh, interpolation=cv2.INTER_AREA))
    return np.concatenate(shrunk)


def _sample_labels(record: Any, step: int) -> NDArray[Any]:
    """Every `step`-th label of every `step`-th row, from the middle of the pixels joined."""
    height, width = (side // step for side in record.image_hw)
    sampled = [
        band[step // 2 :: step, step // 2 :: step][:, :width]
        for _, band in label_bands(record, _BAND_ROWS * step)
    ]
    return np.concatenate(sampled)[:height]
