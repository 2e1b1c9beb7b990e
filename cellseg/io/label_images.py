"""One label image per image: 0 is background, every other value one cell.

    <root>/<split>/images/<id>.png            png, jpg, tif or bmp
    <root>/<split>/labels/<id>.tif            png, tif or npy; `cellseg.images.labels` says
                                              what is read besides whole numbers
    <root>/<split>/classes/<id>.csv           where the dataset has several classes:
                                              columns `label` and `class`

An image without cells has a label image of zeros. Cells are read in the order of their labels, and
cell k is written as label k + 1. A pixel has one label: of cells that overlap the one with the
higher score keeps it, of equal scores the first. Regions of uncounted cells are not written.

StarDist's folders are the same with label images in `masks` and without classes:

    <root>/<split>/images/<id>.tif
    <root>/<split>/masks/<id>.tif

Where both are stacks of as many planes, each plane is an image with its label image, `<id>_t07`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import label_image_to_runs
from cellseg.cells.records import ImageRecord, PlaceInFile
from cellseg.cells.run_lengths import IntArray
from cellseg.cells.runs import Runs
from cellseg.errors import DatasetError
from cellseg.files import write_whole
from cellseg.images import (
    LABEL_SUFFIXES,
    array_to_labels,
    open_planes,
    read_label_image,
    stem_of_image,
)
from cellseg.io.base import (
    CLASSES,
    EMPTY_IMAGES,
    HOLES,
    PredictionFile,
    Problems,
    find_split_folder,
    list_files,
    match_classes,
)
from cellseg.io.cell_file import CellFile
from cellseg.io.cellpose_seg import SEG_ENDING, read_seg_masks, read_seg_stack
from cellseg.io.label_files import write_class_table, write_label_file
from cellseg.io.per_image import format_of_files, size_problem
from cellseg.io.tables import read_text_rows
from numpy.typing import NDArray


def read_image_cells(
    path: Path,
    image_hw: tuple[int, int],
    classes: tuple[str, ...] = ("cell",),
    options: Mapping[str, Any] | None = None,
) -> CellInstances | Problems:
    """The cells of a label image, in the order of their labels.

    Args:
        path: the label image; with several classes, `classes/<stem>.csv` beside its folder says
            which class each label is.
        image_hw: (height, width) of the image, pixels.
        classes: declared names; of one alone, all cells are.
        options: `labels`, the name of the folder of label images within that of the split.

    Returns:
        The cells, or what is wrong with the files.
    """
    is_seg = path.name.lower().endswith(SEG_ENDING)
    labels = read_seg_masks(path) if is_seg else read_label_image(path)
    problem = size_problem(path, "label image", labels.shape, image_hw)
    if problem:
        return Problems([problem])
    ids, runs = label_image_to_runs(labels)
    numbers: list[int] | Problems = [0] * len(ids)
    if len(classes) > 1 and len(ids):
        numbers = _read_classes(_table_of(path, options), ids.tolist(), classes)
    if isinstance(numbers, Problems):
        return numbers
    return CellInstances.from_runs(runs, len(ids), image_hw, classes=numbers)


def read_frames(
    path: Path,
    image_hw: tuple[int, int],
    places: Sequence[PlaceInFile],
    classes: tuple[str, ...],
    options: Mapping[str, Any],
) -> list[CellInstances | None] | Problems:
    """The cells of a stack of label images, plane by plane; see `CellFile.read_frames`."""
    parts: list[tuple[IntArray, Runs]] = []
    for labels in _read_planes(path):
        problem = size_problem(path, "label image", labels.shape, image_hw)
        if problem:
            return Problems([problem])
        parts.append(label_image_to_runs(labels))
    if len(parts) != len(places):
        found = f"{len(places)} {'planes' if len(places) > 1 else 'plane'}"
        return Problems([f"{path}: {len(parts)} label images; the image has {found}"])
    numbers: dict[int, int] = {}
    every = sorted({label for ids, _ in parts for label in ids.tolist()})
    if len(classes) > 1 and every:
        of_labels = _read_classes(_table_of(path, options), every, classes)
        if isinstance(of_labels, Problems):
            return of_labels
        numbers = dict(zip(every, of_labels))
    return [
        CellInstances.from_runs(
            runs, len(ids), image_hw, classes=[numbers.get(label, 0) for label in ids.tolist()]
        )
        for ids, runs in parts
    ]


def _read_planes(path: Path) -> Iterator[NDArray[Any]]:
    """The label images of a stack, one at a time."""
    if path.name.lower().endswith(SEG_ENDING):
        yield from read_seg_stack(path)
        return
    with open_planes(path, palette_mode="P") as planes:
        for plane in planes:
            yield array_to_labels(plane.read_whole(), path)


def write_image_cells(
    record: ImageRecord,
    path: Path,
    classes: tuple[str, ...] = (),
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write the cells of one image as a label image (`cellseg.io.label_files`).

    Args:
        record: an image and its cells.
        path: the label image; its folder is there.
        classes: class names; several are written as `classes/<image id>.csv` beside the folder of
            the label image, a row for each label that occurs.
        options: as in `read_image_cells`.
    """
    occurs = write_label_file(record, path)
    if len(classes) > 1:
        table = _table_of(path.with_name(f"{record.image_id}.tif"), options)
        with write_whole(table) as partial:
            write_class_table(record, occurs, partial, classes)


