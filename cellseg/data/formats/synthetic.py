"""Made-up cells (`cellseg.data.synthetic`) as a dataset: drawn on first use, kept in a cache.

The images lie as a `label_images` tree below $CELLSEG_CACHE (default `~/.cache/cellseg`), in a
folder whose name stands for all parameters.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.data.cache import cache_root
from cellseg.data.formats import label_images
from cellseg.data.formats.base import DatasetFormat, Option
from cellseg.data.records import CellRecord
from cellseg.data.synthetic import make_cells
from cellseg.errors import DatasetError
from PIL import Image

# Part of the folder's name: to be raised whenever `make_cells` draws differently.
DRAWING_VERSION = 1
MAX_CLASSES = 2


def read_split(
    root: Path, split: Mapping[str, int], classes: tuple[str, ...], options: Mapping[str, Any]
) -> list[CellRecord]:
    """Records of one split, drawn if need be; `root` is not used.

    With two classes, small cells are of the first and large ones of the second.
    """
    if len(classes) > MAX_CLASSES:
        raise DatasetError(
            f"synthetic cells have one class, or two by size; declared are {', '.join(classes)}"
        )
    parameters = {"image_hw": [128, 128], **options, **split, "classes": list(classes)}
    folder = _find_or_draw(parameters)
    return label_images.read_split(folder.parent, folder.name, classes, {})


def _find_or_draw(parameters: Mapping[str, Any]) -> Path:
    """Folder with these parameters' images; complete, also if several processes ask at once."""
    key = json.dumps([DRAWING_VERSION, parameters], sort_keys=True)
    parent = cache_root() / "synthetic"
    folder = parent / hashlib.sha256(key.encode()).hexdigest()[:16]
    if folder.is_dir():
        return folder
    try:
        parent.mkdir(parents=True, exist_ok=True)
        drawing = Path(tempfile.mkdtemp(prefix=".drawing-", dir=parent))
        try:
            _draw(drawing, **parameters)
            _publish(drawing, folder)
        finally:
            shutil.rmtree(drawing, ignore_errors=True)
    except OSError as error:
        raise DatasetError(
            f"{folder}: synthetic images cannot be written: {error.strerror or error}; "
            "set $CELLSEG_CACHE to a folder with room"
        ) from error
    return folder


def _publish(drawing: Path, folder: Path) -> None:
    """Rename to the final name, unless another process was faster: then its files are the same."""
    try:
        drawing.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _draw(
    folder: Path, images: int, seed: int, classes: list[str], image_hw: list[int], **how: Any
) -> None:
    folder.chmod(0o755)  # temporary folders are private
    for name in ("images", "labels", "classes"):
        (folder / name).mkdir()
    for number in range(images):
        cells = make_cells(
            np.random.default_rng([seed, number]),
            (image_hw[0], image_hw[1]),
            size_classes=len(classes) == MAX_CLASSES,
            **how,
        )
        stem = f"cells_{number:05d}"
        Image.fromarray(cells.image).save(folder / "images" / f"{stem}.png")
        Image.fromarray(cells.labels).save(folder / "labels" / f"{stem}.png")
        with (folder / "classes" / f"{stem}.csv").open("w", encoding="utf-8", newline="") as file:
            rows = ((label, classes[k]) for label, k in enumerate(cells.classes, 1))
            csv.writer(file).writerows([("label", "class"), *rows])


def _is_whole(value: Any, low: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def _is_image_hw(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_whole(v, 1) for v in value)


def _is_split(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"images", "seed"}
        and _is_whole(value["images"], 1)
        and _is_whole(value["seed"])
    )


FORMAT = DatasetFormat(
    read_split,
    split=Option("{images: how many, seed: a number}", _is_split),
    options={
        "image_hw": Option("[height, width] in pixels", _is_image_hw),
        "num_cells": Option("a number of cells per image", _is_whole),
        "touching": Option("a share from 0 to 1", _is_share),
        "small_share": Option("a share from 0 to 1", _is_share),
        "dtype": Option("uint8 or uint16", lambda value: value in ("uint8", "uint16")),
    },
    has_files=False,
)
