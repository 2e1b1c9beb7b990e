"""CellInstances: the cells of one image, as small crops. LabelMasks: those of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from cellseg.errors import LabelError
from cellseg.labels import (
    Crop,
    IntArray,
    Rle,
    check_crops_inside,
    crop_bitmap,
    crops_to_label_image,
    crops_to_rles,
    label_image_to_crops,
    rle_to_crop,
)
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from cellseg.label_masks import LabelMasks

__all__ = ["CellInstances", "LabelMasks"]


def __getattr__(name: str) -> Any:
    """`LabelMasks` on first use: it needs torch and the engine, all else here does not."""
    if name == "LabelMasks":
        from cellseg.label_masks import LabelMasks

        return LabelMasks
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True, eq=False)
class CellInstances:
    """The cells of one image: the one currency of evaluation, export and report.

    Cells may overlap. A crop may be empty (0 x 0): a detection whose mask has no pixel.

    Attributes:
        image_hw: (height, width) of the image, pixels.
        boxes_xyxy: float32 [N, 4], (x0, y0, x1, y1), x1 and y1 exclusive, pixels.
        scores: float32 [N].
        classes: int64 [N], 0-based.
        crops: N boolean windows [h, w].
        offsets_rc: int64 [N, 2], (row, column) of the first pixel of each crop.

    Raises:
        LabelError: lengths differ, a crop is not a boolean [h, w] or reaches beyond the image,
            a class is negative, or a box or score is not finite.
    """

    image_hw: tuple[int, int]
    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: IntArray
    crops: tuple[Crop, ...]
    offsets_rc: IntArray

    def __post_init__(self) -> None:
        height, width = (int(length) for length in self.image_hw)
        if height < 0 or width < 0:
            raise LabelError(f"image_hw is negative: {self.image_hw}")
        store = object.__setattr__
        store(self, "image_hw", (height, width))
        store(self, "crops", tuple(self.crops))
        for name, dtype, columns in (
            ("boxes_xyxy", np.float32, 4),
            ("scores", np.float32, None),
            ("classes", np.int64, None),
            ("offsets_rc", np.int64, 2),
        ):
            store(self, name, self._checked(name, dtype, columns))
        for k, crop in enumerate(self.crops):
            if not isinstance(crop, np.ndarray) or crop.ndim != 2 or crop.dtype != bool:
                raise LabelError(f"cell {k}: a crop is a boolean array [h, w]; found {crop!r}")
        check_crops_inside(self.crops, self.offsets_rc, self.image_hw)
        if (self.classes < 0).any():
            raise LabelError(f"classes are 0-based; found {int(self.classes.min())}")

    def _checked(self, name: str, dtype: type, columns: int | None) -> NDArray[Any]:
        shape = (len(self.crops),) if columns is None else (len(self.crops), columns)
        array = np.asarray(getattr(self, name))
        array = array.reshape(shape) if array.size == 0 and len(self.crops) == 0 else array
        if array.shape != shape:
            raise LabelError(
                f"{name} has shape {list(array.shape)}; {len(self.crops)} crops need {list(shape)}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise LabelError(f"{name} holds values that are not finite")
        return array.astype(dtype, copy=False)

    @classmethod
    def from_crops(
        cls,
        crops: Sequence[Crop],
        offsets_rc: ArrayLike,
        image_hw: tuple[int, int],
        *,
        scores: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        boxes_xyxy: ArrayLike | None = None,
    ) -> CellInstances:
        """Cells from their crops.

        Args:
            crops: N boolean windows [h, w].
            offsets_rc: (row, column) of each crop, [N, 2].
            image_hw: (height, width) of the image, pixels.
            scores: [N]; 1 by default.
            classes: [N], 0-based; 0 by default.
            boxes_xyxy: [N, 4]; by default the outlines of the crops, zeros for an empty crop.
        """
        count = len(crops)
        offsets = np.asarray(offsets_rc, np.int64).reshape(-1, 2)
        if boxes_xyxy is None:
            sizes_hw = np.array([crop.shape for crop in crops], np.int64).reshape(-1, 2)
            boxes_xyxy = np.concatenate([offsets, offsets + sizes_hw], axis=1)[:, [1, 0, 3, 2]]
            boxes_xyxy = np.where((sizes_hw == 0).any(axis=1, keepdims=True), 0, boxes_xyxy)
        return cls(
            image_hw=image_hw,
            boxes_xyxy=np.asarray(boxes_xyxy),
            scores=np.ones(count, np.float32) if scores is None else np.asarray(scores),
            classes=np.zeros(count, np.int64) if classes is None else np.asarray(classes),
            crops=tuple(crops),
            offsets_rc=offsets,
        )

    @classmethod
    def empty(cls, image_hw: tuple[int, int]) -> CellInstances:
        """An image without cells."""
        return cls.from_crops([], np.zeros((0, 2)), image_hw)

    @classmethod
    def from_label_image(
        cls, labels: ArrayLike, classes: ArrayLike | None = None, scores: ArrayLike | None = None
    ) -> CellInstances:
        """Cells of a label image [H, W], in ascending order of their labels.

        `classes` and `scores` are per cell, in that order.
        """
        _, crops, offsets = label_image_to_crops(labels)
        height, width = np.shape(labels)
        return cls.from_crops(crops, offsets, (height, width), scores=scores, classes=classes)

    @classmethod
    def from_bitmaps(
        cls,
        masks: ArrayLike,
        scores: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        boxes_xyxy: ArrayLike | None = None,
    ) -> CellInstances:
        """Cells from full bitmaps [N, H, W] (nonzero is cell); they are cropped one by one."""
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
    def from_rles(
        cls,
        rles: Sequence[Rle],
        image_hw: tuple[int, int],
        scores: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        boxes_xyxy: ArrayLike | None = None,
    ) -> CellInstances:
        """Cells from COCO RLEs, all of size `image_hw`."""
        for k, rle in enumerate(rles):
            if tuple(rle["size"]) != tuple(image_hw):
                raise LabelError(
                    f"cell {k}: RLE of size {list(rle['size'])} in an image of {list(image_hw)}"
                )
        cropped = [rle_to_crop(rle) for rle in rles]
        return cls.from_crops(
            [crop for crop, _ in cropped],
            [offset for _, offset in cropped],
            image_hw,
            scores=scores,
            classes=classes,
            boxes_xyxy=boxes_xyxy,
        )

    def __len__(self) -> int:
        return len(self.crops)

    def __repr__(self) -> str:
        return f"CellInstances({len(self)} cells, image {self.image_hw[0]} x {self.image_hw[1]})"

    def __getitem__(self, index: slice | ArrayLike) -> CellInstances:
        """The cells at `index`: a slice, an array of numbers, or a boolean array [N]."""
        chosen = np.arange(len(self))[index if isinstance(index, slice) else _as_index(index)]
        return replace(
            self,
            boxes_xyxy=self.boxes_xyxy[chosen],
            scores=self.scores[chosen],
            classes=self.classes[chosen],
            crops=tuple(self.crops[k] for k in chosen.tolist()),
            offsets_rc=self.offsets_rc[chosen],
        )

    @property
    def areas_px(self) -> IntArray:
        """Pixels per cell, int64 [N]."""
        return np.array([np.count_nonzero(crop) for crop in self.crops], np.int64)

    def sort_by_score(self) -> CellInstances:
        """The same cells by descending score; equal scores keep their order."""
        return self[np.argsort(-self.scores, kind="stable")]

    def to_label_image(self, by_score: bool = True) -> NDArray[Any]:
        """Draw the cells; cell k has label k + 1.

        Args:
            by_score: where cells overlap the higher score keeps the pixel (the lower number at
                equal scores); otherwise the lower number does.

        Returns:
            Label image [H, W], uint16 (uint32 from 65,536 cells on). A cell that is wholly covered
            has no pixel in it.
        """
        order = np.argsort(-self.scores, kind="stable") if by_score else None
        return crops_to_label_image(self.crops, self.offsets_rc, self.image_hw, order)

    def to_rles(self) -> list[Rle]:
        """One compressed COCO RLE of the whole image per cell."""
        return crops_to_rles(self.crops, self.offsets_rc, self.image_hw)

    def to_bitmaps(self) -> Crop:
        """Full bitmaps, bool [N, H, W]: N times the image's size in memory."""
        bitmaps = np.zeros((len(self), *self.image_hw), bool)
        for bitmap, crop, (row, col) in zip(bitmaps, self.crops, self.offsets_rc):
            bitmap[row : row + crop.shape[0], col : col + crop.shape[1]] = crop
        return bitmaps


def _as_index(index: ArrayLike) -> NDArray[Any]:
    array = np.atleast_1d(np.asarray(index))
    return array.astype(np.int64) if array.size == 0 and array.dtype != bool else array
