"""Formats that keep the cells of each image in a file of its own.

    <root>/<split>/images/<id>.png            png, jpg, tif or bmp
    <root>/<split>/<folder>/<id><suffix>      the cells of that image

A module describes its file by a `CellFile`; `format_of_files` makes the format of it: data sets,
and predictions in the same folders without the images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError, ImageReadError, LabelError
from cellseg.images import SeveralPlanesError, read_image_hw, stem_of_image
from cellseg.images.listing import list_folder
from cellseg.io.base import (
    FOLDER_NAME,
    FileFormat,
    Problems,
    copy_images,
    find_split_folder,
    list_beside,
    list_files,
    match_classes,
    new_split_folder,
    read_all,
    stem_of,
)
from cellseg.io.cell_file import CellFile, prediction_of, predictions_of_files, write_checked
from cellseg.io.file_names import name_key
from cellseg.io.pairing import Pair, match_pairs
from cellseg.io.planes import find_planes

__all__ = [
    "CellFile",
    "classes_of_cells",
    "find_pairs",
    "format_of_files",
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
        folder = _find_folder(find_split_folder(root, split), cell_file.folder, options)
        files = list_files(folder, cell_file.suffixes)
        names_in = cell_file.find_classes or (lambda path, options: ())
        return tuple(sorted({name for path in files for name in names_in(path, options)}))

    def place(folder: Path, image_id: str) -> Path:
        return folder / cell_file.folder / f"{image_id}{cell_file.written_suffix}"

    return FileFormat(
        read_split,
        options={"images": FOLDER_NAME, cell_file.folder: FOLDER_NAME, **cell_file.options},
        write=write_split if cell_file.write else None,
        open_predictions=predictions_of_files(cell_file, place) if cell_file.write else None,
        prediction=prediction_of(cell_file) if cell_file.write else None,
        holds=cell_file.holds,
        find_classes=find_classes if cell_file.find_classes else None,
        code=cell_file.read,
    )


def find_pairs(folder: Path, cell_file: CellFile, options: Mapping[str, Any]) -> list[Pair]:
    """Pairs of equal stem in the two folders of a split.

    Raises:
        DatasetError: a folder or the images are missing; all files without a partner.
    """
    image_folder = _find_folder(folder, "images", options)
    other_folder = _find_folder(folder, cell_file.folder, options)
    suffixes = cell_file.suffixes
    if image_folder == other_folder:
        files, annotations = list_beside(folder, suffixes)
    else:
        files, annotations = list_files(image_folder), list_files(other_folder, suffixes)
    images = [(stem_of_image(path), path) for path in files]
    others = [(stem_of(path, suffixes), path) for path in annotations]
    if cell_file.missing_is_empty and others:
        known = {name_key(name) for name, _ in others}
        others += [
            (image_id, other_folder / f"{image_id}{cell_file.written_suffix}")
            for image_id, _ in images
            if name_key(image_id) not in known
        ]
    inner = f"{other_folder.relative_to(folder)}/" if other_folder != folder else ""
    return match_pairs(
        folder,
        images,
        others,
        no_images=f"{image_folder}: no images in it",
        other_name=f"{cell_file.kind} {inner}{{}}{' or '.join(suffixes[:2])}",
        image_name=f"image {image_folder.relative_to(folder)}/{{}}.*",
    )


def _find_folder(folder: Path, name: str, options: Mapping[str, Any]) -> Path:
    """The folder of images or of annotations; that of the split where nobody made one.

    Raises:
        DatasetError: the folder that an option names is not there, nor is that of the split.
    """
    if name in options or (folder / name).is_dir() or not _lie_together(folder):
        return find_split_folder(folder, options.get(name, name))
    return folder


def _lie_together(folder: Path) -> bool:
    """Whether images lie in a split's folder itself, with the annotations beside them."""
    return folder.is_dir() and bool(list_folder(folder).files)


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

    def read_pair(pair: Pair) -> ImageRecord | list[ImageRecord] | Problems:
        try:
            image_hw = read_image_hw(pair.image)
            if cell_file.missing_is_empty and not pair.annotation.exists():
                return ImageRecord(pair.image_id, CellInstances.empty(image_hw), pair.image)
            try:
                cells = cell_file.read(pair.annotation, image_hw, classes, options)
            except SeveralPlanesError:
                if cell_file.read_frames is None:
                    raise
                return _read_frames(pair, image_hw, cell_file, classes, options)
        except (ImageReadError, DatasetError) as error:
            return Problems([str(error)])
        except LabelError as error:
            return Problems([f"{pair.annotation}: {error}"])
        if isinstance(cells, Problems):
            return cells
        return ImageRecord(pair.image_id, cells, pair.image)

    return read_all(pairs, read_pair, folder)


def _read_frames(
    pair: Pair,
    image_hw: tuple[int, int],
    cell_file: CellFile,
    classes: tuple[str, ...],
    options: Mapping[str, Any],
) -> list[ImageRecord] | Problems:
    """A record for each plane of a stack that has annotations."""
    assert cell_file.read_frames is not None
    planes = find_planes(pair.image)
    places = [place for _, place in planes]
    found = cell_file.read_frames(pair.annotation, image_hw, places, classes, options)
    if isinstance(found, Problems):
        return found
    return [
        ImageRecord(f"{pair.image_id}{suffix}", cells, pair.image, place)
        for (suffix, place), cells in zip(planes, found, strict=True)
        if cells is not None
    ]


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
