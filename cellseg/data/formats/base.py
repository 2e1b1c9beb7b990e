"""What formats have in common: their description, their problems, reading many files at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cellseg.data.images import IMAGE_SUFFIXES
from cellseg.data.records import CellAnnotation, CellRecord
from cellseg.errors import DatasetError, collect_problems
from cellseg.labels import Crop, IntArray, crops_to_rles

TREES_HINT = "datasets/README.md shows the folders that each format expects."

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """A key that a declaration may have: what to expect, and the test for it."""

    expected: str
    accepts: Callable[[Any], bool]


FOLDER_NAME = Option("the name of a folder", lambda value: isinstance(value, str) and value != "")


@dataclass(frozen=True)
class DatasetFormat:
    """An annotation format.

    Attributes:
        read: (root, split, classes, options) -> records.
        split: what a split is declared by.
        options: keys of a declaration beside format, root, splits and classes.
        has_files: the data lie in a folder `root`; otherwise there is no such key.
    """

    read: Callable[[Path, Any, tuple[str, ...], Mapping[str, Any]], list[CellRecord]]
    split: Option = FOLDER_NAME
    options: Mapping[str, Option] = field(default_factory=dict)
    has_files: bool = True


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


def list_files(folder: Path, suffixes: Iterable[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Files with one of the suffixes, sorted by name; hidden ones and anything else left out."""
    wanted = tuple(suffixes)
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in wanted and not path.name.startswith(".") and path.is_file()
    )


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
