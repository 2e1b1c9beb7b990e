"""Cells as COCO's results JSON (https://cocodataset.org/#format-results)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.errors import LabelError
from cellseg.files import write_whole


def cells_to_coco_results(
    image_id: str | int, cells: CellInstances, category_ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """One dict per cell, in the order of `cells`.

    Args:
        image_id: as in the annotation file that the results belong to.
        cells: the cells of that image; may be empty.
        category_ids: the annotation file's id of each class; class + 1 by default.

    Returns:
        image_id, category_id, bbox (x, y, width, height in pixels), score, segmentation
        (compressed RLE).

    Raises:
        LabelError: a cell's class has no category id.
    """
    highest = int(cells.classes.max(initial=-1))
    if category_ids is None:
        category_ids = range(1, highest + 2)
    if highest >= len(category_ids):
        raise LabelError(
            f"image {image_id!r} has a cell of class {highest} (0-based), but there are "
            f"{len(category_ids)} category ids: {list(category_ids)}"
        )
    corners = cells.boxes_xyxy.astype(np.float64)
    boxes_xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    return [
        {
            "image_id": image_id,
            "category_id": int(category_ids[number]),
            "bbox": box,
            "score": score,
            "segmentation": rle,
        }
        for number, box, score, rle in zip(
            cells.classes, boxes_xywh.tolist(), cells.scores.tolist(), cells.to_rles()
        )
    ]


def write_coco_results(
    results: Iterable[tuple[str | int, CellInstances]],
    path: str | Path,
    category_ids: Sequence[int] | None = None,
) -> None:
    """Write the cells of many images into one JSON file; see `cells_to_coco_results`.

    Args:
        results: (image id, cells) per image; may be a generator, may be empty.
        path: folders are made; replaced only when complete.
        category_ids: the annotation file's id of each class; class + 1 by default.
    """
    found = [
        result
        for image_id, cells in results
        for result in cells_to_coco_results(image_id, cells, category_ids)
    ]
    with write_whole(path) as partial:
        partial.write_text(json.dumps(found), encoding="utf-8")
