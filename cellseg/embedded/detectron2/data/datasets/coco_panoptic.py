"""COCO's panoptic task: things, one by one, and stuff, in every pixel."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.utils.file_io import PathManager

from .._require import require
from ..catalog import DatasetCatalog, MetadataCatalog
from .coco import load_coco_json
from .sem_seg_folders import load_sem_seg

__all__ = ["register_coco_panoptic", "register_coco_panoptic_separated"]

_IGNORED = 255
"""Pixels of this class are not learned and not evaluated."""


def load_coco_panoptic_json(
    json_file: str, image_dir: str, gt_dir: str, meta: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Read a file of COCO's panoptic format; pictures are not opened.

    Args:
        json_file: path of the file.
        image_dir: folder of the images, which are "<name>.jpg".
        gt_dir: folder of the pictures of segments, "<name>.png".
        meta: "thing_dataset_id_to_contiguous_id", and the same of "stuff".

    Returns:
        Per image "file_name", "image_id", "pan_seg_file_name" and "segments_info": the file's
        dicts with the classes of `meta` and "isthing".

    Raises:
        AssertionError: no images in the file, or the first of them is missing.
        KeyError: a category that `meta` does not have.
    """
    with PathManager.open(json_file) as file:
        content = json.load(file)
    things, stuff = (meta[f"{k}_dataset_id_to_contiguous_id"] for k in ("thing", "stuff"))
    classes = {**stuff, **things}
    images = []
    for of_image in content["annotations"]:
        name = os.path.splitext(of_image["file_name"])[0]
        segments = [
            {**segment, "category_id": classes[category], "isthing": category in things}
            for segment in of_image["segments_info"]
            for category in (segment["category_id"],)
        ]
        images.append(
            {
                "file_name": os.path.join(image_dir, f"{name}.jpg"),
                "image_id": int(of_image["image_id"]),
                "pan_seg_file_name": os.path.join(gt_dir, of_image["file_name"]),
                "segments_info": segments,
            }
        )
    require(bool(images), f"No images in {json_file}.")
    for key in ("file_name", "pan_seg_file_name"):
        require(PathManager.isfile(images[0][key]), f"{json_file}: {images[0][key]} is missing.")
    return images


def register_coco_panoptic(
    name: str,
    metadata: dict[str, Any],
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    instances_json: str | None = None,
) -> None:
    """Make panoptic annotations known, things and stuff in one picture of segments.

    Args:
        name: under which it is registered.
        metadata: more of it, with the maps of ids that `load_coco_panoptic_json` needs.
        image_root, panoptic_root, panoptic_json: as `load_coco_panoptic_json` takes them.
        instances_json: the things as COCO instances, for the metadata.
    """
    files = (panoptic_json, image_root, panoptic_root)
    DatasetCatalog.register(name, lambda: load_coco_panoptic_json(*files, metadata))
    MetadataCatalog.get(name).set(
        **_places(image_root, panoptic_root, panoptic_json, instances_json),
        label_divisor=1000,
        **metadata,
    )


def register_coco_panoptic_separated(
    name: str,
    metadata: dict[str, Any],
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    sem_seg_root: str,
    instances_json: str,
) -> None:
    """Make things as COCO instances, with stuff as pictures of classes, known: for PanopticFPN.

    Things, whose polygons may overlap, are numbered from 0; so is stuff, where 0 is every thing.

    Args:
        name: "<name>_separated" becomes both together, "<name>_stuffonly" the stuff alone.
        metadata: more of both.
        image_root: folder of the images.
        panoptic_root, panoptic_json: the panoptic annotations, for the metadata.
        sem_seg_root: folder of the pictures of classes, see `load_sem_seg`.
        instances_json: file of the COCO instances.
    """
    both, stuff = f"{name}_separated", f"{name}_stuffonly"

    def load_both() -> list[dict[str, Any]]:
        things = load_coco_json(instances_json, image_root, both)
        return merge_to_panoptic(things, load_sem_seg(sem_seg_root, image_root))

    DatasetCatalog.register(both, load_both)
    MetadataCatalog.get(both).set(
        **_places(image_root, panoptic_root, panoptic_json, instances_json),
        sem_seg_root=sem_seg_root,
        **metadata,
    )
    DatasetCatalog.register(stuff, lambda: load_sem_seg(sem_seg_root, image_root))
    MetadataCatalog.get(stuff).set(
        sem_seg_root=sem_seg_root,
        image_root=image_root,
        evaluator_type="sem_seg",
        ignore_label=_IGNORED,
        **metadata,
    )


def _places(
    image_root: str, panoptic_root: str, panoptic_json: str, instances_json: str | None
) -> dict[str, Any]:
    return {
        "image_root": image_root,
        "panoptic_root": panoptic_root,
        "panoptic_json": panoptic_json,
        "json_file": instances_json,
        "evaluator_type": "coco_panoptic_seg",
        "ignore_label": _IGNORED,
    }


def merge_to_panoptic(
    detection_dicts: Sequence[dict[str, Any]], sem_seg_dicts: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Join two descriptions of the same images by "file_name".

    Args:
        detection_dicts: with "annotations"; one result for each, in this order.
        sem_seg_dicts: with "sem_seg_file_name"; others are left out.

    Raises:
        KeyError: an image without semantic segmentation.
    """
    by_file = {each["file_name"]: each for each in sem_seg_dicts}
    return [{**each, **by_file[each["file_name"]]} for each in detection_dicts]
