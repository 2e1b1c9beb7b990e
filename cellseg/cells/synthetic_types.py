"""Made-up phase-contrast images with three types of cells, and their exact label images.

The types differ as those of neuronal cultures do, in shape and texture: small round cells with a
bright rim and halo, large flat polygons that hardly stand out, and thin spindles with processes.
They lie on grey under uneven light.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cellseg.cells.synthetic import (
    FloatArray,
    SyntheticCells,
    add_camera_noise,
    check_options,
    full_scale_of,
    place_shape,
    smooth_noise,
)
from numpy.typing import NDArray
from scipy import ndimage

TYPES = ("round", "flat", "spindle")
# Where no number of cells is asked for, cells cover a share of the image between these two.
COVERAGE = (0.12, 0.30)

_ATTEMPTS_PER_CELL = 8
_MOST_FAILURES = 6  # cells that did not fit, after which an image is full


@dataclass(frozen=True, eq=False)
class _Shape:
    """One cell on a patch of its own, float32 [h, w] each.

    Attributes:
        inside: above 0 on the pixels of the cell.
        light: brightness that the cell adds to the background on its own pixels; may be negative.
        halo: brightness that it adds around itself, on pixels of no cell.
    """

    inside: FloatArray
    light: FloatArray
    halo: FloatArray


def make_typed_cells(
    seed: int | np.random.Generator,
    image_hw: tuple[int, int] = (128, 128),
    *,
    num_cells: int | None = None,
    one_type_per_image: bool = False,
    dtype: str = "uint8",
) -> SyntheticCells:
    """Draw one image of cells of three types.

    Args:
        seed: number or generator; the same seed and options give the same arrays.
        image_hw: (height, width) of the image, pixels.
        num_cells: wanted number of cells; fewer where they do not fit. By default as many as cover
            a random share of the image between the two of `COVERAGE`.
        one_type_per_image: whether all cells of the image are of one random type; by default each
            cell is of a random type of its own.
        dtype: "uint8", or "uint16" for the 12-bit range of a camera.

    Returns:
        Image, labels, and classes as indices into `TYPES`.

    Raises:
        DatasetError: an option is out of its range.
    """
    check_options(image_hw, num_cells, dtype=dtype)
    rng = np.random.default_rng(seed)
    labels = np.zeros(image_hw, np.uint16)
    light, halo = np.zeros(image_hw, np.float32), np.zeros(image_hw, np.float32)
    covered_px = rng.uniform(*COVERAGE) * labels.size
    dish = int(rng.integers(len(TYPES)))
    classes: list[int] = []
    failures = 0
    while failures < _MOST_FAILURES and (
        len(classes) < num_cells if num_cells is not None else np.count_nonzero(labels) < covered_px
    ):
        kind = dish if one_type_per_image else int(rng.integers(len(TYPES)))
        if _add_cell(_DRAWERS[kind](rng), len(classes) + 1, (labels, light, halo), rng):
            classes.append(kind)
        else:
            failures += 1
    signal = _expose(labels, light, halo, rng)
    image = add_camera_noise(signal, full_scale_of(dtype), rng).astype(dtype)
    return SyntheticCells(image, labels, np.array(classes, np.int64))


def _add_cell(
    shape: _Shape,
    label: int,
    planes: tuple[NDArray[np.uint16], FloatArray, FloatArray],
    rng: np.random.Generator,
) -> bool:
    """Put a cell at a random place where it fits, behind those that are there.

    Args:
        shape: the cell.
        label: its number in the label image.
        planes: label image, light and halo of the image, which are changed.
        rng: generator of random numbers.

    Returns:
        Whether a place was found within `_ATTEMPTS_PER_CELL`.
    """
    labels, light, halo = planes
    for _ in range(_ATTEMPTS_PER_CELL):
        centre = (float(rng.uniform(0, labels.shape[0])), float(rng.uniform(0, labels.shape[1])))
        placed = place_shape(labels, shape.inside > 0, centre)
        if placed is not None:
            labels[placed.window][placed.visible] = label
            light[placed.window] += np.where(placed.visible, shape.light[placed.part], 0)
            halo[placed.window] += shape.halo[placed.part]
            return True
    return False


def _axes(reach: float, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Coordinates along and across a random direction, pixels from the middle of a square patch."""
    size = int(np.ceil(reach))
    rows, cols = np.mgrid[-size : size + 1, -size : size + 1].astype(np.float32)
    turn = rng.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    return cols * cos + rows * sin, rows * cos - cols * sin


