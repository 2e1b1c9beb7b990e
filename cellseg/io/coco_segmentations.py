"""Segmentations of COCO annotations, all of one image at once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from cellseg.cells.run_lengths import rle_to_runs, rles_to_runs
from cellseg.cells.runs import Runs, merge_touching
from cellseg.errors import LabelError
from cellseg.io.records import CellAnnotation, runs_to_cells
from pycocotools import mask as coco_mask

logger = logging.getLogger(__name__)

Json = dict[str, Any]


def decode_annotations(
    annotations: Sequence[Json], image_hw: tuple[int, int], names: Mapping[int, str]
) -> tuple[CellAnnotation, ...]:
    """Cells of one image, in the order of their annotations.

    Boxes are those of the masks, whatever `bbox` says. A polygon is filled as pycocotools does it;
    one that comes out without a pixel is left out with a warning.

    Args:
        annotations: COCO's, with `segmentation` (polygons, or run lengths compressed or not),
            `category_id` and perhaps `iscrowd`.
        image_hw: (height, width), pixels.
        names: class of each category id.

    Raises:
        LabelError: one line for each annotation that cannot be used.
    """
    problems = [
        f"annotation {entry.get('id', place)}: {problem}"
        for place, entry in enumerate(annotations)
        for problem in _problems_of(entry, image_hw)
    ]
    if problems:
        raise LabelError("\n".join(problems))
    polygons, run_lengths = (
        [k for k, one in enumerate(annotations) if isinstance(one["segmentation"], kind)]
        for kind in (list, dict)
    )
    cells = {
        **_decode_polygons(annotations, polygons, image_hw, names),
        **_decode_run_lengths(annotations, run_lengths, image_hw, names),
    }
    return tuple(cells[place] for place in sorted(cells))


def _problems_of(entry: Json, image_hw: tuple[int, int]) -> Iterator[str]:
    """What can be said before decoding."""
    shape, is_crowd = entry.get("segmentation"), entry.get("iscrowd", 0)
    if is_crowd not in (0, 1):
        yield f"iscrowd is {is_crowd!r}; expected 0 or 1"
    if isinstance(shape, dict):
        if shape.get("size") != list(image_hw):
            yield f"run lengths of size {shape.get('size')}; the image has {list(image_hw)}"
    elif not isinstance(shape, list) or not shape:
        yield f"segmentation is {str(shape)[:60]}; expected polygons or run lengths"
    elif not all(isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 for p in shape):
        yield "a polygon is a list x, y, x, y, ... of three points or more"


def _decode_polygons(
    annotations: Sequence[Json],
    places: Sequence[int],
    image_hw: tuple[int, int],
    names: Mapping[int, str],
) -> dict[int, CellAnnotation]:
    """Cells by their place in `annotations`."""
    if not places:
        return {}
    shapes = [annotations[place]["segmentation"] for place in places]
    _check_points(shapes, image_hw)
    pieces = iter(coco_mask.frPyObjects(list(chain.from_iterable(shapes)), *image_hw))
    own = [[next(pieces) for _ in shape] for shape in shapes]
    rles = [parts[0] if len(parts) == 1 else coco_mask.merge(parts) for parts in own]
    cells = {}
    for place, rle, (x, y, width, height) in zip(places, rles, coco_mask.toBbox(rles).tolist()):
        entry = annotations[place]
        if not width:
            number = entry.get("id", place)
            logger.warning("annotation %s: polygons without a pixel, left out", number)
            continue
        cells[place] = CellAnnotation(
            {"size": list(image_hw), "counts": rle["counts"].decode("ascii")},
            (x, y, x + width, y + height),
            names[entry["category_id"]],
            bool(entry.get("iscrowd", 0)),
        )
    return cells


def _check_points(shapes: Sequence[list[list[float]]], image_hw: tuple[int, int]) -> None:
    """Raise LabelError for points that are no numbers, or so far away that filling never ends."""
    side = max(image_hw)
    try:
        points = np.array(list(chain.from_iterable(chain.from_iterable(shapes))), float)
    except (TypeError, ValueError) as error:
        raise LabelError(f"the points of a polygon are not all numbers: {error}") from error
    if not (np.abs(points - side / 2) <= 1.5 * side).all():
        raise LabelError("a polygon has points that are not finite or far outside the image")


def _decode_run_lengths(
    annotations: Sequence[Json],
    places: Sequence[int],
    image_hw: tuple[int, int],
    names: Mapping[int, str],
) -> dict[int, CellAnnotation]:
    """Cells by their place in `annotations`."""
    chosen = [annotations[place] for place in places]
    try:
        runs = Runs(*rles_to_runs([entry["segmentation"] for entry in chosen], image_hw))
    except LabelError as error:
        raise LabelError("\n".join(_faults(chosen))) from error
    empty = np.flatnonzero(np.bincount(runs.cells, minlength=len(chosen)) == 0).tolist()
    if empty:
        ids = [chosen[k].get("id", places[k]) for k in empty]
        raise LabelError("\n".join(f"annotation {number}: the mask is empty" for number in ids))
    cells = runs_to_cells(
        merge_touching(runs),
        image_hw,
        [names[entry["category_id"]] for entry in chosen],
        [bool(entry.get("iscrowd", 0)) for entry in chosen],
    )
    return dict(zip(places, cells))


def _faults(annotations: Sequence[Json]) -> Iterator[str]:
    for entry in annotations:
        try:
            rle_to_runs(entry["segmentation"])
        except LabelError as error:
            yield f"annotation {entry.get('id')}: {error}"
