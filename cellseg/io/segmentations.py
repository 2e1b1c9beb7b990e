"""Segmentations from disk, whoever wrote them, and which belongs to which."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from cellseg.cells.instances import CellInstances
from cellseg.cells.overlaps import Segmentation, StoredLabels
from cellseg.errors import DatasetError, collect_problems
from cellseg.images import LABEL_SUFFIXES, read_image_hw, read_label_image, why_no_image
from cellseg.images.listing import PassedOver, list_folder, name_below
from cellseg.io import FORMATS, find_format, read_records
from cellseg.io.base import ANY_CLASS, check_class_names, raise_broken, tell_passed_over
from cellseg.io.category_ids import CategoryIds
from cellseg.io.coco_results import read_coco_results
from cellseg.io.file_names import name_key
from numpy.typing import NDArray

LABELS, COCO_RESULTS = "labels", "coco_results"
SOURCES = (LABELS, *sorted(FORMATS))
"""Names for `read_segmentations`: a folder of label images, COCO's results, a dataset format."""

LABEL_ENDINGS = ("_cp_masks", "_masks", "_labels")
COMPANION_ENDINGS = ("_overlay", "_flows", "_cp_output", "_cp_outlines", "_img", "_tracks")
"""Ends of the names of pictures that programs write beside a label image."""


logger = logging.getLogger(__name__)


class MismatchError(DatasetError):
    """Truth and predictions are not of the same images."""


@dataclass(frozen=True)
class LabelFile:
    """A label image on disk.

    Args:
        path: of the file.
    """

    path: Path

    @cached_property
    def image_hw(self) -> tuple[int, int]:
        """(height, width), pixels."""
        return read_image_hw(self.path)

    def read_labels(self) -> NDArray[Any]:
        """The label image, integers [H, W]."""
        return read_label_image(self.path)


Side: TypeAlias = "Segmentation | StoredLabels"
"""The cells of one image on one side of an evaluation."""


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
    by_id: Mapping[str, Side]
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
        format_name: one of SOURCES. `labels` is a folder of label images, <id>.tif or .png, also
            in sub-folders, which are part of the id; an ending of LABEL_ENDINGS is not: see
            `find_label_files`. `coco_results` is COCO's results with run lengths, of which an
            image_id is the id.
        split: of a dataset format.
        classes: names; of one alone all cells are.
        own_ids: class of each category id of the true data set, for `coco_results`.
        category_ids: how a file of `coco_results` counts, where it is known.

    Raises:
        DatasetError, ImageReadError, LabelError: what cannot be read, by name.
    """
    check_class_names(classes)
    if format_name == LABELS:
        return Segmentations(path, _find_labels(path))
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


def _find_labels(folder: Path) -> dict[str, Side]:
    found: dict[str, Path] = {}
    for path in find_label_files(folder):
        image_id = strip_label_ending(name_below(folder, path))
        if image_id in found:
            raise DatasetError(
                f"{folder}: more than one label image of {image_id}: {found[image_id].name} and "
                f"{path.name}; leave one of them in the folder"
            )
        found[image_id] = path
    return {name: LabelFile(path) for name, path in found.items()}


def find_label_files(folder: Path) -> list[Path]:
    """The label images in a folder and below it, by name; what is left out is said once.

    A name that ends in one of LABEL_ENDINGS is one of a label image, and what is called the same
    without the ending is its image; so is then every other file without an ending. What comes with
    such an image (its overlay, the flows of Cellpose) is no label image. Without images among them
    all other files are label images, too.

    Raises:
        DatasetError: no such folder, or none in it.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; expected label images in it, one per image")
    listing = list_folder(folder, _why_no_labels, is_deep=True)
    raise_broken(folder, listing)
    files, images = _part_from_images(folder, listing.files)
    tell_passed_over(folder, [*listing.passed_over, *images])
    if not files:
        endings = ", ".join(LABEL_SUFFIXES)
        raise DatasetError(f"{folder}: no label image ({endings}) in it")
    return files


