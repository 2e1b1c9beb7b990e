"""COCO's annotation file: polygons, run lengths and crowd regions (LIVECell and many tools).

    <root>/<split>/annotations.json, images/...       a split is a folder, or
    <root>/<split>.json, images/...                   a file below root: `splits: {train: a/b.json}`

`file_name`, of any system or a URL, is looked for in the folder of images, then by its name alone
in the folders below. Where there is no folder of images they lie beside the file, as in Roboflow's
exports, whose `_annotations.coco.json` is found as well as CVAT's `instances_default.json` and
Label Studio's `result.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError, ImageReadError, LabelError
from cellseg.images import read_image_hw
from cellseg.io.base import (
    FOLDER_NAME,
    FileFormat,
    Option,
    Problems,
    copy_images,
    find_split_folder,
    image_file_name,
    match_classes,
    new_split_folder,
    raise_problems,
    read_all,
)
from cellseg.io.checks import check_cells
from cellseg.io.coco_content import (
    check_content,
    describe_annotation,
    read_categories,
    read_content,
)
from cellseg.io.coco_segmentations import annotations_to_cells
from cellseg.io.file_names import check_declared_size, find_named_files, name_records

Json = dict[str, Any]

ANNOTATIONS = "annotations.json"
# What other programs call it: Roboflow, CVAT, Label Studio.
OTHER_NAMES = ("_annotations.coco.json", "instances_default.json", "result.json")


@dataclass(frozen=True)
class _Case:
    """One image and its annotations as they stand in the file."""

    image_id: str
    entry: Json
    path: Path
    annotations: list[Json]


def read_split(
    root: Path, split: str, classes: tuple[str, ...], options: Mapping[str, Any]
) -> list[ImageRecord]:
    """Records of one split; see `cellseg.io.read_records`."""
    file, folders = _find_places(root, split, **options)
    content = read_content(file)
    check_content(file, content)
    numbers = _match_categories(file, content, classes)
    cases = _pair_up(file, folders, content)
    return read_all(cases, partial(_read_case, numbers=numbers, file=file), file)


def find_classes(root: Path, split: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the categories, in the order of the file."""
    file, _ = _find_places(root, split, **options)
    return tuple(dict.fromkeys(category["name"] for category in read_categories(file)))


def find_category_ids(
    root: Path, split: str, classes: tuple[str, ...], options: Mapping[str, Any]
) -> dict[int, int]:
    """The class of each category id of the file that has one, the ids ascending."""
    file, _ = _find_places(root, split, **options)
    names = {entry["id"]: entry["name"] for entry in read_categories(file)}
    numbers, _ = match_classes(names.values(), classes)
    return {key: numbers[name] for key, name in sorted(names.items()) if name in numbers}


def _find_places(
    root: Path, split: str, images: str = "images", annotations: str = ""
) -> tuple[Path, list[Path]]:
    """The file of annotations, and where images are looked for."""
    if split.lower().endswith(".json"):
        file = find_split_folder(root, str(Path(split).parent)) / Path(split).name
        folder = root
    else:
        folder = find_split_folder(root, split)
        file = _find_file(folder, annotations)
    named = folder / images
    return file, [named] if named.is_dir() else [named, file.parent]


def _find_file(folder: Path, annotations: str) -> Path:
    """The named file, or the one that a program has called otherwise."""
    names = (annotations,) if annotations else (ANNOTATIONS, *OTHER_NAMES)
    found = [folder / name for name in names if (folder / name).is_file()]
    return found[0] if found else folder / names[0]


def _match_categories(file: Path, content: Json, classes: tuple[str, ...]) -> dict[int, int]:
    """Class of each category id that has annotations."""
    categories, annotations = content["categories"], content["annotations"]
    names = {entry["id"]: entry["name"] for entry in categories}
    used = {_hashable(entry.get("category_id")): entry for entry in reversed(annotations)}
    matched, problems = match_classes(
        (names[number] for number in used if number in names), classes
    )
    problems += [
        describe_annotation(entry, f"category_id {number!r} is not among the categories")
        for number, entry in sorted(used.items(), key=lambda item: str(item[0]))
        if number not in names
    ]
    raise_problems(file, problems)
    return {number: matched[name] for number, name in names.items() if name in matched}


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (int, str, float)) else repr(value)


