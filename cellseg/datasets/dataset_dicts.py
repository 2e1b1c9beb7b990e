"""Records as the dicts of Detectron2's catalog, and their cells back again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError, LabelError
from cellseg.io.base import path_of_image
from cellseg.io.coco_segmentations import segmentations_to_runs


def record_to_dict(record: ImageRecord, classes: Sequence[str]) -> dict[str, Any]:
    """One entry of Detectron2's standard dataset, with `bitmask` (RLE) segmentations.

    Args:
        record: an image and its cells.
        classes: the dataset's classes.

    Returns:
        `file_name`, `height`, `width`, `image_id` and `annotations`, each with `bbox` (XYXY_ABS),
        `bbox_mode`, `category_id`, `segmentation` and `iscrowd`; and `page`, the number of the
        plane from 0, where the image is one of a stack.

    Raises:
        DatasetError: a cell's class is not among `classes`, or the image is not known.
    """
    from detectron2.structures import BoxMode  # it loads torch, which inspecting does not need

    cells = record.cells
    highest = int(cells.classes.max(initial=-1))
    if highest >= len(classes):
        raise DatasetError(
            f"{record.image_path}: a cell of class {highest} (from 0); the dataset has "
            f"{len(classes)}: {', '.join(classes)}"
        )
    columns = zip(
        cells.boxes_xyxy.tolist(),
        cells.classes.tolist(),
        cells.to_rles(),
        cells.is_crowd.astype(int).tolist(),
    )
    of_page = {} if record.place.page is None else {"page": record.place.page}
    return {
        "file_name": str(path_of_image(record)),
        **of_page,
        "height": record.image_hw[0],
        "width": record.image_hw[1],
        "image_id": record.image_id,
        "annotations": [
            {
                "bbox": box,
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": number,
                "segmentation": rle,
                "iscrowd": is_crowd,
            }
            for box, number, rle, is_crowd in columns
        ],
    }


def dict_to_cells(
    entry: Mapping[str, Any], *, box_where_no_mask: bool = False
) -> tuple[CellInstances, dict[int, str]]:
    """The cells of one entry of a Detectron2 dataset.

    Args:
        entry: with `height`, `width` and `annotations`, whose `segmentation` is an RLE, polygons
            or a bitmap [H, W].
        box_where_no_mask: an annotation without a segmentation is a cell that fills its box, and
            boxes are those of the annotations; otherwise they are those of the masks.

    Returns:
        The cells, crowd regions among them, and what is wrong with the masks of which; these have
        no pixel.
    """
    image_hw = (int(entry["height"]), int(entry["width"]))
    annotations = entry.get("annotations", ())
    shapes = [annotation.get("segmentation") for annotation in annotations]
    boxes = None
    if box_where_no_mask:
        boxes = np.array([_box_xyxy(one) for one in annotations], np.float64).reshape(-1, 4)
        shapes = [
            [box[[0, 1, 2, 1, 2, 3, 0, 3]]] if shape is None or len(shape) == 0 else shape
            for shape, box in zip(shapes, boxes)
        ]
    runs, problems = segmentations_to_runs(shapes, image_hw)
    cells = CellInstances.from_runs(
        runs,
        len(annotations),
        image_hw,
        classes=[annotation["category_id"] for annotation in annotations],
        boxes_xyxy=boxes,
        is_crowd=[bool(annotation.get("iscrowd", 0)) for annotation in annotations],
    )
    return cells, problems


def _box_xyxy(annotation: Mapping[str, Any]) -> list[float]:
    from detectron2.structures import BoxMode

    box = list(map(float, annotation["bbox"]))
    return list(BoxMode.convert(box, annotation["bbox_mode"], BoxMode.XYXY_ABS))


def dict_to_true_cells(entry: Mapping[str, Any], where: str) -> CellInstances:
    """`dict_to_cells` where every annotation has to have a mask.

    Args:
        entry: of a Detectron2 dataset.
        where: what a message calls it.

    Raises:
        DatasetError: annotations without a usable mask, or of no class.
    """
    try:
        cells, problems = dict_to_cells(entry)
    except LabelError as error:
        raise DatasetError(f"{where}: {error}") from error
    if problems:
        number, text = min(problems.items())
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DatasetError(
            f"{where}: annotation {number}{more}: {text}; each needs a segmentation by polygons, "
            "run lengths or a bitmap of the image's size"
        )
    return cells
