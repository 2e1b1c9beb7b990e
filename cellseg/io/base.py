"""What all file formats share: their description, their problems, the folders they write."""

from __future__ import annotations

import functools
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from cellseg.cells.records import ImageRecord
from cellseg.errors import CellsegError, DatasetError, collect_problems
from cellseg.files import write_whole_folder
from cellseg.images import stem_of_image, why_no_image
from cellseg.images.listing import (
    FolderListing,
    PassedOver,
    describe_passed_over,
    list_folder,
)
from cellseg.io.checks import check_file_name
from cellseg.io.planes import write_plane
from cellseg.names import suggest_name, unique_names
from cellseg.system_errors import explain_system_error

TREES_HINT = "datasets/README.md shows the folders that each format expects."

ANY_CLASS = ("cell",)

OVERLAPS, CLASSES, CROWD, SCORES = "overlaps", "classes", "crowd", "scores"
HOLES, EMPTY_IMAGES = "holes", "empty images"
ALL_BUT_SCORES = frozenset((OVERLAPS, CLASSES, CROWD, HOLES, EMPTY_IMAGES))
EVERYTHING = ALL_BUT_SCORES | {SCORES}

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Option:
    """A key that a declaration may have: what to expect, and the test for it."""

    expected: str
    accepts: Callable[[Any], bool]


FOLDER_NAME = Option("the name of a folder", lambda value: isinstance(value, str) and value != "")

Read = Callable[[Path, Any, tuple[str, ...], Mapping[str, Any]], list[ImageRecord]]
Write = Callable[[Sequence[ImageRecord], Path, Any, tuple[str, ...], Mapping[str, Any]], None]
FindClasses = Callable[[Path, Any, Mapping[str, Any]], tuple[str, ...]]
FindCategoryIds = Callable[[Path, Any, tuple[str, ...], Mapping[str, Any]], dict[int, int]]
WriteRecord = Callable[[ImageRecord], None]
OpenPredictions = Callable[[Path, tuple[str, ...]], AbstractContextManager[WriteRecord]]
WriteFiles = Callable[[ImageRecord, Sequence[Path], tuple[str, ...], Mapping[str, Any]], None]


@dataclass(frozen=True)
class PredictionFile:
    """What holds the predicted cells of one image: a file beside others, named after the image.

    Attributes:
        suffix: end of its name, `<out>/<image id><suffix>`.
        write: (record, paths, classes, options): writes it, and its companion if there is one, at
            these paths. It goes through `record.batches()`; cells without a pixel are left out,
            but count in the labels.
        class_suffix: end of the name of its companion, which is written where there are several
            classes; "" if the file itself can say them, or nothing can.
        is_folder: it is a folder.
        holds_image: `write` reads all channels of `options["image"]`.
        options: what `write` is given beside the caller's options.
        check: (classes) -> what is wrong with them; "" if nothing is.
    """

    suffix: str
    write: WriteFiles
    class_suffix: str = ""
    is_folder: bool = False
    holds_image: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[tuple[str, ...]], str] = lambda classes: ""


@dataclass(frozen=True)
class FileFormat:
    """A file format: how data sets are read and written in it, and predictions written.

    A cell's class is its place in `classes` everywhere.

    Attributes:
        read: (root, split, classes, options) -> records.
        split: what a split is declared by.
        options: keys of a declaration beside format, root, splits and classes.
        has_files: the data lie in a folder `root`; otherwise there is no such key.
        write: (records, root, split, classes, options): annotations and copies of the images, such
            that `read` with the same arguments gives the same records; None if there is no writer.
        open_predictions: (folder, classes) -> a context whose value writes one record at a time,
            without the image; complete when the context ends well. None if predictions cannot be
            written.
        prediction: the file of one image, for predictions that are written image by image
            (`cellseg.io.predictions`); None where one file holds all images.
        holds: what of "overlaps" (a pixel of several cells), "classes", "crowd" (regions of
            uncounted cells), "scores", "holes" and "empty images" the files can say.
        find_classes: (root, split, options) -> names in the files; None where files have none.
        find_category_ids: (root, split, classes, options) -> class of each number that the files
            themselves give to classes; None where files have no such numbers.
        code: a function of the module that reads, where that is another one than `read`'s: the
            cache of parsed annotations is made anew when the module's code changes.
    """

    read: Read
    split: Option = FOLDER_NAME
    options: Mapping[str, Option] = field(default_factory=dict)
    has_files: bool = True
    write: Write | None = None
    open_predictions: OpenPredictions | None = None
    prediction: PredictionFile | None = None
    holds: frozenset[str] = ALL_BUT_SCORES
    find_classes: FindClasses | None = None
    find_category_ids: FindCategoryIds | None = None
    code: Callable[..., Any] | None = None


