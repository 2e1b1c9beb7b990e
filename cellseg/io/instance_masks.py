"""One mask file per cell: the layout of the Data Science Bowl 2018.

    <root>/<split>/<id>/images/<id>.png
    <root>/<split>/<id>/masks/*.png             any nonzero pixel is cell; files may overlap
    <root>/<split>/<id>/masks/<class>/*.png     where the dataset has several classes

An image without cells has an empty `masks` folder. Cells are read class by class, in the order of
the files' names. Regions of uncounted cells are not written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from cellseg.cells.labels import Crop, crop_bitmap
from cellseg.errors import DatasetError, ImageReadError
from cellseg.images import read_image, read_image_hw
from cellseg.io.base import (
    FOLDER_NAME,
    DatasetFormat,
    Problems,
    copy_image,
    find_split_folder,
    image_file_name,
    list_files,
    make_cells,
    new_split_folder,
    read_all,
)
from cellseg.io.per_image import check_folder_names, decode_cells
from cellseg.io.records import CellRecord


def read_split(
    root: Path, split: str, classes: tuple[str, ...], options: Mapping[str, Any]
) -> list[CellRecord]:
    """Records of one split; see `cellseg.io.read_records`."""
    folder = find_split_folder(root, split)
    cases = sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    if not cases:
        raise DatasetError(f"{folder}: no folders in it; expected one per image")
    return read_all(cases, partial(_read_case, classes=classes, **options), folder)


def _read_case(
    case: Path, classes: tuple[str, ...], images: str = "images", masks: str = "masks"
) -> CellRecord | Problems:
    found = list_files(case / images) if (case / images).is_dir() else []
    if len(found) != 1:
        listed = ", ".join(path.name for path in found) or "none"
        return Problems([f"{case / images}: expected one image; found {listed}"])
    if not (case / masks).is_dir():
        return Problems(
            [f"{case / masks}: no such folder; an image without cells has an empty one"]
        )
    try:
        image_hw = read_image_hw(found[0])
    except ImageReadError as error:
        return Problems([str(error)])
    problems = Problems(_misplaced(case / masks, classes))
    crops, offsets, names = [], [], []
    for path, name in _mask_files(case / masks, classes):
        try:
            crop, offset_rc = _read_mask(path, image_hw)
        except (DatasetError, ImageReadError) as error:
            problems.append(str(error))
        else:
            crops.append(crop)
            offsets.append(offset_rc)
            names.append(name)
    if problems:
        return problems
    offsets_rc = np.array(offsets, np.int64).reshape(-1, 2)
    cells = make_cells(crops, offsets_rc, image_hw, names)
    return CellRecord(case.name, found[0], image_hw, cells)


def _mask_files(folder: Path, classes: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """Mask files and their classes."""
    if len(classes) == 1:
        yield from ((path, classes[0]) for path in list_files(folder))
    for name in classes:
        if (folder / name).is_dir():
            yield from ((path, name) for path in list_files(folder / name))


def _misplaced(folder: Path, classes: tuple[str, ...]) -> Iterator[str]:
    """Masks that belong to no class."""
    expected = f"expected folders {', '.join(classes)}"
    if len(classes) > 1:
        yield from (f"{path}: mask of no class; {expected}" for path in list_files(folder))
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name not in classes and list_files(path):
            yield f"{path}: masks of an unknown class; {expected}"


def _read_mask(path: Path, image_hw: tuple[int, int]) -> tuple[Crop, tuple[int, int]]:
    """Tight crop and offset of a mask."""
    pixels = read_image(path)
    if pixels.shape[:2] != image_hw:
        found, expected = (f"{hw[1]} x {hw[0]}" for hw in (pixels.shape, image_hw))
        raise DatasetError(f"{path}: the mask is {found} (width x height), the image {expected}")
    mask = pixels != 0
    crop, offset_rc = crop_bitmap(np.any(mask, axis=2) if mask.ndim == 3 else mask)
    if not crop.size:
        raise DatasetError(f"{path}: the mask is empty")
    return crop, offset_rc


def find_classes(root: Path, split: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the folders of masks, sorted; none where masks lie in no such folders."""
    masks = options.get("masks", "masks")
    folders = find_split_folder(root, split).glob(f"*/{masks}/*/")
    return tuple(sorted({path.name for path in folders if path.is_dir() and list_files(path)}))


def write_split(
    records: Sequence[CellRecord],
    root: Path,
    split: str,
    classes: tuple[str, ...],
    options: Mapping[str, Any],
) -> None:
    """Write one split; see `DatasetFormat.write`."""
    check_folder_names(classes if len(classes) > 1 else ())
    with new_split_folder(root, split) as folder:
        for record in records:
            name = image_file_name(record)
            target = folder / record.image_id / options.get("images", "images") / name
            if target.parent.is_dir():
                raise DatasetError(f"{root / split}: image id {record.image_id} occurs twice")
            target.parent.mkdir(parents=True)
            copy_image(record, target)
            _write_masks(record, folder / record.image_id / options.get("masks", "masks"), classes)


def _write_masks(record: CellRecord, folder: Path, classes: tuple[str, ...]) -> None:
    folder.mkdir()
    mask = np.zeros(record.image_hw, np.uint8)
    digits = max(4, len(str(len(record.cells))))
    crops, offsets_rc = decode_cells(record, classes)
    for number, (cell, crop, (row, col)) in enumerate(
        zip(record.cells, crops, offsets_rc.tolist()), 1
    ):
        if cell.is_crowd:
            continue
        target = folder / cell.class_name if len(classes) > 1 else folder
        target.mkdir(exist_ok=True)
        window = mask[row : row + crop.shape[0], col : col + crop.shape[1]]
        window[crop] = 255
        _, png = cv2.imencode(".png", mask)
        (target / f"{number:0{digits}d}.png").write_bytes(png.tobytes())
        window[...] = 0


FORMAT = DatasetFormat(
    read_split,
    options={"images": FOLDER_NAME, "masks": FOLDER_NAME},
    write=write_split,
    loses=("crowd",),
    find_classes=find_classes,
)
