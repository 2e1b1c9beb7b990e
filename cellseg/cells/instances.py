"""CellInstances: the cells of one image, true or predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cellseg.arguments import (
    COUNT,
    FLAG,
    IMAGE_HW,
    NUMBERS,
    WHOLE,
    check_argument,
    checked,
    of_type,
    several,
)
from cellseg.cells.label_planes import LabelPlanes
from cellseg.cells.labels import (
    Crop,
    IntArray,
    Rle,
    check_crops_inside,
    crop_bitmap,
    crops_to_first_pixels,
    crops_to_label_image,
    crops_to_runs,
    disc_diameters,
    label_image_to_runs,
)
from cellseg.cells.run_lengths import rles_to_runs, runs_to_rles
from cellseg.cells.runs import (
    Runs,
    merge_touching,
    runs_to_boxes,
    runs_to_crops,
    runs_to_first_pixels,
)
from cellseg.errors import LabelError
from cellseg.rules import ANYTHING, list_of
from numpy.typing import ArrayLike, NDArray

_RLES = list_of(ANYTHING, words="a list of RLEs, dicts with size and counts")
_CROPS = several(of_type(np.ndarray, "an array"), "a list of boolean arrays [h, w]")


class CellInstances:
    """The cells of one image: what data sets, predictions, metrics and files are made of.

    Cells may overlap, may have holes and may consist of several pieces; one without a pixel is a
    detection whose mask is empty. The masks are kept in the form they came in, windows or runs of
    pixels; the other form is made when it is first asked for.

    Args:
        image_hw: (height, width) of the image, pixels.
        boxes_xyxy: [N, 4], (x0, y0, x1, y1), x1 and y1 exclusive, pixels.
        scores: [N], finite.
        classes: [N], 0-based.
        crops: N boolean windows [h, w].
        offsets_rc: [N, 2], (row, column) of the first pixel of each window.
        is_crowd: [N], whether each is a region of cells that nobody counted (COCO's `iscrowd`)
            rather than a cell; by default none is.

    Attributes:
        image_hw: (height, width), pixels.
        boxes_xyxy: float32 [N, 4]; the predicted box of a detection, else the mask's tight box.
        scores: float32 [N]; 1 where nothing else is known.
        classes: int64 [N].
        is_crowd: bool [N].

    Raises:
        LabelError: lengths differ, a window is not a boolean [h, w] or reaches beyond the image,
            a class is negative, or a box or score is not finite.

    Example:
        >>> cells = CellInstances.from_label_image([[0, 1, 1], [2, 0, 1]])
        >>> len(cells), cells.areas_px.tolist(), cells[:1].boxes_xyxy.tolist()
        (2, [3, 1], [[1.0, 0.0, 3.0, 2.0]])
    """

    @checked(
        image_hw=IMAGE_HW,
        boxes_xyxy=NUMBERS,
        scores=NUMBERS,
        classes=NUMBERS,
        is_crowd=NUMBERS,
        crops=several(),
        offsets_rc=NUMBERS,
    )
    def __init__(
        self,
        image_hw: tuple[int, int],
        boxes_xyxy: ArrayLike,
        scores: ArrayLike,
        classes: ArrayLike,
        crops: Sequence[Crop],
        offsets_rc: ArrayLike,
        is_crowd: ArrayLike | None = None,
    ) -> None:
        self._crops: tuple[Crop, ...] | None = tuple(crops)
        self._runs: Runs | None = None
        self._set(len(self._crops), image_hw, boxes_xyxy, scores, classes, is_crowd)
        self._offsets_rc = self._checked("offsets_rc", offsets_rc, np.int64, 2)
        for k, crop in enumerate(self._crops):
            if not isinstance(crop, np.ndarray) or crop.ndim != 2 or crop.dtype != bool:
                raise LabelError(f"cell {k}: a crop is a boolean array [h, w]; found {crop!r}")
        check_crops_inside(self._crops, self._offsets_rc, self.image_hw)

    def _set(
        self,
        count: int,
        image_hw: tuple[int, int],
        boxes_xyxy: ArrayLike,
        scores: ArrayLike,
        classes: ArrayLike,
        is_crowd: ArrayLike | None,
    ) -> None:
        """Check and keep everything but the masks."""
        self._count = count
        height, width = (int(length) for length in image_hw)
        if height < 0 or width < 0:
            raise LabelError(f"image_hw is negative: {image_hw}")
        self.image_hw = (height, width)
        self.boxes_xyxy = self._checked("boxes_xyxy", boxes_xyxy, np.float32, 4)
        self.scores = self._checked("scores", scores, np.float32)
        self.classes = self._checked("classes", classes, np.int64)
        crowd = np.zeros(count, bool) if is_crowd is None else is_crowd
        self.is_crowd = self._checked("is_crowd", crowd, np.bool_)
        if (self.classes < 0).any():
            raise LabelError(f"classes are 0-based; found {int(self.classes.min())}")

    def _checked(
        self, name: str, values: ArrayLike, dtype: type, columns: int | None = None
    ) -> NDArray[Any]:
        shape = (len(self),) if columns is None else (len(self), columns)
        array = np.asarray(values)
        array = array.reshape(shape) if array.size == 0 and len(self) == 0 else array
        if array.shape != shape:
            raise LabelError(
                f"{name} has shape {list(array.shape)}; {len(self)} crops need {list(shape)}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise LabelError(f"{name} holds values that are not finite")
        return array.astype(dtype, copy=False)

    @classmethod
    @checked(
        image_hw=IMAGE_HW,
        boxes_xyxy=NUMBERS,
        scores=NUMBERS,
        classes=NUMBERS,
        is_crowd=NUMBERS,
        crops=_CROPS,
        offsets_rc=NUMBERS,
    )
    def from_crops(
        cls,
        crops: Sequence[Crop],
        offsets_rc: ArrayLike,
        image_hw: tuple[int, int],
        *,
        scores: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        boxes_xyxy: ArrayLike | None = None,
        is_crowd: ArrayLike | None = None,
    ) -> CellInstances:
        """Cells from their windows.

        Args:
            crops: N boolean windows [h, w].
            offsets_rc: (row, column) of each window's first pixel, [N, 2].
            image_hw: (height, width) of the image, pixels.
            scores: score of each cell, [N]; 1 by default.
            classes: class of each cell, [N], 0-based; 0 by default.
            boxes_xyxy: box of each cell, [N, 4]; by default that of its window, zeros for an empty
                one.
            is_crowd: whether each is a crowd region, [N]; by default none is.
        """
        count = len(crops)
        offsets = np.asarray(offsets_rc)
        if offsets.dtype.kind == "f" and not np.isfinite(offsets).all():
            raise LabelError("offsets_rc holds values that are not finite")
        offsets = offsets.astype(np.int64, copy=False)
        if offsets.size != 2 * count:
            raise LabelError(
                f"offsets_rc has shape {list(offsets.shape)}; {count} crops need {[count, 2]}"
            )
        offsets = offsets.reshape(-1, 2)
        if boxes_xyxy is None:
            if wrong := [crop for crop in crops if crop.ndim != 2]:
                raise LabelError(
                    f"crops has a window of shape {list(wrong[0].shape)}; expected [h, w]"
                )
            sizes_hw = np.array([crop.shape for crop in crops], np.int64).reshape(-1, 2)
            boxes_xyxy = np.concatenate([offsets, offsets + sizes_hw], axis=1)[:, [1, 0, 3, 2]]
            boxes_xyxy = np.where((sizes_hw == 0).any(axis=1, keepdims=True), 0, boxes_xyxy)
        return cls(
            image_hw,
            boxes_xyxy,
            np.ones(count, np.float32) if scores is None else scores,
            np.zeros(count, np.int64) if classes is None else classes,
            crops,
            offsets,
            is_crowd,
        )

    @classmethod
    @checked(
        image_hw=IMAGE_HW,
        boxes_xyxy=NUMBERS,
        scores=NUMBERS,
        classes=NUMBERS,
        is_crowd=NUMBERS,
        runs=of_type(Runs, "runs of pixels (Runs)"),
        num_cells=COUNT,
    )
    def from_runs(
        cls,
        runs: Runs,
        num_cells: int,
        image_hw: tuple[int, int],
        *,
        scores: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        boxes_xyxy: ArrayLike | None = None,
        is_crowd: ArrayLike | None = None,
    ) -> CellInstances:
        """Cells from runs of pixels, which are not checked against the image's size.

        Args:
            runs: column-major runs, sorted by cell and position, none empty; those of a cell
                neither overlap nor touch (`merge_touching`).
            num_cells: N; cells without a run have no pixel.
            image_hw: (height, width) of the image, pixels.
            scores, classes, boxes_xyxy, is_crowd: as in `from_crops`.
        """
        cells = cls.__new__(cls)
        cells._crops, cells._runs = None, runs
        if boxes_xyxy is None:
            boxes_xyxy = runs_to_boxes(runs, num_cells, int(image_hw[0]))
        cells._set(
            num_cells,
            image_hw,
            boxes_xyxy,
            np.ones(num_cells, np.float32) if scores is None else scores,
            np.zeros(num_cells, np.int64) if classes is None else classes,
            is_crowd,
        )
        return cells

    @classmethod
    @checked(image_hw=IMAGE_HW)
    def empty(cls, image_hw: tuple[int, int]) -> CellInstances:
        """An image without cells."""
        return cls.from_crops([], np.zeros((0, 2)), image_hw)

    @classmethod
    @checked(classes=NUMBERS, scores=NUMBERS, labels=NUMBERS)
    def from_label_image(
        cls, labels: ArrayLike, classes: ArrayLike | None = None, scores: ArrayLike | None = None
    ) -> CellInstances:
        """Cells of a label image, in ascending order of their labels.

        Args:
            labels: label image [H, W]; 0 is background, every other value is one cell.
            classes: class of each cell, [N], 0-based; 0 by default.
            scores: score of each cell, [N]; 1 by default.

        Raises:
            LabelError: not two-dimensional, not of integers, or negative.
        """
        ids, runs = label_image_to_runs(labels)
        height, width = np.shape(labels)
        return cls.from_runs(runs, len(ids), (height, width), scores=scores, classes=classes)

    @classmethod
    @checked(masks=NUMBERS, scores=NUMBERS, classes=NUMBERS, boxes_xyxy=NUMBERS)
    def from_bitmaps(
        cls,
        masks: ArrayLike,
        scores: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        boxes_xyxy: ArrayLike | None = None,
    ) -> CellInstances:
        """Cells from full bitmaps, which are cropped one by one.

        Args:
            masks: [N, H, W]; nonzero is cell.
            scores: score of each cell, [N]; 1 by default.
            classes: class of each cell, [N], 0-based; 0 by default.
            boxes_xyxy: box of each cell, [N, 4]; by default the tight box of its mask.
        """
        bitmaps = np.asarray(masks)
        if bitmaps.ndim != 3:
            raise LabelError(f"bitmaps have shape [N, H, W]; found {list(bitmaps.shape)}")
        cropped = [crop_bitmap(bitmap != 0) for bitmap in bitmaps]
        return cls.from_crops(
            [crop for crop, _ in cropped],
            [offset for _, offset in cropped],
            (bitmaps.shape[1], bitmaps.shape[2]),
            scores=scores,
            classes=classes,
            boxes_xyxy=boxes_xyxy,
        )

    @classmethod
    @checked(
        image_hw=IMAGE_HW,
        boxes_xyxy=NUMBERS,
        scores=NUMBERS,
        classes=NUMBERS,
        is_crowd=NUMBERS,
        rles=_RLES,
    )
    def from_rles(
        cls,
        rles: Sequence[Rle],
        image_hw: tuple[int, int],
        scores: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        boxes_xyxy: ArrayLike | None = None,
        is_crowd: ArrayLike | None = None,
    ) -> CellInstances:
        """Cells from COCO's RLEs, compressed or not.

        Args:
            rles: one RLE per cell.
            image_hw: (height, width) of the image, pixels.
            scores, classes, boxes_xyxy, is_crowd: as in `from_crops`.

        Raises:
            LabelError: names the first cell whose RLE is no RLE, or of another size than
                `image_hw`.
        """
        return cls.from_runs(
            merge_touching(Runs(*rles_to_runs(rles, image_hw))),
            len(rles),
            image_hw,
            scores=scores,
            classes=classes,
            boxes_xyxy=boxes_xyxy,
            is_crowd=is_crowd,
        )

    @classmethod
    def concatenate(
        cls, parts: Sequence[CellInstances], image_hw: tuple[int, int]
    ) -> CellInstances:
        """The cells of several sets of one image, one set behind the other.

        Args:
            parts: all in the frame of the image; may be none.
            image_hw: (height, width) of the image, pixels.

        Raises:
            LabelError: a part is of an image of another size.
        """
        _check_parts(cls, parts, image_hw)
        for part in parts:
            if part.image_hw != tuple(image_hw):
                raise LabelError(
                    f"cells of an image of (height, width) {part.image_hw} cannot be joined to "
                    f"those of one of {tuple(image_hw)}"
                )
        if not parts:
            return cls.empty(image_hw)
        joined = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("boxes_xyxy", "scores", "classes", "is_crowd")
        }
        if any(part._crops is None for part in parts):
            firsts = np.cumsum([0, *map(len, parts)])
            of_parts = [
                (part.runs.cells + first, part.runs.starts, part.runs.ends)
                for part, first in zip(parts, firsts.tolist())
            ]
            runs = Runs(*map(np.concatenate, zip(*of_parts)))
            return cls.from_runs(runs, int(firsts[-1]), image_hw, **joined)
        crops = [crop for part in parts for crop in part.crops]
        offsets = np.concatenate([part.offsets_rc for part in parts])
        return cls.from_crops(crops, offsets, image_hw, **joined)

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"CellInstances({len(self)} cells, image {self.image_hw[0]} x {self.image_hw[1]})"

    def __getitem__(self, index: slice | ArrayLike) -> CellInstances:
        """Some of the cells: by a slice, an array of their numbers, or a boolean array [N]."""
        chosen = np.arange(len(self))[index if isinstance(index, slice) else _as_index(index)]
        part = self.replace()
        part._count = len(chosen)
        for name in ("boxes_xyxy", "scores", "classes", "is_crowd"):
            setattr(part, name, getattr(self, name)[chosen])
        if self._crops is not None:
            part._crops = tuple(self._crops[k] for k in chosen.tolist())
            part._offsets_rc = self._offsets_rc[chosen]
        part._runs = None if self._runs is None else select_runs(self._runs, chosen, len(self))
        return part

    @checked(scores=NUMBERS, classes=NUMBERS, is_crowd=NUMBERS)
    def replace(
        self,
        *,
        scores: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        is_crowd: ArrayLike | None = None,
    ) -> CellInstances:
        """The same masks with other scores, classes or crowd flags, each [N]; None keeps them."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._set(
            len(self),
            self.image_hw,
            self.boxes_xyxy,
            self.scores if scores is None else scores,
            self.classes if classes is None else classes,
            self.is_crowd if is_crowd is None else is_crowd,
        )
        return other

    def equals(self, other: CellInstances) -> bool:
        """Whether the same pixels, boxes, scores, classes and flags come in the same order."""
        check_argument("other", other, of_type(CellInstances, "cells (CellInstances)"))
        return (
            self.image_hw == other.image_hw
            and len(self) == len(other)
            and all(
                np.array_equal(one, another)
                for one, another in (
                    *zip(self.runs, other.runs),
                    (self.boxes_xyxy, other.boxes_xyxy),
                    (self.scores, other.scores),
                    (self.classes, other.classes),
                    (self.is_crowd, other.is_crowd),
                )
            )
        )

    @property
    def crops(self) -> tuple[Crop, ...]:
        """N boolean windows [h, w]."""
        if self._crops is None:
            self._make_crops()
        assert self._crops is not None
        return self._crops

    @property
    def offsets_rc(self) -> IntArray:
        """int64 [N, 2], (row, column) of the first pixel of each window."""
        if self._crops is None:
            self._make_crops()
        return self._offsets_rc

    def _make_crops(self) -> None:
        height = self.image_hw[0]
        crops, self._offsets_rc = runs_to_crops(
            self.runs, runs_to_boxes(self.runs, len(self), height), height
        )
        self._crops = tuple(crops)

    @property
    def runs(self) -> Runs:
        """Column-major runs of pixels of all cells, sorted by cell and position."""
        if self._runs is None:
            self._runs = Runs(*crops_to_runs(self.crops, self.offsets_rc, self.image_hw))
        return self._runs

    @property
    def areas_px(self) -> IntArray:
        """Pixels per cell, int64 [N]."""
        if self._runs is None:
            return np.array([np.count_nonzero(crop) for crop in self.crops], np.int64)
        cells, starts, ends = self._runs
        return np.bincount(cells, ends - starts, minlength=len(self)).astype(np.int64)

    @property
    def diameters_px(self) -> NDArray[np.float64]:
        """Diameter of the disc of each cell's area, sqrt(4 area / pi), pixels, float64 [N]."""
        return disc_diameters(self.areas_px)

    @property
    def counted(self) -> CellInstances:
        """The cells, without the crowd regions."""
        return self[~self.is_crowd] if self.is_crowd.any() else self

    @property
    def crowds(self) -> CellInstances:
        """The crowd regions, without the cells."""
        return self[self.is_crowd]

    @checked(number=WHOLE)
    def of_class(self, number: int) -> CellInstances:
        """The cells (and crowd regions) of one class."""
        return self[self.classes == number]

    def sort_by_score(self) -> CellInstances:
        """The same cells by descending score; equal scores keep their order."""
        return self[np.argsort(-self.scores, kind="stable")]

    @property
    def first_pixels(self) -> IntArray:
        """The first pixel of each cell when the image is read row by row, int64 [N].

        Row-major numbers, row * width + column; height * width for a cell without pixels.
        """
        if self._runs is not None:
            return runs_to_first_pixels(self._runs, len(self), self.image_hw)
        return crops_to_first_pixels(self.crops, self.offsets_rc, self.image_hw)

    def sort_by_position(self) -> CellInstances:
        """The same cells by their first pixel, so that label k + 1 is the k-th to begin.

        The first pixel is the leftmost one in the topmost row of the mask. Cells that share it
        come by descending score, equal ones in their order; cells without a pixel come last.

        Example:
            >>> cells = CellInstances.from_label_image([[0, 2, 0], [1, 2, 3]])
            >>> cells.sort_by_position().areas_px.tolist()
            [2, 1, 1]
        """
        return self[np.lexsort((-self.scores, self.first_pixels))]

    @checked(by_score=FLAG)
    def to_label_image(self, by_score: bool = True) -> NDArray[Any]:
        """Draw the cells; cell k has label k + 1. Crowd regions are not drawn.

        Args:
            by_score: where cells overlap the higher score keeps the pixel (the lower number at
                equal scores); otherwise the lower number does.

        Returns:
            Label image [H, W], uint16 (uint32 from 65,536 cells on). A cell that is wholly covered
            has no pixel in it.
        """
        order = np.argsort(-self.scores, kind="stable") if by_score else np.arange(len(self))
        order = order[~self.is_crowd[order]]
        return crops_to_label_image(self.crops, self.offsets_rc, self.image_hw, order)

    def to_rles(self) -> list[Rle]:
        """One compressed COCO RLE of the whole image per cell."""
        return runs_to_rles(*self.runs, len(self), self.image_hw)

    def to_planes(self) -> LabelPlanes:
        """The cells as layers of label images in which none overlap."""
        return LabelPlanes.from_runs(*self.runs, len(self), self.image_hw)

    def to_bitmaps(self) -> Crop:
        """Full bitmaps, bool [N, H, W]: N times the image's size in memory."""
        bitmaps = np.zeros((len(self), *self.image_hw), bool)
        for bitmap, crop, (row, col) in zip(bitmaps, self.crops, self.offsets_rc):
            bitmap[row : row + crop.shape[0], col : col + crop.shape[1]] = crop
        return bitmaps


def _check_parts(kind: type, parts: Any, image_hw: Any) -> None:
    check_argument("parts", parts, several(of_type(kind, ""), "a list of CellInstances"))
    check_argument("image_hw", image_hw, IMAGE_HW)


def select_runs(runs: Runs, chosen: IntArray, num_cells: int) -> Runs:
    """Runs of some cells, renumbered in the order of `chosen`; a cell may be chosen twice.

    Args:
        runs: sorted by cell.
        chosen: int64 [K], numbers of cells.
        num_cells: how many there are.
    """
    first = np.searchsorted(runs.cells, np.arange(num_cells + 1))
    counts = np.diff(first)[chosen]
    places = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    places += np.repeat(first[chosen], counts)
    return Runs(np.repeat(np.arange(len(chosen)), counts), runs.starts[places], runs.ends[places])


def _as_index(index: ArrayLike) -> NDArray[Any]:
    array = np.atleast_1d(np.asarray(index))
    return array.astype(np.int64) if array.size == 0 and array.dtype != bool else array
