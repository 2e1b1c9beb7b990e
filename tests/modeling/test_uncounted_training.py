"""Training on an image of which nobody has counted one half."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import torch
from cellseg import load_config
from cellseg.cells.labels import bitmap_to_rle
from cellseg.modeling.building import build_model
from cellseg.training_data.mapper import CellDatasetMapper
from detectron2.structures import BoxMode
from detectron2.utils.events import EventStorage

CONFIG = Path(__file__).resolve().parent.parent.parent / "configs" / "quick_start.yaml"
IMAGE_HW = (96, 96)
CENTRES = [(x, y) for x in (12, 36, 60, 84) for y in (12, 36, 60, 84)]
ITERATIONS = 20


def half_annotated(path: Path) -> dict[str, Any]:
    """Sixteen cells alike, of which the eight on the right lie in a crowd region."""
    cells = [builders.disc(IMAGE_HW, x, y, 6) for x, y in CENTRES]
    builders.write_png(path, builders.scene_of_masks(cells, IMAGE_HW).image)
    crowd = builders.rectangle(IMAGE_HW, 48, 0, 96, 96)
    annotations = []
    for mask in [*cells[:8], crowd]:
        rows, cols = np.nonzero(mask)
        box = [int(v) for v in (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1)]
        annotations.append(
            {
                **{"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0},
                **{"segmentation": bitmap_to_rle(mask), "iscrowd": int(mask is crowd)},
            }
        )
    return {"file_name": str(path), "image_id": "half", "annotations": annotations}


def scores_of_cells(model: Any, image: torch.Tensor) -> np.ndarray[Any, Any]:
    """The best score of a detection in the middle of each cell; 0 without any."""
    with torch.no_grad():
        (found,) = model.eval()([{"image": image}])
    middles = found["instances"].pred_boxes.get_centers()
    near = [(middles - torch.tensor(at)).abs().amax(dim=1) < 4 for at in CENTRES]
    return np.array([max(found["instances"].scores[one].tolist(), default=0) for one in near])


def test_cells_that_nobody_counted_are_found_and_not_unlearnt(
    tmp_path: Path, tiny_model: list[str]
) -> None:
    entry = half_annotated(tmp_path / "half.png")
    opts = [*tiny_model, "MODEL.DEVICE", "cpu", "INPUT.RANDOM_FLIP", "none"]
    opts += ["INPUT.MIN_SIZE_TRAIN", "(96,)", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "64"]
    opts += ["MODEL.RPN.BATCH_SIZE_PER_IMAGE", "64"]
    recall = {}
    for how in ("ignored", "background"):
        cfg = load_config(CONFIG, [*opts, "CELLSEG.TRAIN.UNCOUNTED_REGIONS", how])
        item = CellDatasetMapper(cfg, is_train=True)(entry)
        torch.manual_seed(0)
        model = build_model(cfg).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for _ in range(ITERATIONS):
            optimizer.zero_grad()
            with EventStorage():
                sum(model([item]).values()).backward()
            optimizer.step()
        recall[how] = (scores_of_cells(model, item["image"]) >= 0.5).reshape(2, 8).mean(axis=1)
    assert recall["ignored"].tolist() == [1.0, 1.0]
    assert recall["background"][0] == 1.0
    assert recall["background"][1] <= 0.25