class Problems(list[str]):
    """Lines that each name an offending file; no record comes of them."""


def read_all(
    items: Sequence[T],
    read_one: Callable[[T], ImageRecord | list[ImageRecord] | Problems],
    folder: Path,
) -> list[ImageRecord]:
    """Read all items with a few threads (decoding lets go of the interpreter lock).

    An item gives a record, those of the planes of a stack, or what is wrong with it.

    Raises:
        DatasetError: the problems of all items in one message.
    """
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = list(pool.map(read_one, items))
    problems = [line for result in results if isinstance(result, Problems) for line in result]
    raise_problems(folder, problems)
    records: list[ImageRecord] = []
    for result in results:
        records += [result] if isinstance(result, ImageRecord) else result  # type: ignore[arg-type]
    return records


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
    try:
        with write_whole_folder(folder) as partial:
            yield partial
    except CellsegError:
        raise
    except OSError as error:
        explained = explain_system_error(error) or f"{folder}: {error}"
        raise DatasetError(f"cannot be written: {explained}") from error


def check_free(path: Path) -> None:
    """Raise DatasetError if a file or a folder with something in it would be written over."""
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        raise DatasetError(f"{path}: is there already; nothing is written over. Name another place")


def copy_images(records: Sequence[ImageRecord], folder: Path) -> None:
    """Copy the images, byte by byte, to `<folder>/<image_id>.<ending>`; the folder is made.

    Raises:
        DatasetError: ids that are no file names or occur twice, and files that cannot be copied.
    """
    names = [image_file_name(record) for record in records]
    stems = [record.image_id for record in records]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1}) if _repeat(stems) else []
    if twice:
        raise DatasetError(f"{folder}: image ids that occur twice: {', '.join(twice[:10])}")
    folder.mkdir(parents=True, exist_ok=True)
    for record, name in zip(records, names):
        copy_image(record, folder / name)


def copy_image(record: ImageRecord, target: Path) -> None:
    """Copy one image's bytes; its rights are those of a new file. A plane of a stack is written."""
    try:
        if record.place.page is not None:
            write_plane(path_of_image(record), record.place.page, target)
            return
        shutil.copyfile(path_of_image(record), target)
    except OSError as error:
        raise DatasetError(
            f"{record.image_path}: cannot be copied to {target}: {error.strerror or error}"
        ) from error


def path_of_image(record: ImageRecord) -> Path:
    """The image's file; a DatasetError where only the cells are known."""
    if record.image_path is None:
        raise DatasetError(
            f"{record.image_id}: its image is not known; name the folder of images, or write the "
            "cells without images (cellseg.io.write_predictions)"
        )
    return record.image_path


def image_file_name(record: ImageRecord) -> str:
    """The id with the ending of the image; a DatasetError if that is no name of one file."""
    check_file_name(record)
    if record.place.page is not None:
        return f"{record.image_id}.tif"
    return f"{record.image_id}{path_of_image(record).suffix}"


def _repeat(names: Sequence[str]) -> bool:
    return len(set(names)) < len(names)


def list_files(
    folder: Path, suffixes: Iterable[str] = (), *, is_known: Callable[[Path], bool] | None = None
) -> list[Path]:
    """Files with one of the suffixes, by default images; sorted by name, hidden ones left out.

    Whatever else is there is said once; see `cellseg.images.listing`.

    Args:
        folder: where.
        suffixes: endings of names, in lower case.
        is_known: of files that are not taken, those that are no surprise and are not said: where
            annotations lie beside their images.

    Raises:
        DatasetError: links that lead nowhere.
    """
    wanted = tuple(suffixes)

    def why_not(path: Path) -> str:
        is_wanted = path.name.lower().endswith(wanted)
        return "" if is_wanted else f"expected {' or '.join(wanted[:3])}"

    found = list_folder(folder, why_not if wanted else why_no_image)
    raise_broken(folder, found)
    not_entered = [
        PassedOver(inner, "a folder; files are looked for beside it and not in it")
        for inner in found.folders
        if list_folder(inner, why_not if wanted else why_no_image).files
    ]
    strange = [one for one in found.passed_over if is_known is None or not is_known(one.path)]
    tell_passed_over(folder, [*strange, *not_entered])
    return found.files


