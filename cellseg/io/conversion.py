"""Datasets from one format to another, saying what does not come through."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import crops_to_label_image, label_image_to_runs
from cellseg.cells.pieces import check_pieces
from cellseg.cells.records import ImageRecord
from cellseg.cells.runs import Runs
from cellseg.errors import DatasetError, collect_problems
from cellseg.files import is_inside
from cellseg.io import FORMATS, find_format, read_records, write_predictions
from cellseg.io.base import (
    ANY_CLASS,
    CLASSES,
    CROWD,
    EMPTY_IMAGES,
    OVERLAPS,
    SCORES,
    FileFormat,
    check_free,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitPlace:
    """Where one split of a dataset lies, as in a declaration."""

    format_name: str
    root: Path
    split: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def format(self) -> FileFormat:
        return find_format(self.format_name)


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        num_images: images written.
        num_cells: cells written.
        classes: class names of the written split.
        losses: one line for each kind of thing that the new format cannot hold.
        with_images: the images were copied, so that the files were read again and compared.
    """

    num_images: int
    num_cells: int
    classes: tuple[str, ...]
    losses: tuple[str, ...]
    with_images: bool = True


def convert_split(
    source: SplitPlace,
    target: SplitPlace,
    classes: Sequence[str] | None = None,
    *,
    strict: bool = False,
    connected_components: bool = False,
) -> Conversion:
    """Read a split, write it in another format, read that and compare.

    Cells whose images are not known (results without a folder of images) are written without
    them, into the same folders; they cannot be read again then.

    Args:
        source: what is read.
        target: what is written; must not be there yet.
        classes: class names; by default those in the files, or `cell` where files have none.
        strict: refuse, before anything is written, if something would be lost.
        connected_components: as in `read_records`.

    Raises:
        DatasetError: the source cannot be read, the target cannot be written, something would be
            lost (`strict`), or what was written reads back differently.
    """
    if target.format.write is None:
        raise DatasetError(
            f"{target.format_name} cannot be written; choose one of "
            f"{', '.join(sorted(name for name, one in FORMATS.items() if one.write))}"
        )
    _check_options(source, "input")
    _check_options(target, "output")
    _check_apart(source, target)
    names = tuple(classes) if classes else _find_classes(source)
    records = read_records(
        source.format_name,
        source.root,
        source.split,
        classes=names,
        connected_components=connected_components,
        **source.options,
    )
    if text := check_pieces(record.cells for record in records):
        logger.warning("%s, %s: %s", source.root, source.split, text)
    fitted, names, losses = fit_records(records, names, target.format)
    if losses and strict:
        raise DatasetError(
            collect_problems(
                f"{target.format_name} cannot hold all of {source.root}, {source.split}",
                losses,
                hint="Nothing was written. Choose another format, or leave out --strict.",
            )
        )
    with_images = all(record.image_path is not None for record in fitted)
    if with_images:
        target.format.write(fitted, target.root, target.split, names, target.options)
        _check_written(fitted, target, names)
    else:
        check_free(target.root / target.split)
        write_predictions(fitted, target.root / target.split, target.format_name, names)
    num_cells = sum(len(record.cells) for record in fitted)
    return Conversion(len(fitted), num_cells, names, tuple(losses), with_images)


def _check_apart(source: SplitPlace, target: SplitPlace) -> None:
    """Raise DatasetError for a target in the folder that is read, which would not read any more."""
    if not source.format.has_files or not isinstance(source.split, str):
        return
    read, written = source.root / source.split, target.root / str(target.split)
    if is_inside(written, read):
        raise DatasetError(
            f"{written}: lies in {read}, which is read, and would be taken for a part of it; name "
            "another place"
        )


def _check_options(place: SplitPlace, side: str) -> None:
    """Raise DatasetError for options that the format does not have or cannot use."""
    options = place.format.options
    problems = []
    for name, value in place.options.items():
        if name not in options:
            known = ", ".join(options) or "none"
            problems.append(f"{name}: unknown option of {place.format_name}; it has {known}")
        elif not options[name].accepts(value):
            problems.append(f"{name}: found {value!r}, expected {options[name].expected}")
    if not place.format.split.accepts(place.split):
        problems.append(f"split: found {place.split!r}, expected {place.format.split.expected}")
    if problems:
        raise DatasetError(collect_problems(f"options of the {side}", problems))


def _find_classes(source: SplitPlace) -> tuple[str, ...]:
    if source.format.find_classes is None:
        return ANY_CLASS
    return source.format.find_classes(source.root, source.split, source.options) or ANY_CLASS