def _bump(distance: FloatArray, width: float) -> FloatArray:
    """1 at distance 0, falling to 1/e at `width` on both sides."""
    return np.exp(-((distance / width) ** 2)).astype(np.float32)


def _draw_round(rng: np.random.Generator) -> _Shape:
    """A disc with a dark middle, a bright rim and a halo."""
    radius = rng.uniform(4.5, 7.5)
    along, across = _axes(radius * 1.3 + 6, rng)
    squeeze = rng.uniform(0.85, 1.0)
    wave = 1 + 0.06 * np.cos(3 * np.arctan2(across, along) + rng.uniform(0, 2 * np.pi))
    outside = (np.hypot(along * squeeze, across / squeeze) / wave - radius).astype(np.float32)
    grain = 0.10 * smooth_noise(outside.shape, 0.8, rng)
    brightness = rng.uniform(0.6, 1.2)
    light = brightness * (0.42 * _bump(outside + 1.2, 1.6) - 0.10) + grain
    halo = brightness * 0.30 * _bump(np.maximum(outside, 0), 2.2)
    return _Shape(np.maximum(-outside, 0), light, halo)


def _draw_flat(rng: np.random.Generator) -> _Shape:
    """A polygon of five to seven sides with a faint border and a faint nucleus."""
    radius = rng.uniform(12, 19)
    along, across = _axes(radius * 1.5, rng)
    sides = int(rng.integers(5, 8))
    angles = (np.arange(sides) + rng.uniform(-0.3, 0.3, sides)) * 2 * np.pi / sides
    reaches = radius * rng.uniform(0.7, 1.05, sides)
    depths = [r - along * np.cos(a) - across * np.sin(a) for a, r in zip(angles, reaches)]
    depth = np.min(depths, axis=0).astype(np.float32)
    grain = 0.05 * smooth_noise(depth.shape, 2.0, rng)
    nucleus = _bump(np.hypot(along - 0.15 * radius, across), 0.3 * radius)
    contrast = rng.uniform(0.6, 1.2)
    light = contrast * (0.07 + 0.13 * _bump(depth, 1.5) - 0.14 * nucleus) + grain
    return _Shape(np.maximum(depth, 0), light, np.zeros_like(light))


def _draw_spindle(rng: np.random.Generator) -> _Shape:
    """A bent body that tapers into a thin process at both ends."""
    half_length, half_width = rng.uniform(9, 14), rng.uniform(2.4, 4.0)
    tails = half_length + rng.uniform(2, 9, 2)
    along, across = _axes(half_length + 12, rng)
    across = across - rng.uniform(-0.016, 0.016) * along**2
    body = half_width * (1 - (along / half_length) ** 2)
    process = np.where((along < tails[0]) & (along > -tails[1]), 1.0, -1.0)
    depth = (np.maximum(body, process) - np.abs(across)).astype(np.float32)
    grain = 0.06 * smooth_noise(depth.shape, 0.8, rng)
    brightness = rng.uniform(0.6, 1.2)
    light = brightness * (0.10 + 0.20 * _bump(across, 0.6 * half_width)) + grain
    halo = -0.07 * _bump(np.minimum(depth, 0), 1.8)
    return _Shape(np.maximum(depth, 0), light, halo)


_DRAWERS = (_draw_round, _draw_flat, _draw_spindle)


def _expose(
    labels: NDArray[np.uint16], light: FloatArray, halo: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """Light that reaches the camera, as a share of its full scale: cells on uneven grey."""
    image_hw = (labels.shape[0], labels.shape[1])
    uneven = 0.04 * smooth_noise(image_hw, max(image_hw) / 5, rng)
    debris = 0.015 * smooth_noise(image_hw, 1.5, rng)
    contrast = light + np.where(labels == 0, np.clip(halo, -0.1, 0.4), 0)
    blurred = ndimage.gaussian_filter(contrast, rng.uniform(0.5, 0.8))
    signal: FloatArray = rng.uniform(0.38, 0.48) * (1 + uneven) * (1 + 1.3 * blurred) + debris
    return signal
