"""Cellpose's folders: label images beside the images, without classes.

    <root>/<split>/<id>.tif  or  <id>_img.tif     any image
    <root>/<split>/<id>_masks.tif                 png, tif or npy; or, where there is none,
    <root>/<split>/<id>_seg.npy                   what Cellpose's window saves (`cellpose_seg`)
    <root>/<split>/<id>_flows.tif, <id>_cp_...    what Cellpose itself wrote: left alone,
                                                  like everything that is no image

`mask_suffix: _cp_masks` reads what Cellpose predicted, `mask_suffix: _seg` only `_seg.npy`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cellseg.cells.records import ImageRecord
from cellseg.errors import DatasetError
from cellseg.images import LABEL_SUFFIXES, stem_of_image
from cellseg.io.base import (
    FileFormat,
    Option,
    copy_images,
    find_split_folder,
    list_beside,
    new_split_folder,
)
from cellseg.io.cell_file import prediction_of, predictions_of_files, write_checked
from cellseg.io.cellpose_seg import SEG_ENDING
from cellseg.io.label_images import STARDIST_FILE, check_one_class
from cellseg.io.pairing import Pair, match_pairs
from cellseg.io.per_image import read_pairs

MASKS, IMAGE, SEG = "_masks", "_img", "_seg"
CELLPOSE_OUTPUTS = ("_cp_masks", "_cp_output", "_cp_outlines", "_flows", MASKS)
CELLPOSE_FILE = replace(STARDIST_FILE, check=partial(check_one_class, "cellpose"))


def read_split(
    root: Path, split: str, classes: tuple[str, ...], options: Mapping[str, Any]
) -> list[ImageRecord]:
    """Records of one split of Cellpose's folder; see `cellseg.io.read_records`."""
    CELLPOSE_FILE.run_check(root / split, classes)
    folder = find_split_folder(root, split)
    pairs = _find_pairs(folder, options.get("mask_suffix", MASKS))
    return read_pairs(pairs, folder, CELLPOSE_FILE, classes, options)


def _find_pairs(folder: Path, mask_suffix: str) -> list[Pair]:
    images, masks = [], []
    files, saved_masks = list_beside(folder, (SEG_ENDING,))
    for path in files:
        stem = stem_of_image(path)
        ending = _ending(stem, (mask_suffix, *CELLPOSE_OUTPUTS))
        if ending == mask_suffix and path.suffix.lower() in LABEL_SUFFIXES:
            masks.append((stem.removesuffix(ending), path))
        elif not ending:
            images.append((stem.removesuffix(IMAGE), path))
    if mask_suffix in (MASKS, SEG):
        known = {image_id for image_id, _ in masks}
        saved = [(path.name[: -len(SEG_ENDING)].removesuffix(IMAGE), path) for path in saved_masks]
        masks += [(image_id, path) for image_id, path in saved if image_id not in known]
    return match_pairs(
        folder,
        sorted(images),
        masks,
        no_images=f"{folder}: no images in it",
        other_name=f"label image {{}}{mask_suffix}.png or .tif, nor {{}}{SEG_ENDING}",
        image_name=f"image {{}}.* or {{}}{IMAGE}.*",
    )


def _ending(stem: str, endings: Sequence[str]) -> str:
    """The longest of the endings that a name has, or nothing."""
    return max((one for one in endings if stem.endswith(one)), key=len, default="")


def write_split(
    records: Sequence[ImageRecord],
    root: Path,
    split: str,
    classes: tuple[str, ...],
    options: Mapping[str, Any],
) -> None:
    """Write one split of Cellpose's folder; see `FileFormat.write`."""
    mask_suffix = options.get("mask_suffix", MASKS)
    for record in records:
        reserved = _ending(record.image_id, (mask_suffix, *CELLPOSE_OUTPUTS, IMAGE))
        if reserved:
            raise DatasetError(
                f"{record.image_path}: the image id {record.image_id!r} ends in {reserved}, which "
                "has a meaning in Cellpose's folders; rename the image"
            )
    with new_split_folder(root, split) as folder:
        copy_images(records, folder)
        for record in records:
            path = folder / f"{record.image_id}{mask_suffix}.tif"
            write_checked(record, path, CELLPOSE_FILE, classes)


FORMAT = FileFormat(
    read_split,
    options={
        "mask_suffix": Option(
            "the end of the label images' names",
            lambda value: isinstance(value, str) and value != "",
        )
    },
    write=write_split,
    open_predictions=predictions_of_files(
        CELLPOSE_FILE, lambda folder, image_id: folder / f"{image_id}{MASKS}.tif"
    ),
    prediction=prediction_of(CELLPOSE_FILE),
    holds=CELLPOSE_FILE.holds,
)