def write_prediction_files(
    record: ImageRecord, paths: Sequence[Path], classes: tuple[str, ...], options: Mapping[str, Any]
) -> None:
    """The same beside other results, with the table of classes as the second of the paths."""
    occurs = write_label_file(record, paths[0])
    if len(paths) > 1:
        write_class_table(record, occurs, paths[1], classes)


def write_label_image(cells: CellInstances | ImageRecord, path: str | Path) -> None:
    """Write the cells of one image as a label image, whole or not at all.

    Args:
        cells: the cells of one image, or a record of them; see
            `cellseg.io.label_files.write_label_file`.
        path: ends in .tif or .tiff by custom; folders are made; replaced only when complete.
    """
    path = Path(path)
    with write_whole(path) as partial:
        record = ImageRecord(path.stem, cells) if isinstance(cells, CellInstances) else cells
        write_label_file(record, partial)


def _table_of(path: Path, options: Mapping[str, Any] | None) -> Path:
    """The table of a label image's classes, in the split that the option `labels` is below."""
    depth = len(Path((options or {}).get("labels", "labels")).parts)
    return path.parents[depth] / "classes" / f"{stem_of_image(path)}.csv"


def _read_classes(
    path: Path, labels: Sequence[int], classes: tuple[str, ...]
) -> list[int] | Problems:
    """Class of each label from the CSV."""
    try:
        rows = _read_class_rows(path, "label", "class")
    except DatasetError as error:
        return Problems([f"{error}; expected a first line `label,class`, then a row per label"])
    for line, row in enumerate(rows, 2):
        if not re.fullmatch(r"\s*[+-]?\d+\s*", row["label"]):
            return Problems(
                [f"{path}: line {line}: label {row['label'][:40]!r}; expected a whole number"]
            )
    by_label = {int(row["label"]): row["class"] for row in rows}
    numbers, unknown = match_classes(by_label.values(), classes)
    problems = Problems(f"{path}: {text}" for text in unknown)
    if len(rows) != len(by_label):
        problems.append(f"{path}: a label has several rows")
    missing = sorted(set(labels) - set(by_label))
    if missing:
        problems.append(f"{path}: no class for labels {missing[:10]}")
    absent = sorted(set(by_label) - set(labels))
    if absent:
        problems.append(f"{path}: labels {absent[:10]} are not in the label image")
    return problems or [numbers[by_label[label]] for label in labels]


def _read_class_rows(path: Path, *columns: str) -> list[dict[str, str]]:
    rows = read_text_rows(path, columns)
    for line, row in enumerate(rows, 2):
        if not row["class"]:
            raise DatasetError(f"{path}: line {line} has no class")
    return rows


def find_classes(root: Path, split: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Names in the tables of classes, sorted; none where there are no tables."""
    folder = find_split_folder(root, split) / "classes"
    tables = list_files(folder, (".csv",)) if folder.is_dir() else []
    found = {row["class"] for path in tables for row in _read_class_rows(path, "class")}
    return tuple(sorted(found))


def check_one_class(format_name: str, classes: tuple[str, ...]) -> str:
    if len(classes) <= 1:
        return ""
    return (
        f"the format {format_name} has no classes, {len(classes)} are declared "
        f"({', '.join(classes)}): declare one, or use the format label_images"
    )


LABEL_FILE = CellFile(
    kind="label image",
    folder="labels",
    suffixes=LABEL_SUFFIXES,
    written_suffix=".tif",
    read=read_image_cells,
    write=write_image_cells,
    write_prediction=write_image_cells,
    read_frames=read_frames,
    holds=frozenset((CLASSES, HOLES, EMPTY_IMAGES)),
)
PREDICTION = PredictionFile("_labels.tif", write_prediction_files, class_suffix="_labels.csv")
STARDIST_FILE = replace(
    LABEL_FILE,
    folder="masks",
    holds=frozenset((HOLES, EMPTY_IMAGES)),
    check=partial(check_one_class, "stardist"),
)


FORMAT = replace(format_of_files(LABEL_FILE), find_classes=find_classes, prediction=PREDICTION)
STARDIST = format_of_files(STARDIST_FILE)
