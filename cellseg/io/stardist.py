"""StarDist's folders: label images in `masks`, with the names of their images.

    <root>/<split>/images/<id>.tif
    <root>/<split>/masks/<id>.tif             png or tif, up to 32 bits

All else is as in `label_images`, but there are no classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cellseg.io.base import (
    FOLDER_NAME,
    DatasetFormat,
    copy_images,
    find_split_folder,
    new_split_folder,
    read_all,
)
from cellseg.io.label_images import (
    check_one_class,
    draw_labels,
    find_label_pairs,
    read_pair,
    write_labels,
)
from cellseg.io.records import CellRecord


def read_split(
    root: Path, split: str, classes: tuple[str, ...], options: Mapping[str, Any]
) -> list[CellRecord]:
    """Records of one split; see `cellseg.io.read_records`."""
    check_one_class("stardist", root / split, classes)
    folder = find_split_folder(root, split)
    pairs = find_label_pairs(folder, *_folders(options))
    return read_all(pairs, partial(read_pair, classes=classes), folder)


def _folders(options: Mapping[str, Any]) -> tuple[str, str]:
    return options.get("images", "images"), options.get("masks", "masks")


def write_split(
    records: Sequence[CellRecord],
    root: Path,
    split: str,
    classes: tuple[str, ...],
    options: Mapping[str, Any],
) -> None:
    """Write one split; see `DatasetFormat.write`."""
    images, masks = _folders(options)
    with new_split_folder(root, split) as folder:
        copy_images(records, folder / images)
        (folder / masks).mkdir(exist_ok=True)
        for record in records:
            write_labels(draw_labels(record, classes), folder / masks / f"{record.image_id}.tif")


FORMAT = DatasetFormat(
    read_split,
    options={"images": FOLDER_NAME, "masks": FOLDER_NAME},
    write=write_split,
    loses=("overlaps", "classes", "crowd"),
)
