# ruff: noqa: NPY002 (one seed of numpy's global generator has to cover a whole pipeline)
"""From a file and a dataset's annotations to an image and an `Instances`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2._missing import left_out_names
from detectron2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    Instances,
    PolygonMasks,
    polygons_to_bitmask,
)

from . import transforms as T
from ._require import left_out, require
from .catalog import MetadataCatalog
from .image_reading import convert_image_to_rgb, convert_PIL_to_numpy, read_image

__all__ = [
    "SizeMismatchError",
    "annotations_to_instances",
    "build_augmentation",
    "build_transform_gen",
    "check_image_size",
    "check_metadata_consistency",
    "convert_PIL_to_numpy",
    "convert_image_to_rgb",
    "filter_empty_instances",
    "gen_crop_transform_with_instance",
    "get_bbox",
    "read_image",
    "transform_instance_annotations",
]


# ITU-R BT.601, analogue form: Y in [0, 1], U and V about 0


class SizeMismatchError(ValueError):
    """An image is not as large as its annotation says."""


def check_image_size(dataset_dict: dict[str, Any], image: np.ndarray) -> None:
    """Compare "width" and "height" of a dataset dict with the image; fill in what is missing.

    Raises:
        SizeMismatchError: they differ.
    """
    found = dict(zip(("height", "width"), image.shape))
    noted = {key: dataset_dict.setdefault(key, edge) for key, edge in found.items()}
    if noted != found:
        raise SizeMismatchError(
            f"Image {dataset_dict.get('file_name', '(no file name)')} is "
            f"{found['width']} x {found['height']} pixels, but its annotation says "
            f"{noted['width']} x {noted['height']}. Correct width and height in the annotation."
        )


def transform_instance_annotations(
    annotation: dict[str, Any],
    transforms: T.Transform | Sequence[T.Transform],
    image_size: tuple[int, int],
    *,
    keypoint_hflip_indices: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Apply to one annotation what was applied to its image.

    Args:
        annotation: has "bbox" and "bbox_mode"; perhaps "segmentation", a list of polygons or an
            RLE dict. Changed in place.
        transforms: what was applied.
        image_size: (height, width) after the transforms.
        keypoint_hflip_indices: part of the interface; keypoints are not part of this engine.

    Returns:
        The annotation: the box as XYXY_ABS inside the image, polygons as flat arrays, and an RLE
        as a uint8 bitmap.
    """
    if "keypoints" in annotation:
        raise left_out("Transforming keypoints")
    done = transforms if isinstance(transforms, T.Transform) else T.TransformList(transforms)
    height, width = image_size
    box = done.apply_box(get_bbox(annotation)[np.newaxis])[0]
    annotation["bbox"] = np.minimum(box.clip(min=0), (width, height, width, height))
    annotation["bbox_mode"] = BoxMode.XYXY_ABS
    if "segmentation" in annotation:
        annotation["segmentation"] = _transform_segmentation(
            annotation["segmentation"], done, image_size
        )
    return annotation


def get_bbox(annotation: dict[str, Any]) -> np.ndarray:
    """The box of an annotation as x0 y0 x1 y1, pixels."""
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    return np.asarray(box)


def _transform_segmentation(
    segmentation: Any, transforms: T.Transform, image_size: tuple[int, int]
) -> Any:
    if isinstance(segmentation, list):
        outlines = [np.asarray(polygon).reshape(-1, 2) for polygon in segmentation]
        return [moved.reshape(-1) for moved in transforms.apply_polygons(outlines)]
    if not isinstance(segmentation, dict):
        raise ValueError(
            f"Cannot transform a segmentation of {type(segmentation)}: it must be a list of "
            "polygons (x0, y0, x1, y1, ...) or a COCO RLE dict."
        )
    bitmap = transforms.apply_segmentation(mask_util.decode(segmentation))
    require(
        bitmap.shape[:2] == tuple(image_size),
        f"The RLE (size {segmentation['size']}) becomes a mask of {bitmap.shape[:2]} while the "
        f"image becomes {tuple(image_size)}: mask and image differ in size in the annotation.",
    )
    return bitmap


def annotations_to_instances(
    annos: Sequence[dict[str, Any]], image_size: tuple[int, int], mask_format: str = "polygon"
) -> Instances:
    """Training targets from the annotations of one image.

    Args:
        annos: as `transform_instance_annotations` leaves them; may be empty.
        image_size: (height, width).
        mask_format: "polygon" keeps polygons, "bitmask" makes bitmaps of polygons, RLE dicts and
            [H, W] arrays.

    Returns:
        Instances with gt_boxes, gt_classes and, where the first annotation has a segmentation,
        gt_masks (`PolygonMasks` or `BitMasks`).
    """
    boxes = [get_bbox(each) for each in annos]
    classes = [int(each["category_id"]) for each in annos]
    target = Instances(image_size)
    target.gt_boxes = Boxes(torch.as_tensor(np.stack(boxes) if boxes else np.zeros((0, 4))))
    target.gt_classes = torch.tensor(classes, dtype=torch.int64)
    if annos and "keypoints" in annos[0]:
        raise left_out("Training on keypoints")
    if annos and "segmentation" in annos[0]:
        segmentations = [each["segmentation"] for each in annos]
        require(
            mask_format in ("polygon", "bitmask"),
            f"mask_format must be 'polygon' or 'bitmask', got {mask_format!r}.",
        )
        as_masks = _polygon_masks if mask_format == "polygon" else _bit_masks
        target.gt_masks = as_masks(segmentations, image_size)
    return target


