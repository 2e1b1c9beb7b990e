"""Made-up fluorescence images of cell nuclei, with their exact label images.

Nuclei of two sizes, alone and in touching groups, dim and bright, with a blurred edge and a grained
inside, under uneven light, with shot and read noise. They serve the quick start and the tests. A
model that was trained on them shows that training works; it is no model of real cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cellseg.arguments import (
    COUNT,
    FLAG,
    IMAGE_HW,
    REAL,
    WHOLE,
    checked,
    either,
    of_type,
    or_nothing,
)
from cellseg.cells.labels import IntArray
from cellseg.errors import DatasetError
from cellseg.rules import TEXT
from numpy.typing import NDArray
from scipy import ndimage

MIN_AREA_PX = 12
SMALL_RADIUS_PX = (5.0, 7.0)
LARGE_RADIUS_PX = (8.0, 12.0)
# Where no number of cells is asked for, an image has one nucleus per so many pixels on average.
DEFAULT_PX_PER_CELL = 900.0

_ATTEMPTS_PER_CELL = 8
_MIN_VISIBLE = 0.85  # share of a cell's pixels that cells in front of it may leave at least
_WAVES = ((2, 0.10), (3, 0.08), (4, 0.03))  # per turn, and highest share of the radius
_FULL_SCALE = {"uint8": 255.0, "uint16": 4095.0}  # a 12-bit camera writes 16-bit files

FloatArray = NDArray[np.float32]

_SEED = either(COUNT, of_type(np.random.Generator, "a generator of NumPy's"))


@dataclass(frozen=True, eq=False)
class SyntheticCells:
    """An image, its label image, and a class per cell.

    Attributes:
        image: uint8 [H, W] or, with 12 bits in use, uint16 [H, W].
        labels: uint16 [H, W]; cells are 1 to N, none below `MIN_AREA_PX`, each in one piece.
        classes: int64 [N], class of label k + 1; all 0, or 0 for small and 1 for large cells.
    """

    image: NDArray[np.uint8] | NDArray[np.uint16]
    labels: NDArray[np.uint16]
    classes: IntArray


@checked(
    seed=_SEED,
    image_hw=IMAGE_HW,
    num_cells=or_nothing(WHOLE),
    touching=REAL,
    small_share=REAL,
    size_classes=FLAG,
    dtype=TEXT,
)
def make_cells(
    seed: int | np.random.Generator,
    image_hw: tuple[int, int] = (128, 128),
    *,
    num_cells: int | None = None,
    touching: float = 0.35,
    small_share: float = 0.4,
    size_classes: bool = False,
    dtype: str = "uint8",
) -> SyntheticCells:
    """Draw one image of cells.

    Args:
        seed: number or generator; the same seed and options give the same arrays.
        image_hw: (height, width) of the image, pixels.
        num_cells: wanted number of cells; fewer where they do not fit. By default a random number
            whose mean is one cell per `DEFAULT_PX_PER_CELL`.
        touching: share of cells that are put against an earlier one; at 0 any two cells are at
            least one background pixel apart.
        small_share: share of cells that are of the smaller of the two sizes.
        size_classes: whether small cells have class 0 and large ones class 1; by default all have
            class 0.
        dtype: "uint8", or "uint16" for the 12-bit range of a camera.

    Returns:
        The image, its label image, and the class of each cell.

    Raises:
        DatasetError: an option is out of its range.

    Example:
        >>> cells = make_cells(1, (64, 64), num_cells=3, touching=0)
        >>> cells.image.shape, cells.image.dtype.name, int(cells.labels.max()), cells.classes
        ((64, 64), 'uint8', 3, array([0, 0, 0]))
    """
    check_options(image_hw, num_cells, touching, small_share, dtype)
    rng = np.random.default_rng(seed)
    if num_cells is None:
        num_cells = int(rng.poisson(image_hw[0] * image_hw[1] / DEFAULT_PX_PER_CELL))
    scene = _Scene(image_hw, rng)
    for _ in range(num_cells):
        scene.add_cell(small=rng.random() < small_share, touching=touching)
    signal = _expose(scene, rng)
    image = add_camera_noise(signal, _FULL_SCALE[dtype], rng).astype(dtype)
    large = np.array(scene.is_large, np.int64)
    return SyntheticCells(image, scene.labels, large if size_classes else np.zeros_like(large))


def check_options(
    image_hw: tuple[int, int],
    num_cells: int | None,
    touching: float = 0.0,
    small_share: float = 0.0,
    dtype: str = "uint8",
) -> None:
    """Check options of `make_cells`, which explains them.

    Raises:
        DatasetError: an option is out of its range.
    """
    if min(image_hw) < 1:
        raise DatasetError(f"synthetic cells: image_hw is (height, width) >= 1; found {image_hw}")
    if num_cells is not None and not 0 <= num_cells <= np.iinfo(np.uint16).max:
        raise DatasetError(f"synthetic cells: num_cells is 0 to 65535; found {num_cells}")
    for name, share in (("touching", touching), ("small_share", small_share)):
        if not 0 <= share <= 1:
            raise DatasetError(f"synthetic cells: {name} is 0 to 1; found {share}")
    if dtype not in _FULL_SCALE:
        raise DatasetError(f"synthetic cells: dtype is uint8 or uint16; found {dtype!r}")


@dataclass(frozen=True, eq=False)
class Placed:
    """Where the shape of a cell lies in the image.

    Attributes:
        window: rows and columns of the image that the shape's patch covers.
        part: rows and columns of the patch that lie inside the image.
        visible: the shape's pixels in the window that no other cell has, bool [h, w].
    """

    window: tuple[slice, slice]
    part: tuple[slice, slice]
    visible: NDArray[np.bool_]


def place_shape(
    labels: NDArray[np.uint16],
    inside: NDArray[np.bool_],
    centre_rc: tuple[float, float],
    *,
    gap: bool = False,
) -> Placed | None:
    """Find the place of a shape behind the cells that are there.

    Args:
        labels: label image of the cells that are there, [H, W]; left unchanged.
        inside: the shape, bool [h, w].
        centre_rc: (row, column) of the image at which the shape's middle is to lie.
        gap: whether at least one background pixel has to lie between the shape and every other
            cell.

    Returns:
        The place, or None if too little of the shape would be seen, if it would be seen in several
        pieces, or if `gap` is not kept.
    """
    top, left = (round(middle) - length // 2 for middle, length in zip(centre_rc, inside.shape))
    rows = slice(max(top, 0), max(top + inside.shape[0], 0))
    cols = slice(max(left, 0), max(left + inside.shape[1], 0))
    taken = labels[rows, cols] > 0
    first_row, first_col = rows.start - top, cols.start - left
    part = (
        slice(first_row, first_row + taken.shape[0]),
        slice(first_col, first_col + taken.shape[1]),
    )
    visible = inside[part] & ~taken
    area = np.count_nonzero(visible)
    if area < max(MIN_AREA_PX, _MIN_VISIBLE * np.count_nonzero(inside[part])):
        return None
    if gap and (ndimage.binary_dilation(taken, np.ones((3, 3))) & inside[part]).any():
        return None
    if ndimage.label(visible)[1] != 1:
        return None
    return Placed((rows, cols), part, visible)


class _Scene:
    """The cells that were placed so far; earlier cells are in front of later ones."""

    def __init__(self, image_hw: tuple[int, int], rng: np.random.Generator) -> None:
        self.labels = np.zeros(image_hw, np.uint16)
        self.light = np.zeros(image_hw, np.float32)
        self.is_large: list[bool] = []
        self._centres_rc: list[tuple[float, float]] = []
        self._radii: list[float] = []
        self._rng = rng

    def add_cell(self, *, small: bool, touching: float) -> None:
        """Put one cell where it fits; after `_ATTEMPTS_PER_CELL` failures it is left out."""
        radius = float(self._rng.uniform(*(SMALL_RADIUS_PX if small else LARGE_RADIUS_PX)))
        shape = _draw_shape(radius, self._rng)
        beside = bool(self._centres_rc) and self._rng.random() < touching
        for _ in range(_ATTEMPTS_PER_CELL):
            centre = self._centre_beside(radius) if beside else self._centre_anywhere()
            if self._place_cell(shape, centre, gap=touching == 0):
                self.is_large.append(not small)
                self._centres_rc.append(centre)
                self._radii.append(radius)
                return

    def _centre_anywhere(self) -> tuple[float, float]:
        height, width = self.labels.shape
        return float(self._rng.uniform(0, height)), float(self._rng.uniform(0, width))

    def _centre_beside(self, radius: float) -> tuple[float, float]:
        neighbour = int(self._rng.integers(len(self._radii)))
        angle = self._rng.uniform(0, 2 * np.pi)
        distance = (radius + self._radii[neighbour]) * self._rng.uniform(0.8, 1.0)
        row, col = self._centres_rc[neighbour]
        return float(row + distance * np.sin(angle)), float(col + distance * np.cos(angle))

    def _place_cell(self, shape: FloatArray, centre: tuple[float, float], *, gap: bool) -> bool:
        """Draw a cell around `centre` if `place_shape` has a place for it; whether it had."""
        placed = place_shape(self.labels, shape > 0, centre, gap=gap)
        if placed is None:
            return False
        self.labels[placed.window][placed.visible] = len(self.is_large) + 1
        self.light[placed.window] += np.where(placed.visible, shape[placed.part], 0)
        return True


def _draw_shape(radius: float, rng: np.random.Generator) -> FloatArray:
    """The light of one cell on a patch of its own, float32 [h, w]; 0 outside of the cell.

    The outline is an ellipse with a few slow waves; brightness falls towards it, as the nucleus is
    thinner there.
    """
    elongation = rng.uniform(1.0, 1.35)
    turn = rng.uniform(0, np.pi)
    waves = [(n, rng.uniform(-1, 1) * top, rng.uniform(0, 2 * np.pi)) for n, top in _WAVES]
    highest = 1 + sum(top for _, top in _WAVES)
    reach = int(np.ceil(radius * elongation * highest)) + 1  # one pixel to spare on every side
    rows, cols = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    along = (cols * np.cos(turn) + rows * np.sin(turn)) / elongation
    across = (rows * np.cos(turn) - cols * np.sin(turn)) * elongation
    angle = np.arctan2(across, along)
    outline = radius * (1 + sum(size * np.cos(n * angle + phase) for n, size, phase in waves))
    depth = 1 - (np.hypot(along, across) / outline) ** 2
    brightness = np.exp(rng.normal(0, 0.3))
    light = brightness * (0.5 + 0.5 * np.sqrt(np.maximum(depth, 0)))
    return np.where(depth > 0, light, 0).astype(np.float32)


def smooth_noise(
    image_hw: tuple[int, ...], sigma_px: float, rng: np.random.Generator
) -> FloatArray:
    """Noise of mean 0 and standard deviation 1.

    Args:
        image_hw: (height, width) of the noise, pixels.
        sigma_px: standard deviation of the Gaussian that smooths it, which is about the size of
            its grains, pixels.
        rng: generator of random numbers.

    Returns:
        float32 [H, W].
    """
    noise = ndimage.gaussian_filter(rng.standard_normal(image_hw, np.float32), sigma_px)
    return (noise - noise.mean()) / (noise.std() + 1e-6)


def _expose(scene: _Scene, rng: np.random.Generator) -> FloatArray:
    """Light that reaches the camera, as a share of its full scale."""
    height, width = image_hw = scene.labels.shape
    grain = 1 + 0.12 * smooth_noise(image_hw, 1.2, rng) + 0.08 * smooth_noise(image_hw, 3.0, rng)
    nuclei = ndimage.gaussian_filter(scene.light * np.maximum(grain, 0.2), rng.uniform(0.6, 1.1))
    haze = ndimage.gaussian_filter(scene.light, 9.0, truncate=3.0)
    rows, cols = np.mgrid[0:height, 0:width].astype(np.float32)
    row, col = rng.uniform(0, height), rng.uniform(0, width)
    reach = max(height, width) * rng.uniform(0.7, 1.3)
    lamp = 0.55 + 0.45 * np.exp(-((rows - row) ** 2 + (cols - col) ** 2) / (2 * reach**2 / 4))
    exposure = rng.uniform(0.3, 0.6)
    background = rng.uniform(0.02, 0.06)
    return lamp * (exposure * (nuclei + 0.10 * haze) + background)


def full_scale_of(dtype: str) -> float:
    """The highest value that a camera writes into files of this dtype, "uint8" or "uint16"."""
    return _FULL_SCALE[dtype]


def add_camera_noise(
    signal: FloatArray, full_scale: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Shot noise, read noise and rounding of a camera.

    Args:
        signal: light on each pixel as a share of the camera's full scale, [H, W].
        full_scale: value that the camera writes for 1.0.
        rng: generator of random numbers.

    Returns:
        Whole numbers from 0 to `full_scale`, float64 [H, W].
    """
    electrons = rng.uniform(400, 1500)
    counted = rng.poisson(np.maximum(signal, 0) * electrons) / electrons
    read = rng.normal(0, 0.006, signal.shape)
    return np.clip(np.rint((counted + read) * full_scale), 0, full_scale)