def fit_records(
    records: Sequence[ImageRecord], classes: tuple[str, ...], target: FileFormat
) -> tuple[list[ImageRecord], tuple[str, ...], list[str]]:
    """Leave out what a format cannot hold.

    Crowd regions go; where cells overlap, the one with the higher score keeps the pixels, of equal
    scores the earlier one; several classes become the single class `cell`; images without cells go;
    scores become 1.

    Returns:
        Records and classes that the format holds exactly, and one line per kind of loss.
    """
    fitted, losses = list(records), []
    for kind, fit in ((CROWD, _leave_out_crowds), (OVERLAPS, _cut_overlaps)):
        if kind not in target.holds:
            fitted, loss = fit(fitted)
            losses += loss
    if CLASSES not in target.holds and len(classes) > 1:
        used = {classes[k] for record in fitted for k in np.unique(record.cells.classes)}
        losses.append(f"classes: {', '.join(sorted(used)) or 'declared'} become `{ANY_CLASS[0]}`")
        classes = ANY_CLASS
        fitted = [
            replace(record, cells=record.cells.replace(classes=np.zeros(len(record.cells), int)))
            for record in fitted
        ]
    with_scores = sum(bool((record.cells.scores != 1).any()) for record in fitted)
    if SCORES not in target.holds and with_scores:
        losses.append(f"scores: those of the cells of {with_scores} images are left out")
        fitted = [
            replace(record, cells=record.cells.replace(scores=np.ones(len(record.cells))))
            for record in fitted
        ]
    if EMPTY_IMAGES not in target.holds:
        empty = [record.image_id for record in fitted if not len(record.cells)]
        fitted = [record for record in fitted if len(record.cells)]
        if empty:
            losses.append(f"empty images: {len(empty)} images are left out: {_listed(empty)}")
    return fitted, classes, losses


def _leave_out_crowds(records: Sequence[ImageRecord]) -> tuple[list[ImageRecord], list[str]]:
    number = sum(int(record.cells.is_crowd.sum()) for record in records)
    if not number:
        return list(records), []
    kept = [replace(record, cells=record.cells.counted) for record in records]
    return kept, [f"crowd: {number} crowd regions are left out"]


def _cut_overlaps(records: Sequence[ImageRecord]) -> tuple[list[ImageRecord], list[str]]:
    kept, hidden, shared, touched = [], 0, 0, []
    for record in records:
        num_shared = count_shared_pixels(record.cells.runs)
        cells = _cut_cells(record.cells) if num_shared else record.cells
        kept.append(replace(record, cells=cells))
        if num_shared:
            touched.append(record.image_id)
            shared += num_shared
            hidden += len(record.cells) - len(cells)
    if not touched:
        return kept, []
    line = (
        f"overlaps: {shared} pixels of several cells go to the first of them, in {len(touched)} "
        f"images: {_listed(touched)}"
    )
    return kept, [f"{line}; {hidden} cells are hidden wholly and left out" if hidden else line]


def count_shared_pixels(runs: Runs) -> int:
    """How many pixels are claimed again by a further cell."""
    order = np.argsort(runs.starts, kind="stable")
    starts, ends = runs.starts[order], runs.ends[order]
    covered = np.maximum.accumulate(np.r_[0, ends])[: ends.size]
    new = np.maximum(ends - np.maximum(starts, covered), 0)
    return int((ends - starts).sum() - new.sum())


def _cut_cells(cells: CellInstances) -> CellInstances:
    """Cells that share no pixel: the one with the higher score keeps it, else the earlier one."""
    order = np.argsort(-cells.scores, kind="stable")
    labels = crops_to_label_image(cells.crops, cells.offsets_rc, cells.image_hw, order)
    ids, runs = label_image_to_runs(labels)
    left = cells[ids - 1]
    return CellInstances.from_runs(
        runs,
        len(ids),
        cells.image_hw,
        scores=left.scores,
        classes=left.classes,
        is_crowd=left.is_crowd,
    )


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _check_written(
    records: Sequence[ImageRecord], target: SplitPlace, classes: tuple[str, ...]
) -> None:
    """Raise DatasetError if the files do not hold these records; the order of cells is free."""
    back = read_records(
        target.format_name, target.root, target.split, classes=classes, **target.options
    )
    problems = compare_records(records, back)
    if problems:
        raise DatasetError(
            collect_problems(
                f"{target.root}, {target.split}: written, but it reads back differently", problems
            )
        )


def compare_records(first: Sequence[ImageRecord], second: Sequence[ImageRecord]) -> list[str]:
    """Differences between two readings of a split, one line per image; the cells' order is free."""
    there = {record.image_id: record for record in second}
    problems = [f"{name}: only in the second" for name in there.keys() - _ids(first)]
    for record in first:
        other = there.get(record.image_id)
        if other is None:
            problems.append(f"{record.image_id}: only in the first")
        elif record.image_hw != other.image_hw:
            problems.append(f"{record.image_id}: size {record.image_hw} and {other.image_hw}")
        else:
            here, back = _cell_counts(record), _cell_counts(other)
            if here != back:
                problems.append(
                    f"{record.image_id}: {(here - back).total()} cells only in the first, "
                    f"{(back - here).total()} only in the second"
                )
    return problems


def _ids(records: Sequence[ImageRecord]) -> set[str]:
    return {record.image_id for record in records}


def _cell_counts(record: ImageRecord) -> Counter[tuple[str, int, bool, float]]:
    """How often each cell occurs, by pixels, class, being a crowd and score."""
    cells = record.cells
    columns = (cells.classes, cells.is_crowd, cells.scores)
    counts = (rle["counts"] for rle in cells.to_rles())
    return Counter(zip(counts, *(column.tolist() for column in columns)))
