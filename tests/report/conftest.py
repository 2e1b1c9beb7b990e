"""A run folder of four small images, with names that try to get out of the page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from builders import rectangle, scene_of_masks, write_png
from cellseg import add_cellseg_config
from cellseg.cells.labels import bitmap_to_rle
from cellseg.report.build import write_report
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

EVIL = '"><img src=x onerror=alert(1)>'
EVIL_CLASS = "</script><script>alert(2)</script>'&"
DATASET = "report_of_evil_names"
HW = (60, 80)
Box = tuple[int, int, int, int]

# By image: (class, box x0 y0 x1 y1) of true cells; (class, box, score) of detections.
TRUE: dict[str, list[tuple[int, Box]]] = {
    "perfect": [(0, (5, 5, 15, 15)), (1, (30, 5, 50, 25))],
    EVIL: [(0, (2, 2, 12, 12)), (0, (20, 2, 40, 12)), (1, (2, 30, 12, 40)), (1, (12, 30, 22, 40))],
    "confused": [(0, (5, 5, 25, 25)), (1, (40, 30, 60, 50))],
    "empty": [],
}
FOUND: dict[str, list[tuple[int, Box, float]]] = {
    "perfect": [(0, (5, 5, 15, 15), 0.95), (1, (30, 5, 50, 25), 0.9), (0, (60, 40, 70, 50), 0.2)],
    # missed; split in two; merged; spurious
    EVIL: [
        (0, (20, 2, 30, 12), 0.8),
        (0, (30, 2, 40, 12), 0.75),
        (1, (2, 30, 22, 40), 0.7),
        (0, (50, 40, 60, 50), 0.6),
    ],
    "confused": [(1, (5, 5, 25, 25), 0.85), (1, (40, 30, 60, 50), 0.99)],
    "empty": [],
}


@dataclass(frozen=True)
class Run:
    cfg: CfgNode
    folder: Path
    predictions: Path


def _dataset_dicts(folder: Path) -> list[dict]:
    dicts = []
    for name, cells in TRUE.items():
        masks = [rectangle(HW, *box) for _, box in cells]
        path = folder / f"{name}.png"
        write_png(path, scene_of_masks(masks, HW).image)
        annotations = [
            {
                "bbox": list(box),
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": number,
                "segmentation": bitmap_to_rle(mask),
                "iscrowd": 0,
            }
            for (number, box), mask in zip(cells, masks)
        ]
        dicts.append(
            {"file_name": str(path), "height": HW[0], "width": HW[1], "image_id": name,
             "annotations": annotations}
        )  # fmt: skip
    return dicts


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    root = tmp_path_factory.mktemp("report")
    (root / "images").mkdir()
    dicts = _dataset_dicts(root / "images")
    DatasetCatalog.register(DATASET, lambda: dicts)
    MetadataCatalog.get(DATASET).thing_classes = ["nucleus", EVIL_CLASS]
    cfg = get_cfg()
    add_cellseg_config(cfg)
    cfg.DATASETS.TEST = (DATASET,)
    folder = root / "run"
    predictions = folder / "inference" / DATASET / "coco_instances_results.json"
    predictions.parent.mkdir(parents=True)
    entries = [
        {"image_id": name, "category_id": number, "score": score,
         "segmentation": bitmap_to_rle(rectangle(HW, *box))}
        for name, cells in FOUND.items()
        for number, box, score in cells
    ]  # fmt: skip
    predictions.write_text(json.dumps(entries), "utf-8")
    lines = [
        {"iteration": k, "total_loss": 2.0 - k / 100, "loss_mask": 0.5, "lr": 2e-4}
        for k in (19, 39, 59)
    ]
    lines.append({"iteration": 60, "cell_iou/f1@0.50": 0.75, "cell_iou/ap_dsb": float("nan")})
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / "metrics.json").write_text(text + '\n{"iteration": 79, "total_', "utf-8")
    yield Run(cfg, folder, predictions)
    DatasetCatalog.remove(DATASET)
    MetadataCatalog.remove(DATASET)


@pytest.fixture(scope="session")
def page(run: Run) -> Path:
    return write_report(run.cfg, run.folder, run.folder / "report.html")
