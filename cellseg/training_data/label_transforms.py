"""Apply the engine's transforms to label planes, with the pixels that bitmaps would get.

Detectron2 transforms one uint8 bitmap per cell, and some transforms treat other types by other
rules or not at all (`ResizeTransform` has Pillow's nearest neighbour for uint8 only, OpenCV takes
no int32). So labels travel as uint8 arrays, a few per layer: as their bytes where each pixel is
known to come from one pixel, as sets of cells where nothing is known.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from cellseg.cells.label_planes import EVERY_CELL, LabelPlanes, Planes
from cellseg.cells.labels import crop_bitmap
from cellseg.errors import LabelError
from detectron2.data import transforms as T
from numpy.typing import NDArray
from PIL import Image

logger = logging.getLogger(__name__)

Bitmap = NDArray[np.bool_]

# Exact types: a subclass may do anything.
_MOVE_ANY_TYPE = (
    T.BlendTransform,
    T.ColorTransform,
    T.CropTransform,
    T.HFlipTransform,
    T.NoOpTransform,
    T.PILColorTransform,
    T.VFlipTransform,
)
_MOVE_BYTES = (T.PadTransform, T.RotationTransform)
_PADDING = 255  # what FixedSizeCrop pads bitmaps with
_PARTITIONS = 2
_GROUPS = 4


def apply_to_planes(transforms: T.TransformList, planes: LabelPlanes) -> LabelPlanes:
    """What `apply_segmentation` of each cell's bitmap gives, from a few calls per layer.

    A transform that takes int32 planes and moves each pixel as it moves those of uint8 bitmaps can
    say so by an attribute `moves_labels = True`; it is called once per layer.

    Args:
        transforms: as an augmentation returned them.
        planes: of the image before them.

    Returns:
        The same cells in the image after them; cells may have lost all their pixels.
    """
    for transform in transforms.transforms:
        if len(planes):
            planes = _apply_one(transform, planes)
        else:  # an image without cells still has a size
            moved = transform.apply_segmentation(np.zeros(planes.image_hw, np.uint8))
            planes = LabelPlanes.empty(moved.shape[:2])
    return planes


def _apply_one(transform: T.Transform, planes: LabelPlanes) -> LabelPlanes:
    kind, count = type(transform), len(planes)
    if kind in _MOVE_ANY_TYPE or getattr(transform, "moves_labels", False):
        moved = [transform.apply_segmentation(each) for each in planes.planes]
    elif kind is T.ResizeTransform:
        return LabelPlanes(_resize_planes(transform, planes.planes), planes.layers)
    elif kind in _MOVE_BYTES:
        moved = [_move_bytes(transform, each, count) for each in planes.planes]
    else:
        found = [_move_sets(transform, each, count) for each in planes.planes]
        moved = [each for each in found if each is not None]
        if len(moved) < len(found):
            return _move_each(transform, planes)
    return LabelPlanes(moved[0][None] if len(moved) == 1 else np.stack(moved), planes.layers)


def _resize_planes(transform: T.ResizeTransform, planes: Planes) -> Planes:
    if planes.shape[1:] != (transform.h, transform.w):
        raise LabelError(
            f"a resize of {transform.h} x {transform.w} pixels for masks of "
            f"{planes.shape[1]} x {planes.shape[2]}"
        )
    rows = _nearest_sources(transform.h, transform.new_h)
    cols = _nearest_sources(transform.w, transform.new_w)
    return planes.take(rows, axis=1).take(cols, axis=2)


def _nearest_sources(old: int, new: int) -> NDArray[np.int64]:
    """The pixel of `old` ones that Pillow gives each of `new` ones; its 8-bit images are asked."""
    numbers = np.arange(old)
    return sum(
        np.asarray(
            Image.fromarray((numbers >> shift).astype(np.uint8)[None]).resize(
                (new, 1), Image.Resampling.NEAREST
            )
        )[0].astype(np.int64)
        << shift
        for shift in range(0, max(1, old.bit_length()), 8)
    )


def _move_bytes(transform: T.Transform, plane: Planes, num_cells: int) -> Planes:
    shared = num_cells + 1  # in the place of EVERY_CELL
    coded = np.where(plane == EVERY_CELL, shared, plane)
    moved: Planes | None = None
    for shift in range(0, shared.bit_length(), 8):
        byte = (coded >> shift).astype(np.uint8)
        part = transform.apply_segmentation(byte).astype(np.int32) << shift
        moved = part if moved is None else moved | part
    assert moved is not None
    moved[moved == shared] = EVERY_CELL
    if getattr(transform, "seg_pad_value", 0):
        moved[transform.apply_segmentation(np.zeros(plane.shape, np.uint8)) != 0] = EVERY_CELL
    return moved


def _move_sets(transform: T.Transform, plane: Planes, num_cells: int) -> Planes | None:
    """Find out where a transform of bitmaps puts each label, by binary search over the labels.

    Right if each pixel of the result belongs to a cell if one pixel of the source does (nearest
    neighbour), or if all of several do (the truncated mean of `ExtentTransform`).

    Returns:
        The transformed plane, or None if the transform does neither.
    """
    labels = np.arange(num_cells + 2)  # the last one stands for EVERY_CELL

    def move(is_member: Bitmap) -> Bitmap:
        table = (is_member & (labels > 0)).astype(np.uint8)
        table[EVERY_CELL] = _PADDING
        return transform.apply_segmentation(table[plane]) != 0

    common = move(np.zeros(labels.shape, bool))
    moved = np.zeros(common.shape, np.int32)
    is_clear = ~common
    for bit in range(num_cells.bit_length()):
        has_bit = (labels >> bit) % 2 == 1
        ones, zeros = move(has_bit), move(~has_bit)
        if (ones & zeros & ~common).any():
            return None
        is_clear &= ones != zeros
        moved |= ones.astype(np.int32) << bit
    moved[~is_clear] = 0
    moved[common] = EVERY_CELL
    if moved.max(initial=0) > num_cells or not _is_confirmed(move, moved, labels):
        return None
    return moved


def _is_confirmed(move: Callable[[Bitmap], Bitmap], moved: Planes, labels: NDArray) -> bool:
    """Whether every pixel that got a label gets it too from bitmaps of a few cells only."""
    generator = np.random.default_rng(0)
    for _ in range(_PARTITIONS):
        group_of = generator.integers(_GROUPS, size=labels.shape)
        for group in range(_GROUPS):
            is_member = (group_of == group) & (labels > 0)
            is_member[EVERY_CELL] = False
            if (is_member[moved] & ~move(is_member)).any():
                return False
    return True


def _move_each(transform: T.Transform, planes: LabelPlanes) -> LabelPlanes:
    """One bitmap per cell: slow, and right for any transform."""
    _warn_of_slow(type(transform).__name__)
    cropped = [
        crop_bitmap(transform.apply_segmentation(bitmap) != 0) for bitmap in _bitmaps_of(planes)
    ]
    first = transform.apply_segmentation(np.zeros(planes.image_hw, np.uint8))
    crops, offsets = [crop for crop, _ in cropped], [offset for _, offset in cropped]
    return LabelPlanes.from_crops(crops, offsets, first.shape[:2])


def _bitmaps_of(planes: LabelPlanes) -> Iterator[NDArray[np.uint8]]:
    for number, layer in enumerate(planes.layers.tolist(), 1):
        plane = planes.planes[layer]
        bitmap = (plane == number).astype(np.uint8)
        bitmap[plane == EVERY_CELL] = _PADDING
        yield bitmap


@lru_cache
def _warn_of_slow(name: str) -> None:
    logger.warning(
        "%s changes masks in other ways than moving pixels, so that it is applied to one bitmap "
        "per cell. If it moves pixels, its apply_segmentation should take the nearest one.",
        name,
    )
