"""Segmentations from disk, whoever wrote them, and which belongs to which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cellseg.cells.instances import CellInstances
from cellseg.cells.overlaps import Segmentation
from cellseg.errors import DatasetError, collect_problems
from cellseg.images import read_label_image
from cellseg.io import FORMATS, find_format, read_records
from cellseg.io.base import ANY_CLASS
from cellseg.io.category_ids import CategoryIds
from cellseg.io.coco_results import read_coco_results

LABELS, COCO_RESULTS = "labels", "coco_results"
SOURCES = (LABELS, *sorted(FORMATS))
"""Names for `read_segmentations`: a folder of label images, COCO's results, a dataset format."""

LABEL_ENDINGS = ("_cp_masks", "_masks", "_labels")
_SUFFIXES = (".tif", ".tiff", ".png")


class MismatchError(DatasetError):
    """Truth and predictions are not of the same images."""


@dataclass(frozen=True)
class Segmentations:
    """One side of an evaluation.

    Attributes:
        source: where it was read, for messages.
        by_id: label image or cells by image id.
        has_classes: the cells' classes are known.
        lists_empty: an image without cells would be among them.
        crowd_regions: how many regions of uncounted cells are among the cells.
    """

    source: Path
    by_id: Mapping[str, Segmentation]
    has_classes: bool = False
    lists_empty: bool = True
    crowd_regions: int = 0


def guess_format(path: Path) -> str:
    """`coco_results` for a file, `labels` for a folder."""
    return COCO_RESULTS if path.is_file() else LABELS


def find_classes(path: Path, format_name: str, split: str | None) -> tuple[str, ...]:
    """Class names in the files of a dataset format; none where there are none."""
    if format_name in (LABELS, COCO_RESULTS):
        return ()
    search = find_format(format_name).find_classes
    return search(path, _need_split(split, format_name), {}) if search else ()


def find_category_ids(
    path: Path, format_name: str, split: str | None, classes: Sequence[str]
) -> dict[int, int] | None:
    """The class of each category id that a data set's files have; None where they have none."""
    search = None if format_name == LABELS else find_format(format_name).find_category_ids
    return search(path, _need_split(split, format_name), tuple(classes), {}) if search else None


def read_segmentations(
    path: Path,
    format_name: str,
    split: str | None = None,
    classes: Sequence[str] = ANY_CLASS,
    *,
    own_ids: Mapping[int, int] | None = None,
    category_ids: CategoryIds = None,
) -> Segmentations:
    """Read one side.

    Args:
        path: folder, or file for `coco_results`.
        format_name: one of SOURCES. `labels` is a folder of label images, <id>.tif or .png; where
            files end in one of LABEL_ENDINGS, only those are read, and the ending is no part of
            the id. `coco_results` is COCO's results with run lengths, of which an image_id is the
            id.
        split: of a dataset format.
        classes: names; of one alone all cells are.
        own_ids: class of each category id of the true data set, for `coco_results`.
        category_ids: how a file of `coco_results` counts, where it is known.

    Raises:
        DatasetError, ImageReadError, LabelError: what cannot be read, by name.
    """
    if format_name == LABELS:
        return Segmentations(path, _read_folder(path))
    if format_name == COCO_RESULTS:
        found = read_coco_results(path, classes, own_ids=own_ids, category_ids=category_ids)
        return Segmentations(path, found, has_classes=len(classes) > 1, lists_empty=False)
    known = find_format(format_name).find_classes is not None and len(classes) > 1
    declared = tuple(classes) if known else ANY_CLASS
    records = read_records(format_name, path, _need_split(split, format_name), classes=declared)
    crowd = sum(int(record.cells.is_crowd.sum()) for record in records)
    by_id = {record.image_id: record.cells for record in records}
    return Segmentations(path, by_id, has_classes=known, crowd_regions=crowd)


def _need_split(split: str | None, format_name: str) -> str:
    if split is None:
        raise DatasetError(f"the format {format_name} reads a split: name it with --split")
    return split


def _read_folder(folder: Path) -> dict[str, Segmentation]:
    files = find_label_files(folder)
    ids = [strip_label_ending(path.stem) for path in files]
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise DatasetError(f"{folder}: more than one label image of {', '.join(twice[:10])}")
    return {name: read_label_image(path) for name, path in zip(ids, files)}


def find_label_files(folder: Path) -> list[Path]:
    """The label images of a folder, by name: where some end in LABEL_ENDINGS, only those.

    Raises:
        DatasetError: no such folder, or none in it.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; expected label images in it, one per image")
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in _SUFFIXES]
    files = [path for path in files if not path.name.startswith(".")]
    marked = [path for path in files if path.stem.endswith(LABEL_ENDINGS)]
    if not files:
        raise DatasetError(f"{folder}: no label image ({', '.join(_SUFFIXES)}) in it")
    return marked or files


def strip_label_ending(stem: str) -> str:
    """A file's stem without the ending that says that it is a label image.

    Example:
        >>> strip_label_ending("field_1_labels"), strip_label_ending("field_1")
        ('field_1', 'field_1')
    """
    for ending in LABEL_ENDINGS:
        if stem.endswith(ending):
            return stem.removesuffix(ending)
    return stem


def pair_up(
    truth: Segmentations, predictions: Segmentations, *, ignore_missing: bool = False
) -> tuple[list[str], list[Segmentation], list[Segmentation]]:
    """Image ids in order, true and predicted segmentation of each; both of one kind.

    Args:
        ignore_missing: an image without a prediction has no predicted cells; as it is anyhow where
            the predictions do not list images without cells.

    Raises:
        MismatchError: all images that are missing or too many, or that differ in size.
    """
    ids = sorted(truth.by_id)
    missing = [name for name in ids if name not in predictions.by_id]
    problems = [
        f"{name}: no true cells known" for name in predictions.by_id if name not in truth.by_id
    ]
    if predictions.lists_empty and not ignore_missing:
        problems += [f"{name}: no prediction" for name in missing]
    pairs = []
    for name in ids:
        true = truth.by_id[name]
        pred = predictions.by_id.get(name, CellInstances.empty(image_size(true)))
        sizes = [" x ".join(map(str, reversed(image_size(side)))) for side in (true, pred)]
        if sizes[0] != sizes[1]:
            problems.append(f"{name}: truth is {sizes[0]} (width x height), prediction {sizes[1]}")
        pairs.append((true, pred))
    if problems:
        header = f"{truth.source} and {predictions.source} are not of the same images"
        hint = "Images belong together by their ids, which are the files' stems."
        raise MismatchError(collect_problems(header, problems, hint=hint))
    if any(isinstance(side, CellInstances) for pair in pairs for side in pair):
        pairs = [(_to_cells(true), _to_cells(pred)) for true, pred in pairs]
    return ids, [true for true, _ in pairs], [pred for _, pred in pairs]


def image_size(side: Segmentation) -> tuple[int, int]:
    """(height, width)."""
    return side.image_hw if isinstance(side, CellInstances) else (side.shape[0], side.shape[1])


def _to_cells(side: Segmentation) -> CellInstances:
    return side if isinstance(side, CellInstances) else CellInstances.from_label_image(side)
