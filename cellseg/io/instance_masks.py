"""One mask file per cell: the layout of the Data Science Bowl 2018.

    <root>/<split>/<id>/images/<id>.png
    <root>/<split>/<id>/masks/*.png             any nonzero pixel is cell; files may overlap
    <root>/<split>/<id>/masks/<class>/*.png     where the dataset has several classes

An image without cells has an empty `masks` folder. Cells are read class by class, in the order of
the files' names. Regions of uncounted cells are not written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import Crop, crop_bitmap
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError, ImageReadError
from cellseg.images import read_image, read_image_hw
from cellseg.images.listing import PassedOver, list_folder
from cellseg.io.base import (
    ALL_BUT_SCORES,
    CROWD,
    FOLDER_NAME,
    FileFormat,
    Problems,
    WriteRecord,
    copy_image,
    find_split_folder,
    image_file_name,
    list_files,
    new_split_folder,
    raise_broken,
    read_all,
    tell_passed_over,
)
from cellseg.io.checks import check_cells, check_file_name
from cellseg.io.per_image import size_problem


def read_split(
    root: Path, split: str, classes: tuple[str, ...], options: Mapping[str, Any]
) -> list[ImageRecord]:
    """Records of one split; see `cellseg.io.read_records`."""
    folder = find_split_folder(root, split)
    found = list_folder(folder)
    raise_broken(folder, found)
    tell_passed_over(folder, [*found.passed_over, *map(_beside_folders, found.files)])
    cases = found.folders
    if not cases:
        raise DatasetError(f"{folder}: no folders in it; expected one per image")
    return read_all(cases, partial(_read_case, classes=classes, **options), folder)


def _beside_folders(path: Path) -> PassedOver:
    return PassedOver(path, "expected a folder for each image")


def _read_case(
    case: Path, classes: tuple[str, ...], images: str = "images", masks: str = "masks"
) -> ImageRecord | Problems:
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
    crops, offsets, numbers = [], [], []
    for path, number in _mask_files(case / masks, classes):
        try:
            crop, offset_rc = _read_mask(path, image_hw)
        except (DatasetError, ImageReadError) as error:
            problems.append(str(error))
        else:
            crops.append(crop)
            offsets.append(offset_rc)
            numbers.append(number)
    if problems:
        return problems
    cells = CellInstances.from_crops(crops, offsets, image_hw, classes=numbers)
    return ImageRecord(case.name, cells, found[0])


def _mask_files(folder: Path, classes: tuple[str, ...]) -> Iterator[tuple[Path, int]]:
    """Mask files and their classes."""
    if len(classes) == 1:
        yield from ((path, 0) for path in _list_masks(folder))
    for number, name in enumerate(classes):
        if (folder / name).is_dir():
            yield from ((path, number) for path in _list_masks(folder / name))


def _list_masks(folder: Path) -> list[Path]:
    """The masks in a folder; `_misplaced` says what of its sub-folders is no class."""
    found = list_folder(folder)
    raise_broken(folder, found)
    tell_passed_over(folder, found.passed_over)
    return found.files


def _misplaced(folder: Path, classes: tuple[str, ...]) -> Iterator[str]:
    """Masks that belong to no class."""
    expected = f"expected folders {', '.join(classes)}"
    if len(classes) > 1:
        yield from (f"{path}: mask of no class; {expected}" for path in _list_masks(folder))
    for path in list_folder(folder).folders:
        if path.name not in classes and _list_masks(path):
            yield f"{path}: masks of an unknown class; {expected}"


def _read_mask(path: Path, image_hw: tuple[int, int]) -> tuple[Crop, tuple[int, int]]:
    """Tight crop and offset of a mask."""
    pixels = read_image(path)
    problem = size_problem(path, "mask", pixels.shape, image_hw)
    if problem:
        raise DatasetError(problem)
    mask = pixels != 0
    crop, offset_rc = crop_bitmap(np.any(mask, axis=2) if mask.ndim == 3 else mask)
    if not crop.size:
        raise DatasetError(f"{path}: the mask is empty")
    return crop, offset_rc


def find_classes(root: Path, split: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the folders of masks, sorted; none where masks lie in no such folders."""
    masks = options.get("masks", "masks")
    cases = list_folder(find_split_folder(root, split)).folders
    places = [case / masks for case in cases if (case / masks).is_dir()]
    folders = [path for place in places for path in list_folder(place).folders]
    return tuple(sorted({path.name for path in folders if _list_masks(path)}))


def write_split(
    records: Sequence[ImageRecord],
    root: Path,
    split: str,
    classes: tuple[str, ...],
    options: Mapping[str, Any],
) -> None:
    """Write one split; see `FileFormat.write`."""
    _check_folder_names(classes if len(classes) > 1 else ())
    with new_split_folder(root, split) as folder:
        for record in records:
            name = image_file_name(record)
            target = folder / record.image_id / options.get("images", "images") / name
            if target.parent.is_dir():
                raise DatasetError(f"{root / split}: image id {record.image_id} occurs twice")
            target.parent.mkdir(parents=True)
            copy_image(record, target)
            masks = folder / record.image_id / options.get("masks", "masks")
            write_image_cells(record, masks, classes)


def _check_folder_names(classes: Iterable[str]) -> None:
    """Raise DatasetError for classes that cannot be the name of a folder."""
    for name in classes:
        if Path(name).name != name or name.startswith("."):
            raise DatasetError(f"the class {name!r} cannot be the name of a folder; rename it")


def write_image_cells(record: ImageRecord, folder: Path, classes: tuple[str, ...]) -> None:
    """Write a mask file for each cell of an image, whole or not at all.

    Args:
        record: an image and its cells; crowd regions are left out.
        folder: of the mask files, or of folders for each class where there are several; must not
            be there yet.
        classes: class names.

    Raises:
        DatasetError: a cell has no pixel or no class, or the folder is there already.
    """
    check_cells(record, classes)
    cells = record.cells
    mask = np.zeros(record.image_hw, np.uint8)
    digits = max(4, len(str(len(cells))))
    with new_split_folder(folder.parent, folder.name) as partial_folder:
        for k in np.flatnonzero(~cells.is_crowd).tolist():
            several = len(classes) > 1
            target = partial_folder / classes[cells.classes[k]] if several else partial_folder
            target.mkdir(exist_ok=True)
            crop, (row, col) = cells.crops[k], cells.offsets_rc[k].tolist()
            window = mask[row : row + crop.shape[0], col : col + crop.shape[1]]
            window[crop] = 255
            _, png = cv2.imencode(".png", mask)
            (target / f"{k + 1:0{digits}d}.png").write_bytes(png.tobytes())
            window[...] = 0


@contextmanager
def open_predictions(folder: Path, classes: tuple[str, ...]) -> Iterator[WriteRecord]:
    """See `FileFormat.open_predictions`; detections without a pixel are left out."""
    _check_folder_names(classes if len(classes) > 1 else ())

    def write(record: ImageRecord) -> None:
        check_file_name(record)
        cells = record.cells[record.cells.areas_px > 0]
        write_image_cells(replace(record, cells=cells), folder / record.image_id / "masks", classes)

    yield write


FORMAT = FileFormat(
    read_split,
    options={"images": FOLDER_NAME, "masks": FOLDER_NAME},
    write=write_split,
    open_predictions=open_predictions,
    holds=ALL_BUT_SCORES - {CROWD},
    find_classes=find_classes,
)
