"""What is in COCO's annotation files, in the forms that programs give it.

Numbers as text ("64"), a category or image that stands twice alike (VIA), entries by their id
(LIVECell), and a category that is only the roof over the others (Roboflow) are read; what cannot be
meant is named, an annotation by its id and by its place in the list.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cellseg.errors import DatasetError
from cellseg.io.base import raise_problems
from cellseg.json_text import read_json

logger = logging.getLogger(__name__)

Json = dict[str, Any]

PARTS = ("images", "annotations", "categories")
INDEX = "_index"  # of an annotation: its place in the file's list
_NUMBERS = {
    "images": ("id", "height", "width"),
    "annotations": ("image_id", "category_id", "iscrowd"),
    "categories": ("id",),
}
_OTHER_FORMATS = {
    "_via_img_metadata": "via",
    "shapes": "labelme",
    "features": "geojson",
}


def read_content(file: Path) -> Json:
    """The images, annotations and categories of a file, each a list of objects.

    Raises:
        DatasetError: no such file, no JSON, or not COCO's.
    """
    content = _parse(file)
    if not isinstance(content, dict) or not set(PARTS) <= set(content):
        raise DatasetError(_describe_other(file, content))
    for part in PARTS:
        entries = content[part]
        # LIVECell's files of single cell types have annotations by their id.
        entries = list(entries.values()) if isinstance(entries, dict) else entries
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            raise DatasetError(f"{file}: {part} is not a list of objects")
        content[part] = [_with_numbers(entry, _NUMBERS[part]) for entry in entries]
    content["annotations"] = _annotations_once(file, content["annotations"])
    content["images"] = _once_each(content["images"], ("id", "file_name"))
    content["categories"] = _categories_once(content["categories"])
    return content


def _parse(file: Path) -> Any:
    try:
        return read_json(file)
    except OSError as error:
        there = sorted(path.name for path in file.parent.glob("*.json"))
        beside = f"; there is {', '.join(there[:3])}" if there else ""
        raise DatasetError(
            f"{file}: {error.strerror or error}; expected COCO's annotations{beside}"
        ) from error
    except ValueError as error:
        raise DatasetError(f"{file}: cannot be read as JSON: {error}") from error


def _describe_other(file: Path, content: Any) -> str:
    """That it is no file of COCO's, and of what it may be."""
    found = ", ".join(content) if isinstance(content, dict) else type(content).__name__
    keys = set(content) if isinstance(content, dict) else set()
    formats = sorted({name for key, name in _OTHER_FORMATS.items() if key in keys})
    hint = f"; it looks like the format {formats[0]}" if formats else ""
    return f"{file}: expected an object with {', '.join(PARTS)}; found {found[:200]}{hint}"


def _with_numbers(entry: Json, keys: Sequence[str]) -> Json:
    """The entry with whole numbers where some programs write them as text or as 1.0."""
    return {key: as_whole(value) if key in keys else value for key, value in entry.items()}


def as_whole(value: Any) -> Any:
    """A whole number that is written as text or as a float; everything else as it is.

    Example:
        >>> as_whole("64"), as_whole(64.0), as_whole("64 px"), as_whole(0.5)
        (64, 64, '64 px', 0.5)
    """
    if isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,18}\s*", value):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _once_each(entries: Sequence[Json], keys: Sequence[str]) -> list[Json]:
    """Without those that are the same as an earlier one in these keys."""
    first = {repr([entry.get(key) for key in keys]): entry for entry in reversed(entries)}
    kept = set(map(id, first.values()))
    return [entry for entry in entries if id(entry) in kept]


def _annotations_once(file: Path, annotations: Sequence[Json]) -> list[Json]:
    """Annotations with their places in the list; what stands there twice, word for word, once.

    Ids that stand for several annotations, as where they count from 0 in each image, do no harm.
    """
    counts = Counter(repr(entry.get("id")) for entry in annotations if "id" in entry)
    kept, seen = [], set()
    for place, entry in enumerate(annotations):
        if counts[repr(entry.get("id"))] > 1:
            key = json.dumps(entry, sort_keys=True)
            if key in seen:
                continue
            seen.add(key)
        kept.append({**entry, INDEX: place})
    if len(kept) < len(annotations):
        left_out = len(annotations) - len(kept)
        logger.warning("%s: %d annotations stand there twice and are read once", file, left_out)
    return kept


