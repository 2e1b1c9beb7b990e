"""COCO's annotation files, read into Detectron2's dataset format and written from it."""

from __future__ import annotations

import datetime
import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.structures import Boxes, BoxMode, PolygonMasks
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import file_lock

from .._require import require
from ..catalog import DatasetCatalog, MetadataCatalog
from .sem_seg_folders import load_sem_seg

__all__ = [
    "convert_to_coco_dict",
    "convert_to_coco_json",
    "load_coco_json",
    "load_sem_seg",
    "register_coco_instances",
]

logger = logging.getLogger(__name__)

_COPIED_KEYS = ("iscrowd", "bbox", "keypoints", "category_id")
_LEAST_POLYGON_NUMBERS = 6  # three points


def load_coco_json(
    json_file: str,
    image_root: str | os.PathLike[str],
    dataset_name: str | None = None,
    extra_annotation_keys: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Read a file of COCO instances; images are not opened.

    Args:
        json_file: path of the file.
        image_root: folder that the file's names of images start from.
        dataset_name: where given, category ids are mapped to 0, 1, ... by ascending id, and the
            metadata of that name gets "thing_classes" and "thing_dataset_id_to_contiguous_id".
            Else ids stay as they are.
        extra_annotation_keys: further keys of annotations to keep as they are.

    Returns:
        One dict per image by ascending image id, in Detectron2's dataset format: boxes as
        XYWH_ABS, segmentations as polygons or compressed RLE.
    """
    with open(PathManager.get_local_path(json_file), encoding="utf-8") as file:
        content = json.load(file)
    new_ids = None if dataset_name is None else _note_categories(content, dataset_name)
    keys = (*_COPIED_KEYS, *(extra_annotation_keys or ()))
    of_image = _annotations_by_image(content, json_file)
    invalid = 0
    dataset_dicts = []
    for image_id, image in sorted({each["id"]: each for each in content["images"]}.items()):
        converted = [_read_annotation(each, keys, new_ids) for each in of_image[image_id]]
        valid = [each for each in converted if each is not None]
        invalid += len(converted) - len(valid)
        dataset_dicts.append(
            {
                "file_name": os.path.join(image_root, image["file_name"]),
                "height": image["height"],
                "width": image["width"],
                "image_id": image_id,
                "annotations": valid,
            }
        )
    logger.info(f"Read {len(dataset_dicts)} images of COCO format from {json_file}")
    if invalid:
        logger.warning(
            f"{json_file}: left out {invalid} instances whose polygons all have fewer than three "
            "points or an odd number of coordinates."
        )
    return dataset_dicts


def _note_categories(content: dict[str, Any], dataset_name: str) -> dict[int, int]:
    """Fill in the metadata; returns the new id of each category id."""
    names = {category["id"]: category["name"] for category in content["categories"]}
    ids = sorted(names)
    if ids != list(range(1, len(ids) + 1)) and "coco" not in dataset_name:
        logger.warning(f"Category ids of '{dataset_name}' are not 1, 2, ...: they are mapped.")
    meta = MetadataCatalog.get(dataset_name)
    meta.thing_classes = [names[i] for i in ids]
    meta.thing_dataset_id_to_contiguous_id = {old: new for new, old in enumerate(ids)}
    return meta.thing_dataset_id_to_contiguous_id


def _annotations_by_image(
    content: dict[str, Any], json_file: str
) -> defaultdict[Any, list[dict[str, Any]]]:
    annotations = content.get("annotations", [])
    known_images = {image["id"] for image in content["images"]}
    of_image = defaultdict(list)
    for annotation in annotations:
        of_image[annotation["image_id"]].append(annotation)
    strays = sum(len(of_image[image_id]) for image_id in of_image.keys() - known_images)
    if strays:
        logger.warning(f"{json_file}: {strays} of {len(annotations)} annotations have no image.")
    if "minival" not in json_file:  # those of COCO 2014 are known to have a few duplicates
        seen = Counter(a["id"] for image_id in known_images for a in of_image[image_id])
        twice = [annotation_id for annotation_id, count in seen.items() if count > 1]
        require(not twice, f"Annotation ids in '{json_file}' are not unique: {twice[:10]}")
    return of_image


def _read_annotation(
    annotation: dict[str, Any], keys: Sequence[str], new_ids: dict[int, int] | None
) -> dict[str, Any] | None:
    """One annotation in Detectron2's format; None if its polygons are no polygons."""
    where = f"Annotation {annotation.get('id')} of image {annotation['image_id']}"
    require(not annotation.get("ignore", 0), f"{where}: 'ignore' is not supported.")
    result = {key: annotation[key] for key in keys if key in annotation}
    if "bbox" in result and not result["bbox"]:
        raise ValueError(f"{where} has an empty 'bbox', which COCO's format does not allow.")
    segmentation = annotation.get("segmentation")
    if segmentation:
        result["segmentation"] = _read_segmentation(segmentation)
        if not result["segmentation"]:
            return None
    if result.get("keypoints"):
        result["keypoints"] = _shift_points(result["keypoints"], 0.5)
    result["bbox_mode"] = BoxMode.XYWH_ABS
    if new_ids is not None:
        if result["category_id"] not in new_ids:
            raise KeyError(
                f"{where} has category_id {result['category_id']}, which is not among the "
                f"file's categories: {sorted(new_ids)}."
            )
        result["category_id"] = new_ids[result["category_id"]]
    return result


def _read_segmentation(segmentation: Any) -> Any:
    if isinstance(segmentation, dict):
        return _compressed(segmentation)
    return [p for p in segmentation if len(p) >= _LEAST_POLYGON_NUMBERS and len(p) % 2 == 0]


def _compressed(rle: dict[str, Any]) -> dict[str, Any]:
    return mask_util.frPyObjects(rle, *rle["size"]) if isinstance(rle["counts"], list) else rle


def _shift_points(keypoints: Sequence[float], shift_px: float) -> list[float]:
    """Move the x and y of (x, y, visibility): COCO counts from the middle of the first pixel."""
    return [v if i % 3 == 2 else v + shift_px for i, v in enumerate(keypoints)]


def convert_to_coco_dict(dataset_name: str) -> dict[str, Any]:
    """A registered dataset as the content of a COCO file.

    Args:
        dataset_name: registered, in Detectron2's dataset format, with "thing_classes" in its
            metadata, and "thing_dataset_id_to_contiguous_id" where category ids are mapped back.

    Returns:
        Serializable dict; annotation ids start at 1. Without "annotations" if there are none.
    """
    dataset = DatasetCatalog.get(dataset_name)  # reading it may complete the metadata
    metadata = MetadataCatalog.get(dataset_name)
    mapping = metadata.get("thing_dataset_id_to_contiguous_id")
    old_ids = mapping and {new: old for old, new in mapping.items()}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for position, image in enumerate(dataset):
        image_id = image.get("image_id", position)
        size = {edge: int(image[edge]) for edge in ("width", "height")}
        images.append({"id": image_id, **size, "file_name": str(image["file_name"])})
        for annotation in image.get("annotations", []):
            ids = {"id": len(annotations) + 1, "image_id": image_id}
            annotations.append({**ids, **_write_annotation(annotation, old_ids)})
    logger.info(f"Converted {len(images)} images with {len(annotations)} annotations to COCO")
    content: dict[str, Any] = {
        "info": {
            "date_created": str(datetime.datetime.now()),
            "description": f"Made from the registered dataset '{dataset_name}'.",
        },
        "images": images,
        "categories": [
            {"id": old_ids[i] if old_ids else i, "name": name}
            for i, name in enumerate(metadata.thing_classes)
        ],
        "licenses": None,
    }
    return {**content, "annotations": annotations} if annotations else content


def _write_annotation(annotation: dict[str, Any], old_ids: dict[int, int] | None) -> dict[str, Any]:
    category = annotation["category_id"]
    box = _coco_box(annotation)
    written: dict[str, Any] = {
        "bbox": [round(float(number), 3) for number in box],
        "area": _box_area(box),
        "iscrowd": int(annotation.get("iscrowd", 0)),
        "category_id": int(old_ids[category] if old_ids else category),
    }
    if "keypoints" in annotation:
        visible = sum(flag > 0 for flag in annotation["keypoints"][2::3])
        written["keypoints"] = _shift_points(annotation["keypoints"], -0.5)
        written["num_keypoints"] = annotation.get("num_keypoints", visible)
    if "segmentation" in annotation:
        segmentation, written["area"] = _write_segmentation(annotation["segmentation"])
        written["segmentation"] = segmentation
    return written


def _coco_box(annotation: dict[str, Any]) -> Sequence[float]:
    """XYWH, or XYWHA for a rotated box; pixels and degrees."""
    box = np.asarray(annotation["bbox"])
    if box.shape not in ((4,), (5,)):
        raise ValueError(f"A bbox has 4 numbers, or 5 if rotated; got {annotation['bbox']}.")
    mode = BoxMode.XYWH_ABS if len(box) == 4 else BoxMode.XYWHA_ABS
    return BoxMode.convert(box.tolist(), annotation["bbox_mode"], mode)


def _box_area(box: Sequence[float]) -> float:
    """Square pixels, of an XYWH or XYWHA box; in single precision like all boxes."""
    return Boxes(torch.tensor([[0, 0, box[2], box[3]]])).area().item()


def _write_segmentation(segmentation: Any) -> tuple[Any, float]:
    """(what can be serialized, area in pixels)."""
    if isinstance(segmentation, list):
        area = PolygonMasks([segmentation]).area()[0].item()
        return [p.tolist() if isinstance(p, np.ndarray) else p for p in segmentation], float(area)
    if not isinstance(segmentation, dict):
        raise TypeError(
            f"A segmentation must be a list of polygons or an RLE dict, not {type(segmentation)}."
        )
    rle = _compressed(segmentation)
    counts = rle["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {**rle, "counts": text}, float(mask_util.area(rle))


def convert_to_coco_json(dataset_name: str, output_file: str, allow_cached: bool = True) -> None:
    """Write `convert_to_coco_dict(dataset_name)` to a file.

    The file appears all at once, and processes that write the same one wait for each other.

    Args:
        dataset_name: see `convert_to_coco_dict`.
        output_file: path; its folder is made.
        allow_cached: leave a file that is there already as it is.
    """
    PathManager.mkdirs(os.path.dirname(output_file) or ".")
    with file_lock(output_file):
        if allow_cached and PathManager.exists(output_file):
            logger.warning(
                f"Using the annotations that '{output_file}' holds from before. If the dataset "
                "has changed, delete that file."
            )
            return
        content = convert_to_coco_dict(dataset_name)
        partial = f"{output_file}.tmp"
        with PathManager.open(partial, "w") as file:
            json.dump(content, file)
        os.replace(partial, output_file)


def register_coco_instances(
    name: str,
    metadata: dict[str, Any],
    json_file: str | os.PathLike[str],
    image_root: str | os.PathLike[str],
) -> None:
    """Make a COCO file known as the dataset `name`.

    Args:
        name: where it is registered already, only the metadata is set.
        metadata: more to put into the dataset's metadata; may be empty.
        json_file: read when the dataset is first asked for.
        image_root: folder that the file's names of images start from.
    """
    require(isinstance(name, str), f"The name of a dataset must be a string, got {name!r}.")
    for each in (json_file, image_root):
        require(isinstance(each, (str, os.PathLike)), f"Expected a path, got {each!r}.")
    if name not in DatasetCatalog:
        path = os.fspath(json_file)
        DatasetCatalog.register(name, lambda: load_coco_json(path, image_root, name))
    MetadataCatalog.get(name).set(
        json_file=json_file, image_root=image_root, evaluator_type="coco", **metadata
    )
