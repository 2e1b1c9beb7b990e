"""Formats of annotation programs that keep all images in one file.

    <root>/<split>/<file>, images/...       a split is a folder, or
    <root>/<file>, images/...               the file below root: `splits: {train: a/b.xml}`

A module says how its file is parsed; images are found as those of `coco_json`: below the folder of
images, or beside the file where there is none. They are read only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError, ImageReadError, LabelError
from cellseg.images import read_image_hw
from cellseg.io.base import (
    CLASSES,
    EMPTY_IMAGES,
    FOLDER_NAME,
    HOLES,
    OVERLAPS,
    FileFormat,
    Option,
    Problems,
    find_split_folder,
    list_beside,
    raise_problems,
    read_all,
)
from cellseg.io.drawn_shapes import DrawnShapes, describe_boxes
from cellseg.io.file_names import (
    check_declared_size,
    find_named_files,
    name_key,
    name_records,
    parts_of_name,
)

_UPLOAD = re.compile(r"^[0-9a-f]{8}-(?=.)")  # what Label Studio puts before a name


@dataclass(frozen=True)
class DrawnImage:
    """An image in an annotation file.

    Attributes:
        file_name: as the file has it.
        shapes: what was drawn.
        declared_hw: height and width in the file; None where it does not say.
    """

    file_name: str
    shapes: DrawnShapes
    declared_hw: tuple[Any, Any] = (None, None)


Parse = Callable[[Path, Mapping[str, Any]], list[DrawnImage]]


def format_of_one_file(
    parse: Parse,
    suffixes: tuple[str, ...],
    where_from: str,
    options: Mapping[str, Option] | None = None,
) -> FileFormat:
    """The format of such files.

    Args:
        parse: (file, options) -> its images; raises DatasetError for a file that is none of its.
        suffixes: endings of the files; where a folder has several, the option `annotations` names
            the one that is meant.
        where_from: where the file has the class of a cell, for messages.
        options: keys of a declaration beside `images` and `annotations`.
    """

    def read(
        root: Path, split: str, classes: tuple[str, ...], options: Mapping[str, Any]
    ) -> list[ImageRecord]:
        file, folders = _find_places(root, split, suffixes, options)
        images = parse(file, options)
        if not images:
            raise DatasetError(f"{file}: there are no images in it")
        boxes = [f"{box} of {one.file_name}" for one in images for box in one.shapes.boxes]
        raise_problems(file, [describe_boxes(boxes)] if boxes else [])
        names = _local_names(folders, [one.file_name for one in images])
        paths, missing = find_named_files(folders, names)
        raise_problems(file, missing)
        cases = sorted(zip(name_records(names), paths, images), key=lambda case: case[0])
        return read_all(cases, partial(_read_case, file, classes, where_from), file)

    def find_classes(root: Path, split: str, options: Mapping[str, Any]) -> tuple[str, ...]:
        file, _ = _find_places(root, split, suffixes, options)
        outlines = (one for image in parse(file, options) for one in image.shapes.outlines)
        return tuple(sorted({one.class_name for one in outlines if one.class_name}))

    return FileFormat(
        read,
        split=Option(f"the name of a folder or of a {suffixes[0]} file", FOLDER_NAME.accepts),
        options={
            "images": FOLDER_NAME,
            "annotations": Option("the name of a file in the split's folder", FOLDER_NAME.accepts),
            **(options or {}),
        },
        holds=frozenset((OVERLAPS, CLASSES, HOLES, EMPTY_IMAGES)),
        find_classes=find_classes,
        code=parse,
    )


def _find_places(
    root: Path, split: str, suffixes: Sequence[str], options: Mapping[str, Any]
) -> tuple[Path, list[Path]]:
    """The file, and where its images are looked for."""
    is_file = split.lower().endswith(tuple(suffixes))
    if is_file:
        folder = find_split_folder(root, str(Path(split).parent))
        file, base = folder / Path(split).name, root
    else:
        folder = base = find_split_folder(root, split)
        file = _choose_file(folder, suffixes, options)
    if not file.is_file():
        there = ", ".join(path.name for path in list_beside(folder, suffixes)[1]) or "none"
        raise DatasetError(f"{file}: no such file; of {', '.join(suffixes)} there is {there}")
    named = base / options.get("images", "images")
    return file, [named] if named.is_dir() else [named, folder]


def _choose_file(folder: Path, suffixes: Sequence[str], options: Mapping[str, Any]) -> Path:
    if "annotations" in options:
        return folder / options["annotations"]
    _, found = list_beside(folder, suffixes)
    if len(found) != 1:
        listed = ", ".join(path.name for path in found) or "none"
        raise DatasetError(
            f"{folder}: expected one file of annotations ({', '.join(suffixes)}); found {listed}: "
            "name it with the option `annotations`"
        )
    return found[0]


def _local_names(folders: Sequence[Path], file_names: Sequence[str]) -> list[str]:
    """Names without what Label Studio puts before them, where there is such an image."""
    there = {name_key(path.name) for folder in folders for path in folder.rglob("*")}
    names = []
    for file_name in file_names:
        parts = parts_of_name(file_name)
        name = parts[-1] if parts else ""
        shorter = _UPLOAD.sub("", name)
        is_local = name_key(name) not in there and name_key(shorter) in there
        names.append(shorter if is_local else file_name)
    return names


def _read_case(
    file: Path, classes: tuple[str, ...], where_from: str, case: tuple[str, Path, DrawnImage]
) -> ImageRecord | Problems:
    image_id, path, image = case
    try:
        image_hw = read_image_hw(path)
        check_declared_size(path, file, image.declared_hw, image_hw)
        cells = image.shapes.to_cells(file, image_hw, classes, where_from)
    except (ImageReadError, DatasetError, LabelError) as error:
        return Problems([str(error)])
    if isinstance(cells, Problems):
        return Problems(f"{image.file_name}: {line}" for line in cells)
    return ImageRecord(image_id, cells, path)
