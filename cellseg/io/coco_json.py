"""COCO's annotation file: polygons, run lengths and crowd regions (LIVECell and many tools).

    <root>/<split>/annotations.json, images/...       a split is a folder, or
    <root>/<split>.json, images/...                   a file below root: `splits: {train: a/b.json}`

`file_name` is looked for in the folder of images, then by its name alone in the folders below.
"""

from __future__ import annotations

import json
import re
from collections import Counter
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
from cellseg.images.listing import list_folder
from cellseg.io.base import (
    FOLDER_NAME,
    FileFormat,
    Option,
    Problems,
    copy_images,
    find_split_folder,
    ids_of_images,
    image_file_name,
    match_classes,
    new_split_folder,
    raise_problems,
    read_all,
)
from cellseg.io.checks import check_cells
from cellseg.io.coco_segmentations import annotations_to_cells

Json = dict[str, Any]

ANNOTATIONS = "annotations.json"
PARTS = ("images", "annotations", "categories")


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
    file, folder = _find_places(root, split, **options)
    content = _read_json(file)
    numbers = _match_categories(file, content, classes)
    cases = _pair_up(file, folder, content)
    return read_all(cases, partial(_read_case, numbers=numbers, file=file), file)


def find_classes(root: Path, split: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the categories, in the order of the file."""
    file, _ = _find_places(root, split, **options)
    categories = _read_json(file)["categories"]
    raise_problems(file, list(_categories_problems(categories)))
    return tuple(dict.fromkeys(category["name"] for category in categories))


def find_category_ids(
    root: Path, split: str, classes: tuple[str, ...], options: Mapping[str, Any]
) -> dict[int, int]:
    """The class of each category id of the file that has one, the ids ascending."""
    file, _ = _find_places(root, split, **options)
    categories = _read_categories(file)
    raise_problems(file, list(_categories_problems(categories)))
    names = {entry["id"]: entry["name"] for entry in categories}
    numbers, _ = match_classes(names.values(), classes)
    return {key: numbers[name] for key, name in sorted(names.items()) if name in numbers}


def _find_places(
    root: Path, split: str, images: str = "images", annotations: str = ANNOTATIONS
) -> tuple[Path, Path]:
    """The file of annotations and the folder of images."""
    if split.lower().endswith(".json"):
        return find_split_folder(root, str(Path(split).parent)) / Path(split).name, root / images
    folder = find_split_folder(root, split)
    return folder / annotations, folder / images


def _read_json(file: Path) -> Json:
    try:
        with file.open(encoding="utf-8-sig") as stream:
            content = json.load(stream)
    except OSError as error:
        raise DatasetError(
            f"{file}: {error.strerror or error}; expected COCO's annotations"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict) or not set(PARTS) <= set(content):
        found = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise DatasetError(f"{file}: expected an object with {', '.join(PARTS)}; found {found}")
    for part in PARTS:
        entries = content[part]
        # LIVECell's files of single cell types have annotations by their id.
        content[part] = list(entries.values()) if isinstance(entries, dict) else entries
        if not isinstance(content[part], list) or not all(
            isinstance(entry, dict) for entry in content[part]
        ):
            raise DatasetError(f"{file}: {part} is not a list of objects")
    return content


def _read_categories(file: Path) -> list[Json]:
    """The categories alone, without parsing the annotations where it can be done."""
    try:
        text = file.read_text("utf-8-sig")
        found = re.search(r'"categories"\s*:\s*(?=\[)', text)
        categories = json.JSONDecoder().raw_decode(text, found.end())[0] if found else None
    except (OSError, ValueError, RecursionError):
        categories = None
    if isinstance(categories, list) and all(isinstance(one, dict) for one in categories):
        return categories
    return _read_json(file)["categories"]


def _id_problems(entries: Sequence[Json], what: str, key: str = "id") -> Iterator[str]:
    """Ids that are no integers or occur twice."""
    ids = [entry.get(key) for entry in entries]
    wrong = [found for found in ids if not isinstance(found, int) or isinstance(found, bool)]
    if wrong:
        yield f"{what}: {len(wrong)} have no integer as {key}, the first {wrong[0]!r}"
    elif len(set(ids)) < len(ids):
        twice = [found for found, count in Counter(ids).items() if count > 1]
        yield f"{what}: ids {twice[:10]} occur several times"


def _categories_problems(categories: Sequence[Json]) -> Iterator[str]:
    yield from _id_problems(categories, "categories")
    wrong = [entry.get("name") for entry in categories if not isinstance(entry.get("name"), str)]
    if wrong:
        yield f"categories: the name {wrong[0]!r} is no text"


def _match_categories(file: Path, content: Json, classes: tuple[str, ...]) -> dict[int, int]:
    """Class of each category id that has annotations."""
    categories, annotations = content["categories"], content["annotations"]
    raise_problems(file, list(_categories_problems(categories)))
    used = {_hashable(entry.get("category_id")) for entry in annotations}
    names = {entry["id"]: entry["name"] for entry in categories if entry["id"] in used}
    matched, problems = match_classes(names.values(), classes)
    problems += [
        f"annotations: category_id {number!r} is not among the categories"
        for number in sorted(used - set(names), key=str)
    ]
    raise_problems(file, problems)
    return {number: matched[name] for number, name in names.items()}


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (int, str, float)) else repr(value)


def _pair_up(file: Path, folder: Path, content: Json) -> list[_Case]:
    """Images with their annotations, by ascending id of the record."""
    images, annotations = content["images"], content["annotations"]
    with_ids = [entry for entry in annotations if "id" in entry]
    problems = [*_id_problems(images, "images"), *_id_problems(with_ids, "annotations")]
    problems += [
        f"images: id {entry.get('id')!r} has no file_name"
        for entry in images
        if not isinstance(entry.get("file_name"), str) or not entry["file_name"]
    ]
    raise_problems(file, problems)
    if not images:
        raise DatasetError(f"{file}: there are no images in it")
    by_image: dict[int, list[Json]] = {entry["id"]: [] for entry in images}
    for entry in annotations:
        found = by_image.get(_hashable(entry.get("image_id")))
        if found is None:
            problems.append(
                f"annotation {entry.get('id')}: there is no image {entry.get('image_id')!r}"
            )
        else:
            found.append(entry)
    file_names = [entry["file_name"] for entry in images]
    paths, missing = _find_images(folder, file_names)
    raise_problems(file, problems + missing)
    twice = [path for path, count in Counter(paths).items() if count > 1]
    raise_problems(file, [f"{path}: several of the images are this file" for path in twice])
    ids = ids_of_images(file_names)
    cases = [
        _Case(image_id, entry, path, by_image[entry["id"]])
        for image_id, entry, path in zip(ids, images, paths)
    ]
    return sorted(cases, key=lambda case: case.image_id)


def _find_images(folder: Path, file_names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Path of each image, and what was not found or more than once."""
    direct = [folder / name for name in file_names]
    absent = [path for path in direct if not path.is_file()]
    if not absent:
        return direct, []
    below: dict[str, list[Path]] = {}
    listing = list_folder(folder, lambda path: "", is_deep=True) if folder.is_dir() else None
    for path in listing.files if listing else ():
        below.setdefault(path.name, []).append(path)
    dangling = dict(listing.broken) if listing else {}
    problems = []
    for path in absent:
        found = below.get(path.name, [])
        if len(found) != 1:
            where = f"found {', '.join(map(str, found))}" if found else "no such image"
            where = dangling.get(path, where)
            problems.append(f"{path}: {where}; looked for in {folder} and the folders below")
    chosen = {path: below[path.name][0] for path in absent if len(below.get(path.name, [])) == 1}
    return [chosen.get(path, path) for path in direct], problems


def _read_case(case: _Case, numbers: Mapping[int, int], file: Path) -> ImageRecord | Problems:
    try:
        image_hw = read_image_hw(case.path)
    except ImageReadError as error:
        return Problems([str(error)])
    declared = case.entry.get("height", image_hw[0]), case.entry.get("width", image_hw[1])
    if declared != image_hw:
        return Problems(
            [
                f"{case.path}: the image is {image_hw[1]} x {image_hw[0]} (width x height); "
                f"{file.name} says {declared[1]} x {declared[0]}"
            ]
        )
    try:
        cells = annotations_to_cells(case.annotations, image_hw, numbers)
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
    file, folder = options.get("annotations", ANNOTATIONS), options.get("images", "images")
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