def _why_no_labels(path: Path) -> str:
    if path.suffix.lower() in LABEL_SUFFIXES:
        return why_no_image(path)
    return f"no label image by its ending {path.suffix}" if path.suffix else "it has no ending"


def _part_from_images(folder: Path, files: Sequence[Path]) -> tuple[list[Path], list[PassedOver]]:
    """The label images, and what lies beside them and is none."""
    names = {path: name_below(folder, path) for path in files}
    marked = [path for path in files if names[path].endswith(LABEL_ENDINGS)]
    owners = {strip_label_ending(names[path]) for path in marked}
    companions = {f"{owner}{end}" for owner in owners for end in COMPANION_ENDINGS}
    has_images = any(name in owners for name in names.values())
    labels, others = list(marked), []
    for path in set(files).difference(marked):
        if names[path] in companions:
            others.append(PassedOver(path, "comes with a label image"))
        elif names[path] in owners:
            others.append(PassedOver(path, "the image beside its label image"))
        elif has_images:
            others.append(PassedOver(path, "an image without a label image beside it"))
        else:
            labels.append(path)
    return sorted(labels), sorted(others)


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
) -> tuple[list[str], list[Side], list[Side]]:
    """Image ids in order, true and predicted segmentation of each; both of one kind.

    Args:
        truth, predictions: the two sides; ids that differ are matched by `match_ids`.
        ignore_missing: an image without a prediction has no predicted cells; as it is anyhow where
            the predictions do not list images without cells.

    Raises:
        MismatchError: all images that are missing or too many, or that differ in size.
    """
    ids = sorted(truth.by_id)
    names = match_ids(ids, [*predictions.by_id])
    if names:
        first = next(iter(names.items()))
        logger.warning(
            "%d predicted images are called otherwise: %s is taken for %s", len(names), *first
        )
    predicted = {names.get(name, name): one for name, one in predictions.by_id.items()}
    missing = [name for name in ids if name not in predicted]
    problems = [f"{name}: no true cells known" for name in predicted if name not in truth.by_id]
    if predictions.lists_empty and not ignore_missing:
        problems += [f"{name}: no prediction" for name in missing]
    pairs = []
    for name in ids:
        true = truth.by_id[name]
        pred = predicted.get(name, CellInstances.empty(image_size(true)))
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


def match_ids(true_ids: Sequence[str], predicted_ids: Sequence[str]) -> dict[str, str]:
    """True ids of predictions that are called otherwise, where only one image can be meant.

    Folders before a name belong to the id of a prediction, while a data set puts them there where
    names repeat, with `_` between; and letters come in two Unicode forms.

    Returns:
        For each predicted id that is none of the true ones and has a partner, the true one.

    Example:
        >>> match_ids(["x", "day_1_y", "day_2_y"], ["in/x", "day_1/y", "day_2/y", "z"])
        {'day_1/y': 'day_1_y', 'day_2/y': 'day_2_y', 'in/x': 'x'}
    """
    found: dict[str, str] = {}
    keys: tuple[Callable[[str], str], ...] = (
        name_key,
        lambda name: name_key(name).replace("/", "_"),
        lambda name: name_key(name).rpartition("/")[2],
    )
    for key in keys:
        lonely = set(true_ids).difference(predicted_ids, found.values())
        others = set(predicted_ids).difference(true_ids, found)
        mine, theirs = (_by_key(names, key) for names in (lonely, others))
        for shared in sorted(mine.keys() & theirs.keys()):
            if len(mine[shared]) == len(theirs[shared]) == 1:
                found[theirs[shared][0]] = mine[shared][0]
    return found


def _by_key(names: Iterable[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    by_key: dict[str, list[str]] = {}
    for name in names:
        by_key.setdefault(key(name), []).append(name)
    return by_key


def image_size(side: Side) -> tuple[int, int]:
    """(height, width)."""
    if isinstance(side, CellInstances | StoredLabels):
        return side.image_hw
    return side.shape[0], side.shape[1]


def _to_cells(side: Side) -> CellInstances:
    if isinstance(side, CellInstances):
        return side
    labels = side.read_labels() if isinstance(side, StoredLabels) else side
    return CellInstances.from_label_image(labels)
