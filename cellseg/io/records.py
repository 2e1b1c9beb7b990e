"""What a dataset format yields: one record per image, and its form in Detectron2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellseg.cells.labels import Rle
from cellseg.cells.run_lengths import runs_to_rles
from cellseg.cells.runs import Runs, runs_to_boxes
from cellseg.errors import DatasetError


@dataclass(frozen=True)
class CellAnnotation:
    """One cell.

    Attributes:
        rle: COCO's compressed RLE of the whole image.
        box_xyxy: tight box (x0, y0, x1, y1), x1 and y1 exclusive, pixels.
        class_name: one of the dataset's classes.
        is_crowd: a region of cells that nobody counted (COCO's `iscrowd`), not one cell: not
            trained on, and detections inside it are neither right nor wrong.
    """

    rle: Rle
    box_xyxy: tuple[float, float, float, float]
    class_name: str
    is_crowd: bool = False


@dataclass(frozen=True)
class CellRecord:
    """One image and its cells.

    Attributes:
        image_id: the file's stem; unique within a split.
        image_path: the image file.
        image_hw: (height, width), pixels.
        cells: may be empty.
    """

    image_id: str
    image_path: Path
    image_hw: tuple[int, int]
    cells: tuple[CellAnnotation, ...]


def record_to_detectron2_dict(record: CellRecord, classes: Sequence[str]) -> dict[str, Any]:
    """One entry of Detectron2's standard dataset, with `bitmask` (RLE) segmentations.

    Args:
        record: an image and its cells.
        classes: the dataset's classes; a cell's `category_id` is the place of its own.

    Returns:
        `file_name`, `height`, `width`, `image_id` and `annotations`, each with `bbox` (XYXY_ABS),
        `bbox_mode`, `category_id`, `segmentation` and `iscrowd`.

    Raises:
        DatasetError: a cell's class is not among `classes`.
    """
    from detectron2.structures import BoxMode

    category_ids = {name: number for number, name in enumerate(classes)}
    strangers = {cell.class_name for cell in record.cells} - set(category_ids)
    if strangers:
        raise DatasetError(
            f"{record.image_path}: cells of class {', '.join(sorted(strangers))}; "
            f"the dataset has {', '.join(classes)}"
        )
    return {
        "file_name": str(record.image_path),
        "height": record.image_hw[0],
        "width": record.image_hw[1],
        "image_id": record.image_id,
        "annotations": [
            {
                "bbox": list(cell.box_xyxy),
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": category_ids[cell.class_name],
                "segmentation": dict(cell.rle),
                "iscrowd": int(cell.is_crowd),
            }
            for cell in record.cells
        ],
    }


def runs_to_cells(
    runs: Runs,
    image_hw: tuple[int, int],
    class_names: Sequence[str],
    crowds: Sequence[bool] | None = None,
) -> tuple[CellAnnotation, ...]:
    """Annotations of one image's cells.

    Args:
        runs: column-major, merged.
        image_hw: (height, width), pixels.
        class_names: one per cell.
        crowds: which are crowd regions; by default none.
    """
    number = len(class_names)
    rles = runs_to_rles(*runs, number, image_hw)
    boxes = runs_to_boxes(runs, number, image_hw[0]).astype(float).tolist()
    flags = [False] * number if crowds is None else crowds
    return tuple(
        CellAnnotation(rle, (box[0], box[1], box[2], box[3]), name, flag)
        for rle, box, name, flag in zip(rles, boxes, class_names, flags)
    )