def _polygon_masks(segmentations: list[Any], image_size: tuple[int, int]) -> PolygonMasks:
    try:
        return PolygonMasks(segmentations)
    except ValueError as error:
        raise ValueError(
            "These annotations are not polygons; with bitmaps or RLE set INPUT.MASK_FORMAT to "
            f"'bitmask'. {error}"
        ) from error


def _bit_masks(segmentations: list[Any], image_size: tuple[int, int]) -> BitMasks:
    bitmaps = [_to_bitmap(each, image_size) for each in segmentations]
    return BitMasks(torch.from_numpy(np.stack(bitmaps)))


def _to_bitmap(segmentation: Any, image_size: tuple[int, int]) -> np.ndarray:
    if isinstance(segmentation, list):
        return polygons_to_bitmask(segmentation, *image_size)
    if isinstance(segmentation, dict):
        return mask_util.decode(segmentation)
    if isinstance(segmentation, np.ndarray):
        require(segmentation.ndim == 2, f"A bitmap must be [H, W], got {segmentation.shape}.")
        return segmentation
    raise ValueError(
        f"Cannot make a bitmap of {type(segmentation)}: it must be a list of polygons "
        "(x0, y0, x1, y1, ...), a COCO RLE dict or an [H, W] array."
    )


def filter_empty_instances(
    instances: Instances,
    by_box: bool = True,
    by_mask: bool = True,
    box_threshold: float = 1e-5,
    return_mask: bool = False,
) -> Any:
    """Leave out instances of which a crop has left nothing.

    Args:
        instances: with gt_boxes, perhaps gt_masks.
        by_box: leave out where width or height of the box is at most `box_threshold` pixels.
        by_mask: leave out where the mask has no pixel (a polygon: no point).
        return_mask: return (instances, bool tensor of those kept).
    """
    require(by_box or by_mask, "Say what to filter by: boxes, masks or both.")
    kept = torch.ones(len(instances), dtype=torch.bool)
    if by_box:
        kept = instances.gt_boxes.nonempty(threshold=box_threshold)
    if by_mask and instances.has("gt_masks"):
        kept = instances.gt_masks.nonempty() & kept
    return (instances[kept], kept) if return_mask else instances[kept]


def gen_crop_transform_with_instance(
    crop_size: Sequence[int], image_size: Sequence[int], instance: dict[str, Any]
) -> T.CropTransform:
    """A random crop that contains the centre of an instance, to the pixel.

    Args:
        crop_size: (height, width), pixels, at most `image_size`.
        image_size: (height, width), pixels.
        instance: an annotation, with "bbox" and "bbox_mode".
    """
    crop, image = np.array(crop_size, dtype=np.int32), np.array(image_size, dtype=np.int32)
    x0, y0, x1, y1 = get_bbox(instance)
    center = np.array((y0 + y1, x0 + x1)) * 0.5
    require(bool((center <= image).all()), "The centre of the box lies outside the image.")
    require(bool((crop <= image).all()), f"The crop {crop} is larger than the image {image}.")
    lowest = np.maximum(np.floor(center).astype(np.int32) - crop, 0)
    highest = np.minimum(image - crop, np.ceil(center).astype(np.int32))
    top, left = (np.random.randint(low, high + 1) for low, high in zip(lowest, highest))
    return T.CropTransform(left, top, crop[1], crop[0])


def check_metadata_consistency(key: str, dataset_names: Sequence[str]) -> None:
    """Make sure that the metadata `key` is the same for all datasets.

    Raises:
        AttributeError: a dataset does not have it.
        ValueError: two datasets differ.
    """
    values = {name: getattr(MetadataCatalog.get(name), key) for name in dataset_names}
    for name, value in values.items():
        if value != values[dataset_names[0]]:
            raise ValueError(
                f"Datasets have different metadata '{key}': '{dataset_names[0]}' has "
                f"{values[dataset_names[0]]}, '{name}' has {value}."
            )


def build_augmentation(cfg: Any, is_train: bool) -> list[T.Augmentation]:
    """Resizing, and in training flipping, as `cfg.INPUT` says."""
    if not is_train:
        return [T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, "choice")]
    resize = T.ResizeShortestEdge(
        cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
    )
    direction = cfg.INPUT.RANDOM_FLIP
    if direction == "none":
        return [resize]
    flip = T.RandomFlip(horizontal=direction == "horizontal", vertical=direction == "vertical")
    return [resize, flip]


build_transform_gen = build_augmentation  # a name that older code uses


__getattr__ = left_out_names(
    __name__,
    "annotations_to_instances_rotated",
    "create_keypoint_hflip_indices",
    "get_fed_loss_cls_weights",
    "transform_keypoint_annotations",
    "transform_proposals",
)
