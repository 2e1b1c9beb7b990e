"""What trials start from: a tiny trained model, images, a data set and results."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

# A Mask R-CNN of some 200,000 parameters: an iteration takes 50 ms, a checkpoint 2 MB.
TINY = (
    *("MODEL.RESNETS.NORM", "BN", "MODEL.RESNETS.STEM_OUT_CHANNELS", "8"),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", "16", "MODEL.RESNETS.WIDTH_PER_GROUP", "4"),
    *("MODEL.FPN.OUT_CHANNELS", "32", "MODEL.ROI_BOX_HEAD.FC_DIM", "32"),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", "32", "MODEL.ROI_MASK_HEAD.NUM_CONV", "1"),
    *("MODEL.RPN.BATCH_SIZE_PER_IMAGE", "32", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "16"),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "96"),
    *("SOLVER.MAX_ITER", "2", "SOLVER.WARMUP_ITERS", "1", "SOLVER.IMS_PER_BATCH", "1"),
    *("DATALOADER.NUM_WORKERS", "0", "CELLSEG.TEST.PICTURES", "0", "CELLSEG.TEST.REPORT", "False"),
)
# For `cellseg train` on the folder `data`, into `out`.
TRAIN = (
    *("train", "--config-file", "quick_start.yaml", *TINY),
    *("CELLSEG.DATASETS.DECLARATIONS", "('data/cells.yaml',)", "OUTPUT_DIR", "out"),
    *("DATASETS.TRAIN", "('cells_train',)", "DATASETS.TEST", "('cells_val',)"),
)
DECLARATION = """\
cells:
  format: label_images
  root: data
  splits: [train, val]
  classes: [cell]
"""


def draw_cells(seed: int, hw: tuple[int, int] = (64, 64)) -> tuple[Any, Any]:
    """An image (uint8) and its label image (uint16): four discs by `seed`."""
    chance = np.random.default_rng(seed)
    labels = np.zeros(hw, np.uint16)
    corners = [(x, y) for x in (16, 46) for y in (16, 46)]
    for number, (x, y) in enumerate(corners, 1):
        dx, dy = chance.integers(-4, 5, 2)
        cv2.circle(labels, (int(x + dx), int(y + dy)), int(chance.integers(6, 10)), number, -1)
    image = np.where(labels > 0, 180, 20) + chance.integers(0, 20, hw)
    return image.astype(np.uint8), labels


def write_data(folder: Path, splits: dict[str, int] | None = None) -> None:
    """`SPLIT/images/cells_N.png` and `SPLIT/labels/cells_N.png`, and `cells.yaml`."""
    for split, count in (splits or {"train": 3, "val": 2}).items():
        for number in range(count):
            image, labels = draw_cells(number + 100 * (split == "val"))
            for kind, array in (("images", image), ("labels", labels)):
                place = folder / split / kind
                place.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(place / f"cells_{number}.png"), array)
    (folder / "cells.yaml").write_text(DECLARATION, "utf-8")


def write_images(folder: Path, count: int = 2) -> None:
    """`cells_N.png`, of 64 x 64 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        cv2.imwrite(str(folder / f"cells_{number}.png"), draw_cells(number)[0])


def write_run(folder: Path) -> None:
    """A run folder as `cellseg train` leaves it, after two iterations."""
    from cellseg.cli import main

    os.chdir(folder.parent)
    os.environ["DETECTRON2_DATASETS"] = str(folder.parent)
    if main([*TRAIN, "OUTPUT_DIR", folder.name]):
        raise RuntimeError("the tiny training of the trials failed")


def write_bundle(folder: Path) -> None:
    """A model bundle of the run beside it."""
    from cellseg.cli import main

    if main(["bundle", str(folder.parent / "run"), "--name", "cells", "-o", str(folder)]):
        raise RuntimeError("no bundle of the tiny run could be made")


def write_results(folder: Path) -> None:
    """`truth.json`, COCO annotations of two images, and `results.json`, COCO results: the same."""
    from pycocotools import mask as coco_masks

    folder.mkdir(parents=True)
    images, annotations = [], []
    for number in range(2):
        _, labels = draw_cells(number)
        name = f"cells_{number}.png"
        images.append({"id": number + 1, "file_name": name, "height": 64, "width": 64})
        for label in np.unique(labels)[1:]:
            mask = np.asfortranarray(labels == label).astype(np.uint8)
            rle = coco_masks.encode(mask)
            x, y, width, height = (int(one) for one in coco_masks.toBbox(rle))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": 1,
                    "bbox": [x, y, width, height],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": {"size": [64, 64], "counts": rle["counts"].decode("ascii")},
                }
            )
    categories = [{"id": 1, "name": "cell"}]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    results = [{**one, "score": 0.9} for one in annotations]
    (folder / "truth.json").write_text(json.dumps(truth), "utf-8")
    (folder / "results.json").write_text(json.dumps(results), "utf-8")


def make_stock(folder: Path) -> None:
    """All of it, below `folder`; in a process of its own, for it changes the working folder."""
    write_data(folder / "data")
    write_images(folder / "images")
    write_results(folder / "results")
    write_run(folder / "run")
    write_bundle(folder / "bundle")
