"""Datasets from one format to another, saying what does not come through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from cellseg.cells.labels import crops_to_label_image, label_image_to_rles, rle_to_crop
from cellseg.cells.run_lengths import Rle, rles_to_runs
from cellseg.cells.runs import Runs, merge_touching
from cellseg.errors import DatasetError, LabelError, collect_problems
from cellseg.io import FORMATS, find_format, read_records
from cellseg.io.base import ANY_CLASS, DatasetFormat
from cellseg.io.records import CellRecord, runs_to_cells


@dataclass(frozen=True)
class SplitPlace:
    """Where one split of a dataset lies, as in a declaration."""

    format_name: str
    root: Path
    split: Any
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def format(self) -> DatasetFormat:
        return find_format(self.format_name)


@dataclass(frozen=True)
class Conversion:
    """What was written.

    Attributes:
        num_images: images written.
        num_cells: cells written.
        classes: class names of the written split.
        losses: one line for each kind of thing that the new format cannot hold.
    """

    num_images: int
    num_cells: int
    classes: tuple[str, ...]
    losses: tuple[str, ...]


def convert_split(
    source: SplitPlace,
    target: SplitPlace,
    classes: Sequence[str] | None = None,
    *,
    strict: bool = False,
) -> Conversion:
    """Read a split, write it in another format, read that and compare.

    Args:
        source: what is read.
        target: what is written; must not be there yet.
        classes: class names; by default those in the files, or `cell` where files have none.
        strict: refuse, before anything is written, if something would be lost.

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
    names = tuple(classes) if classes else _find_classes(source)
    records = read_records(
        source.format_name, source.root, source.split, classes=names, **source.options
    )
    fitted, names, losses = fit_records(records, names, target.format)
    if losses and strict:
        raise DatasetError(
            collect_problems(
                f"{target.format_name} cannot hold all of {source.root}, {source.split}",
                losses,
                hint="Nothing was written. Choose another format, or leave out --strict.",
            )
        )
    target.format.write(fitted, target.root, target.split, names, target.options)
    _check_written(fitted, target, names)
    num_cells = sum(len(record.cells) for record in fitted)
    return Conversion(len(fitted), num_cells, names, tuple(losses))


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
    records: Sequence[CellRecord], classes: tuple[str, ...], target: DatasetFormat
) -> tuple[list[CellRecord], tuple[str, ...], list[str]]:
    """Leave out what a format cannot hold.

    Crowd regions go; where cells overlap, the earlier one keeps the pixels; several classes become
    the single class `cell`; images without cells go.

    Returns:
        Records and classes that the format holds exactly, and one line per kind of loss.
    """
    fitted, losses = list(records), []
    for kind, fit in (("crowd", _leave_out_crowds), ("overlaps", _cut_overlaps)):
        if kind in target.loses:
            fitted, loss = fit(fitted)
            losses += loss
    if "classes" in target.loses and len(classes) > 1:
        used = {cell.class_name for record in fitted for cell in record.cells}
        losses.append(f"classes: {', '.join(sorted(used)) or 'declared'} become `{ANY_CLASS[0]}`")
        classes = ANY_CLASS
        fitted = [
            replace(
                record,
                cells=tuple(replace(cell, class_name=classes[0]) for cell in record.cells),
            )
            for record in fitted
        ]
    if "empty images" in target.loses:
        empty = [record.image_id for record in fitted if not record.cells]
        fitted = [record for record in fitted if record.cells]
        if empty:
            losses.append(f"empty images: {len(empty)} images are left out: {_listed(empty)}")
    return fitted, classes, losses


def _leave_out_crowds(records: Sequence[CellRecord]) -> tuple[list[CellRecord], list[str]]:
    number = sum(cell.is_crowd for record in records for cell in record.cells)
    if not number:
        return list(records), []
    kept = [
        replace(record, cells=tuple(cell for cell in record.cells if not cell.is_crowd))
        for record in records
    ]
    return kept, [f"crowd: {number} crowd regions are left out"]


def _cut_overlaps(records: Sequence[CellRecord]) -> tuple[list[CellRecord], list[str]]:
    kept, hidden, shared, touched = [], 0, 0, []
    for record in records:
        runs = _runs([cell.rle for cell in record.cells], record.image_hw)
        num_shared = count_shared_pixels(runs)
        kept.append(_cut_record(record) if num_shared else record)
        if num_shared:
            touched.append(record.image_id)
            shared += num_shared
            hidden += len(record.cells) - len(kept[-1].cells)
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


def _cut_record(record: CellRecord) -> CellRecord:
    decoded = [rle_to_crop(cell.rle) for cell in record.cells]
    crops, offsets = [crop for crop, _ in decoded], [offset for _, offset in decoded]
    labels = crops_to_label_image(crops, offsets, record.image_hw)
    ids, rles = label_image_to_rles(labels)
    left = [record.cells[k - 1] for k in ids.tolist()]
    cells = runs_to_cells(
        _runs(rles, record.image_hw),
        record.image_hw,
        [cell.class_name for cell in left],
        [cell.is_crowd for cell in left],
    )
    return replace(record, cells=cells)


def _runs(rles: Sequence[Rle], image_hw: tuple[int, int]) -> Runs:
    return merge_touching(Runs(*rles_to_runs(rles, image_hw)))


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _check_written(
    records: Sequence[CellRecord], target: SplitPlace, classes: tuple[str, ...]
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


def compare_records(first: Sequence[CellRecord], second: Sequence[CellRecord]) -> list[str]:
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


def _ids(records: Sequence[CellRecord]) -> set[str]:
    return {record.image_id for record in records}


def _cell_counts(record: CellRecord) -> Counter[tuple[str, str, bool]]:
    """How often each cell occurs, by pixels, class and being a crowd."""
    try:
        runs = _runs([cell.rle for cell in record.cells], record.image_hw)
    except LabelError as error:
        raise DatasetError(f"{record.image_path}: {error}") from error
    names = [cell.class_name for cell in record.cells]
    crowds = [cell.is_crowd for cell in record.cells]
    canonical = runs_to_cells(runs, record.image_hw, names, crowds)
    return Counter((cell.rle["counts"], cell.class_name, cell.is_crowd) for cell in canonical)
