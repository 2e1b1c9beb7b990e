"""One label image per image: 0 is background, every other value one cell.

    <root>/<split>/images/<id>.png            png, jpg, tif or bmp
    <root>/<split>/labels/<id>.png            png or tif
    <root>/<split>/classes/<id>.csv           where the dataset has several classes:
                                              columns `label` and `class`

An image without cells has a label image of zeros.
"""

from __future__ import annotations

import csv
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cellseg.data.formats.base import (
    FOLDER_NAME,
    DatasetFormat,
    Problems,
    find_split_folder,
    list_files,
    make_cells,
    raise_problems,
    read_all,
)
from cellseg.data.images import read_image_hw, read_label_image
from cellseg.data.records import CellRecord
from cellseg.errors import DatasetError, ImageReadError, LabelError
from cellseg.labels import label_image_to_crops

LABEL_SUFFIXES = (".png", ".tif", ".tiff")


@dataclass(frozen=True)
class _Pair:
    image: Path
    labels: Path
    classes_csv: Path


def read_split(
    root: Path, split: str, classes: tuple[str, ...], options: Mapping[str, Any]
) -> list[CellRecord]:
    """Records of one split; see `cellseg.data.formats.read_records`."""
    folder = find_split_folder(root, split)
    pairs = _find_pairs(folder, **options)
    return read_all(pairs, partial(_read_pair, classes=classes), folder)


def _find_pairs(folder: Path, images: str = "images", labels: str = "labels") -> list[_Pair]:
    """Images with their label images; all that have no partner in one DatasetError."""
    image_folder = find_split_folder(folder, images)
    label_folder = find_split_folder(folder, labels)
    image_files = list_files(image_folder)
    label_files = list_files(label_folder, LABEL_SUFFIXES)
    if not image_files:
        raise DatasetError(f"{image_folder}: no images in it")
    problems = [*_duplicates(image_files), *_duplicates(label_files)]
    by_stem = {path.stem: path for path in label_files}
    stems = {path.stem for path in image_files}
    problems += [
        f"{path}: no label image {label_folder.name}/{path.stem}.png or .tif"
        for path in image_files
        if path.stem not in by_stem
    ]
    problems += [
        f"{path}: no image {image_folder.name}/{path.stem}.*"
        for path in label_files
        if path.stem not in stems
    ]
    raise_problems(folder, problems)
    return [
        _Pair(path, by_stem[path.stem], folder / "classes" / f"{path.stem}.csv")
        for path in image_files
    ]


def _duplicates(paths: Sequence[Path]) -> Iterator[str]:
    first: dict[str, Path] = {}
    for path in paths:
        if first.setdefault(path.stem, path) is not path:
            yield f"{path}: same id as {first[path.stem].name}"


def _read_pair(pair: _Pair, classes: tuple[str, ...]) -> CellRecord | Problems:
    try:
        image_hw = read_image_hw(pair.image)
        labels = read_label_image(pair.labels)
        if labels.shape != image_hw:
            found, expected = (f"{hw[1]} x {hw[0]}" for hw in (labels.shape, image_hw))
            wrong_size = f"the label image is {found} (width x height), the image {expected}"
            return Problems([f"{pair.labels}: {wrong_size}"])
        ids, crops, offsets_rc = label_image_to_crops(labels)
    except ImageReadError as error:
        return Problems([str(error)])
    except LabelError as error:
        return Problems([f"{pair.labels}: {error}"])
    names = _class_names(pair.classes_csv, ids.tolist(), classes)
    if isinstance(names, Problems):
        return names
    cells = make_cells(crops, offsets_rc, image_hw, names)
    return CellRecord(pair.image.stem, pair.image, image_hw, cells)


def _class_names(
    path: Path, labels: Sequence[int], classes: tuple[str, ...]
) -> list[str] | Problems:
    """Class of each label; from the CSV where there is a choice."""
    if len(classes) == 1 or not labels:
        return [classes[0]] * len(labels)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
        by_label = {int(row["label"]): row["class"].strip() for row in rows}
    except OSError as error:
        return Problems([f"{path}: {error.strerror}; it says which class each label is"])
    except (KeyError, ValueError, TypeError, AttributeError):
        return Problems([f"{path}: expected a first line `label,class`, then one row per label"])
    problems = Problems(_unknown_classes(path, by_label, classes))
    if len(rows) != len(by_label):
        problems.append(f"{path}: a label has several rows")
    missing = sorted(set(labels) - set(by_label))
    if missing:
        problems.append(f"{path}: no class for labels {missing[:10]}")
    absent = sorted(set(by_label) - set(labels))
    if absent:
        problems.append(f"{path}: labels {absent[:10]} are not in the label image")
    return problems or [by_label[label] for label in labels]


def _unknown_classes(
    path: Path, by_label: Mapping[int, str], classes: tuple[str, ...]
) -> Iterator[str]:
    for name in sorted(set(by_label.values()) - set(classes)):
        near = difflib.get_close_matches(name, classes, n=1)
        hint = f"did you mean {near[0]}?" if near else f"declared are {', '.join(classes)}"
        yield f"{path}: unknown class {name!r}; {hint}"


FORMAT = DatasetFormat(read_split, options={"images": FOLDER_NAME, "labels": FOLDER_NAME})
