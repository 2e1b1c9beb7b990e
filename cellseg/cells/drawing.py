"""Outlines of cells drawn into their image, for people to look at."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from cellseg.arguments import COUNT, IMAGE, array_of, checked, of_type, or_nothing
from cellseg.cells.instances import CellInstances
from cellseg.cells.matching import match_overlaps
from cellseg.cells.overlaps import cell_windows, find_overlaps, pairs_of_touching_windows
from cellseg.errors import LabelError
from cellseg.files import write_whole
from cellseg.rules import PATH
from numpy.typing import NDArray

_PICTURE = array_of(3, words="a picture, uint8 [H, W, 3], with a pixel", filled=True)
_CELLS = of_type(CellInstances, "cells (CellInstances)")

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

SIGNATURE = b"Software\0cellseg"
"""A text in every PNG that is written: its key and what it says."""
PNG_METADATA = {"Software": "cellseg"}
"""The same for those that matplotlib writes."""

_END_OF_HEADER = 33  # bytes of a PNG's first chunk and what is before it
MIN_SIDE_PX = 640
MAX_SCALE = 8
_STRETCH_PERCENTILES = (0.5, 99.8)
_NEIGHBOUR_DISTANCE_PX = 4
_BRIGHT_BACKGROUND = 110
_DARK_GAMMA = 0.7
_ERROR_COLOUR: Colour = (255, 40, 40)
_CAPTION_PX = 30
_GAP_PX = 6

# No red: it is kept for errors.
_ON_DARK: tuple[Colour, ...] = (
    (70, 210, 255),
    (255, 225, 50),
    (255, 110, 240),
    (80, 240, 100),
    (255, 145, 40),
    (150, 140, 255),
)
# Between the white of a slide and the dark of stained nuclei.
_ON_BRIGHT: tuple[Colour, ...] = (
    (0, 110, 255),
    (0, 180, 60),
    (245, 130, 0),
    (0, 185, 205),
    (215, 0, 190),
    (150, 145, 0),
)


def class_colour(number: int) -> Colour:
    """RGB of a class in files and pictures that colour cells by class; repeats after six.

    Args:
        number: of the class, 0-based.
    """
    return _ON_DARK[number % len(_ON_DARK)]


@checked(image=IMAGE, cells=_CELLS, true_cells=or_nothing(_CELLS), scale=or_nothing(COUNT))
def draw_overlay(
    image: NDArray[Any],
    cells: CellInstances,
    *,
    true_cells: CellInstances | None = None,
    scale: int | None = None,
) -> Picture:
    """Draw the thin outlines of cells, neighbours in different colours.

    Args:
        image: [H, W] or [H, W, C] in any integer or float dtype, RGB order; contrast is
            stretched, so that dim and 16-bit images can be read.
        cells: the cells of that image to draw.
        true_cells: true cells of that image; where they are given, `draw_comparison` draws the
            picture.
        scale: whole-number enlargement; by default small images are enlarged until their longer
            side has 640 pixels or more.

    Returns:
        RGB uint8 [scale * H, scale * W, 3]; larger with `true_cells`.

    Raises:
        LabelError: the cells belong to an image of another size.
    """
    if true_cells is not None:
        return draw_comparison(image, true_cells, cells, scale=scale)
    canvas = _Canvas(image, scale)
    return canvas.draw(cells, canvas.neighbour_colours(cells))


@checked(image=IMAGE, true=_CELLS, pred=_CELLS, scale=or_nothing(COUNT))
def draw_comparison(
    image: NDArray[Any], true: CellInstances, pred: CellInstances, *, scale: int | None = None
) -> Picture:
    """Draw true cells on the left and predicted ones on the right, each with a caption.

    A true cell and the predicted one that matches it (mask IoU >= 0.5, of any class) have the same
    colour; true cells that were missed and predicted ones that match nothing are red.

    Args:
        image: the image, as in `draw_overlay`.
        true: true cells of that image.
        pred: predicted cells of that image.
        scale: whole-number enlargement, as in `draw_overlay`.

    Returns:
        RGB uint8 [scale * H + 30, 2 * scale * W + 6, 3].

    Raises:
        LabelError: the cells belong to an image of another size.
    """
    canvas = _Canvas(image, scale)
    matching = match_overlaps(find_overlaps(true, pred), 0.5)
    colours = canvas.neighbour_colours(true)
    colours_true = [_ERROR_COLOUR] * len(true)
    colours_pred = [_ERROR_COLOUR] * len(pred)
    for i, j in zip(matching.true_index.tolist(), matching.pred_index.tolist()):
        colours_true[i] = colours_pred[j] = colours[i]
    missed, false = len(true) - len(matching), len(pred) - len(matching)
    left = _add_caption(
        canvas.draw(true, colours_true), f"truth: {len(true)} cells, {missed} missed (red)"
    )
    right = _add_caption(
        canvas.draw(pred, colours_pred), f"prediction: {len(pred)} cells, {false} false (red)"
    )
    gap = np.full((left.shape[0], _GAP_PX, 3), 255, dtype=np.uint8)
    return np.concatenate([left, gap, right], axis=1)


class _Canvas:
    """An enlarged image of full contrast that cells can be drawn on, as often as wanted."""

    def __init__(self, image: NDArray[Any], scale: int | None) -> None:
        picture, bright = make_readable(image)
        self.image_hw = picture.shape[:2]
        longer_side = max(self.image_hw)
        self.scale = scale or min(MAX_SCALE, -(-MIN_SIDE_PX // longer_side))
        self.palette = _ON_BRIGHT if bright else _ON_DARK
        height, width = self.image_hw
        self.picture = cv2.resize(
            picture, (width * self.scale, height * self.scale), interpolation=cv2.INTER_LINEAR
        )

    def draw(self, cells: CellInstances, colours: Sequence[Colour]) -> Picture:
        if cells.image_hw != self.image_hw:
            raise LabelError(
                f"cells of an image of (height, width) {cells.image_hw} cannot be drawn on one of "
                f"{self.image_hw}"
            )
        picture = np.array(self.picture, np.uint8)
        for crop, (row, column), colour in zip(cells.crops, cells.offsets_rc.tolist(), colours):
            if crop.size:
                line = _outline(crop, self.scale)
                row, column = row * self.scale, column * self.scale
                window = picture[row : row + line.shape[0], column : column + line.shape[1]]
                window[line] = colour
        return picture

    def neighbour_colours(self, cells: CellInstances) -> list[Colour]:
        return [self.palette[k] for k in colour_neighbours(cells, len(self.palette))]


def _outline(crop: NDArray[np.bool_], scale: int) -> NDArray[np.bool_]:
    """Pixels just inside the border of an enlarged crop, bool[scale * h, scale * w].

    Two picture pixels wide where an image pixel has at least as many, else one.
    """
    framed = np.pad(crop.astype(np.uint8) * 255, 1)
    enlarged = cv2.resize(framed, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    solid = (enlarged > 127).astype(np.uint8)
    thickness = 1 if scale == 1 else 2
    inside = cv2.erode(solid, np.ones((3, 3), dtype=np.uint8), iterations=thickness)
    return (solid > inside)[scale:-scale, scale:-scale]


def colour_neighbours(cells: CellInstances, num_colours: int) -> list[int]:
    """Choose a colour for each cell so that close cells differ as far as possible.

    Each cell, in turn, takes the colour that the fewest of its neighbours have; equally good
    ones take turns, so that a picture uses all of them.

    Args:
        cells: cells of one image.
        num_colours: number of colours to choose from.

    Returns:
        A number from 0 to num_colours - 1 for each cell.
    """
    windows = cell_windows(cells)
    pairs = pairs_of_touching_windows(windows, windows, margin_px=_NEIGHBOUR_DISTANCE_PX)
    neighbours: list[list[int]] = [[] for _ in range(len(cells))]
    for first, second in zip(*(index.tolist() for index in pairs)):
        if second < first:
            neighbours[first].append(second)
    chosen: list[int] = []
    for number, earlier in enumerate(neighbours):
        taken = [chosen[other] for other in earlier]
        turns = [(number + turn) % num_colours for turn in range(num_colours)]
        chosen.append(min(turns, key=taken.count))
    return chosen


def label_colours(labels: NDArray[Any], is_bright: bool) -> Picture:
    """A colour for each label, RGB uint8 [..., 3]; labels that follow each other differ.

    Args:
        labels: any shape; numbers of cells.
        is_bright: whether they are drawn on a bright background.
    """
    palette = np.array(_ON_BRIGHT if is_bright else _ON_DARK, np.uint8)
    return palette[np.asarray(labels, np.int64) % len(palette)]


def stretch_contrast(image: NDArray[Any]) -> Picture:
    """Bring any image to RGB uint8 of full contrast.

    The 0.5th percentile of all values becomes black and the 99.8th white, for all channels alike,
    so that colours keep their hue. Gray and two-channel images are filled up to three channels,
    channels beyond the third are left out, values that are not finite count as the lowest.

    Args:
        image: [H, W] or [H, W, C] in any integer or float dtype, not empty.

    Returns:
        RGB uint8 [H, W, 3].
    """
    with np.errstate(over="ignore"):  # what float32 does not hold counts as not finite
        values = np.asarray(image, dtype=np.float32)
    finite = np.isfinite(values)
    lowest = values[finite].min(initial=np.inf)
    values = np.where(finite, values, lowest if np.isfinite(lowest) else 0)
    values = values[..., None] if values.ndim == 2 else values[..., :3]
    low, high = np.percentile(values, _STRETCH_PERCENTILES)
    span = float(high) - float(low)
    if span <= 0:  # one value nearly everywhere: a few bright spots, or nothing at all
        low = values.min()
        span = max(float(values.max()) - float(low), 1)
    stretched = np.clip((values - low) * (255 / span), 0, 255).round().astype(np.uint8)
    channels = stretched.shape[-1]
    if channels == 1:
        return np.repeat(stretched, 3, axis=-1)
    return np.pad(stretched, ((0, 0), (0, 0), (0, 3 - channels)))


def make_readable(image: NDArray[Any]) -> tuple[Picture, bool]:
    """Stretch the contrast and, on a dark background, brighten dim cells beside very bright ones.

    Args:
        image: as in `stretch_contrast`.

    Returns:
        RGB uint8 [H, W, 3], and whether the background is bright.
    """
    picture = stretch_contrast(image)
    if np.median(picture) > _BRIGHT_BACKGROUND:
        return picture, True
    return _brighten_dim(picture), False


def _brighten_dim(picture: Picture) -> Picture:
    """A gamma below 1: dark grey becomes lighter, black and white stay."""
    table = 255 * (np.arange(256) / 255) ** _DARK_GAMMA
    return table.round().astype(np.uint8)[picture]


def _add_caption(picture: Picture, text: str) -> Picture:
    strip = np.full((_CAPTION_PX, picture.shape[1], 3), 255, dtype=np.uint8)
    size = min(0.55, 0.55 * picture.shape[1] / 340)
    cv2.putText(
        strip, text, (6, _CAPTION_PX - 10), cv2.FONT_HERSHEY_SIMPLEX, size, (20, 20, 20), 1,
        cv2.LINE_AA,
    )  # fmt: skip
    return np.concatenate([strip, picture])


@checked(path=PATH, rgb=_PICTURE)
def write_picture(path: str | Path, rgb: Picture) -> None:
    """Write a picture as a PNG.

    Args:
        path: file to write; its folder is made, and an older file is replaced only by a complete
            one.
        rgb: uint8 [H, W, 3].
    """
    _, encoded = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    with write_whole(path) as partial:
        partial.write_bytes(_sign(encoded.tobytes()))


def _sign(png: bytes) -> bytes:
    """A PNG that says what made it, so that it is known later whether it may be replaced."""
    chunk = b"tEXt" + SIGNATURE
    length, check = (struct.pack(">I", n) for n in (len(SIGNATURE), zlib.crc32(chunk)))
    return png[:_END_OF_HEADER] + length + chunk + check + png[_END_OF_HEADER:]
