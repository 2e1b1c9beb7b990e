"""What there is to inspect: the splits of a registered or declared dataset, as records."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.labels import Rle, bitmap_to_rle
from cellseg.datasets.registration import (
    Declaration,
    builtin_declarations,
    read_declarations,
    register_declarations,
)
from cellseg.errors import DatasetError
from cellseg.io.records import CellAnnotation, CellRecord

_DECLARATION_SUFFIXES = (".yaml", ".yml")
_LISTED = "  - "


@dataclass(frozen=True)
class Split:
    """One split of a dataset.

    Attributes:
        name: the name it is registered by.
        classes: class names in the order of their ids.
        records: its images; none where it cannot be read.
        problems: why it cannot be read, one line per offending file.
        declaration: what it was declared by; None if other code registered it.
    """

    name: str
    classes: tuple[str, ...]
    records: tuple[CellRecord, ...]
    problems: tuple[str, ...] = ()
    declaration: Declaration | None = None


def find_datasets(name_or_file: str) -> dict[str, list[str]]:
    """Names of the splits that belong together, by the name of their dataset.

    Args:
        name_or_file: a YAML declaration (every dataset in it), the name that a declaration gives a
            dataset (all its splits), or the name of one registered split.

    Raises:
        DatasetError: nothing of that name; the near ones are in the message.
    """
    from detectron2.data import DatasetCatalog

    if Path(name_or_file).suffix.lower() in _DECLARATION_SUFFIXES:
        return _register(Path(name_or_file))
    groups = {name: k for path in builtin_declarations() for name, k in _register(path).items()}
    registered = list(DatasetCatalog.list())
    if name_or_file in groups:
        return {name_or_file: groups[name_or_file]}
    if name_or_file in registered:
        return {name_or_file: [name_or_file]}
    near = difflib.get_close_matches(name_or_file, [*groups, *registered], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(groups)}."
    raise DatasetError(
        f"{name_or_file}: no dataset of that name; {hint} For one of your own, give its YAML "
        "declaration (datasets/README.md)"
    )


def _register(path: Path) -> dict[str, list[str]]:
    """Register a declaration; its splits by dataset."""
    groups: dict[str, list[str]] = {}
    for declaration in read_declarations(path):
        dataset = declaration.name.removesuffix(f"_{declaration.split_name}")
        groups.setdefault(dataset, []).append(declaration.name)
    register_declarations([path])
    return groups


def read_split(name: str) -> Split:
    """Read a registered dataset; what is wrong with its files is in `problems`."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    metadata = MetadataCatalog.get(name)
    classes = tuple(metadata.get("thing_classes", ("cell",)))
    declaration = _declaration_of(name, metadata.get("declaration"))
    try:
        entries = DatasetCatalog.get(name)
    except (DatasetError, OSError) as error:
        return Split(name, classes, (), tuple(_lines_of(error)), declaration)
    records: list[CellRecord] = []
    problems: list[str] = []
    for entry in entries:
        try:
            records.append(dict_to_record(entry, classes))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            problems.append(f"{entry.get('file_name', entry)}: not a dataset entry: {error!r}")
    return Split(name, classes, tuple(records), tuple(problems), declaration)


def _declaration_of(name: str, path: str | None) -> Declaration | None:
    if path is None:
        return None
    return next((found for found in read_declarations(path) if found.name == name), None)


def _lines_of(error: Exception) -> list[str]:
    """The offenders that a message lists, or the message itself."""
    lines = str(error).splitlines()
    listed = [line.removeprefix(_LISTED) for line in lines if line.startswith(_LISTED)]
    return listed or [str(error)]


def dict_to_record(entry: Mapping[str, Any], classes: Sequence[str]) -> CellRecord:
    """A record from one entry of a Detectron2 dataset.

    Args:
        entry: with `file_name`, `height`, `width`, `image_id` and `annotations`, whose
            `segmentation` is an RLE, polygons, or a bitmap; without one the box is the cell.
        classes: class names in the order of `category_id`.
    """
    image_hw = (int(entry["height"]), int(entry["width"]))
    cells = tuple(
        CellAnnotation(
            rle=_to_rle(cell, image_hw),
            box_xyxy=_box_xyxy(cell),
            class_name=classes[cell["category_id"]],
            is_crowd=bool(cell.get("iscrowd", 0)),
        )
        for cell in entry.get("annotations", ())
    )
    path = Path(entry["file_name"])
    return CellRecord(str(entry.get("image_id", path.stem)), path, image_hw, cells)


def _box_xyxy(cell: Mapping[str, Any]) -> tuple[float, float, float, float]:
    from detectron2.structures import BoxMode

    x0, y0, x1, y1 = BoxMode.convert(list(cell["bbox"]), cell["bbox_mode"], BoxMode.XYXY_ABS)
    return float(x0), float(y0), float(x1), float(y1)


def _to_rle(cell: Mapping[str, Any], image_hw: tuple[int, int]) -> Rle:
    shape = cell.get("segmentation")
    if isinstance(shape, Mapping):
        return dict(shape)
    if isinstance(shape, np.ndarray) and shape.ndim == 2:
        return bitmap_to_rle(shape)
    if shape is None or len(shape) == 0:
        x0, y0, x1, y1 = _box_xyxy(cell)
        shape = [[x0, y0, x1, y0, x1, y1, x0, y1]]
    from pycocotools import mask as coco_mask

    return dict(coco_mask.merge(coco_mask.frPyObjects(list(shape), *image_hw)))
