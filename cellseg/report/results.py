"""What a run has left in its folder: predictions, true cells, the course of training."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cellseg.cells.instances import CellInstances
from cellseg.datasets.ground_truth import GroundTruth, ImageKey
from cellseg.errors import ConfigError, DatasetError, LabelError, collect_problems
from cellseg.evaluation.comparison import compare
from cellseg.evaluation.scoring import Comparisons
from detectron2.data import MetadataCatalog

RESULTS_FILE = "coco_instances_results.json"
METRICS_FILE = "metrics.json"
CONFIG_FILE = "config.yaml"


@dataclass(frozen=True, eq=False)
class ImageResult:
    """One image.

    Attributes:
        name: the image's id.
        path: of the image.
        true: its true cells, crowd regions among them.
        detections: all predicted cells, whatever their score.
    """

    name: str
    path: Path
    true: CellInstances
    detections: CellInstances


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


def find_config(run_dir: Path) -> Path:
    """The run's config file.

    Raises:
        ConfigError: no such folder, or it is not the OUTPUT_DIR of a run.
    """
    path = run_dir / CONFIG_FILE
    if not path.is_file():
        what = "has no config.yaml" if run_dir.is_dir() else "is no folder"
        raise ConfigError(
            f"{run_dir} {what}; expected the OUTPUT_DIR of a run of tools/train_net.py, which "
            "writes its config there"
        )
    return path


def read_dataset_result(dataset_name: str, predictions: Path) -> DatasetResult:
    """Predictions in COCO's results format beside the true cells of a registered dataset.

    Args:
        predictions: file as Detectron2's COCOEvaluator leaves it: [{"image_id", "category_id",
            "score", "segmentation" as RLE}, ...]. When there is none, the result says so.

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
    found = _read_detections(predictions, truth)
    images = []
    for key, image in truth.images.items():
        true = truth.cells(key)
        cells = _to_cells(predictions, key, found[key], true.image_hw, len(truth.classes))
        images.append(ImageResult(str(key), Path(image["file_name"]), true, cells))
    return DatasetResult(dataset_name, truth.classes, tuple(images))


def _read_detections(path: Path, truth: GroundTruth) -> dict[ImageKey, list[dict[str, Any]]]:
    """Detections by image, their category ids turned into class numbers."""
    try:
        entries = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise DatasetError(f"{path}: no JSON ({error})") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DatasetError(f"{path}: expected a list of detections, as in COCO's results format")
    wanted = {"image_id", "category_id", "score", "segmentation"}
    lacking = [f"entry {k}: {sorted(wanted - entry.keys())}" for k, entry in enumerate(entries)
               if wanted - entry.keys()]  # fmt: skip
    if lacking:
        raise DatasetError(collect_problems(f"{path}: detections lack fields", lacking))
    numbers = MetadataCatalog.get(truth.dataset_name).get("thing_dataset_id_to_contiguous_id")
    keys = {str(key): key for key in truth.images}
    strangers = sorted({str(entry["image_id"]) for entry in entries} - keys.keys())
    if strangers:
        raise DatasetError(
            collect_problems(f"{path}: images that {truth.dataset_name!r} does not have", strangers)
        )
    found: dict[ImageKey, list[dict[str, Any]]] = {key: [] for key in truth.images}
    for entry in entries:
        category = entry["category_id"]
        number = numbers.get(category, -1) if numbers else category
        found[keys[str(entry["image_id"])]].append({**entry, "class": number})
    return found


def _to_cells(
    path: Path,
    key: ImageKey,
    entries: Sequence[Mapping[str, Any]],
    image_hw: tuple[int, int],
    num_classes: int,
) -> CellInstances:
    if not entries:
        return CellInstances.empty(image_hw)
    classes = [entry["class"] for entry in entries]
    if not all(isinstance(number, int) and 0 <= number < num_classes for number in classes):
        raise DatasetError(
            f"{path}: image {key!r} has a category_id that is none of the {num_classes} classes"
        )
    scores = [entry["score"] for entry in entries]
    if not all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in scores):
        raise DatasetError(f"{path}: image {key!r} has a score that is no number from 0 to 1")
    try:
        return CellInstances.from_rles(
            [entry["segmentation"] for entry in entries],
            image_hw,
            scores=scores,
            classes=classes,
        )
    except (LabelError, TypeError, KeyError, ValueError) as error:
        raise DatasetError(f"{path}: image {key!r}: {error}") from error


def read_history(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """(iteration, value) of every figure in metrics.json, ascending; {} without that file.

    After a resumed run the later line of an iteration counts. Lines that are cut off are skipped.
    """
    path = run_dir / METRICS_FILE
    values: dict[str, dict[int, float]] = {}
    if not path.is_file():
        return {}
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            iteration = int(entry.pop("iteration"))
        except (ValueError, AttributeError, KeyError, TypeError):
            continue
        for name, value in entry.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                values.setdefault(name, {})[iteration] = float(value)
    return {name: sorted(points.items()) for name, points in values.items()}