def _pair_up(file: Path, folders: Sequence[Path], content: Json) -> list[_Case]:
    """Images with their annotations, by ascending id of the record."""
    images = content["images"]
    by_image: dict[int, list[Json]] = {entry["id"]: [] for entry in images}
    for entry in content["annotations"]:
        by_image[entry["image_id"]].append(entry)
    file_names = [entry["file_name"] for entry in images]
    paths, missing = find_named_files(folders, file_names)
    raise_problems(file, missing)
    ids = name_records(file_names)
    cases = [
        _Case(image_id, entry, path, by_image[entry["id"]])
        for image_id, entry, path in zip(ids, images, paths)
    ]
    return sorted(cases, key=lambda case: case.image_id)


def _read_case(case: _Case, numbers: Mapping[int, int], file: Path) -> ImageRecord | Problems:
    try:
        image_hw = read_image_hw(case.path)
        declared = (case.entry.get("height"), case.entry.get("width"))
        check_declared_size(case.path, file, declared, image_hw)
        cells = annotations_to_cells(case.annotations, image_hw, numbers)
    except (ImageReadError, DatasetError) as error:
        return Problems([str(error)])
    except LabelError as error:
        return Problems(f"{case.entry['file_name']}: {line}" for line in str(error).splitlines())
    return ImageRecord(case.image_id, cells, case.path)


def write_split(
    records: Sequence[ImageRecord],
    root: Path,
    split: str,
    classes: tuple[str, ...],
    options: Mapping[str, Any],
) -> None:
    """Write `<root>/<split>/annotations.json` and `images/`; see `FileFormat.write`."""
    if split.lower().endswith(".json"):
        raise DatasetError(f"{split}: a split is written as a folder; name it without .json")
    file, folder = options.get("annotations") or ANNOTATIONS, options.get("images", "images")
    content = records_to_coco(records, classes)
    with new_split_folder(root, split) as partial_folder:
        copy_images(records, partial_folder / folder)
        (partial_folder / file).write_text(json.dumps(content), encoding="utf-8")


def records_to_coco(records: Iterable[ImageRecord], classes: Sequence[str]) -> Json:
    """The content of an annotation file; ids count from 1, categories in the order of `classes`."""
    images: list[Json] = []
    annotations: list[Json] = []
    for image_id, record in enumerate(records, 1):
        check_cells(record, classes)
        height, width = record.image_hw
        name = image_file_name(record)
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for entry in _cells_to_annotations(record.cells):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **entry})
    return {
        "info": {},
        "licenses": [],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, 1)],
        "images": images,
        "annotations": annotations,
    }


def _cells_to_annotations(cells: CellInstances) -> Iterator[Json]:
    corners = cells.boxes_xyxy.astype(np.float64)
    boxes_xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    columns = zip(
        (cells.classes + 1).tolist(),
        boxes_xywh.tolist(),
        cells.areas_px.tolist(),
        cells.is_crowd.astype(int).tolist(),
        cells.to_rles(),
    )
    for category_id, box, area_px, is_crowd, rle in columns:
        yield {
            "category_id": category_id,
            "bbox": box,
            "area": area_px,
            "iscrowd": is_crowd,
            "segmentation": rle,
        }


FORMAT = FileFormat(
    read_split,
    split=Option("the name of a folder or of a .json file", FOLDER_NAME.accepts),
    options={
        "images": FOLDER_NAME,
        "annotations": Option("the name of a file in the split's folder", FOLDER_NAME.accepts),
    },
    write=write_split,
    find_classes=find_classes,
    find_category_ids=find_category_ids,
)
