"""Formats that keep the cells of each image in a file of its own.

    <root>/<split>/images/<id>.png            png, jpg, tif or bmp
    <root>/<split>/<folder>/<id><suffix>      the cells of that image

A module describes its file by a `CellFile`; `format_of_files` makes the format of it: data sets,
and predictions in the same folders without the images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError, ImageReadError, LabelError
from cellseg.images import read_image_hw, stem_of_image
from cellseg.io.base import (
    FOLDER_NAME,
    FileFormat,
    Problems,
    copy_images,
    find_split_folder,
    list_files,
    match_classes,
    new_split_folder,
    raise_problems,
    read_all,
    stem_of,
)
from cellseg.io.cell_file import CellFile, prediction_of, predictions_of_files, write_checked

__all__ = [
    "CellFile",
    "Pair",
    "classes_of_cells",
    "find_duplicates",
    "find_pairs",
    "format_of_files",
    "match_pairs",
    "read_pairs",
    "size_problem",
]


def format_of_files(cell_file: CellFile) -> FileFormat:
    """The format whose splits are a folder of images beside a folder of such files."""

    def read_split(
        root: Path, split: str, classes: tuple[str, ...], options: Mapping[str, Any]
    ) -> list[ImageRecord]:
        cell_file.run_check(root / split, classes)
        folder = find_split_folder(root, split)
        pairs = find_pairs(folder, cell_file, options)
        return read_pairs(pairs, folder, cell_file, classes, options)

    def write_split(
        records: Sequence[ImageRecord],
        root: Path,
        split: str,
        classes: tuple[str, ...],
        options: Mapping[str, Any],
    ) -> None:
        cell_file.run_check(root / split, classes)
        with new_split_folder(root, split) as folder:
            copy_images(records, folder / options.get("images", "images"))
            for record in records:
                name = f"{record.image_id}{cell_file.written_suffix}"
                path = cell_file.folder_in(folder, options) / name
                write_checked(record, path, cell_file, classes, options)
            cell_file.folder_in(folder, options).mkdir(parents=True, exist_ok=True)

    def find_classes(root: Path, split: str, options: Mapping[str, Any]) -> tuple[str, ...]:
        folder = cell_file.folder_in(find_split_folder(root, split), options)
        files = list_files(find_split_folder(folder.parent, folder.name), cell_file.suffixes)
        names_in = cell_file.find_classes or (lambda path, options: ())
        return tuple(sorted({name for path in files for name in names_in(path, options)}))

    def place(folder: Path, image_id: str) -> Path:
        return folder / cell_file.folder / f"{image_id}{cell_file.written_suffix}"

    return FileFormat(
        read_split,
        options={"images": FOLDER_NAME, cell_file.folder: FOLDER_NAME, **cell_file.options},
        write=write_split,
        open_predictions=predictions_of_files(cell_file, place),
        prediction=prediction_of(cell_file),
        holds=cell_file.holds,
        find_classes=find_classes if cell_file.find_classes else None,
        code=cell_file.read,
    )


@dataclass(frozen=True)
class Pair:
    """An image, and the file that says where its cells are."""

    image_id: str
    image: Path
    annotation: Path


def find_pairs(folder: Path, cell_file: CellFile, options: Mapping[str, Any]) -> list[Pair]:
    """Pairs of equal stem in the two folders of a split.

    Raises:
        DatasetError: a folder or the images are missing; all files without a partner.
    """
    images = options.get("images", "images")
    annotations = options.get(cell_file.folder, cell_file.folder)
    image_folder = find_split_folder(folder, images)
    other_folder = find_split_folder(folder, annotations)
    suffixes = cell_file.suffixes
    return match_pairs(
        folder,
        [(stem_of_image(path), path) for path in list_files(image_folder)],
        [(stem_of(path, suffixes), path) for path in list_files(other_folder, suffixes)],
        no_images=f"{image_folder}: no images in it",
        other_name=f"{cell_file.kind} {annotations}/{{}}{' or '.join(suffixes[:2])}",
        image_name=f"image {images}/{{}}.*",
    )


def match_pairs(
    folder: Path,
    images: Sequence[tuple[str, Path]],
    annotations: Sequence[tuple[str, Path]],
    *,
    no_images: str,
    other_name: str,
    image_name: str,
) -> list[Pair]:
    """Pairs of equal id, in the order of the images; see `find_pairs`.

    Args:
        folder: named in the message.
        images: ids and files.
        annotations: ids and files.
        no_images: message where there is none at all.
        other_name: what an image without partner lacks, with {} for the id.
        image_name: what an annotation file without partner lacks, likewise.
    """
    if not images:
        raise DatasetError(no_images)
    problems = [*find_duplicates(images), *find_duplicates(annotations)]
    partners, ids = dict(annotations), {image_id for image_id, _ in images}
    problems += [
        f"{path}: no {other_name.replace('{}', image_id)}"
        for image_id, path in images
        if image_id not in partners
    ]
    problems += [
        f"{path}: no {image_name.replace('{}', image_id)}"
        for image_id, path in annotations
        if image_id not in ids
    ]
    raise_problems(folder, problems)
    return [Pair(image_id, path, partners[image_id]) for image_id, path in images]


def find_duplicates(files: Iterable[tuple[str, Path]]) -> Iterator[str]:
    """A line for each file whose id is that of one before it."""
    first: dict[str, Path] = {}
    for image_id, path in files:
        if first.setdefault(image_id, path) is not path:
            yield f"{path}: same id as {first[image_id].name}"


def read_pairs(
    pairs: Sequence[Pair],
    folder: Path,
    cell_file: CellFile,
    classes: tuple[str, ...],
    options: Mapping[str, Any],
) -> list[ImageRecord]:
    """The records of all pairs of a split.

    Raises:
        DatasetError: what is wrong with any of them, in one message.
    """

    def read_pair(pair: Pair) -> ImageRecord | Problems:
        try:
            image_hw = read_image_hw(pair.image)
            cells = cell_file.read(pair.annotation, image_hw, classes, options)
        except (ImageReadError, DatasetError) as error:
            return Problems([str(error)])
        except LabelError as error:
            return Problems([f"{pair.annotation}: {error}"])
        if isinstance(cells, Problems):
            return cells
        return ImageRecord(pair.image_id, cells, pair.image)

    return read_all(pairs, read_pair, folder)


def classes_of_cells(
    named: Sequence[tuple[str, str | None]], classes: tuple[str, ...], where_from: str
) -> tuple[list[int], list[str]]:
    """The class of each cell.

    Args:
        named: what a message calls the cell, and the name of its class in the file, if any.
        classes: declared names; of one alone, cells without a name are too.
        where_from: where the file would have the name, for the message.

    Returns:
        The classes, and the problems; where there are any, the classes are of no use.
    """
    numbers, problems = match_classes({name for _, name in named if name}, classes)
    nameless = [cell for cell, name in named if not name] if len(classes) > 1 else []
    if nameless:
        listed = ", ".join(nameless[:5]) + (", ..." if len(nameless) > 5 else "")
        problems.append(
            f"{len(nameless)} without a class ({listed}); with several classes declared "
            f"({', '.join(classes)}) each cell has its own in {where_from}"
        )
    return [numbers.get(name or "", 0) for _, name in named], problems


def size_problem(path: Path, kind: str, found_hw: Sequence[Any], image_hw: Sequence[Any]) -> str:
    """A line for a file of another size than its image; "" if they are of one."""
    if tuple(found_hw[:2]) == tuple(image_hw):
        return ""
    found, expected = (f"{hw[1]} x {hw[0]}" for hw in (found_hw, image_hw))
    return f"{path}: the {kind} is {found} (width x height), the image {expected}"
