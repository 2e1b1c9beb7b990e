"""A cleaned copy of a dataset; the original is only read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import Crop
from cellseg.cells.pieces import find_pieces
from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError, collect_problems
from cellseg.files import write_whole, write_whole_folder
from cellseg.inspection.checks import TINY_PX
from cellseg.inspection.duplicates import EXACT, TURNED
from cellseg.inspection.measures import ImageMeasures
from cellseg.inspection.report import Inspection
from cellseg.inspection.sources import Split
from cellseg.inspection.tables import write_csv
from cellseg.io import FORMATS, FileFormat
from cellseg.io.base import CLASSES, CROWD, EMPTY_IMAGES, HOLES, OVERLAPS
from scipy import ndimage

FIXES_FILE = "fixes.csv"
DECLARATION_FILE = "dataset.yaml"

_EIGHT_NEIGHBOURS = np.ones((3, 3), int)
_FALLBACKS = ("label_images", "instance_masks")


@dataclass(frozen=True)
class Fixes:
    """What to mend beside what is always mended.

    Attributes:
        tiny_px: cells of fewer pixels are removed.
        split_pieces: every piece of a cell becomes a cell.
        fill_holes: holes become part of their cell, less what belongs to other cells.
    """

    tiny_px: int = TINY_PX
    split_pieces: bool = False
    fill_holes: bool = False


class Change(NamedTuple):
    """One row of fixes.csv; `cell` is a number in the record, or "" for the whole image."""

    split: str
    image_id: str
    cell: int | str
    action: str
    reason: str


def write_fixed(
    inspection: Inspection, dataset: str, folder: Path, fixes: Fixes | None = None
) -> list[Change]:
    """Write a cleaned copy of a dataset, its declaration and the list of changes.

    Removed are images that cannot be used (unreadable, of another size than their annotations),
    copies between splits (the one in the smallest split stays, so that test sets do), and cells
    without a pixel, under `tiny_px`, with unusable masks, or there twice. Boxes are made tight.

    Args:
        inspection: of the dataset.
        dataset: its name; the copy is declared as `<dataset>_fixed`.
        folder: new or empty.
        fixes: what else to mend.

    Returns:
        The changes, as written to `fixes.csv`.

    Raises:
        DatasetError: the folder is not empty, or a split cannot be read at all.
    """
    fixes = fixes or Fixes()
    _check_can_write(inspection, folder)
    dropped = dict(_images_to_drop(inspection))
    changes: list[Change] = []
    records: dict[str, list[ImageRecord]] = {split.name: [] for split in inspection.splits}
    for number, image in enumerate(inspection.images):
        if number in dropped:
            change = Change(
                image.split, image.record.image_id, "", "image removed", dropped[number]
            )
            changes.append(change)
            continue
        record, found = fix_record(image, fixes)
        records[image.split].append(record)
        changes += found
    with write_whole_folder(folder) as partial:
        _write_splits(inspection, dataset, partial, records, root=folder)
        write_csv(partial / FIXES_FILE, Change._fields, changes)
    return changes


def _check_can_write(inspection: Inspection, folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"{folder}: is there already; --fix needs a new or an empty folder")
    unreadable = [problem for split in inspection.splits for problem in split.problems]
    if unreadable:
        raise DatasetError(
            collect_problems(
                "no cleaned copy can be written while files cannot be read",
                unreadable,
                hint="Mend or remove these files, then run it again.",
            )
        )


def _images_to_drop(inspection: Inspection) -> Iterator[tuple[int, str]]:
    """Numbers of images, and why."""
    images = inspection.images
    for number, image in enumerate(images):
        if image.file_hw is None:
            yield number, "cannot be read"
        elif image.file_hw != image.record.image_hw:
            yield number, "of another size than its annotations"
    sizes = {split.name: len(split.records) for split in inspection.splits}
    copies: dict[int, list[int]] = {}
    for pair in inspection.duplicates:
        if pair.kind in (EXACT, TURNED):
            copies.setdefault(pair.first, [pair.first]).append(pair.second)
    for group in copies.values():
        kept = min((images[k].split for k in group), key=lambda name: sizes[name])
        for k in group:
            if images[k].split != kept:
                yield k, f"the same image is in {kept}"


def fix_record(image: ImageMeasures, fixes: Fixes) -> tuple[ImageRecord, list[Change]]:
    """The record with its cells mended, and what was done."""
    record, every = image.record, image.record.cells
    why = _unusable_cells(image)
    usable = np.setdiff1d(np.arange(len(every)), list(why))
    claimed = every[usable].to_label_image() > 0  # the pixels of any cell
    kept: list[tuple[int, Crop, tuple[int, int]]] = []
    changes: list[Change] = []

    def note(cell: int, action: str, reason: str) -> None:
        changes.append(Change(image.split, record.image_id, cell, action, reason))

    for number in range(len(every)):
        crop, (row, col) = every.crops[number], every.offsets_rc[number].tolist()
        if every.is_crowd[number]:
            kept.append((number, crop, (row, col)))
            continue
        if number in why:
            note(number, "cell removed", why[number])
            continue
        if fixes.fill_holes:
            filled = _fill_holes(crop, (row, col), claimed)
            if (added := np.count_nonzero(filled) - np.count_nonzero(crop)) > 0:
                note(number, "hole filled", f"{added} px")
            crop = filled
        parts = find_pieces(crop, (row, col)) if fixes.split_pieces else [(crop, (row, col))]
        if len(parts) > 1:
            note(number, "cell split", f"{len(parts)} pieces")
        for part, place in parts:
            area = int(np.count_nonzero(part))
            if area < fixes.tiny_px:
                note(number, "cell removed" if len(parts) == 1 else "piece removed", f"{area} px")
            else:
                kept.append((number, part, place))
    return replace(record, cells=_choose_cells(every, kept)), changes


def _unusable_cells(image: ImageMeasures) -> dict[int, str]:
    """Numbers of the cells that are removed whole, and why."""
    empty = image.cells.index[image.cells.area_px == 0].tolist()
    why = dict.fromkeys(empty, "no pixel")
    why |= {number: "its mask cannot be used" for number, _ in image.bad_masks}
    return why | {second: f"nearly the same as cell {first}" for first, second in image.same_cells}


def _choose_cells(
    every: CellInstances, kept: Sequence[tuple[int, Crop, tuple[int, int]]]
) -> CellInstances:
    """Cells of new masks with tight boxes, with the classes and flags of those they were."""
    numbers = [number for number, _, _ in kept]
    return CellInstances.from_crops(
        [crop for _, crop, _ in kept],
        [offset_rc for _, _, offset_rc in kept],
        every.image_hw,
        classes=every.classes[numbers],
        is_crowd=every.is_crowd[numbers],
    )


def _fill_holes(crop: Crop, offset_rc: tuple[int, int], claimed: Crop) -> Crop:
    (row, col), (height, width) = offset_rc, crop.shape
    taken = claimed[row : row + height, col : col + width] & ~crop
    filled: Crop = ndimage.binary_fill_holes(crop) & ~taken
    return filled


def _write_splits(
    inspection: Inspection,
    dataset: str,
    folder: Path,
    records: dict[str, list[ImageRecord]],
    *,
    root: Path,
) -> None:
    """Write all splits with one format, and the declaration that reads them.

    Args:
        inspection, dataset: as in `write_fixed`.
        folder: where they are written.
        records: by split.
        root: what the folder is called when it is complete.
    """
    splits = [split for split in inspection.splits if records[split.name]]
    if not splits:
        raise DatasetError(f"{dataset}: no image is left; nothing was written")
    format_name, options = _choose_format(splits, _find_needs(inspection, splits))
    write = FORMATS[format_name].write
    names = {split.name: split.name.removeprefix(f"{dataset}_") for split in splits}
    classes = splits[0].classes
    for split in splits:
        if write is not None:  # `_choose_format` takes none without
            write(records[split.name], folder, names[split.name], classes, options)
    declaration = {
        f"{dataset}_fixed": {
            "format": format_name,
            "root": str(root.resolve()),
            "splits": list(names.values()),
            "classes": list(classes),
            **options,
        }
    }
    with write_whole(folder / DECLARATION_FILE) as partial:
        partial.write_text(
            yaml.safe_dump(declaration, sort_keys=False, allow_unicode=True), "utf-8"
        )


def _find_needs(inspection: Inspection, splits: Sequence[Split]) -> set[str]:
    """What the format of the copy has to hold; the names are those of `FileFormat.holds`."""
    records = [image.record for image in inspection.images]
    needs = {
        OVERLAPS: any(image.overlap_px for image in inspection.images),
        CLASSES: len(splits[0].classes) > 1,
        CROWD: any(record.cells.is_crowd.any() for record in records),
        EMPTY_IMAGES: any(not len(record.cells) for record in records),
        HOLES: any(image.cells.holes.any() for image in inspection.images),
    }
    return {name for name, is_needed in needs.items() if is_needed}


def _choose_format(splits: Sequence[Split], needs: set[str]) -> tuple[str, dict[str, Any]]:
    """The dataset's own format where it can be written, else the first that loses nothing."""
    declaration = splits[0].declaration
    candidates: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in _FALLBACKS]
    if declaration is not None and isinstance(declaration.split, str):
        candidates.insert(0, (declaration.format_name, dict(declaration.options)))
    for name, options in candidates:
        if _can_hold(FORMATS[name], needs) and FORMATS[name].split.accepts("train"):
            return name, options
    return candidates[-1]


def _can_hold(format_: FileFormat, needs: set[str]) -> bool:
    return format_.write is not None and needs <= format_.holds
