"""What formats have in common: their description, their problems, reading many files at once."""

from __future__ import annotations

import difflib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cellseg.cells.labels import Crop, IntArray, crops_to_rles
from cellseg.errors import DatasetError, collect_problems
from cellseg.images import IMAGE_SUFFIXES
from cellseg.io.records import CellAnnotation, CellRecord

TREES_HINT = "datasets/README.md shows the folders that each format expects."

ANY_CLASS = ("cell",)

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """A key that a declaration may have: what to expect, and the test for it."""

    expected: str
    accepts: Callable[[Any], bool]


FOLDER_NAME = Option("the name of a folder", lambda value: isinstance(value, str) and value != "")


Read = Callable[[Path, Any, tuple[str, ...], Mapping[str, Any]], list[CellRecord]]
Write = Callable[
    [Sequence[CellRecord], Path, Any, tuple[str, ...], Mapping[str, Any]],
    None,
]
FindClasses = Callable[[Path, Any, Mapping[str, Any]], tuple[str, ...]]


@dataclass(frozen=True)
class DatasetFormat:
    """An annotation format.

    Attributes:
        read: (root, split, classes, options) -> records.
        split: what a split is declared by.
        options: keys of a declaration beside format, root, splits and classes.
        has_files: the data lie in a folder `root`; otherwise there is no such key.
        write: (records, root, split, classes, options): annotations and copies of the images, such
            that `read` with the same arguments gives the same records; None if there is no writer.
        loses: what the format cannot hold, of "overlaps" (a pixel has one cell), "classes",
            "crowd" (regions of uncounted cells), "empty images" and "holes".
        find_classes: (root, split, options) -> names in the files; None where files have none.
    """

    read: Read
    split: Option = FOLDER_NAME
    options: Mapping[str, Option] = field(default_factory=dict)
    has_files: bool = True
    write: Write | None = None
    loses: tuple[str, ...] = ()
    find_classes: FindClasses | None = None


class Problems(list[str]):
    """Lines that each name an offending file; no record comes of them."""


def read_all(
    items: Sequence[T], read_one: Callable[[T], CellRecord | Problems], folder: Path
) -> list[CellRecord]:
    """Read all items with a few threads (decoding lets go of the interpreter lock).

    Raises:
        DatasetError: the problems of all items in one message.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = list(pool.map(read_one, items))
    problems = [line for result in results if isinstance(result, Problems) for line in result]
    raise_problems(folder, problems)
    return [result for result in results if isinstance(result, CellRecord)]


def raise_problems(folder: Path, problems: Sequence[str]) -> None:
    """Raise one DatasetError for all problems, if there are any."""
    if problems:
        raise DatasetError(collect_problems(f"{folder}: problems", problems, hint=TREES_HINT))


def find_split_folder(root: Path, split: str) -> Path:
    """The folder of a split; a DatasetError says where it was looked for."""
    folder = root / split
    if folder.is_dir():
        return folder
    there = "" if root.is_dir() else f" ({root} does not exist either)"
    raise DatasetError(
        f"{folder}: no such folder{there}. A dataset's root is looked for below "
        f"$DETECTRON2_DATASETS, which is {os.environ.get('DETECTRON2_DATASETS') or 'not set'}; "
        f"without it, below ./datasets of the current folder. {TREES_HINT}"
    )


@contextmanager
def new_split_folder(root: Path, split: str) -> Iterator[Path]:
    """Give an empty folder to fill; it becomes `<root>/<split>` when the block ends well.

    After an error nothing of it is left.

    Raises:
        DatasetError: there is something under that name already, or the disk refuses.
    """
    folder = root / split
    check_free(folder)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        if folder.is_dir():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_free(path: Path) -> None:
    """Raise DatasetError if a file or a folder with something in it would be written over."""
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        raise DatasetError(f"{path}: is there already; nothing is written over. Name another place")


def copy_images(records: Sequence[CellRecord], folder: Path) -> list[Path]:
    """Copy the images, byte by byte, to `<folder>/<image_id>.<ending>`; the folder is made.

    Raises:
        DatasetError: ids that are no file names or occur twice, and files that cannot be copied.
    """
    targets = [folder / image_file_name(record) for record in records]
    stems = [path.stem for path in targets]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1}) if _repeat(stems) else []
    if twice:
        raise DatasetError(f"{folder}: image ids that occur twice: {', '.join(twice[:10])}")
    folder.mkdir(parents=True, exist_ok=True)
    for record, target in zip(records, targets):
        copy_image(record, target)
    return targets


def copy_image(record: CellRecord, target: Path) -> None:
    """Copy one image's bytes; its rights are those of a new file."""
    try:
        shutil.copyfile(record.image_path, target)
    except OSError as error:
        raise DatasetError(
            f"{record.image_path}: cannot be copied to {target}: {error.strerror or error}"
        ) from error


def image_file_name(record: CellRecord) -> str:
    """The id with the ending of the image; a DatasetError if that is no name of one file."""
    name = f"{record.image_id}{record.image_path.suffix}"
    if not record.image_id or record.image_id.startswith(".") or Path(name).name != name:
        raise DatasetError(
            f"{record.image_path}: the image id {record.image_id!r} cannot be a file's name"
        )
    return name


def _repeat(names: Sequence[str]) -> bool:
    return len(set(names)) < len(names)


def list_files(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Files with one of the suffixes, sorted by name; hidden ones and anything else left out."""
    wanted = tuple(suffixes)
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in wanted and not path.name.startswith(".") and path.is_file()
    )


def match_classes(
    found: Iterable[str], classes: tuple[str, ...]
) -> tuple[dict[str, str], list[str]]:
    """Declared class of each class name in the files.

    Args:
        found: names in the files.
        classes: declared names. The single class `cell`, which is what a declaration without
            classes has, takes cells of every name.

    Returns:
        Name in the file to declared name, and one text for each name that is not declared.
    """
    names = sorted(set(found))
    if classes == ANY_CLASS:
        return dict.fromkeys(names, classes[0]), []
    problems = []
    for name in names:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=1)
            hint = f"did you mean {near[0]}?" if near else f"declared are {', '.join(classes)}"
            problems.append(f"unknown class {name!r}; {hint}")
    return {name: name for name in names}, problems


def make_cells(
    crops: Sequence[Crop],
    offsets_rc: IntArray,
    image_hw: tuple[int, int],
    class_names: Sequence[str],
) -> tuple[CellAnnotation, ...]:
    """Annotations of one image's cells from their tight crops."""
    return tuple(
        CellAnnotation(
            rle=rle,
            box_xyxy=(
                float(col),
                float(row),
                float(col + crop.shape[1]),
                float(row + crop.shape[0]),
            ),
            class_name=name,
        )
        for rle, crop, (row, col), name in zip(
            crops_to_rles(crops, offsets_rc, image_hw), crops, offsets_rc.tolist(), class_names
        )
    )
