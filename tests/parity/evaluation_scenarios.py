"""COCO's figures for predictions neither perfect nor hopeless, and how they are printed."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import torch
from datasets_for_parity import CLASSES
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, print_csv_format
from detectron2.structures import Boxes, BoxMode, Instances
from fixed_numbers import box_of, cell_masks, spread
from model_scenarios import run_lengths
from numpy.typing import NDArray

NAME = "parity_evaluation"
IMAGE_HW = (90, 120)
CELLS = (140, 60, 0)  # more than 100 in the first image, none in the last
LIMITS = {"as by default": None, "300 per image": 300}


def coco_figures() -> dict[str, Any]:
    """Every figure of boxes and masks, digit by digit, for two limits of detections per image."""
    masks = [_discs(f"true {number}", count) for number, count in enumerate(CELLS)]
    records = [_record(number, cells) for number, cells in enumerate(masks)]
    outputs = [_predictions(number, cells) for number, cells in enumerate(masks)]
    DatasetCatalog.register(NAME, lambda: records)
    MetadataCatalog.get(NAME).set(thing_classes=list(CLASSES))
    try:
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            return {
                name: _figures(limit, records, outputs, folder) for name, limit in LIMITS.items()
            }
    finally:
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


def _discs(name: str, count: int) -> NDArray[np.bool_]:
    """Half of them small in COCO's terms (below 32 x 32 px), half medium."""
    if not count:
        return np.zeros((0, *IMAGE_HW), bool)
    return cell_masks(IMAGE_HW, name, count, radii_px=(8, 28))


def _record(number: int, masks: NDArray[np.bool_]) -> dict[str, Any]:
    annotations = [
        {
            "bbox": box_of(mask),
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": index % 2,
            "segmentation": run_lengths(mask),
            "iscrowd": int(index == 7),
        }
        for index, mask in enumerate(masks)
    ]
    height, width = IMAGE_HW
    return {
        "file_name": f"{number}.png",
        "image_id": number,
        "height": height,
        "width": width,
        "annotations": annotations,
    }


def _predictions(number: int, masks: NDArray[np.bool_]) -> Instances:
    """Shifted copies of most cells, some of the wrong class, and 150 detections of nothing."""
    shifts = np.rint(2.5 * spread(2 * len(masks), f"shifts {number}")).reshape(-1, 2).astype(int)
    kept = 9 * len(masks) // 10
    found = [np.roll(mask, shift, (0, 1)) for mask, shift in zip(masks[:kept], shifts)]
    classes = [int(index % 2 != (index % 11 == 0)) for index in range(len(found))]
    wrong = _discs(f"wrong {number}", 150)
    instances = Instances(IMAGE_HW)
    bitmaps = np.stack([*found, *wrong])
    instances.pred_masks = torch.from_numpy(bitmaps)
    instances.pred_boxes = Boxes(torch.tensor([box_of(mask) for mask in bitmaps]))
    instances.pred_classes = torch.tensor(classes + [index % 2 for index in range(len(wrong))])
    chance = spread(len(bitmaps), f"scores {number}")
    chance[: len(found)] += 0.8
    instances.scores = torch.from_numpy((chance + 1) / 3).float()
    return instances


def _figures(
    limit: int | None, records: list[dict[str, Any]], outputs: list[Instances], folder: str
) -> dict[str, Any]:
    options = {"output_dir": folder, "max_dets_per_image": limit, "use_fast_impl": False}
    evaluator = COCOEvaluator(NAME, **options)
    evaluator.reset()
    for record, instances in zip(records, outputs):
        evaluator.process([record], [{"instances": instances}])
    results = evaluator.evaluate()
    return {
        "figures": {task: dict(figures) for task, figures in results.items()},
        "order": {task: list(figures) for task, figures in results.items()},
        "csv": _logged(lambda: print_csv_format(results)),
    }


def _logged(action: Callable[[], None]) -> list[str]:
    """Messages that an action logs on the logger of `print_csv_format`."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("detectron2.evaluation.testing")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        action()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return messages
