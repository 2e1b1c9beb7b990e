"""Segmentations from disk, whoever wrote them, and which belongs to which."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.overlaps import Segmentation
from cellseg.errors import DatasetError, LabelError, collect_problems
from cellseg.images import read_label_image
from cellseg.io import FORMATS, find_format, read_records
from cellseg.io.base import ANY_CLASS

LABELS, COCO_RESULTS = "labels", "coco_results"
SOURCES = (LABELS, COCO_RESULTS, *sorted(FORMATS))
"""Names for `read_segmentations`: a folder of label images, COCO's results, a dataset format."""

LABEL_ENDINGS = ("_cp_masks", "_masks", "_labels")
_SUFFIXES = (".tif", ".tiff", ".png")
_BY_EXAMPLE = "tools/predict.py writes one such file, coco_results.json"


class MismatchError(DatasetError):
    """Truth and predictions are not of the same images."""


@dataclass(frozen=True)
class Segmentations:
    """One side of an evaluation.

    Attributes:
        source: where it was read, for messages.
        by_id: label image or cells by image id.
        has_classes: the cells' classes are known.
        lists_empty: an image without cells would be among them.
        crowd_regions: how many regions of uncounted cells are among the cells.
    """

    source: Path
    by_id: Mapping[str, Segmentation]
    has_classes: bool = False
    lists_empty: bool = True
    crowd_regions: int = 0


def guess_format(path: Path) -> str:
    """`coco_results` for a file, `labels` for a folder."""
    return COCO_RESULTS if path.is_file() else LABELS


def find_classes(path: Path, format_name: str, split: str | None) -> tuple[str, ...]:
    """Class names in the files of a dataset format; none where there are none."""
    if format_name in (LABELS, COCO_RESULTS):
        return ()
    search = find_format(format_name).find_classes
    return search(path, _need_split(split, format_name), {}) if search else ()


def read_segmentations(
    path: Path, format_name: str, split: str | None = None, classes: Sequence[str] = ANY_CLASS
) -> Segmentations:
    """Read one side.

    Args:
        path: folder, or file for `coco_results`.
        format_name: one of SOURCES. `labels` is a folder of label images, <id>.tif or .png; where
            files end in one of LABEL_ENDINGS, only those are read, and the ending is no part of
            the id. `coco_results` is COCO's results with run lengths, of which an image_id is the
            id and a category_id the class from 1 on.
        split: of a dataset format.
        classes: names; of one alone all cells are.

    Raises:
        DatasetError, ImageReadError, LabelError: what cannot be read, by name.
    """
    if format_name == LABELS:
        return Segmentations(path, _read_folder(path))
    if format_name == COCO_RESULTS:
        found = _read_results(path, len(classes))
        return Segmentations(path, found, has_classes=len(classes) > 1, lists_empty=False)
    known = find_format(format_name).find_classes is not None and len(classes) > 1
    declared = tuple(classes) if known else ANY_CLASS
    records = read_records(format_name, path, _need_split(split, format_name), classes=declared)
    crowd = sum(int(record.cells.is_crowd.sum()) for record in records)
    by_id = {record.image_id: record.cells for record in records}
    return Segmentations(path, by_id, has_classes=known, crowd_regions=crowd)


def _need_split(split: str | None, format_name: str) -> str:
    if split is None:
        raise DatasetError(f"the format {format_name} reads a split: name it with --split")
    return split


def _read_folder(folder: Path) -> dict[str, Segmentation]:
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; expected label images in it, one per image")
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES]
    files = [path for path in files if not path.name.startswith(".")]
    marked = [path for path in files if path.stem.endswith(LABEL_ENDINGS)]
    files = marked or files
    if not files:
        raise DatasetError(f"{folder}: no label image ({', '.join(_SUFFIXES)}) in it")
    ids = [_strip_ending(path.stem) for path in files]
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise DatasetError(f"{folder}: more than one label image of {', '.join(twice[:10])}")
    return {name: read_label_image(path) for name, path in zip(ids, files)}


def _strip_ending(stem: str) -> str:
    for ending in LABEL_ENDINGS:
        if stem.endswith(ending):
            return stem.removesuffix(ending)
    return stem


