"""One label image per image: 0 is background, every other value one cell.

    <root>/<split>/images/<id>.png            png, jpg, tif or bmp
    <root>/<split>/labels/<id>.tif            png or tif, up to 32 bits
    <root>/<split>/classes/<id>.csv           where the dataset has several classes:
                                              columns `label` and `class`

An image without cells has a label image of zeros. Cells are read in the order of their labels, and
cell k is written as label k + 1. A pixel has one label: of cells that overlap the one with the
higher score keeps it, of equal scores the first. Regions of uncounted cells are not written.

StarDist's folders are the same with label images in `masks` and without classes:

    <root>/<split>/images/<id>.tif
    <root>/<split>/masks/<id>.tif

Cellpose keeps label images beside the images, without classes as well:

    <root>/<split>/<id>.tif  or  <id>_img.tif     png, jpg, tif or bmp
    <root>/<split>/<id>_masks.tif                 png or tif, up to 32 bits
    <root>/<split>/<id>_flows.tif, <id>_cp_...    what Cellpose itself wrote: left alone,
    <root>/<split>/<id>_seg.npy, ...              like everything that is no image

`mask_suffix: _cp_masks` reads what Cellpose predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import label_image_to_runs
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError
from cellseg.files import write_whole
from cellseg.images import LABEL_SUFFIXES, read_label_image, stem_of_image
from cellseg.io.base import (
    CLASSES,
    EMPTY_IMAGES,
    HOLES,
    FileFormat,
    Option,
    PredictionFile,
    Problems,
    copy_images,
    find_split_folder,
    list_files,
    match_classes,
    new_split_folder,
)
from cellseg.io.cell_file import CellFile, prediction_of, predictions_of_files, write_checked
from cellseg.io.label_files import write_class_table, write_label_file
from cellseg.io.per_image import Pair, format_of_files, match_pairs, read_pairs, size_problem
from cellseg.io.tables import read_text_rows

MASKS, IMAGE = "_masks", "_img"
CELLPOSE_OUTPUTS = ("_cp_masks", "_cp_output", "_cp_outlines", "_flows", MASKS)


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
    labels = read_label_image(path)
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
        by_label = {int(row["label"]): row["class"] for row in rows}
    except (DatasetError, ValueError) as error:
        found = error if isinstance(error, DatasetError) else f"{path}: {error}"
        return Problems([f"{found}; expected a first line `label,class`, then a row per label"])
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


def _check_one_class(format_name: str, classes: tuple[str, ...]) -> str:
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
    holds=frozenset((CLASSES, HOLES, EMPTY_IMAGES)),
)
PREDICTION = PredictionFile("_labels.tif", write_prediction_files, class_suffix="_labels.csv")
STARDIST_FILE = replace(
    LABEL_FILE,
    folder="masks",
    holds=frozenset((HOLES, EMPTY_IMAGES)),
    check=partial(_check_one_class, "stardist"),
)
CELLPOSE_FILE = replace(STARDIST_FILE, check=partial(_check_one_class, "cellpose"))


def read_cellpose_split(
    root: Path, split: str, classes: tuple[str, ...], options: Mapping[str, Any]
) -> list[ImageRecord]:
    """Records of one split of Cellpose's folder; see `cellseg.io.read_records`."""
    CELLPOSE_FILE.run_check(root / split, classes)
    folder = find_split_folder(root, split)
    pairs = _find_cellpose_pairs(folder, options.get("mask_suffix", MASKS))
    return read_pairs(pairs, folder, CELLPOSE_FILE, classes, options)


def _find_cellpose_pairs(folder: Path, mask_suffix: str) -> list[Pair]:
    images, masks = [], []
    for path in list_files(folder):
        stem = stem_of_image(path)
        ending = _ending(stem, (mask_suffix, *CELLPOSE_OUTPUTS))
        if ending == mask_suffix and path.suffix.lower() in LABEL_SUFFIXES:
            masks.append((stem.removesuffix(ending), path))
        elif not ending:
            images.append((stem.removesuffix(IMAGE), path))
    return match_pairs(
        folder,
        sorted(images),
        masks,
        no_images=f"{folder}: no images in it",
        other_name=f"label image {{}}{mask_suffix}.png or .tif",
        image_name=f"image {{}}.* or {{}}{IMAGE}.*",
    )


def _ending(stem: str, endings: Sequence[str]) -> str:
    """The longest of the endings that a name has, or nothing."""
    return max((one for one in endings if stem.endswith(one)), key=len, default="")


def write_cellpose_split(
    records: Sequence[ImageRecord],
    root: Path,
    split: str,
    classes: tuple[str, ...],
    options: Mapping[str, Any],
) -> None:
    """Write one split of Cellpose's folder; see `FileFormat.write`."""
    mask_suffix = options.get("mask_suffix", MASKS)
    for record in records:
        reserved = _ending(record.image_id, (mask_suffix, *CELLPOSE_OUTPUTS, IMAGE))
        if reserved:
            raise DatasetError(
                f"{record.image_path}: the image id {record.image_id!r} ends in {reserved}, which "
                "has a meaning in Cellpose's folders; rename the image"
            )
    with new_split_folder(root, split) as folder:
        copy_images(records, folder)
        for record in records:
            path = folder / f"{record.image_id}{mask_suffix}.tif"
            write_checked(record, path, CELLPOSE_FILE, classes)


FORMAT = replace(format_of_files(LABEL_FILE), find_classes=find_classes, prediction=PREDICTION)
STARDIST = format_of_files(STARDIST_FILE)
CELLPOSE = FileFormat(
    read_cellpose_split,
    options={
        "mask_suffix": Option(
            "the end of the label images' names",
            lambda value: isinstance(value, str) and value != "",
        )
    },
    write=write_cellpose_split,
    open_predictions=predictions_of_files(
        CELLPOSE_FILE, lambda folder, image_id: folder / f"{image_id}{MASKS}.tif"
    ),
    prediction=prediction_of(CELLPOSE_FILE),
    holds=CELLPOSE_FILE.holds,
)
