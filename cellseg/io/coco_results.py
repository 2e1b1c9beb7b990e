"""COCO's results (https://cocodataset.org/#format-results): a list of detections with scores.

    <root>/<results>.json                      a split is a file: `--split predictions.json`
    <root>/<results>.categories.json           what the category ids mean (`io.category_ids`)
    <root>/images/<image_id>.png               the images, where cells are to be converted with them

Evaluators, `predict`, the report and the tuning read and write these files here. An image without
detections does not occur in such a file; with a folder of images it is read as one without cells.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError, ImageReadError, collect_problems
from cellseg.images import read_image_hw
from cellseg.images.listing import list_folder, name_below
from cellseg.io.base import (
    CLASSES,
    FOLDER_NAME,
    HOLES,
    OVERLAPS,
    SCORES,
    FileFormat,
    Option,
    WriteRecord,
    find_split_folder,
    ids_of_images,
    raise_broken,
    tell_passed_over,
)
from cellseg.io.category_ids import (
    CHOICES,
    CategoryIds,
    find_classes_of_ids,
    read_companion,
)
from cellseg.io.coco_results_writing import (
    PREDICTION,
    cells_to_coco_results,
    open_coco_results,
    open_result_lines,
    write_coco_results,
    write_entries,
)
from cellseg.io.coco_segmentations import segmentations_to_runs
from cellseg.json_text import read_json
from cellseg.names import unique_names

__all__ = [
    "EVALUATED_NAME",
    "FORMAT",
    "RESULTS_NAME",
    "cells_to_coco_results",
    "open_coco_results",
    "open_result_lines",
    "read_coco_results",
    "write_coco_results",
    "write_entries",
]

RESULTS_NAME = "coco_results.json"  # of predict
EVALUATED_NAME = "coco_instances_results.json"  # of an evaluation, as Detectron2 calls it
_HINT = "`cellseg predict` writes such a file, coco_results.json"

Json = dict[str, Any]

logger = logging.getLogger(__name__)


def read_coco_results(
    path: str | Path,
    classes: Sequence[str],
    *,
    sizes_hw: Mapping[str, tuple[int, int]] | None = None,
    own_ids: Mapping[int, int] | None = None,
    category_ids: CategoryIds = None,
) -> dict[str, CellInstances]:
    """The cells of a results file, by the text of their image id.

    Args:
        path: a list of results with masks.
        classes: class names; of one alone all cells are.
        sizes_hw: (height, width) of the images of the data set, by the text of their ids; results
            of other images are an error. Without it, sizes are those of the masks.
        own_ids: class of each category id of the data set, where it has ids of its own.
        category_ids: how the file counts, where it is known; see `cellseg.io.category_ids`.

    Raises:
        DatasetError: the file cannot be read, is of other images, or leaves open what its category
            ids mean.
    """
    path = Path(path)
    entries = _read_entries(path, with_classes=len(classes) > 1)
    ids: dict[Any, int] = {}
    for number, entry in enumerate(entries):
        ids.setdefault(entry.get("category_id"), number)
    numbers = find_classes_of_ids(path, ids, classes, own=own_ids, asked=category_ids)
    _tell_twice(path, entries)
    by_image: dict[str, dict[int, Json]] = {}
    for number, entry in enumerate(entries):
        by_image.setdefault(str(entry["image_id"]), {})[number] = entry
    strange = sorted(set(by_image) - set(sizes_hw)) if sizes_hw is not None else []
    if strange:
        header = f"{path}: results of images that the data set does not have"
        raise DatasetError(collect_problems(header, strange))
    return {
        image_id: entries_to_cells(path, image_id, own, numbers, (sizes_hw or {}).get(image_id))
        for image_id, own in by_image.items()
    }


def _read_entries(path: Path, with_classes: bool) -> list[Json]:
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read as COCO results, no JSON: {error}") from error
    if not isinstance(content, list):
        raise DatasetError(f"{path}: expected a list of detections ({_HINT})")
    problems = [
        f"result {number}: {problem}"
        for number, entry in enumerate(content)
        if (problem := _describe_problem(entry, with_classes))
    ]
    if problems:
        raise DatasetError(collect_problems(f"{path}: problems", problems, hint=_HINT))
    return content


def _tell_twice(path: Path, entries: Sequence[Json]) -> None:
    """Warn of detections that stand there twice, mask by mask: each counts."""
    first: dict[tuple[str, str, str], int] = {}
    twice = []
    for number, entry in enumerate(entries):
        mask = entry["segmentation"]["counts"]
        key = (str(entry["image_id"]), str(entry.get("category_id")), str(mask))
        if first.setdefault(key, number) != number:
            twice.append(number)
    if twice:
        logger.warning(
            "%s: %d of %d results have the mask of an earlier one, the first is result %d (image "
            "%r): each counts as a cell",
            *(path, len(twice), len(entries), twice[0], entries[twice[0]]["image_id"]),
        )


def _describe_problem(entry: Any, with_classes: bool) -> str:
    """What is wrong with a result; "" if nothing."""
    if not isinstance(entry, dict) or not {"image_id", "score", "segmentation"} <= set(entry):
        return "expected image_id, category_id, score and segmentation"
    where = f" (image {entry['image_id']!r})"
    if isinstance(category := entry.get("category_id"), list | dict):
        return f"category_id is {str(category)[:60]}; expected a number{where}"
    rle = entry["segmentation"]
    if (
        not isinstance(rle, dict)
        or "counts" not in rle
        or not _are_numbers(rle.get("size"), 2, int)
    ):
        return (
            f"expected a segmentation by run lengths, with size [height, width] and counts{where}"
        )
    if not _are_numbers([entry["score"]], 1) or not np.isfinite(entry["score"]):
        return f"score {entry['score']!r}, expected a number{where}"
    box = entry.get("bbox", [0] * 4)
    if not _are_numbers(box, 4) or not np.isfinite(box).all():
        return f"bbox {entry['bbox']!r}, expected [x, y, width, height]{where}"
    if with_classes and not _are_numbers([entry.get("category_id")], 1, int):
        return f"category_id {entry.get('category_id')!r}, expected a whole number{where}"
    return ""


def _are_numbers(value: Any, length: int, kind: Any = (int, float)) -> bool:
    """Whether it is a list of so many numbers; JSON's true and false are none."""
    return (
        isinstance(value, list)
        and len(value) == length
        and all(isinstance(each, kind) and not isinstance(each, bool) for each in value)
    )


