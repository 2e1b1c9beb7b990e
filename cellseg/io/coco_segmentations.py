"""COCO's segmentations as cells: polygons, run lengths and bitmaps, all of one image at once.

Annotation files, the dicts of registered data sets and results files are decoded here and nowhere
else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import bitmap_to_rle
from cellseg.cells.run_lengths import Rle, rle_to_runs, rles_to_runs
from cellseg.cells.runs import Runs, merge_touching
from cellseg.errors import LabelError
from cellseg.io.coco_content import describe_annotation
from pycocotools import mask as coco_mask

logger = logging.getLogger(__name__)

Json = dict[str, Any]

_MOST_BEYOND = 1.5  # sides of the image from its middle; filling what reaches far beyond never ends


def segmentations_to_runs(
    segmentations: Sequence[Any], image_hw: tuple[int, int]
) -> tuple[Runs, dict[int, str]]:
    """Decode the segmentations of all cells of one image.

    A polygon is filled as pycocotools does it.

    Args:
        segmentations: one per cell: polygons (a list of lists x, y, x, y, ..., or one such list),
            run lengths (compressed or not) or a bitmap [H, W].
        image_hw: (height, width), pixels.

    Returns:
        Column-major runs of the cells, merged, and what is wrong with the segmentations of which
        cells; these have no runs. Nor have cells without a pixel, which is no fault here.

    Example:
        >>> runs, problems = segmentations_to_runs([[[0, 0, 2, 0, 2, 1, 0, 1]], None], (3, 4))
        >>> runs.starts.tolist(), runs.ends.tolist()
        ([0, 3], [1, 4])
        >>> problems
        {1: 'segmentation is None; expected polygons or run lengths'}
    """
    segmentations = [_as_polygons(shape) for shape in segmentations]
    problems = {
        number: problem
        for number, shape in enumerate(segmentations)
        if (problem := _describe_problem(shape, image_hw))
    }
    rles = {
        number: bitmap_to_rle(shape) if isinstance(shape, np.ndarray) else shape
        for number, shape in enumerate(segmentations)
        if number not in problems
    }
    polygons = [number for number, shape in rles.items() if isinstance(shape, (list, tuple))]
    rles.update(zip(polygons, _fill_polygons([rles[number] for number in polygons], image_hw)))
    try:
        runs = Runs(*rles_to_runs(list(rles.values()), image_hw))
    except LabelError:
        problems |= _find_damaged(rles)
        rles = {number: rle for number, rle in rles.items() if number not in problems}
        runs = Runs(*rles_to_runs(list(rles.values()), image_hw))
    numbers = np.array(list(rles), np.int64)
    return merge_touching(Runs(numbers[runs.cells], runs.starts, runs.ends)), problems


def _as_polygons(shape: Any) -> Any:
    """A single polygon x, y, x, y, ..., as VIA writes it, in a list of its own."""
    is_bare = isinstance(shape, (list, tuple)) and len(shape) > 0
    return [shape] if is_bare and all(isinstance(one, (int, float)) for one in shape) else shape


def _describe_problem(shape: Any, image_hw: tuple[int, int]) -> str:
    """What can be said before decoding; "" if nothing."""
    if isinstance(shape, Mapping):
        size = shape.get("size")
        if not isinstance(size, (list, tuple)) or list(size) != list(image_hw):
            return f"run lengths of size {size}; the image has {list(image_hw)}"
        return ""
    if isinstance(shape, np.ndarray):
        if shape.shape != image_hw:
            return f"a bitmap of shape {list(shape.shape)}; the image has {list(image_hw)}"
        return ""
    if not isinstance(shape, (list, tuple)) or not shape:
        return f"segmentation is {str(shape)[:60]}; expected polygons or run lengths"
    if not all(_is_polygon(polygon) for polygon in shape):
        return "a polygon is a list x, y, x, y, ... of three points or more"
    return _describe_points(shape, image_hw)


def _is_polygon(points: Any) -> bool:
    is_list = isinstance(points, (list, tuple, np.ndarray))
    return is_list and len(points) >= 6 and len(points) % 2 == 0


def _describe_points(shape: Sequence[Sequence[float]], image_hw: tuple[int, int]) -> str:
    try:
        points = np.array(list(chain.from_iterable(shape)), float)
    except (TypeError, ValueError) as error:
        return f"the points of a polygon are not all numbers: {error}"
    side = max(image_hw)
    if not (np.abs(points - side / 2) <= _MOST_BEYOND * side).all():
        return "a polygon has points that are not finite or far outside the image"
    return ""


def _fill_polygons(shapes: Sequence[Any], image_hw: tuple[int, int]) -> list[Rle]:
    """An RLE of the polygons of each cell together."""
    if not shapes:
        return []
    polygons = [list(map(float, polygon)) for polygon in chain.from_iterable(shapes)]
    pieces = iter(coco_mask.frPyObjects(polygons, *image_hw))
    own = [[next(pieces) for _ in shape] for shape in shapes]
    return [parts[0] if len(parts) == 1 else coco_mask.merge(parts) for parts in own]


def _find_damaged(rles: Mapping[int, Rle]) -> dict[int, str]:
    problems = {}
    for number, rle in rles.items():
        try:
            rle_to_runs(rle)
        except LabelError as error:
            problems[number] = str(error)
    return problems


def annotations_to_cells(
    annotations: Sequence[Json], image_hw: tuple[int, int], numbers: Mapping[int, int]
) -> CellInstances:
    """Cells of one image of an annotation file, in the order of their annotations.

    Boxes are those of the masks, whatever `bbox` says. A polygon that comes out without a pixel is
    left out with a warning.

    Args:
        annotations: COCO's, with `segmentation` (polygons, or run lengths compressed or not),
            `category_id` and perhaps `iscrowd`.
        image_hw: (height, width), pixels.
        numbers: class of each category id.

    Raises:
        LabelError: one line for each annotation that cannot be used.
    """
    shapes = [entry.get("segmentation") for entry in annotations]
    runs, problems = segmentations_to_runs(shapes, image_hw)
    empty = np.bincount(runs.cells, minlength=len(annotations)) == 0
    for place, entry in enumerate(annotations):
        if entry.get("iscrowd", 0) not in (0, 1):
            problems[place] = f"iscrowd is {entry['iscrowd']!r}; expected 0 or 1"
        elif empty[place] and place not in problems and isinstance(shapes[place], dict):
            problems[place] = "the mask is empty"
    if problems:
        found = sorted(problems.items())
        raise LabelError(
            "\n".join(describe_annotation(annotations[place], text) for place, text in found)
        )
    for place in np.flatnonzero(empty).tolist():
        text = "polygons without a pixel, left out"
        logger.warning("%s", describe_annotation(annotations[place], text))
    cells = CellInstances.from_runs(
        runs,
        len(annotations),
        image_hw,
        classes=[numbers[entry["category_id"]] for entry in annotations],
        is_crowd=[bool(entry.get("iscrowd", 0)) for entry in annotations],
    )
    return cells[~empty] if empty.any() else cells