def _read_results(path: Path, num_classes: int) -> dict[str, Segmentation]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read as COCO results: {error}") from error
    if not isinstance(content, list):
        raise DatasetError(f"{path}: expected a list of results ({_BY_EXAMPLE})")
    by_id: dict[str, list[dict[str, Any]]] = {}
    problems = []
    for number, result in enumerate(content):
        problem = _result_problem(result, num_classes)
        if problem:
            problems.append(f"result {number}: {problem}")
        else:
            by_id.setdefault(str(result["image_id"]), []).append(result)
    if problems:
        raise DatasetError(collect_problems(f"{path}: problems", problems, hint=_BY_EXAMPLE))
    try:
        return {name: _results_to_cells(results, num_classes) for name, results in by_id.items()}
    except LabelError as error:
        raise DatasetError(f"{path}: {error}") from error


def _result_problem(result: Any, num_classes: int) -> str | None:
    if not isinstance(result, dict) or not {"image_id", "score", "segmentation"} <= set(result):
        return "expected image_id, category_id, score and segmentation"
    rle = result["segmentation"]
    if not isinstance(rle, dict) or "counts" not in rle or not _numbers(rle.get("size"), 2, int):
        return "expected a segmentation by run lengths, with size [height, width] and counts"
    if not _numbers([result["score"]], 1):
        return f"score {result['score']!r}, expected a number"
    if not _numbers(result.get("bbox", [0] * 4), 4):
        return f"bbox {result['bbox']!r}, expected [x, y, width, height]"
    category = result.get("category_id", 1)
    if num_classes > 1 and category not in range(1, num_classes + 1):
        return f"category_id {category!r}, expected 1 to {num_classes}"
    return None


def _numbers(value: Any, length: int, kind: type | tuple[type, ...] = (int, float)) -> bool:
    """A list of so many numbers; JSON's true and false are none."""
    return (
        isinstance(value, list)
        and len(value) == length
        and all(isinstance(each, kind) and not isinstance(each, bool) for each in value)
    )


def _results_to_cells(results: Sequence[dict[str, Any]], num_classes: int) -> CellInstances:
    rles = [result["segmentation"] for result in results]
    height, width = rles[0]["size"]
    boxes = None
    if all("bbox" in result for result in results):
        boxes = np.array([result["bbox"] for result in results], np.float64)
        boxes[:, 2:] += boxes[:, :2]
    classes = [result.get("category_id", 1) - 1 if num_classes > 1 else 0 for result in results]
    return CellInstances.from_rles(
        rles,
        (height, width),
        scores=[result["score"] for result in results],
        classes=classes,
        boxes_xyxy=boxes,
    )


def pair_up(
    truth: Segmentations, predictions: Segmentations, *, ignore_missing: bool = False
) -> tuple[list[str], list[Segmentation], list[Segmentation]]:
    """Image ids in order, true and predicted segmentation of each; both of one kind.

    Args:
        ignore_missing: an image without a prediction has no predicted cells; as it is anyhow where
            the predictions do not list images without cells.

    Raises:
        MismatchError: all images that are missing or too many, or that differ in size.
    """
    ids = sorted(truth.by_id)
    missing = [name for name in ids if name not in predictions.by_id]
    problems = [
        f"{name}: no true cells known" for name in predictions.by_id if name not in truth.by_id
    ]
    if predictions.lists_empty and not ignore_missing:
        problems += [f"{name}: no prediction" for name in missing]
    pairs = []
    for name in ids:
        true = truth.by_id[name]
        pred = predictions.by_id.get(name, CellInstances.empty(image_size(true)))
        sizes = [" x ".join(map(str, reversed(image_size(side)))) for side in (true, pred)]
        if sizes[0] != sizes[1]:
            problems.append(f"{name}: truth is {sizes[0]} (width x height), prediction {sizes[1]}")
        pairs.append((true, pred))
    if problems:
        header = f"{truth.source} and {predictions.source} are not of the same images"
        hint = "Images belong together by their ids, which are the files' stems."
        raise MismatchError(collect_problems(header, problems, hint=hint))
    if any(isinstance(side, CellInstances) for pair in pairs for side in pair):
        pairs = [(_to_cells(true), _to_cells(pred)) for true, pred in pairs]
    return ids, [true for true, _ in pairs], [pred for _, pred in pairs]


def image_size(side: Segmentation) -> tuple[int, int]:
    """(height, width)."""
    return side.image_hw if isinstance(side, CellInstances) else (side.shape[0], side.shape[1])


def _to_cells(side: Segmentation) -> CellInstances:
    return side if isinstance(side, CellInstances) else CellInstances.from_label_image(side)
