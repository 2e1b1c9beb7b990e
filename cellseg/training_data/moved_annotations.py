"""Annotations of an image, after the transforms that its pixels went through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from cellseg.cells.label_planes import LabelPlanes
from cellseg.errors import LabelError
from cellseg.training_data.augmentations import polygons_to_rle
from cellseg.training_data.label_masks import LabelMasks
from cellseg.training_data.label_transforms import apply_to_planes
from detectron2.data import transforms as T
from detectron2.structures import Boxes, BoxMode, PolygonMasks
from numpy.typing import NDArray


def transform_boxes(
    cells: Sequence[dict[str, Any]], transforms: T.TransformList, image_hw: tuple[int, int]
) -> Boxes:
    """The cells' boxes after `transforms`, clipped to the new image, all at once.

    The numbers are those of Detectron2, box by box: a box of integers is transformed in integers.
    """
    kinds: dict[Any, list[int]] = {}
    found = []
    for number, cell in enumerate(cells):
        box, mode = cell["bbox"], cell["bbox_mode"]
        if mode is not BoxMode.XYXY_ABS:
            box = BoxMode.convert(box, mode, BoxMode.XYXY_ABS)
        kind = box.dtype if isinstance(box, np.ndarray) else frozenset(map(type, box))
        kinds.setdefault(kind, []).append(number)
        found.append(box)
    boxes = np.zeros((len(cells), 4))
    height, width = image_hw
    for numbers in kinds.values():
        moved = transforms.apply_box(np.array([found[number] for number in numbers]))
        boxes[numbers] = np.minimum(moved.clip(min=0), (width, height, width, height))
    return Boxes(torch.from_numpy(boxes))


def transform_masks(
    segmentations: Sequence[Any],
    transforms: T.TransformList,
    old_hw: tuple[int, int],
    new_hw: tuple[int, int],
) -> LabelMasks:
    """Masks after `transforms`: of RLEs the moved pixels, of polygons those of the moved outline.

    Args:
        segmentations: RLEs (dicts) and lists of polygons (x0, y0, x1, y1, ...).
        transforms: what was applied to the image.
        old_hw: (height, width) of the image before.
        new_hw: (height, width) of the image after.

    Raises:
        LabelError: neither of the two, or an RLE of another size than the image.
    """
    strangers = {
        type(each).__name__ for each in segmentations if not isinstance(each, (dict, list))
    }
    if strangers:
        raise LabelError(
            "a segmentation is an RLE (dict) or a list of polygons; found "
            f"{', '.join(sorted(strangers))}"
        )
    rles = [each for each in segmentations if isinstance(each, dict)]
    planes = apply_to_planes(transforms, LabelPlanes.from_rles(rles, old_hw))
    if planes.image_hw != tuple(new_hw) and rles:
        raise LabelError(
            f"the augmentations make masks of {list(planes.image_hw)} beside an image of "
            f"{list(new_hw)} pixels"
        )
    masks = LabelMasks.from_planes(planes)
    if len(rles) == len(segmentations):
        return masks
    outlines = [each for each in segmentations if isinstance(each, list)]
    drawn = [polygons_to_rle(polygons, new_hw) for polygons in _move_outlines(outlines, transforms)]
    others = LabelMasks.from_planes(LabelPlanes.from_rles(drawn, new_hw))
    order = np.argsort([isinstance(each, list) for each in segmentations], kind="stable")
    joined = LabelMasks.cat([masks, others]) if rles else others
    return joined[np.argsort(order)]


def transform_regions(
    crowds: Sequence[dict[str, Any]],
    transforms: T.TransformList,
    old_hw: tuple[int, int],
    new_hw: tuple[int, int],
) -> torch.Tensor:
    """The pixels of crowd regions after `transforms`, bool [H, W]; padding is in none.

    Args:
        crowds: annotations, at least one; one without an outline is its box.
        transforms: what was applied to the image.
        old_hw: (height, width) of the image before.
        new_hw: (height, width) of the image after.

    Raises:
        LabelError: as `transform_masks`.
    """
    outlines = [crowd.get("segmentation") or _outline_of_box(crowd) for crowd in crowds]
    rles = [polygons_to_rle(one, old_hw) if isinstance(one, list) else one for one in outlines]
    return (transform_masks(rles, transforms, old_hw, new_hw).planes > 0).any(dim=0)


def _outline_of_box(crowd: dict[str, Any]) -> list[list[float]]:
    x0, y0, x1, y1 = BoxMode.convert(list(crowd["bbox"]), crowd["bbox_mode"], BoxMode.XYXY_ABS)
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def transform_polygons(segmentations: Sequence[Any], transforms: T.TransformList) -> PolygonMasks:
    """Polygons after `transforms`.

    Raises:
        LabelError: a segmentation is not a list of polygons.
    """
    if not all(isinstance(each, list) for each in segmentations):
        raise LabelError(
            "a segmentation is not a list of polygons; for run lengths set INPUT.MASK_FORMAT to "
            "'bitmask'"
        )
    return PolygonMasks(_move_outlines(segmentations, transforms))


def _move_outlines(
    outlines: Sequence[list[Any]], transforms: T.TransformList
) -> list[list[NDArray[Any]]]:
    return [
        [
            points.reshape(-1)
            for points in transforms.apply_polygons(
                [np.asarray(polygon).reshape(-1, 2) for polygon in polygons]
            )
        ]
        for polygons in outlines
    ]
