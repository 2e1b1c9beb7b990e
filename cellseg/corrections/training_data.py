"""Corrected images as a data set: what was looked at counts, and nothing else does.

    <out>/declaration.yaml      for `cellseg inspect` and `cellseg train`
          train/, val/          annotations.json (COCO) and images/
          corrections.json      who corrected which image, when, and what had found its cells

Of an image the windows that are done count, and elsewhere the pixels of cells that were accepted or
drawn. The rest is a region that nobody has counted (COCO's `iscrowd`), one for each class, since it
may hold cells of any: the losses and the evaluation leave it out.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from cellseg.cells.instances import CellInstances
from cellseg.cells.records import ImageRecord
from cellseg.corrections.adding import MARK_FILE
from cellseg.corrections.events import ACCEPTED, DRAWN, FOUND
from cellseg.corrections.image import CorrectedImage
from cellseg.corrections.journal import utc_now
from cellseg.datasets.splits import hash_group
from cellseg.errors import CorrectionError
from cellseg.files import write_whole_folder
from cellseg.io import find_format
from cellseg.json_text import read_json
from cellseg.names import unique_names
from cellseg.system_errors import explain_system_error

DECLARATION_FILE = "declaration.yaml"
TRAIN, VAL = "train", "val"
_FORMAT = "coco_json"
_NAME = "cellseg training data from corrections"


@dataclass(frozen=True)
class TrainingData:
    """A data set that was saved from corrections.

    Attributes:
        declaration: the YAML file that declares it.
        train: name of the data set to train on.
        val: name of the held-out one; "" where there is no image for it.
        num_images: how many images there are, the held-out ones too.
        num_held_out: how many of them are held out.
        num_cells: how many cells were accepted or drawn.
        classes: names of the classes.
    """

    declaration: Path
    train: str
    val: str
    num_images: int
    num_held_out: int
    num_cells: int
    classes: tuple[str, ...]


def what_counts(image: CorrectedImage) -> CellInstances:
    """The cells of an image that were accepted or drawn, and what is uncounted as crowd regions.

    Args:
        image: its counted region is `CorrectedImage.counted_region`.
    """
    cells = image.cells[np.array([state != FOUND for state in image.states], bool)]
    uncounted = ~image.counted_region()
    if not uncounted.any():
        return cells
    region = CellInstances.from_label_image(uncounted.astype(np.uint8))
    num_classes = len(image.classes)
    regions = region[[0] * num_classes].replace(
        classes=np.arange(num_classes), is_crowd=np.ones(num_classes, bool)
    )
    return CellInstances.concatenate([cells, regions], image.image_hw)


def choose_sides(
    groups: Iterable[str], known: Mapping[str, str], held_out: float, seed: int
) -> dict[str, str]:
    """For each group of images, whether it is trained on ("train") or held out ("val").

    A hash of the name decides, so that no group changes sides when others come. If all would be on
    one side, one that is new goes to the other.

    Args:
        groups: their names.
        known: the sides that were chosen before, which stay.
        held_out: about which share is held out.
        seed: another one chooses anew.

    Example:
        >>> choose_sides(["a", "b"], {}, 0.2, 0)
        {'a': 'train', 'b': 'val'}
    """
    places = {one: hash_group(one, str(seed)) / 2**64 for one in dict.fromkeys(groups)}
    sides = {
        one: known.get(one, VAL if place < held_out else TRAIN) for one, place in places.items()
    }
    if held_out > 0 and len(sides) > 1:
        new = [one for one in sides if one not in known] or list(sides)
        if VAL not in sides.values():
            sides[min(new, key=places.__getitem__)] = VAL
        elif TRAIN not in sides.values():
            sides[max(new, key=places.__getitem__)] = TRAIN
    return sides


def save_images(
    images: Sequence[CorrectedImage], sides: Sequence[str], out: Path, said: Mapping[str, Any]
) -> TrainingData:
    """Write a data set, whole or not at all; an earlier one of corrections makes room.

    Args:
        images: those of which something counts.
        sides: "train" or "val" for each.
        out: the folder.
        said: what corrections.json says beside the images.

    Raises:
        CorrectionError: something else is there, or it cannot be written.
        DatasetError: an image cannot be copied.
    """
    _check_place(out)
    names = unique_names([image.image_id.replace("/", "_") for image in images])
    records = [_record_of(image, name) for image, name in zip(images, names)]
    splits = [side for side in (TRAIN, VAL) if side in sides]
    classes = images[0].classes
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", out.name).strip("_-") or "corrected"
    declared = {
        "format": _FORMAT,
        "root": str(out.absolute()),
        "splits": splits,
        "classes": list(classes),
    }
    rows = [_describe(*one) for one in zip(images, records, sides)]
    write = find_format(_FORMAT).write
    assert write is not None
    try:
        with write_whole_folder(out) as partial:
            for split in splits:
                chosen = [record for record, side in zip(records, sides) if side == split]
                write(chosen, partial, split, classes, {})
            text = yaml.safe_dump({name: declared}, sort_keys=False, allow_unicode=True)
            (partial / DECLARATION_FILE).write_text(text, encoding="utf-8")
            content = {"format": _NAME, "saved_at": utc_now(), **said, "images": rows}
            (partial / MARK_FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")
    except OSError as error:
        reason = explain_system_error(error) or error
        raise CorrectionError(f"{out}: cannot be written: {reason}") from error
    return TrainingData(
        out / DECLARATION_FILE,
        f"{name}_{TRAIN}",
        f"{name}_{VAL}" if VAL in splits else "",
        len(images),
        sides.count(VAL),
        sum(len(record.cells.counted) for record in records),
        classes,
    )


def _check_place(out: Path) -> None:
    """Raise CorrectionError where something else would be written over."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        own = read_json(out / MARK_FILE)["format"] == _NAME
    except (OSError, ValueError, KeyError, TypeError):
        own = False
    if not own:
        raise CorrectionError(
            f"{out}: is there already, and was not saved from corrections; nothing is written "
            "over. Name another folder"
        )


def _record_of(image: CorrectedImage, name: str) -> ImageRecord:
    entry = image.entry
    is_plane = entry.place.page is not None or entry.path.is_dir()
    place = replace(entry.place, page=entry.place.page or 0) if is_plane else entry.place
    return ImageRecord(name, what_counts(image), entry.path, place)


def _describe(image: CorrectedImage, record: ImageRecord, side: str) -> dict[str, Any]:
    """Who corrected what, for corrections.json."""
    states = Counter(image.states)
    people = [event for event in image.history if event.what != "begin"]
    uncounted_px = int(record.cells.crowds.areas_px.max(initial=0))
    return {
        "image_id": image.image_id,
        "saved_as": record.image_id,
        "split": side,
        "file": str(image.entry.path),
        "found_by": image.source,
        "corrected_by": list(dict.fromkeys(event.by for event in people)),
        "corrected_at": people[-1].at if people else "",
        "num_events": len(people),
        "num_accepted": states[ACCEPTED],
        "num_drawn": states[DRAWN],
        "num_left_out": states[FOUND],
        "counted_share": 1 - uncounted_px / max(1, image.image_hw[0] * image.image_hw[1]),
    }
