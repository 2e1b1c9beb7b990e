"""COCO's matching of detections, for images with hundreds or thousands of cells.

`pycocotools` tries every detection of an image against every true cell, in Python, for ten
thresholds and four size ranges: 20 s and more for one image with 1,000 cells. Nearly all of these
pairs do not overlap. Here only those that do are tried, with the same outcome.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

_HIGHEST_THRESHOLD = 1 - 1e-10  # as in COCO: IoU 1 is reached in spite of rounding


@contextmanager
def sparse_coco_matching() -> Iterator[None]:
    """Within the block every `COCOeval` of this process matches with `match_image`.

    Detectron2 chooses the class by itself and offers no place to pass another one. Its C++
    implementation is not affected where it is built and used.
    """
    original = COCOeval.evaluateImg
    COCOeval.evaluateImg = match_image
    try:
        yield
    finally:
        COCOeval.evaluateImg = original


def match_image(
    coco_eval: COCOeval, image_id: Any, category_id: Any, area_range: Any, max_dets: int
) -> dict[str, Any] | None:
    """Match the detections of one image and class; stands in for `COCOeval.evaluateImg`.

    Returns:
        The dict that `COCOeval.accumulate` expects, or None where there are neither detections
        nor true cells.
    """
    true = coco_eval._gts[image_id, category_id]
    found = coco_eval._dts[image_id, category_id]
    if not true and not found:
        return None
    ignored = np.array([bool(cell["ignore"]) for cell in true], dtype=bool)
    ignored |= _lie_outside(true, area_range)
    counted_first = np.argsort(ignored, kind="stable")
    true, ignored = [true[k] for k in counted_first], ignored[counted_first]
    by_score = np.argsort([-cell["score"] for cell in found], kind="stable")[:max_dets]
    found = [found[k] for k in by_score]
    iou = np.zeros((len(found), len(true)))
    if true and found:  # COCO leaves an empty list otherwise
        iou[:] = coco_eval.ious[image_id, category_id][: len(found), counted_first]
    crowd = [bool(cell["iscrowd"]) for cell in true]
    partner = _match(iou, ignored, crowd, coco_eval.params.iouThrs)
    matched = partner >= 0
    true_ids = np.array([cell["id"] for cell in true] + [0])
    return {
        "image_id": image_id,
        "category_id": category_id,
        "aRng": area_range,
        "maxDet": max_dets,
        "dtIds": [cell["id"] for cell in found],
        "gtIds": true_ids[:-1].tolist(),
        "dtMatches": true_ids[partner],
        "gtMatches": _matches_of_true(partner, found, len(true)),
        "dtScores": [cell["score"] for cell in found],
        "gtIgnore": ignored.astype(int),
        "dtIgnore": np.where(
            matched, np.append(ignored, False)[partner], _lie_outside(found, area_range)
        ),
    }


def _lie_outside(cells: Sequence[dict[str, Any]], area_range: Any) -> NDArray[np.bool_]:
    areas = np.array([cell["area"] for cell in cells])
    return (areas < area_range[0]) | (areas > area_range[1])


def _match(
    iou: NDArray[np.float64],
    ignored: NDArray[np.bool_],
    crowd: Sequence[bool],
    thresholds: Sequence[float],
) -> NDArray[np.int64]:
    """True cell of each detection, int64[T, D]; -1 where it has none.

    Detections choose in order of their scores: the free cell of the highest IoU, an ignored one
    (they come last in `iou`) only where no other is left. A crowd is never taken.
    """
    bars = np.minimum(thresholds, _HIGHEST_THRESHOLD)
    options = [np.flatnonzero(row >= bars.min()).tolist() for row in iou]
    partner = np.full((len(bars), len(iou)), -1, dtype=np.int64)
    is_ignored = ignored.tolist()
    for t, bar in enumerate(bars.tolist()):
        taken: set[int] = set()
        for d in (d for d, cells in enumerate(options) if cells):
            best, reached = -1, bar
            for cell in options[d]:
                if best >= 0 and is_ignored[cell] and not is_ignored[best]:
                    break
                if cell not in taken and iou[d, cell] >= reached:
                    best, reached = cell, iou[d, cell]
            partner[t, d] = best
            if best >= 0 and not crowd[best]:
                taken.add(best)
    return partner


def _matches_of_true(
    partner: NDArray[np.int64], found: Sequence[dict[str, Any]], num_true: int
) -> NDArray[np.float64]:
    matches = np.zeros((len(partner), num_true))
    for t, d in np.argwhere(partner >= 0):
        matches[t, partner[t, d]] = found[d]["id"]
    return matches