def list_beside(folder: Path, suffixes: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """The images of a folder, and the files with one of the suffixes beside them."""
    endings = tuple(suffixes)
    images = list_files(folder, is_known=lambda path: path.name.lower().endswith(endings))
    return images, list_files(folder, suffixes, is_known=lambda path: True)


def raise_broken(folder: Path, found: FolderListing) -> None:
    """Raise a DatasetError for what is in a folder by its name and cannot be read."""
    raise_problems(folder, [f"{path}: {reason}" for path, reason in found.broken])


def tell_passed_over(folder: Path, passed_over: Sequence[PassedOver]) -> None:
    """Name the files of a folder that are not taken, once."""
    if passed_over:
        _warn_once(f"{folder}: {describe_passed_over(passed_over)}")


@functools.cache
def _warn_once(text: str) -> None:
    logger.warning("%s", text)


def stem_of(path: Path, suffixes: Iterable[str]) -> str:
    """A file's name without the longest of the suffixes that it has, such as `.geojson.gz`.

    Nor with the `.ome` before it, which says what kind of file the image is: the images `a.ome.tif`
    and the cells `a.ome.zip` or `a.zip` are called `a`.
    """
    ends = [one for one in suffixes if path.name.lower().endswith(one)]
    stem = path.name[: -len(max(ends, key=len))] if ends else path.stem
    return stem_of_image(f"{stem}.tif")


def ids_of_images(names: Sequence[str]) -> list[str]:
    """An id for each image, another one than any other has, fit for the name of a file.

    Args:
        names: of files, with folders, as they stand in a list of images.

    Returns:
        Their stems. Where stems repeat, the folders come before them; names that are the same
        even then have their endings behind them, and numbers if nothing else tells them apart.

    Example:
        >>> ids_of_images(["a.ome.tif", "b.png"])
        ['a', 'b']
        >>> ids_of_images(["day_1/a.png", "day_2/a.png", "day_2/a.tif", "day_2_a.png"])
        ['day_1_a', 'day_2_a_png', 'day_2_a_tif', 'day_2_a_png_2']
    """
    paths = [PurePosixPath(name) for name in names]
    ids = [stem_of_image(path.name) for path in paths]
    if _repeat(ids):
        ids = ["_".join([*_folder_names(path), stem_of_image(path.name)]) for path in paths]
    counts = Counter(ids)
    endings = (path.suffix.lower().replace(".", "_") for path in paths)
    told_apart = [f"{one}{ending}" if counts[one] > 1 else one for one, ending in zip(ids, endings)]
    return unique_names(told_apart)


def _folder_names(path: PurePosixPath) -> list[str]:
    return [part for part in path.parent.parts if part not in ("/", "..")]


def check_class_names(classes: Sequence[str]) -> tuple[str, ...]:
    """The names of classes, each another one, as a tuple.

    Raises:
        DatasetError: none at all, an empty one, or one that stands there twice.
    """
    names = tuple(classes)
    twice = [name for name, times in Counter(names).items() if times > 1]
    if not names or "" in names or twice:
        found = f"{twice[0]!r} twice" if twice else "an empty name" if names else "none"
        raise DatasetError(f"names of classes: found {found}; expected one name for each class")
    return names


def explain_entry(error: Exception) -> str:
    """Why an entry of an annotation file cannot be read, from what reading it raised.

    Example:
        >>> explain_entry(KeyError("points")), explain_entry(ValueError("could not convert 'x'"))
        ("cannot be read: it has no 'points'", "cannot be read: could not convert 'x'")
    """
    if isinstance(error, KeyError):
        return f"cannot be read: it has no {error}"
    if isinstance(error, OSError):
        return "cannot be read: its mask is no picture that can be decoded"
    return f"cannot be read: {error}"


def match_classes(
    found: Iterable[str], classes: tuple[str, ...]
) -> tuple[dict[str, int], list[str]]:
    """The class of each class name in the files.

    Args:
        found: names in the files.
        classes: declared names. The single class `cell`, which is what a declaration without
            classes has, takes cells of every name.

    Returns:
        Name in the file to the place in `classes`, and one text for each name that is not declared.
    """
    names = sorted(set(found))
    if classes == ANY_CLASS:
        return dict.fromkeys(names, 0), []
    problems = [
        f"unknown class {name!r}; {suggest_name(name, classes, 'declared are')}"
        for name in names
        if name not in classes
    ]
    return {name: classes.index(name) for name in names if name in classes}, problems
