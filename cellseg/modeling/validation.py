"""Checks of what is handed to the torchvision-style model; each error names image and field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from cellseg.errors import InputTypeError, InputValueError
from torch import Tensor

# Resampling and float rounding may overshoot by this much: intensities in 0 to 1, boxes in pixels.
INTENSITY_TOLERANCE = 1e-3
BOX_TOLERANCE_PX = 1e-3


def check_images(images: Sequence[Tensor], channels: int) -> None:
    """Check a batch of images: float [C, H, W] in 0 to 1, finite, C either 1 or `channels`.

    Raises:
        InputTypeError: not a list or tuple, or an image is no float tensor.
        InputValueError: no image at all, or one of another shape or range.
    """
    if not isinstance(images, list | tuple):
        raise InputTypeError(
            f"images: expected a list of tensors [C, H, W], found {_describe_kind(images)}"
        )
    if not images:
        raise InputValueError("images: expected at least one image, found none")
    for index, image in enumerate(images):
        _check_image(f"image {index}", image, channels)


def _check_image(where: str, image: Any, channels: int) -> None:
    if not isinstance(image, Tensor):
        raise InputTypeError(f"{where}: expected a float tensor, found {_describe_kind(image)}")
    if not image.is_floating_point():
        raise InputTypeError(
            f"{where}: expected a float tensor in 0 to 1, found {image.dtype}; divide 8-bit "
            "images by 255"
        )
    if image.dim() != 3 or image.shape[0] not in (1, channels) or 0 in image.shape:
        raise InputValueError(
            f"{where}: expected shape [{channels}, H, W] or [1, H, W], found {_shape_of(image)}"
        )
    low, high = -INTENSITY_TOLERANCE, 1 + INTENSITY_TOLERANCE
    if not bool(((image >= low) & (image <= high)).all()):  # also False for NaN
        found = f"{float(image.min()):g} to {float(image.max()):g}"
        raise InputValueError(f"{where}: expected values in 0 to 1, found {found}")


def check_targets(
    targets: Sequence[Mapping[str, Tensor]] | None,
    images_hw: Sequence[tuple[int, int]],
    num_classes: int,
) -> None:
    """Check the targets of a batch against its images.

    Args:
        targets: per image a dict of `boxes` (float [N, 4], x1 y1 x2 y2), `labels` (int64 [N],
            1-based) and `masks` (uint8 or bool [N, H, W] of 0 and 1); N may be 0. It may have
            `uncounted` (uint8 or bool [H, W] of 0 and 1); other fields are ignored.
        images_hw: (height, width) of each image, pixels.
        num_classes: with the background, so that labels are 1 to `num_classes - 1`.

    Raises:
        InputTypeError: not a list of dicts of tensors, or a field of another dtype.
        InputValueError: targets or a field are missing, shapes do not fit, boxes are degenerate,
            outside the image or not finite, labels or masks are out of range.
    """
    if targets is None:
        raise InputValueError("targets: needed in training mode; call model.eval() to predict")
    if not isinstance(targets, list | tuple):
        raise InputTypeError(f"targets: expected a list of dicts, found {_describe_kind(targets)}")
    if len(targets) != len(images_hw):
        raise InputValueError(
            f"targets: expected one per image, found {len(targets)} for {len(images_hw)} images"
        )
    for index, (target, image_hw) in enumerate(zip(targets, images_hw)):
        _check_fields(index, target)
        count = len(target["boxes"])
        _check_boxes(f"image {index}, boxes", target["boxes"], image_hw)
        _check_labels(f"image {index}, labels", target["labels"], count, num_classes)
        _check_masks(f"image {index}, masks", target["masks"], (count, *image_hw))
        if "uncounted" in target:
            _check_masks(f"image {index}, uncounted", target["uncounted"], image_hw)


def _check_fields(index: int, target: Any) -> None:
    if not isinstance(target, Mapping):
        raise InputTypeError(
            f"image {index}: expected a dict as target, found {_describe_kind(target)}"
        )
    optional = ["uncounted"] if "uncounted" in target else []
    for field in ("boxes", "labels", "masks", *optional):
        if field not in target:
            raise InputValueError(f"image {index}, {field}: missing; found {sorted(target)}")
        if not isinstance(target[field], Tensor):
            raise InputTypeError(
                f"image {index}, {field}: expected a tensor, found {_describe_kind(target[field])}"
            )


def _check_boxes(where: str, boxes: Tensor, image_hw: tuple[int, int]) -> None:
    if not boxes.is_floating_point():
        raise InputTypeError(f"{where}: expected a float tensor, found {boxes.dtype}")
    if boxes.dim() != 2 or boxes.shape[1] != 4:
        raise InputValueError(f"{where}: expected shape [N, 4], found {_shape_of(boxes)}")
    x0, y0, x1, y1 = boxes.unbind(dim=1)
    _refuse_rows(where, boxes, ~boxes.isfinite().all(dim=1), "not finite")
    _refuse_rows(where, boxes, (x1 <= x0) | (y1 <= y0), "degenerate (needs x1 < x2 and y1 < y2)")
    height, width = image_hw
    beyond = (boxes < -BOX_TOLERANCE_PX).any(dim=1)
    beyond |= (x1 > width + BOX_TOLERANCE_PX) | (y1 > height + BOX_TOLERANCE_PX)
    _refuse_rows(where, boxes, beyond, f"outside the image of {width} x {height} px")


def _check_labels(where: str, labels: Tensor, count: int, num_classes: int) -> None:
    if labels.dtype != torch.int64:
        raise InputTypeError(f"{where}: expected int64, found {labels.dtype}")
    if labels.shape != (count,):
        raise InputValueError(f"{where}: expected shape [{count}], found {_shape_of(labels)}")
    wrong = (labels < 1) | (labels >= num_classes)
    _refuse_rows(where, labels, wrong, f"not in 1 to {num_classes - 1} (0 is the background)")


def _check_masks(where: str, masks: Tensor, shape: tuple[int, ...]) -> None:
    if masks.dtype not in (torch.uint8, torch.bool):
        raise InputTypeError(f"{where}: expected uint8 or bool, found {masks.dtype}")
    if masks.shape != shape:
        raise InputValueError(f"{where}: expected shape {list(shape)}, found {_shape_of(masks)}")
    if masks.dtype == torch.uint8 and bool((masks > 1).any()):
        raise InputValueError(f"{where}: expected 0 and 1, found {int(masks.max())}")


def _refuse_rows(where: str, values: Tensor, wrong: Tensor, reason: str) -> None:
    if bool(wrong.any()):
        k = int(wrong.nonzero()[0])
        raise InputValueError(f"{where}[{k}]: {values[k].tolist()} is {reason}")


def _shape_of(tensor: Tensor) -> list[int]:
    return list(tensor.shape)


def _describe_kind(value: Any) -> str:
    return (
        f"a tensor of shape {_shape_of(value)}" if isinstance(value, Tensor) else str(type(value))
    )
