"""Draws boxes, masks and labels into images, with matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, unique
from typing import Any

import numpy as np
import torch
from detectron2._missing import missing_part_message
from detectron2.data import MetadataCatalog
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks
from detectron2.utils.colormap import random_color
from detectron2.utils.generic_mask import GenericMask
from detectron2.utils.painter import Color, Painter, VisImage, rgb, with_brightness

__all__ = ["ColorMode", "GenericMask", "VisImage", "Visualizer"]

_SMALL_AREA_PX = 1000
_SMALL_HEIGHT_PX = 40
_NOT_DRAWN = ("sem_seg", "sem_seg_file_name", "pan_seg", "pan_seg_file_name")


@unique
class ColorMode(Enum):
    """How instances are coloured."""

    IMAGE = 0
    """Each in a colour by chance."""
    SEGMENTATION = 1
    """Alike within a class, by the dataset's `thing_colors`, and hardly transparent."""
    IMAGE_BW = 2
    """As IMAGE, over a picture that is grey where there is no instance."""


class Visualizer(Painter):
    """Draws on a copy of an image.

    Every method that draws returns the `VisImage` with all that was drawn so far.

    Args:
        img_rgb: (H, W, 3), red first, 0 to 255; an array, or a tensor on the CPU.
        metadata: of the dataset: `thing_classes` and `thing_colors`, if it has them.
        scale: of the result.
        instance_mode: how instances are coloured.
        font_size_scale: factor on the size of the labels.
    """

    def __init__(
        self,
        img_rgb: np.ndarray | torch.Tensor,
        metadata: Any = None,
        scale: float = 1.0,
        instance_mode: ColorMode = ColorMode.IMAGE,
        font_size_scale: float = 1.0,
    ) -> None:
        self.img = np.clip(np.asarray(img_rgb), 0, 255).astype(np.uint8)
        super().__init__(VisImage(self.img, scale), font_size_scale)
        self.metadata = MetadataCatalog.get("__nonexist__") if metadata is None else metadata
        self._instance_mode = instance_mode

    def draw_instance_predictions(self, predictions: Instances, jittering: bool = True) -> VisImage:
        """Draw what a model found.

        Args:
            predictions: on the CPU, in the size of the image; of `pred_boxes`, `scores`,
                `pred_classes` and `pred_masks` (N, H, W) what there is.
            jittering: vary the colours within a class in SEGMENTATION mode.
        """
        fields = predictions.get_fields()
        if "pred_keypoints" in fields:
            raise ValueError(missing_part_message("drawing of keypoints"))
        classes = fields["pred_classes"].tolist() if "pred_classes" in fields else None
        masks = fields.get("pred_masks")
        if self._instance_mode is ColorMode.IMAGE_BW:
            covered = None if masks is None else np.any(np.asarray(masks), axis=0)
            self.output.reset_image(self._grey_but_for(covered))
        colors = self._class_colors(classes, jittering)
        return self.overlay_instances(
            boxes=fields.get("pred_boxes"),
            masks=masks,
            labels=_create_text_labels(classes, fields.get("scores"), self._class_names),
            assigned_colors=colors,
            alpha=0.3 if self._instance_mode is ColorMode.IMAGE_BW else 0.8 if colors else 0.5,
        )

    def draw_dataset_dict(self, dic: Mapping[str, Any]) -> VisImage:
        """Draw the annotations of one image of a dataset.

        Raises:
            ValueError: there are keypoints, semantic or panoptic segmentation.
        """
        annotations = dic.get("annotations") or []
        strange = [key for key in _NOT_DRAWN if key in dic]
        if strange or any("keypoints" in a for a in annotations):
            raise ValueError(missing_part_message(f"drawing of {strange or 'keypoints'}"))
        if not annotations:
            return self.output
        classes = [a["category_id"] for a in annotations]
        crowd = [bool(a.get("iscrowd")) for a in annotations]
        return self.overlay_instances(
            boxes=[
                BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations
            ],
            masks=[a["segmentation"] for a in annotations if "segmentation" in a] or None,
            labels=_create_text_labels(classes, None, self._class_names, crowd),
            assigned_colors=self._class_colors(classes, jittering=True),
        )

    def overlay_instances(
        self,
        *,
        boxes: Boxes | np.ndarray | Sequence[Sequence[float]] | None = None,
        labels: Sequence[str] | None = None,
        masks: Any = None,
        assigned_colors: Sequence[Color] | None = None,
        alpha: float = 0.5,
    ) -> VisImage:
        """Draw instances, the large ones first.

        Args:
            boxes: (N, 4) x0, y0, x1, y1 in pixels.
            labels: N texts.
            masks: `BitMasks`, `PolygonMasks`, (N, H, W) bitmaps, or N of what `GenericMask`
                takes.
            assigned_colors: N colours; by chance if not given.
            alpha: opacity of the masks, 0 to 1.

        Raises:
            ValueError: not as many of one as of the other.
        """
        box_array = None if boxes is None else self._convert_boxes(boxes)
        mask_list = None if masks is None else self._convert_masks(masks)
        numbers = {
            len(part)
            for part in (box_array, mask_list, labels, assigned_colors)
            if part is not None
        }
        if len(numbers) > 1:
            raise ValueError(
                f"boxes, masks, labels and colours differ in number: {sorted(numbers)}"
            )
        count = numbers.pop() if numbers else 0
        if box_array is None and mask_list is not None:
            extents = np.array([mask.bbox() for mask in mask_list]).reshape(-1, 4)
        else:
            extents = np.zeros((count, 4)) if box_array is None else box_array
        areas = np.prod(extents[:, 2:] - extents[:, :2], axis=1)
        for k in np.argsort(-areas, kind="stable"):
            color = (
                random_color(rgb=True, maximum=1) if assigned_colors is None else assigned_colors[k]
            )
            if box_array is not None:
                self.draw_box(box_array[k], edge_color=color)
            if mask_list is not None:
                self.draw_outlines(mask_list[k].polygons, color, alpha)
            if labels is not None and (box_array is not None or areas[k] > 0):
                self._draw_label(labels[k], extents[k], color, centered=box_array is None)
        return self.output

    def _draw_label(self, label: str, box: np.ndarray, color: Color, *, centered: bool) -> None:
        """In the corner of the box or the middle of the object; beside it where that is small."""
        x0, y0, x1, y1 = box
        position = ((x0 + x1) / 2, (y0 + y1) / 2) if centered else (x0, y0)
        scale = self.output.scale
        if (y1 - y0) * (x1 - x0) < _SMALL_AREA_PX * scale or y1 - y0 < _SMALL_HEIGHT_PX * scale:
            position = (x1, y0) if y1 >= self.output.height - 5 else (x0, y1)
        # From 0.6 of the usual size for objects up to 4 % of the image's side to all at 10 %.
        share = (y1 - y0) / self._side
        size = self._default_font_size * float(np.clip(0.6 + (share - 0.04) * 20 / 3, 0.6, 1.0))
        self.draw_text(
            label,
            position,
            font_size=size,
            color=with_brightness(color, 0.7),
            horizontal_alignment="center" if centered else "left",
        )

    @property
    def _class_names(self) -> Sequence[str] | None:
        return self.metadata.get("thing_classes", None)

    def _class_colors(self, classes: Sequence[int] | None, jittering: bool) -> list[Color] | None:
        known = self.metadata.get("thing_colors", None)
        if self._instance_mode is not ColorMode.SEGMENTATION or not known or classes is None:
            return None
        colors = [np.array(known[k]) / 255 for k in classes]
        return [self._jitter(color) for color in colors] if jittering else colors

    def _jitter(self, color: Color) -> Color:
        """A colour close by, by chance."""
        step = np.random.rand(3)  # noqa: NPY002  # seed_all_rng
        return np.clip(np.array(rgb(color)) + step / np.linalg.norm(step) / 2, 0, 1)

    def _grey_but_for(self, covered: Any) -> np.ndarray:
        grey = np.repeat(self.img.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
        return grey if covered is None else np.where(covered[..., None], self.img, grey)

    def _convert_boxes(self, boxes: Any) -> np.ndarray:
        tensor = boxes.tensor if isinstance(boxes, Boxes) else boxes
        if isinstance(tensor, torch.Tensor):
            tensor = tensor.detach().numpy()
        return np.asarray(tensor, dtype=np.float64).reshape(-1, 4)

    def _convert_masks(self, masks: Any) -> list[GenericMask]:
        if isinstance(masks, PolygonMasks):
            masks = masks.polygons
        elif isinstance(masks, BitMasks):
            masks = masks.tensor
        if isinstance(masks, torch.Tensor):
            masks = masks.numpy()
        size = self.output.height, self.output.width
        return [m if isinstance(m, GenericMask) else GenericMask(m, *size) for m in masks]


def _create_text_labels(
    classes: Sequence[int] | None,
    scores: Any,
    class_names: Sequence[str] | None,
    is_crowd: Sequence[bool] | None = None,
) -> list[str] | None:
    """Labels such as "cell 95%|crowd", of what is known; None where that is nothing.

    Args:
        classes: number of the class of each object.
        scores: 0 to 1.
        class_names: name of each class; numbers stand for them where there are none.
        is_crowd: whether the object is a group of objects.
    """
    columns = []
    if classes is not None:
        columns.append([class_names[k] if class_names else str(k) for k in classes])
    if scores is not None:
        columns.append([f"{float(score):.0%}" for score in scores])
    if not columns:
        return None
    labels = [" ".join(parts) for parts in zip(*columns)]
    if is_crowd is None:
        return labels
    return [label + "|crowd" * bool(crowd) for label, crowd in zip(labels, is_crowd)]
