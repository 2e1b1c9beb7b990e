"""LabelPlanes: the cells of one image as a few label images, overlapping ones in different layers.

Augmenting, cropping and counting cells takes one pass over these planes, whatever the number of
cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from cellseg.cells.labels import (
    Crop,
    IntArray,
    check_label_image,
    crops_to_runs,
    relabel_sequential,
)
from cellseg.cells.run_lengths import Rle, rles_to_runs
from cellseg.cells.runs import Runs, find_shared_pixels
from cellseg.errors import LabelError
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

EVERY_CELL = -1
"""Label of pixels that belong to all cells, as those of a padding with another value than 0 do."""

_PAINTED_PER_INDEXED_PIXEL = 10  # how many pixels are painted in the time of setting one by index

Planes = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class LabelPlanes:
    """Cells that may overlap, as layers of cells that do not.

    Cell k has the pixels where `planes[layers[k]] == k + 1`; it may have none. Each cell lies in
    the first layer in which no earlier cell has one of its pixels.

    Attributes:
        planes: int32 [L, H, W]; 0 is background, `EVERY_CELL` belongs to all cells. L is 0 where
            there is no cell, 1 where no two cells overlap.
        layers: int64 [N], the layer of each cell.

    Raises:
        LabelError: `planes` or `layers` has another shape, or a layer is not among the planes.

    Example:
        >>> left, right = np.array([[True, True]]), np.array([[True, True]])
        >>> planes = LabelPlanes.from_crops([left, right], [(0, 0), (0, 1)], (1, 3))
        >>> planes.planes.tolist(), planes.layers.tolist()
        ([[[1, 1, 0]], [[0, 2, 2]]], [0, 1])
    """

    planes: Planes
    layers: IntArray

    def __post_init__(self) -> None:
        planes = np.asarray(self.planes, np.int32)
        layers = np.asarray(self.layers, np.int64)
        if planes.ndim != 3 or layers.ndim != 1:
            raise LabelError(
                "planes have shape [L, H, W] and layers [N]; found "
                f"{list(planes.shape)} and {list(layers.shape)}"
            )
        if layers.size and not 0 <= layers.min() <= layers.max() < len(planes):
            raise LabelError(f"cells in layers 0 to {layers.max()} of {len(planes)} planes")
        object.__setattr__(self, "planes", planes)
        object.__setattr__(self, "layers", layers)

    @classmethod
    def empty(cls, image_hw: tuple[int, int]) -> LabelPlanes:
        """An image without cells."""
        return cls(np.zeros((0, *image_hw), np.int32), np.zeros(0, np.int64))

    @classmethod
    def from_rles(cls, rles: Sequence[Rle], image_hw: tuple[int, int]) -> LabelPlanes:
        """Cells from COCO's RLEs, compressed or not.

        Args:
            rles: one RLE per cell.
            image_hw: (height, width) of the image, pixels.

        Raises:
            LabelError: names the first cell whose RLE is no RLE, or of another size than
                `image_hw`.
        """
        return cls.from_runs(*rles_to_runs(rles, image_hw), len(rles), image_hw)

    @classmethod
    def from_runs(
        cls,
        cells: IntArray,
        starts: IntArray,
        ends: IntArray,
        num_cells: int,
        image_hw: tuple[int, int],
    ) -> LabelPlanes:
        """Cells from runs in column-major order of the image (see `cellseg.cells.run_lengths`).

        Args:
            cells: number of the cell that each run belongs to, from 0, ascending.
            starts: first pixel of each run.
            ends: pixel behind each run; runs of one cell do not overlap, none is empty.
            num_cells: number of cells, N; a cell without a run has no pixel.
            image_hw: (height, width) of the image, pixels.
        """
        if num_cells == 0:
            return cls.empty(image_hw)
        plane = _paint(cells, starts, ends, image_hw)
        if (plane[starts] == cells + 1).all():  # else some run begins within another cell's
            return cls(_to_rows(plane, image_hw)[None], np.zeros(num_cells, np.int64))
        layers = _assign_layers(cells, starts, ends, num_cells)
        planes = np.zeros((int(layers.max()) + 1, *image_hw), np.int32)
        for layer, target in enumerate(planes):
            here = layers[cells] == layer
            _draw(target, cells[here], starts[here], ends[here])
        return cls(planes, layers)

    @classmethod
    def from_label_image(cls, labels: ArrayLike) -> LabelPlanes:
        """Cells of a label image [H, W], in ascending order of their labels."""
        array = check_label_image(labels)
        compact, count = _compact_labels(array)
        if count == 0:
            return cls.empty((array.shape[0], array.shape[1]))
        return cls(compact[None], np.zeros(count, np.int64))

    @classmethod
    def from_crops(
        cls, crops: Sequence[Crop], offsets_rc: ArrayLike, image_hw: tuple[int, int]
    ) -> LabelPlanes:
        """Cells from their windows.

        Args:
            crops: N boolean windows [h, w]; may be empty.
            offsets_rc: (row, column) of each window's first pixel, [N, 2].
            image_hw: (height, width) of the image, pixels.

        Raises:
            LabelError: a window reaches beyond the image.
        """
        runs = crops_to_runs(crops, offsets_rc, image_hw)
        return cls.from_runs(*runs, len(crops), image_hw)

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        height, width = self.image_hw
        return f"LabelPlanes({len(self)} cells, {len(self.planes)} layers, {height} x {width})"

    @property
    def image_hw(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return self.planes.shape[1], self.planes.shape[2]

    @property
    def areas_px(self) -> IntArray:
        """Pixels per cell, int64 [N]."""
        areas = np.zeros(len(self), np.int64)
        for layer, plane in enumerate(self.planes):
            counts = np.bincount(plane.ravel() + 1, minlength=len(self) + 2)  # -1 becomes 0
            here = self.layers == layer
            areas[here] = counts[0] + counts[2:][here]
        return areas

    @property
    def boxes_xyxy(self) -> IntArray:
        """Tight boxes (x0, y0, x1, y1), x1 and y1 exclusive, int64 [N, 4]; zeros without pixels."""
        boxes = np.zeros((len(self), 4), np.int64)
        for layer, plane in enumerate(self.planes):
            cells = np.flatnonzero(self.layers == layer)
            boxes[cells] = tight_boxes(plane, cells + 1)
        return boxes

    def select(self, indices: ArrayLike) -> LabelPlanes:
        """Some of the cells, renumbered in the order in which they are named.

        Args:
            indices: numbers of cells, or a boolean array [N].

        Raises:
            LabelError: a cell is asked for twice.
        """
        chosen = np.asarray(indices)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        chosen = np.arange(len(self))[chosen]
        if np.unique(chosen).size != chosen.size:
            raise LabelError("a cell can be selected only once; planes hold each pixel's one label")
        table = np.zeros(len(self) + 2, np.int32)
        table[chosen + 1] = np.arange(1, chosen.size + 1)
        table[EVERY_CELL] = EVERY_CELL
        used, layers = np.unique(self.layers[chosen], return_inverse=True)
        return LabelPlanes(table[self.planes[used]], layers.reshape(-1))

    def crops(self) -> tuple[list[Crop], IntArray]:
        """The tight window of each cell.

        Returns:
            N windows, bool [h, w] (0 x 0 for a cell without pixels), and (row, column) of the
            first pixel of each, int64 [N, 2].
        """
        boxes = self.boxes_xyxy
        windows = [
            self.planes[layer, y0:y1, x0:x1]
            for layer, (x0, y0, x1, y1) in zip(self.layers.tolist(), boxes.tolist())
        ]
        crops = [
            (window == number) | (window == EVERY_CELL) for number, window in enumerate(windows, 1)
        ]
        return crops, boxes[:, [1, 0]]


def tight_boxes(plane: NDArray[np.signedinteger], labels: IntArray) -> IntArray:
    """Tight boxes of some labels of one plane; `EVERY_CELL` pixels count for each of them.

    Args:
        plane: one layer of `LabelPlanes`, [H, W].
        labels: labels whose boxes are asked for, [N], from 1.

    Returns:
        int64 [N, 4], (x0, y0, x1, y1), x1 and y1 exclusive; zeros for a label without pixels.
    """
    none = (0, 0, 0, 0)
    found = ndimage.find_objects(plane, max(1, int(labels.max(initial=0))))
    table = [none] + [none if window is None else _window_to_box(window) for window in found]
    boxes = np.array(table, np.int64)[labels].reshape(-1, 4)
    shared = ndimage.find_objects((plane == EVERY_CELL).view(np.uint8))
    if shared:
        common = np.array(_window_to_box(shared[0]), np.int64)
        is_empty = boxes[:, 2] == 0
        boxes[is_empty] = common
        boxes[:, :2] = np.minimum(boxes[:, :2], common[:2])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], common[2:])
    return boxes


def _window_to_box(window: tuple[slice, slice]) -> tuple[int, int, int, int]:
    rows, cols = window
    return cols.start, rows.start, cols.stop, rows.stop


def _compact_labels(labels: NDArray[np.integer]) -> tuple[Planes, int]:
    """Labels 1 to N without gaps as int32, and N."""
    if labels.size == 0:
        return labels.astype(np.int32), 0
    if int(labels.max()) > labels.size:  # a table up to the highest label would not fit
        compact, ids = relabel_sequential(labels)
        return compact.astype(np.int32), len(ids)
    is_used = np.bincount(labels.ravel().astype(np.int64)) > 0
    is_used[0] = False
    table = np.where(is_used, np.cumsum(is_used), 0).astype(np.int32)
    return table[labels], int(is_used.sum())


def _paint(cells: IntArray, starts: IntArray, ends: IntArray, image_hw: tuple[int, int]) -> Planes:
    """Column-major plane of runs that do not overlap, flat with one pixel more than the image.

    The label is added where a run begins and subtracted behind its end, and the sums are the
    plane. Runs [0, 2) of cell 0 and [3, 5) of cell 1 in an image of six pixels:

        steps   +1  0 -1 +2  0 -2  0
        plane    1  1  0  2  2  0  0

    Runs that overlap make wrong labels, of which one is the first pixel of a run: this is how
    `LabelPlanes.from_runs` finds out that cells overlap.
    """
    steps = np.zeros(image_hw[0] * image_hw[1] + 1, np.int32)
    steps[starts] = cells + 1
    steps[ends] -= (cells + 1).astype(np.int32)
    return np.cumsum(steps, dtype=np.int32, out=steps)


def _draw(target: Planes, cells: IntArray, starts: IntArray, ends: IntArray) -> None:
    """Put runs that do not overlap into an empty plane [H, W]."""
    lengths = ends - starts
    if lengths.sum() * _PAINTED_PER_INDEXED_PIXEL > target.size:
        target[:] = _to_rows(_paint(cells, starts, ends, target.shape), target.shape)
        return
    first = np.cumsum(lengths) - lengths  # few pixels, as in the layers above the lowest
    pixels = np.arange(int(lengths.sum())) + np.repeat(starts - first, lengths)
    cols, rows = np.divmod(pixels, target.shape[0])
    target[rows, cols] = np.repeat(cells + 1, lengths)


def _to_rows(plane: Planes, image_hw: tuple[int, int]) -> Planes:
    """What `_paint` made as a plane [H, W]."""
    height, width = image_hw
    if height == 0 or width == 0:
        return np.zeros(image_hw, np.int32)
    turned = cv2.transpose(plane[:-1].reshape(width, height))
    return np.asarray(turned, np.int32).reshape(height, width)


def _assign_layers(cells: IntArray, starts: IntArray, ends: IntArray, num_cells: int) -> IntArray:
    """For each cell the first layer in which no earlier cell shares a pixel with it."""
    neighbours: dict[int, list[int]] = {}
    pairs = find_shared_pixels(Runs(cells, starts, ends), num_cells)
    for earlier, later in zip(pairs.earlier.tolist(), pairs.later.tolist()):
        neighbours.setdefault(later, []).append(earlier)
    layers = [0] * num_cells
    for cell in sorted(neighbours):
        taken = {layers[earlier] for earlier in neighbours[cell]}
        layers[cell] = next(layer for layer in range(len(taken) + 1) if layer not in taken)
    return np.array(layers, np.int64)
