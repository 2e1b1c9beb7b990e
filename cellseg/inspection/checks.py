"""What is wrong, or worth knowing, about a dataset: one finding per image and kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cellseg.cells.labels import IntArray
from cellseg.inspection.duplicates import EXACT, LIKE, TURNED, VIEW, Duplicate
from cellseg.inspection.measures import ImageMeasures
from cellseg.inspection.sources import Split

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)

TINY_PX = 10
_DIM_RANGE = 40
_SATURATED_SHARE = 0.02
_FILLING_SHARE = 0.9
_COVERED_BY_OTHERS = 0.2
_MIN_CELLS_FOR_STEP = 5
_LAST_OF_8_BITS = 255
_NUMBERS_SHOWN = 8


@dataclass(frozen=True)
class Finding:
    """One thing about one image, or about a split where `image_id` is "".

    Attributes:
        severity: "error" (training or its metrics would be wrong), "warning" (probably not
            meant), "note" (good to know).
        kind: short name, the same for all findings of its kind.
        split: name of the dataset.
        image_id: of the record.
        text: what was found.
        cells: numbers of the cells in the record that it is about.
    """

    severity: str
    kind: str
    split: str
    image_id: str
    text: str
    cells: tuple[int, ...] = ()


def find_problems(
    splits: Sequence[Split],
    images: Sequence[ImageMeasures],
    duplicates: Sequence[Duplicate],
    *,
    tiny_px: int = TINY_PX,
) -> list[Finding]:
    """Everything there is to say about a dataset, errors first.

    Args:
        splits: of one dataset.
        images: measures of all their images.
        duplicates: pairs of numbers in `images` that show the same.
        tiny_px: cells of fewer pixels are called tiny.
    """
    found = [
        Finding(ERROR, "unreadable", split.name, "", problem)
        for split in splits
        for problem in split.problems
    ]
    for image in images:
        found += _check_file(image)
        found += _check_cells(image, tiny_px)
    found += _check_ids(images, duplicates)
    found += _check_duplicates(images, duplicates)
    found += _check_splits(splits, images)
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def _finding(
    image: ImageMeasures, severity: str, kind: str, text: str, cells: Sequence[int] = ()
) -> Finding:
    numbers = tuple(int(k) for k in cells)
    return Finding(severity, kind, image.split, image.record.image_id, text, numbers)


def _check_file(image: ImageMeasures) -> Iterator[Finding]:
    """The image by itself."""
    record = image.record
    if image.file_hw is None or image.intensities is None:
        missing = record.image_path is None or not record.image_path.exists()
        kind = "image_missing" if missing else "image_unreadable"
        yield _finding(image, ERROR, kind, image.read_error)
        return
    if image.needs_choice:
        yield _finding(image, WARNING, "choice_needed", image.read_error)
    if image.file_hw != record.image_hw:
        found, expected = (f"{hw[1]} x {hw[0]}" for hw in (image.file_hw, record.image_hw))
        text = f"the image is {found} (width x height), its annotations say {expected}"
        yield _finding(image, ERROR, "size_mismatch", text)
    values = image.intensities
    if values.low == values.high:
        text = f"every pixel is {values.low:g}"
        cells = len(image.cells)
        yield _finding(
            image,
            ERROR if cells else WARNING,
            "constant_image",
            f"{text}, yet {cells} cells are annotated" if cells else text,
        )
        return
    if values.dtype == "uint8" and values.high - values.low < _DIM_RANGE:
        text = f"grey levels {values.low:g} to {values.high:g} of 255; normalise per image"
        yield _finding(image, NOTE, "dim", text)
    if values.top_share > _SATURATED_SHARE:
        text = f"{100 * values.top_share:.1f} % of the pixels are at the top, {values.high:g}"
        yield _finding(image, NOTE, "saturated", text)


def _check_cells(image: ImageMeasures, tiny_px: int) -> Iterator[Finding]:
    """The annotations by themselves."""
    cells, record = image.cells, image.record
    bad = dict(image.bad_masks)
    if bad:
        number, reason = next(iter(bad.items()))
        text = f"{_count(len(bad), 'cell')} with an unusable mask; cell {number}: {reason}"
        yield _finding(image, ERROR, "bad_mask", text, list(bad))
    empty = [k for k in cells.index[cells.area_px == 0].tolist() if k not in bad]
    if empty:
        text = f"{_count(len(empty), 'cell')} without a pixel{_numbers(empty)}"
        yield _finding(image, ERROR, "empty_mask", text, empty)
    outside = _boxes_outside(image)
    if outside:
        box = record.cells.boxes_xyxy[outside[0]].tolist()
        text = (
            f"{_count(len(outside), 'box', 'boxes')} outside the image of {record.image_hw[1]} x "
            f"{record.image_hw[0]} (width x height), such as {[round(v, 1) for v in box]}"
        )
        yield _finding(image, ERROR, "box_outside", text, outside)
    if not len(record.cells):
        yield _finding(image, NOTE, "no_cells", "no cell is annotated")
    yield from _check_shapes(image, tiny_px)
    yield from _check_overlaps(image)
    yield from _check_label_image(image)


def _check_shapes(image: ImageMeasures, tiny_px: int) -> Iterator[Finding]:
    cells = image.cells
    tiny = cells.index[(cells.area_px > 0) & (cells.area_px < tiny_px)]
    if tiny.size:
        smallest = int(cells.area_px[cells.area_px > 0].min())
        text = f"{_count(tiny.size, 'cell')} under {tiny_px} px (least: {smallest}){_numbers(tiny)}"
        yield _finding(image, WARNING, "tiny", text, tiny.tolist())
    split = cells.index[cells.pieces > 1]
    if split.size:
        most = int(cells.pieces.max())
        text = f"{_count(split.size, 'cell')} in several pieces (up to {most}){_numbers(split)}"
        yield _finding(image, NOTE, "pieces", text, split.tolist())
    holed = cells.index[cells.holes > 0]
    if holed.size:
        text = (
            f"{_count(holed.size, 'cell')} with holes ({cells.hole_px.sum()} px){_numbers(holed)}"
        )
        yield _finding(image, NOTE, "holes", text, holed.tolist())
    height, width = image.record.image_hw
    filling = cells.index[cells.area_px > _FILLING_SHARE * height * width]
    if filling.size:
        text = f"{_count(filling.size, 'cell')} of nearly the whole image: background as a cell?"
        yield _finding(image, WARNING, "fills_image", text, filling.tolist())


def _check_overlaps(image: ImageMeasures) -> Iterator[Finding]:
    cells = image.cells
    if image.same_cells:
        pairs = ", ".join(f"{a} and {b}" for a, b in image.same_cells[:_NUMBERS_SHOWN])
        text = f"{_count(len(image.same_cells), 'pair')} of cells that are nearly one: {pairs}"
        yield _finding(image, WARNING, "same_cell", text, [b for _, b in image.same_cells])
    if image.overlap_px:
        overlapping = cells.index[cells.overlap_px > 0]
        heavy = cells.overlap_px > _COVERED_BY_OTHERS * np.maximum(cells.area_px, 1)
        text = f"{image.overlap_px} px in several cells; {overlapping.size} cells share pixels"
        if heavy.any():
            text += f", {np.count_nonzero(heavy)} more than a fifth of theirs"
        severity = WARNING if heavy.any() and not image.same_cells else NOTE
        yield _finding(image, severity, "overlap", text, overlapping.tolist())


def _check_label_image(image: ImageMeasures) -> Iterator[Finding]:
    """What label images look like that were saved badly."""
    cells = image.cells
    step = image.edge_step_px
    if step > 1 and len(cells) >= _MIN_CELLS_FOR_STEP:
        text = f"all outlines lie on a grid of {step} px: annotated at 1/{step} of the resolution?"
        yield _finding(image, WARNING, "coarse_masks", text)
    if len(cells) == _LAST_OF_8_BITS:
        parted = cells.pieces > 1
        if parted[-1] and cells.pieces[-1] > 2:
            text = f"255 cells, the last in {cells.pieces[-1]} pieces: labels clipped to 8 bits?"
            yield _finding(image, ERROR, "clipped_labels", text, [int(cells.index[-1])])
        elif np.count_nonzero(parted) > 0.05 * len(cells):
            text = (
                f"255 cells, {np.count_nonzero(parted)} of them in several pieces: "
                "labels above 255 written to 8 bits?"
            )
            yield _finding(image, ERROR, "clipped_labels", text, cells.index[parted].tolist())


def _boxes_outside(image: ImageMeasures) -> list[int]:
    height, width = image.record.image_hw
    boxes = image.record.cells.boxes_xyxy
    outside = (boxes[:, :2] < 0).any(axis=1) | (boxes[:, 2:] > (width, height)).any(axis=1)
    return np.flatnonzero(outside).tolist()


def _check_ids(
    images: Sequence[ImageMeasures], duplicates: Sequence[Duplicate]
) -> Iterator[Finding]:
    """An id that stands for one image in two splits is an error, for two images a note."""
    first: dict[str, int] = {}
    others: dict[tuple[str, str], list[str]] = {}
    same = {(pair.first, pair.second) for pair in duplicates}
    for number, image in enumerate(images):
        known = images[first.setdefault(image.record.image_id, number)]
        if known is image:
            continue
        is_one = (first[image.record.image_id], number) in same
        is_one |= known.record.image_path == image.record.image_path
        if known.split == image.split:
            text = f"the id stands twice: {known.record.image_path} and {image.record.image_path}"
            yield _finding(image, ERROR, "id_twice", text)
        elif is_one:
            text = f"the id is in {known.split} too, with the same image"
            yield _finding(image, ERROR, "id_in_two_splits", text)
        else:
            others.setdefault((image.split, known.split), []).append(image.record.image_id)
    for (split, other), ids in others.items():
        text = f"{_count(len(ids), 'id')} in {other} too, with another image{_numbers(ids)}"
        yield Finding(NOTE, "id_of_two_images", split, "", text)


_DUPLICATE_TEXTS = {
    EXACT: "the same pixels as {other}",
    TURNED: "the same pixels as {other}, flipped or turned",
    LIKE: "nearly the same as {other} (likeness {likeness:.2f})",
    VIEW: "shows {shared:.0%} of {other} (correlation {likeness:.2f})",
}


def _check_duplicates(
    images: Sequence[ImageMeasures], duplicates: Sequence[Duplicate]
) -> Iterator[Finding]:
    for pair in duplicates:
        first, second = images[pair.first], images[pair.second]
        between = first.split != second.split
        is_copy = pair.kind in (EXACT, TURNED)
        where = f"{first.record.image_id} of {first.split}" if between else first.record.image_id
        text = _DUPLICATE_TEXTS[pair.kind].format(
            other=where, likeness=pair.likeness, shared=pair.shared
        )
        if is_copy and len(first.cells) != len(second.cells):
            text += f"; {len(second.cells)} cells here, {len(first.cells)} there"
        kind = "duplicate" if is_copy else "near_duplicate"
        kind += "_between_splits" if between else ""
        severity = ERROR if is_copy and between else WARNING
        yield _finding(second, severity, kind, text)


def _check_splits(splits: Sequence[Split], images: Sequence[ImageMeasures]) -> Iterator[Finding]:
    """Classes without a cell, and splits of different kinds of images."""
    for split in splits:
        own = [image for image in images if image.split == split.name]
        counts = Counter(name for image in own for name in image.cells.class_name.tolist())
        absent = [name for name in split.classes if not counts[name]]
        if own and absent:
            text = f"no cell of class {', '.join(absent)}"
            yield Finding(WARNING, "class_without_cells", split.name, "", text)
        types = Counter(image.intensities.dtype for image in own if image.intensities)
        if len(types) > 1:
            listed = ", ".join(f"{count} of {name}" for name, count in types.most_common())
            yield Finding(NOTE, "mixed_types", split.name, "", f"images of several types: {listed}")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one}" if number == 1 else f"{number} {many or one + 's'}"


def _numbers(cells: Sequence[Any] | IntArray) -> str:
    shown = [str(k) for k in cells[:_NUMBERS_SHOWN]]
    return f": {', '.join(shown)}{', ...' if len(cells) > _NUMBERS_SHOWN else ''}"
