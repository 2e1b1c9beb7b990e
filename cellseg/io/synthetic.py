"""Made-up cells (`cellseg.cells.synthetic`, and with types `cellseg.cells.synthetic_types`).

They are a dataset like others: drawn on first use, kept in a cache.

The images lie as a `label_images` tree below $CELLSEG_CACHE (default `~/.cache/cellseg`), in a
folder whose name stands for all parameters.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.records import ImageRecord
from cellseg.cells.synthetic import make_cells
from cellseg.cells.synthetic_types import TYPES, make_typed_cells
from cellseg.errors import DatasetError
from cellseg.files import cache_root
from cellseg.io import label_images
from cellseg.io.base import FileFormat, Option
from cellseg.limits import IMAGES, LimitError, check_memory
from PIL import Image

logger = logging.getLogger(__name__)

# Part of the folder's name: to be raised whenever `make_cells` draws differently.
DRAWING_VERSION = 1
MAX_CLASSES = 2
_STEM = "cells_{:05d}"
_BYTES_PER_PIXEL = 64  # while an image is drawn
# Options that only cells without types have, and one that only those with types have.
_OF_NUCLEI = ("touching", "small_share")
_OF_TYPES = "one_type_per_image"


def read_split(
    root: Path, split: Mapping[str, int], classes: tuple[str, ...], options: Mapping[str, Any]
) -> list[ImageRecord]:
    """Records of one split, drawn if need be; `root` is not used.

    With two classes, small cells are of the first and large ones of the second. With `types: 3`
    cells are of the types of `cells.synthetic_types.TYPES`, and the classes are their names.
    """
    _check_classes(classes, options)
    _check_amount(split["images"], options)
    parameters = {"image_hw": [128, 128], **options, **split, "classes": list(classes)}
    folder = _find_or_draw(parameters)
    return label_images.FORMAT.read(folder.parent, folder.name, classes, {})


def _check_classes(classes: tuple[str, ...], options: Mapping[str, Any]) -> None:
    with_types = "types" in options
    if with_types and len(classes) != len(TYPES):
        raise DatasetError(
            f"synthetic cells of {len(TYPES)} types ({', '.join(TYPES)}) have as many classes; "
            f"declared are {', '.join(classes)}"
        )
    if not with_types and len(classes) > MAX_CLASSES:
        raise DatasetError(
            "synthetic cells have one class, or two by size, or with `types: 3` three; declared "
            f"are {', '.join(classes)}"
        )
    for name in _OF_NUCLEI if with_types else (_OF_TYPES,):
        if name in options:
            raise DatasetError(
                f"synthetic cells {'with' if with_types else 'without'} `types` have no {name}"
            )


def _check_amount(images: int, options: Mapping[str, Any]) -> None:
    """Refuse what would take days to draw, or fill the disk."""
    if images > IMAGES.value:
        raise DatasetError(
            f"{images} synthetic images; expected at most {IMAGES.value:.0f}, which take hours to "
            f"draw. If so many are meant, set ${IMAGES.name} higher"
        )
    height, width = options.get("image_hw", (128, 128))
    if options.get("num_cells", 0) > height * width:
        raise DatasetError(
            f"num_cells is {options['num_cells']}; expected fewer synthetic cells than an image of "
            f"{height} x {width} has pixels"
        )
    try:
        check_memory(height * width * _BYTES_PER_PIXEL, f"a synthetic image of {height} x {width}")
    except LimitError as error:
        raise DatasetError(str(error)) from error


def _find_or_draw(parameters: Mapping[str, Any]) -> Path:
    """Folder with these parameters' images; complete, also if several processes ask at once."""
    key = json.dumps([DRAWING_VERSION, parameters], sort_keys=True)
    parent = cache_root() / "synthetic"
    folder = parent / hashlib.sha256(key.encode()).hexdigest()[:16]
    if _is_whole_set(folder, parameters["images"]):
        return folder
    if folder.is_dir():
        logger.warning("%s: files of it are missing; it is drawn anew", folder)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        drawing = Path(tempfile.mkdtemp(prefix=".drawing-", dir=parent))
        try:
            _draw(drawing, **parameters)
            if not _is_whole_set(folder, parameters["images"]):
                shutil.rmtree(folder, ignore_errors=True)
            _publish(drawing, folder)
        finally:
            shutil.rmtree(drawing, ignore_errors=True)
    except OSError as error:
        raise DatasetError(
            f"{folder}: synthetic images cannot be written: {error.strerror or error}; "
            "set $CELLSEG_CACHE to a folder with room"
        ) from error
    return folder


def _is_whole_set(folder: Path, images: int) -> bool:
    """Whether every image is there, with its labels and its classes."""
    endings = {"images": "png", "labels": "png", "classes": "csv"}
    return all(
        (folder / part).is_dir()
        and {entry.name for entry in os.scandir(folder / part)}
        >= {f"{_STEM.format(number)}.{ending}" for number in range(images)}
        for part, ending in endings.items()
    )


def _publish(drawing: Path, folder: Path) -> None:
    """Rename to the final name, unless another process was faster: then its files are the same."""
    try:
        drawing.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _draw(
    folder: Path,
    images: int,
    seed: int,
    classes: list[str],
    image_hw: list[int],
    types: int = 0,
    **how: Any,
) -> None:
    folder.chmod(0o755)  # temporary folders are private
    for name in ("images", "labels", "classes"):
        (folder / name).mkdir()
    for number in range(images):
        rng, size_hw = np.random.default_rng([seed, number]), (image_hw[0], image_hw[1])
        if types:
            cells = make_typed_cells(rng, size_hw, **how)
        else:
            cells = make_cells(rng, size_hw, size_classes=len(classes) == MAX_CLASSES, **how)
        stem = _STEM.format(number)
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


FORMAT = FileFormat(
    read_split,
    split=Option("{images: how many, seed: a number}", _is_split),
    options={
        "image_hw": Option("[height, width] in pixels", _is_image_hw),
        "num_cells": Option("a number of cells per image", _is_whole),
        "touching": Option("a share from 0 to 1", _is_share),
        "small_share": Option("a share from 0 to 1", _is_share),
        "dtype": Option("uint8 or uint16", lambda value: value in ("uint8", "uint16")),
        "types": Option(f"{len(TYPES)}", lambda value: value == len(TYPES)),
        _OF_TYPES: Option("true or false", lambda value: isinstance(value, bool)),
    },
    has_files=False,
)
