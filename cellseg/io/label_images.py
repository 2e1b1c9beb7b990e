"""One label image per image: 0 is background, every other value one cell.

    <root>/<split>/images/<id>.png            png, jpg, tif or bmp
    <root>/<split>/labels/<id>.tif            png or tif, up to 32 bits
    <root>/<split>/classes/<id>.csv           where the dataset has several classes:
                                              columns `label` and `class`

An image without cells has a label image of zeros. Cells are read in the order of their labels, and
cell k is written as label k + 1. A pixel has one label: of cells that overlap the first keeps it.
Regions of uncounted cells are not written.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from cellseg.cells.labels import crops_to_label_image, label_image_to_crops
from cellseg.errors import DatasetError, ImageReadError, LabelError
from cellseg.images import read_image_hw, read_label_image
from cellseg.io.base import (
    FOLDER_NAME,
    DatasetFormat,
    Problems,
    copy_images,
    find_split_folder,
    list_files,
    make_cells,
    match_classes,
    new_split_folder,
    read_all,
)
from cellseg.io.per_image import Pair, decode_cells, find_pairs
from cellseg.io.records import CellRecord
from numpy.typing import NDArray

LABEL_SUFFIXES = (".png", ".tif", ".tiff")


def read_split(
    root: Path, split: str, classes: tuple[str, ...], options: Mapping[str, Any]
) -> list[CellRecord]:
    """Records of one split; see `cellseg.io.read_records`."""
    folder = find_split_folder(root, split)
    pairs = find_label_pairs(folder, options.get("images", "images"), _labels_folder(options))
    return read_all(
        pairs, partial(_read_with_classes, folder=folder / "classes", classes=classes), folder
    )


def find_label_pairs(folder: Path, images: str, labels: str) -> list[Pair]:
    """Images and label images of a split that has a folder for each."""
    return find_pairs(folder, images, labels, LABEL_SUFFIXES, "label image")


def _labels_folder(options: Mapping[str, Any]) -> str:
    return str(options.get("labels", "labels"))


def _read_with_classes(pair: Pair, folder: Path, classes: tuple[str, ...]) -> CellRecord | Problems:
    return read_pair(pair, classes, folder / f"{pair.image_id}.csv")


def check_one_class(format_name: str, folder: Path, classes: tuple[str, ...]) -> None:
    """Raise DatasetError where several classes are declared for a format without classes."""
    if len(classes) > 1:
        raise DatasetError(
            f"{folder}: the format {format_name} has no classes, {len(classes)} are declared "
            f"({', '.join(classes)}): declare one, or use the format label_images"
        )


def read_pair(
    pair: Pair, classes: tuple[str, ...], classes_csv: Path | None = None
) -> CellRecord | Problems:
    """The record of one image and its label image.

    Args:
        pair: the two files.
        classes: declared names; of one alone, all cells are.
        classes_csv: where the class of each label is looked up otherwise.
    """
    try:
        image_hw = read_image_hw(pair.image)
        labels = read_label_image(pair.annotation)
        if labels.shape != image_hw:
            found, expected = (f"{hw[1]} x {hw[0]}" for hw in (labels.shape, image_hw))
            wrong_size = f"the label image is {found} (width x height), the image {expected}"
            return Problems([f"{pair.annotation}: {wrong_size}"])
        ids, crops, offsets_rc = label_image_to_crops(labels)
    except ImageReadError as error:
        return Problems([str(error)])
    except LabelError as error:
        return Problems([f"{pair.annotation}: {error}"])
    names: list[str] | Problems = [classes[0]] * len(ids)
    if classes_csv is not None and len(classes) > 1 and len(ids):
        names = _class_names(classes_csv, ids.tolist(), classes)
    if isinstance(names, Problems):
        return names
    cells = make_cells(crops, offsets_rc, image_hw, names)
    return CellRecord(pair.image_id, pair.image, image_hw, cells)


def _class_names(
    path: Path, labels: Sequence[int], classes: tuple[str, ...]
) -> list[str] | Problems:
    """Class of each label from the CSV."""
    try:
        rows = _read_rows(path)
        by_label = {int(row["label"]): row["class"].strip() for row in rows}
    except OSError as error:
        return Problems([f"{path}: {error.strerror}; it says which class each label is"])
    except (KeyError, ValueError, TypeError, AttributeError):
        return Problems([f"{path}: expected a first line `label,class`, then one row per label"])
    _, unknown = match_classes(by_label.values(), classes)
    problems = Problems(f"{path}: {text}" for text in unknown)
    if len(rows) != len(by_label):
        problems.append(f"{path}: a label has several rows")
    missing = sorted(set(labels) - set(by_label))
    if missing:
        problems.append(f"{path}: no class for labels {missing[:10]}")
    absent = sorted(set(by_label) - set(labels))
    if absent:
        problems.append(f"{path}: labels {absent[:10]} are not in the label image")
    return problems or [by_label[label] for label in labels]


def _read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def find_classes(root: Path, split: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Names in the tables of classes, sorted; none where there are no tables."""
    folder = find_split_folder(root, split) / "classes"
    tables = list_files(folder, (".csv",)) if folder.is_dir() else []
    try:
        found = {row["class"].strip() for path in tables for row in _read_rows(path)}
    except (OSError, KeyError, ValueError, AttributeError) as error:
        raise DatasetError(f"{folder}: a table without the column `class`: {error}") from error
    return tuple(sorted(found))


def write_split(
    records: Sequence[CellRecord],
    root: Path,
    split: str,
    classes: tuple[str, ...],
    options: Mapping[str, Any],
) -> None:
    """Write one split; see `DatasetFormat.write`."""
    with new_split_folder(root, split) as folder:
        copy_images(records, folder / options.get("images", "images"))
        (folder / _labels_folder(options)).mkdir(exist_ok=True)
        for record in records:
            labels = draw_labels(record, classes)
            write_labels(labels, folder / _labels_folder(options) / f"{record.image_id}.tif")
            if len(classes) > 1:
                visible = np.unique(labels[labels > 0]).tolist()
                _write_classes(record, visible, folder / "classes")


def draw_labels(record: CellRecord, classes: tuple[str, ...]) -> NDArray[Any]:
    """The label image of a record, uint16 (uint32 above 65,535 cells)."""
    crops, offsets_rc = decode_cells(record, classes)
    counted = [k for k, cell in enumerate(record.cells) if not cell.is_crowd]
    return crops_to_label_image(crops, offsets_rc, record.image_hw, order=counted)


def write_labels(labels: NDArray[Any], path: Path) -> None:
    """Write a label image as a compressed TIFF."""
    tifffile.imwrite(path, labels, compression="zlib", metadata=None)


def _write_classes(record: CellRecord, labels: Sequence[int], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    rows = [("label", "class"), *((k, record.cells[k - 1].class_name) for k in labels)]
    with (folder / f"{record.image_id}.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)


FORMAT = DatasetFormat(
    read_split,
    options={"images": FOLDER_NAME, "labels": FOLDER_NAME},
    write=write_split,
    loses=("overlaps", "crowd"),
    find_classes=find_classes,
)
