"""Cellpose's folder: label images beside the images.

    <root>/<split>/<id>.tif  or  <id>_img.tif     png, jpg, tif or bmp
    <root>/<split>/<id>_masks.tif                 png or tif, up to 32 bits
    <root>/<split>/<id>_flows.tif, <id>_cp_...    what Cellpose itself wrote: left alone,
    <root>/<split>/<id>_seg.npy, ...              like everything that is no image

All else is as in `label_images`, but there are no classes. `mask_suffix: _cp_masks` reads what
Cellpose predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cellseg.errors import DatasetError
from cellseg.io.base import (
    DatasetFormat,
    Option,
    copy_images,
    find_split_folder,
    list_files,
    new_split_folder,
    read_all,
)
from cellseg.io.label_images import (
    LABEL_SUFFIXES,
    check_one_class,
    draw_labels,
    read_pair,
    write_labels,
)
from cellseg.io.per_image import Pair, match_pairs
from cellseg.io.records import CellRecord

MASKS = "_masks"
IMAGE = "_img"
OUTPUTS = ("_cp_masks", "_cp_output", "_cp_outlines", "_flows", MASKS)


def read_split(
    root: Path, split: str, classes: tuple[str, ...], options: Mapping[str, Any]
) -> list[CellRecord]:
    """Records of one split; see `cellseg.io.read_records`."""
    check_one_class("cellpose", root / split, classes)
    folder = find_split_folder(root, split)
    pairs = _find_pairs(folder, options.get("mask_suffix", MASKS))
    return read_all(pairs, partial(read_pair, classes=classes), folder)


def _find_pairs(folder: Path, mask_suffix: str) -> list[Pair]:
    images, masks = [], []
    for path in list_files(folder):
        ending = _ending(path.stem, (mask_suffix, *OUTPUTS))
        if ending == mask_suffix and path.suffix.lower() in LABEL_SUFFIXES:
            masks.append((path.stem.removesuffix(ending), path))
        elif not ending:
            images.append((path.stem.removesuffix(IMAGE), path))
    return match_pairs(
        folder,
        sorted(images),
        masks,
        no_images=f"{folder}: no images in it",
        other_name=f"label image {{}}{mask_suffix}.png or .tif",
        image_name=f"image {{}}.* or {{}}{IMAGE}.*",
    )


def _ending(stem: str, endings: Sequence[str]) -> str:
    """The longest of the endings that a name has, or nothing."""
    return max((one for one in endings if stem.endswith(one)), key=len, default="")


def write_split(
    records: Sequence[CellRecord],
    root: Path,
    split: str,
    classes: tuple[str, ...],
    options: Mapping[str, Any],
) -> None:
    """Write one split; see `DatasetFormat.write`."""
    mask_suffix = options.get("mask_suffix", MASKS)
    for record in records:
        reserved = _ending(record.image_id, (mask_suffix, *OUTPUTS, IMAGE))
        if reserved:
            raise DatasetError(
                f"{record.image_path}: the image id {record.image_id!r} ends in {reserved}, which "
                "has a meaning in Cellpose's folders; rename the image"
            )
    with new_split_folder(root, split) as folder:
        copy_images(records, folder)
        for record in records:
            path = folder / f"{record.image_id}{mask_suffix}.tif"
            write_labels(draw_labels(record, classes), path)


FORMAT = DatasetFormat(
    read_split,
    options={
        "mask_suffix": Option(
            "the end of the label images' names",
            lambda value: isinstance(value, str) and value != "",
        )
    },
    write=write_split,
    loses=("overlaps", "classes", "crowd"),
)
