"""YOLO's segmentation data sets: a text file per image, a line `class x y x y ...` per cell.

    <root>/<split>/images/a.jpg, labels/a.txt           as Roboflow exports them, or
    <root>/images/<split>/a.jpg, labels/<split>/a.txt   as Ultralytics lays them out
    <root>/data.yaml                                    `names` of the classes, if it is there

Coordinates are shares of the image's width and height. An image without a text file has no cells,
as everywhere in YOLO. Lines of five numbers are boxes, and errors. Read only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError
from cellseg.io.base import ANY_CLASS, CLASSES, EMPTY_IMAGES, OVERLAPS, Problems
from cellseg.io.cell_file import CellFile
from cellseg.io.drawn_shapes import DrawnShapes
from cellseg.io.per_image import format_of_files

NAMES_FILES = ("data.yaml", "dataset.yaml")


def read_image_cells(
    path: Path,
    image_hw: tuple[int, int],
    classes: tuple[str, ...] = ANY_CLASS,
    options: Mapping[str, Any] | None = None,
) -> CellInstances | Problems:
    """The cells of a label file, in the order of its lines.

    Args:
        path: the file.
        image_hw: (height, width) of the image, pixels.
        classes: declared names; a number stands for the name that `data.yaml` gives it, or else
            for the place of a declared one.
        options: not used.
    """
    names = _read_names(path)
    shapes = DrawnShapes()
    for number, line in enumerate(_read_lines(path), 1):
        fields = line.split()
        if not fields:
            continue
        try:
            row = np.array(fields, np.float64)
            class_number = int(fields[0])
            if class_number < 0:
                raise ValueError("classes count from 0")
        except ValueError:
            found = f"found {line[:60]!r}"
            shapes.problems.append(f"line {number}: expected class x y x y ...; {found}")
            continue
        if len(row) == 5:
            shapes.boxes.append(f"line {number}")
        elif len(row) % 2 == 0:
            shapes.problems.append(f"line {number}: {len(row) - 1} coordinates; expected pairs")
        elif row.size > 1 and (row[1:].min() < -0.5 or row[1:].max() > 1.5):
            shapes.problems.append(
                f"line {number}: coordinates up to {row[1:].max():g}; expected shares of width and "
                "height, 0 to 1"
            )
        else:
            ring = row[1:].reshape(-1, 2) * (image_hw[1], image_hw[0])
            shapes.add_polygon(f"line {number}", ring, _name_of(class_number, names, classes))
    return shapes.to_cells(path, image_hw, classes, "its first number, named in data.yaml")


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as lines of text: {error}") from error


def _name_of(number: int, names: Mapping[int, str], classes: tuple[str, ...]) -> str:
    if number in names:
        return names[number]
    return classes[number] if 0 <= number < len(classes) else f"class {number}"


def _read_names(path: Path) -> dict[int, str]:
    """Names of the classes from the nearest `data.yaml` above a label file."""
    for folder in path.parents[:4]:
        for file in (folder / name for name in NAMES_FILES):
            if not file.is_file():
                continue
            try:
                content = yaml.safe_load(file.read_text("utf-8"))
                names = content["names"]
                pairs = names.items() if isinstance(names, dict) else enumerate(names)
                return {int(number): str(name) for number, name in pairs}
            except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
                raise DatasetError(f"{file}: no `names` of classes in it: {error!r}") from error
    return {}


_OF_SPLITS = format_of_files(
    CellFile(
        kind="YOLO label file",
        folder="labels",
        suffixes=(".txt",),
        written_suffix=".txt",
        read=read_image_cells,
        missing_is_empty=True,
        holds=frozenset((OVERLAPS, CLASSES, EMPTY_IMAGES)),
    )
)


def _lay_out(root: Path, split: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Ultralytics' folders as those of a split."""
    images, labels = options.get("images", "images"), options.get("labels", "labels")
    if (root / split).is_dir() or not (root / images / split).is_dir():
        return split, dict(options)
    return ".", {**options, "images": f"{images}/{split}", "labels": f"{labels}/{split}"}


def read_split(
    root: Path, split: str, classes: tuple[str, ...], options: Mapping[str, Any]
) -> list[ImageRecord]:
    """Records of one split; see `cellseg.io.read_records`."""
    folder, found = _lay_out(root, split, options)
    return _OF_SPLITS.read(root, folder, classes, found)


def find_classes(root: Path, split: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the classes in `data.yaml`, in its order; none without it."""
    folder, found = _lay_out(root, split, options)
    names = _read_names(root / folder / found.get("labels", "labels") / "a.txt")
    return tuple(names[number] for number in sorted(names))


FORMAT = replace(_OF_SPLITS, read=read_split, find_classes=find_classes)