def _categories_once(categories: Sequence[Json]) -> list[Json]:
    """Each category once, without the one that Roboflow puts over all others."""
    kept = _once_each(categories, ("id", "name"))
    roofs = {entry.get("supercategory") for entry in kept}

    def is_roof(entry: Json) -> bool:
        others = [one for one in kept if one is not entry]
        return (
            entry.get("supercategory") == "none"
            and bool(others)
            and all(one.get("supercategory") == entry.get("name") for one in others)
        )

    found = [entry for entry in kept if len(roofs) < 2 or not is_roof(entry)] or kept
    names = Counter(str(entry.get("name")) for entry in found)
    for name, times in names.items():
        if times > 1:
            logger.warning("%d categories are called %r; they are read as one class", times, name)
    return found


def read_categories(file: Path) -> list[Json]:
    """The categories alone, without parsing the annotations where it can be done.

    Raises:
        DatasetError: as `read_content`, or categories of one id, or without a name.
    """
    try:
        text = file.read_text("utf-8-sig")
        found = re.search(r'"categories"\s*:\s*(?=\[)', text)
        categories = json.JSONDecoder().raw_decode(text, found.end())[0] if found else None
    except (OSError, ValueError, RecursionError):
        categories = None
    if isinstance(categories, list) and all(isinstance(one, dict) for one in categories):
        categories = _categories_once([_with_numbers(one, ("id",)) for one in categories])
    else:
        categories = read_content(file)["categories"]
    raise_problems(file, list(_categories_problems(categories)))
    return categories


def _id_problems(entries: Sequence[Json], what: str) -> Iterator[str]:
    """Ids that are no integers or stand for several things."""
    ids = [entry.get("id") for entry in entries]
    wrong = [k for k, found in enumerate(ids) if not _is_integer(found)]
    if wrong:
        shown = f"{what}[{wrong[0]}] has {ids[wrong[0]]!r}"
        yield f"{what}: {len(wrong)} have no integer as id: {shown}"
        return
    twice = [found for found, count in Counter(ids).items() if count > 1]
    if twice:
        key = "name" if what == "categories" else "file_name"
        names = [str(entry.get(key)) for entry in entries if entry["id"] == twice[0]]
        yield (
            f"{what}: ids {twice[:10]} occur several times, {twice[0]} for "
            f"{', '.join(names[:5])}: give each an id of its own"
        )


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _categories_problems(categories: Sequence[Json]) -> Iterator[str]:
    yield from _id_problems(categories, "categories")
    wrong = [entry.get("name") for entry in categories if not isinstance(entry.get("name"), str)]
    if wrong:
        yield f"categories: the name {wrong[0]!r} is no text"


def check_content(file: Path, content: Json) -> None:
    """Raise one DatasetError for ids that cannot be used, and for boxes without masks."""
    images, categories = content["images"], content["categories"]
    problems = [*_categories_problems(categories), *_id_problems(images, "images")]
    problems += [
        f"images[{place}]: id {entry.get('id')!r} has no file_name"
        for place, entry in enumerate(images)
        if not isinstance(entry.get("file_name"), str) or not entry["file_name"]
    ]
    raise_problems(file, problems)
    if not images:
        raise DatasetError(f"{file}: there are no images in it")
    ids = {entry["id"] for entry in images}
    problems += [
        f"{describe_annotation(entry, f'there is no image {image_id!r}')}"
        for entry in content["annotations"]
        if not _is_integer(image_id := entry.get("image_id")) or image_id not in ids
    ]
    names = {entry["id"]: entry["file_name"] for entry in images}
    problems += _describe_boxes(content["annotations"], names)
    raise_problems(file, problems)


def _describe_boxes(annotations: Sequence[Json], names: Mapping[Any, str]) -> Iterator[str]:
    """One line for all annotations that have a box and no mask."""
    boxes = [one for one in annotations if _has_no_mask(one) and one.get("bbox")]
    if boxes:
        where = f"the first in {names.get(boxes[0].get('image_id'))}: "
        text = (
            "a box says where a cell is and not which pixels it has. Export the project with "
            "outlines or masks (instance segmentation), draw them, or delete these annotations"
        )
        share = f"{len(boxes)} of {len(annotations)} annotations are boxes without a mask"
        yield f"{share}, {where}{describe_annotation(boxes[0], text)}"


def _has_no_mask(annotation: Json) -> bool:
    shape = annotation.get("segmentation")
    return shape is None or shape in ([], [[]], {}, "")


def describe_annotation(entry: Json, text: str) -> str:
    """A line about an annotation: its id, what is wrong, and its place in the file.

    Example:
        >>> describe_annotation({"id": 17, "_index": 3}, "the mask is empty")
        'annotation 17: the mask is empty (annotations[3])'
    """
    place = entry.get(INDEX)
    name = entry.get("id", place)
    return f"annotation {name}: {text}" + ("" if place is None else f" (annotations[{place}])")