def entries_to_cells(
    path: Path,
    image_id: str,
    results: Mapping[int, Json],
    numbers: Mapping[Any, int],
    image_hw: tuple[int, int] | None,
) -> CellInstances:
    """The cells of one image.

    Args:
        path: named in errors.
        image_id: likewise.
        results: of the image, by their place in the file, from 0.
        numbers: class of each category id.
        image_hw: height and width in pixels; by default those of the first mask.

    Raises:
        DatasetError: a mask cannot be read, or is of another size.
    """
    entries = [*results.values()]
    shapes = [entry["segmentation"] for entry in entries]
    height, width = image_hw or shapes[0]["size"]
    runs, problems = segmentations_to_runs(shapes, (height, width))
    if problems:
        number, text = min(problems.items())
        place = [*results][number]
        raise DatasetError(f"{path}: result {place} (image {image_id!r}): {text}")
    boxes = None
    if all("bbox" in entry for entry in entries):
        boxes = np.array([entry["bbox"] for entry in entries], np.float64)
        boxes[:, 2:] += boxes[:, :2]
    return CellInstances.from_runs(
        runs,
        len(entries),
        (height, width),
        scores=[entry["score"] for entry in entries],
        classes=[numbers[entry.get("category_id")] for entry in entries],
        boxes_xyxy=boxes,
    )


def read_split(
    root: Path, split: str, classes: tuple[str, ...], options: Mapping[str, Any]
) -> list[ImageRecord]:
    """Records of a results file, with the images of a folder if there is one.

    Detections without a pixel are left out: no other file could say them.
    """
    name, images = str(options.get("images", "images")), {}
    if "images" in options or (root / name).is_dir():
        images = _find_images(find_split_folder(root, name))
    try:
        sizes_hw = {stem: read_image_hw(path) for stem, path in images.items()}
    except ImageReadError as error:
        raise DatasetError(str(error)) from error
    found = read_coco_results(
        root / split,
        classes,
        sizes_hw=sizes_hw or None,
        category_ids=options.get("category_ids"),
    )
    records = []
    names = sorted({*found, *images})
    has_folders = any("/" in name for name in names)
    ids = ids_of_images([f"{name}.png" for name in names]) if has_folders else names
    for name, image_id in zip(names, ids):
        cells = found.get(name) or CellInstances.empty(sizes_hw.get(name, (0, 0)))
        records.append(ImageRecord(image_id, cells[cells.areas_px > 0], images.get(name)))
    return records


def _find_images(folder: Path) -> dict[str, Path]:
    """The images below a folder by what `cellseg predict` calls them there."""
    found = list_folder(folder, is_deep=True)
    raise_broken(folder, found)
    tell_passed_over(folder, found.passed_over)
    names = [name_below(folder, path) for path in found.files]
    return dict(zip(unique_names(names), found.files))


def find_classes(root: Path, split: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names in the file's companion; none without it."""
    return tuple((read_companion(root / split) or {}).values())


@contextmanager
def open_predictions(folder: Path, classes: tuple[str, ...]) -> Iterator[WriteRecord]:
    """Write `coco_results.json`; see `FileFormat.open_predictions`."""
    with open_coco_results(folder / RESULTS_NAME, classes) as write:
        yield write


FORMAT = FileFormat(
    read_split,
    split=Option("the name of a .json file", FOLDER_NAME.accepts),
    options={
        "images": FOLDER_NAME,
        "category_ids": Option(
            f"{', '.join(CHOICES)}, or a list of ids",
            lambda value: value in CHOICES or isinstance(value, list),
        ),
    },
    open_predictions=open_predictions,
    prediction=PREDICTION,
    holds=frozenset((OVERLAPS, CLASSES, HOLES, SCORES)),
    find_classes=find_classes,
)
