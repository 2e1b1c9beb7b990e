"""What a run has left in its folder: predictions, true cells, the course of training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cellseg.cells.instances import CellInstances
from cellseg.config.runs import METRICS_FILE
from cellseg.datasets.ground_truth import GroundTruth
from cellseg.evaluation.comparison import compare
from cellseg.evaluation.scoring import Comparisons
from cellseg.io.category_ids import CategoryIds
from cellseg.json_text import parse_json


@dataclass(frozen=True, eq=False)
class ImageResult:
    """One image.

    Attributes:
        name: the image's id.
        path: of the image.
        true: its true cells, crowd regions among them.
        detections: all predicted cells, whatever their score.
        page: number of the plane where the image is one of a stack.
    """

    name: str
    path: Path
    true: CellInstances
    detections: CellInstances
    page: int | None = None


@dataclass(frozen=True, eq=False)
class DatasetResult:
    """Results on one dataset; `missing` says why there are none."""

    name: str
    classes: tuple[str, ...]
    images: tuple[ImageResult, ...]
    missing: str = ""

    @cached_property
    def compared(self) -> Comparisons:
        """Every image compared, once, with all its detections."""
        return Comparisons([compare(image.true, image.detections) for image in self.images])


def read_dataset_result(
    dataset_name: str, predictions: Path, category_ids: CategoryIds = None
) -> DatasetResult:
    """Predictions in COCO's results format beside the true cells of a registered dataset.

    Args:
        predictions: file as Detectron2's COCOEvaluator leaves it: [{"image_id", "category_id",
            "score", "segmentation" as RLE}, ...]. When there is none, the result says so.
        category_ids: how that file counts, where it is known (`cellseg.io.category_ids`).

    Raises:
        DatasetError: the file is broken, or does not belong to this dataset.
    """
    truth = GroundTruth.load(dataset_name)
    if not predictions.is_file():
        missing = (
            f"There are no predictions: {predictions} does not exist. Evaluate the run "
            "(train_net.py --eval-only) or name a file with --predictions."
        )
        return DatasetResult(dataset_name, truth.classes, (), missing)
    found = truth.read_predictions(predictions, category_ids)
    images = tuple(
        ImageResult(
            str(key), Path(image["file_name"]), truth.cells(key), found[key], image.get("page")
        )
        for key, image in truth.images.items()
    )
    return DatasetResult(dataset_name, truth.classes, images)


def read_history(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """(iteration, value) of every metric in metrics.json, ascending; {} without that file.

    After a resumed run the later line of an iteration counts. Lines that are cut off are skipped.
    """
    path = run_dir / METRICS_FILE
    values: dict[str, dict[int, float]] = {}
    if not path.is_file():
        return {}
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            entry = parse_json(line)
            iteration = int(entry.pop("iteration"))
        except (ValueError, AttributeError, KeyError, TypeError):
            continue
        for name, value in entry.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                values.setdefault(name, {})[iteration] = float(value)
    return {name: sorted(points.items()) for name, points in values.items()}
