"""From what a model finds in an image to CellInstances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from cellseg.cells.instances import CellInstances
from cellseg.cells.labels import crop_bitmap
from cellseg.cells.selection import PerClass, values_of_classes
from cellseg.errors import LabelError
from cellseg.modeling.pasting import PastedMasks, paste_mask_crops, scale_boxes
from detectron2.structures import Instances
from torch import Tensor

_NO_MASKS = "the model gives boxes but no masks; cells are compared by their masks"


def detections_to_cells(
    instances: Instances,
    score_threshold: float = 0.0,
    *,
    image_hw: tuple[int, int] | None = None,
    mask_threshold: PerClass = 0.5,
) -> CellInstances:
    """Take a model's output, on any device, as cells; masks are cut down to crops one by one.

    Args:
        instances: detections of one image with `scores`, `pred_classes`, `pred_boxes` and
            `pred_masks`: either soft ones as the network gives them, float [N, 1, M, M], each
            covering its box; or bitmaps as `detector_postprocess` leaves them, bool [N, H, W] in
            the image's own pixels.
        score_threshold: detections with a lower score are left out.
        image_hw: (height, width), pixels, of the image that the cells are wanted for, where it is
            not `instances.image_size`; soft masks and their boxes are scaled to it.
        mask_threshold: in (0, 1], one number or one per class; a pixel belongs to the cell where a
            soft mask reaches it. Bitmaps have been decided already.

    Returns:
        By descending score, equal ones in the order of the network; may be empty. With soft masks,
        boxes are clipped to the image, and those of which no area is left are dropped, as
        Detectron2 does.

    Raises:
        LabelError: there are detections but no masks.
    """
    hw = image_hw or instances.image_size
    if len(instances) == 0:
        return CellInstances.empty(hw)
    if not instances.has("pred_masks"):
        raise LabelError(_NO_MASKS)
    if instances.pred_masks.dtype != torch.bool:
        return SoftDetections.from_instances(instances, hw, score_threshold).to_cells(
            mask_threshold
        )
    chosen = _by_score(instances, score_threshold)
    cropped = [crop_bitmap(instances.pred_masks[k].cpu().numpy()) for k in chosen.tolist()]
    return CellInstances.from_crops(
        [crop for crop, _ in cropped],
        np.array([at for _, at in cropped]),
        hw,
        scores=instances.scores[chosen].float().cpu().numpy(),
        classes=instances.pred_classes[chosen].cpu().numpy(),
        boxes_xyxy=instances.pred_boxes.tensor[chosen].float().cpu().numpy(),
    )


def _by_score(instances: Instances, score_threshold: float) -> Tensor:
    """Numbers of the detections that reach a score, by descending score."""
    order = instances.scores.argsort(descending=True, stable=True)
    return order[instances.scores[order] >= score_threshold]


@dataclass(frozen=True, eq=False)
class SoftDetections:
    """Detections of one image before it is decided which pixels are theirs.

    Attributes:
        image_hw: (height, width) of the image, pixels.
        boxes_xyxy: float [N, 4], in the image and clipped to it, each with an area.
        soft_masks: float [N, M, M] in 0 to 1, each covering its box.
        scores: [N], float.
        classes: int64 [N], 0-based.
    """

    image_hw: tuple[int, int]
    boxes_xyxy: Tensor
    soft_masks: Tensor
    scores: Tensor
    classes: Tensor

    @classmethod
    def from_instances(
        cls, instances: Instances, image_hw: tuple[int, int], score_threshold: float = 0.0
    ) -> SoftDetections:
        """What the network gives for one image, by descending score, equal ones in its order.

        Args:
            instances: with soft masks, as `detections_to_cells` takes them.
            image_hw: (height, width), pixels, of the image that they are wanted for.
            score_threshold: detections with a lower score are left out.

        Raises:
            LabelError: there are no masks, or bitmaps.
        """
        if not instances.has("pred_masks") or instances.pred_masks.dtype == torch.bool:
            if len(instances):
                raise LabelError(_NO_MASKS)
            return cls.empty(image_hw)
        chosen = _by_score(instances, score_threshold)
        boxes, has_area = scale_boxes(instances[chosen], image_hw)
        chosen = chosen[has_area]
        masks = instances.pred_masks[chosen]
        masks = masks[:, 0] if masks.dim() == 4 else masks
        return cls(image_hw, boxes, masks, instances.scores[chosen], instances.pred_classes[chosen])

    @classmethod
    def empty(cls, image_hw: tuple[int, int]) -> SoftDetections:
        """An image in which nothing was found."""
        numbers = torch.zeros(0, dtype=torch.int64)
        return cls(image_hw, torch.zeros(0, 4), torch.zeros(0, 28, 28), torch.zeros(0), numbers)

    @classmethod
    def concatenate(
        cls, parts: Sequence[SoftDetections], image_hw: tuple[int, int]
    ) -> SoftDetections:
        """The detections of several sets in the frame of one image, by descending score."""
        filled = [part for part in parts if len(part)]
        if not filled:
            return cls.empty(image_hw)
        names = ("boxes_xyxy", "soft_masks", "scores", "classes")
        joined = cls(
            image_hw, *(torch.cat([getattr(one, name) for one in filled]) for name in names)
        )
        return joined[joined.scores.argsort(descending=True, stable=True)]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, which: Tensor | slice) -> SoftDetections:
        """Some of them: by their numbers, a boolean tensor [N], or a slice."""
        columns = (self.boxes_xyxy, self.soft_masks, self.scores, self.classes)
        return SoftDetections(self.image_hw, *(column[which] for column in columns))

    def cpu(self) -> SoftDetections:
        """The same in main memory."""
        columns = (self.boxes_xyxy, self.soft_masks, self.scores, self.classes)
        return SoftDetections(self.image_hw, *(column.cpu() for column in columns))

    def of_one_class(self, number: int) -> SoftDetections:
        """The same detections, all of one class."""
        return replace(self, classes=torch.full_like(self.classes, number))

    def moved(self, offset_rc: tuple[int, int], image_hw: tuple[int, int]) -> SoftDetections:
        """The detections of a window, in the frame of a larger image.

        Args:
            offset_rc: (row, column) of the window's first pixel.
            image_hw: (height, width) of the larger image, pixels.
        """
        by = self.boxes_xyxy.new_tensor([offset_rc[1], offset_rc[0]] * 2)
        return replace(self, image_hw=image_hw, boxes_xyxy=self.boxes_xyxy + by)

    @property
    def num_pixels(self) -> int:
        """About how many pixels lie in all boxes together."""
        width, height = (self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2]).T
        return int(((width + 2) * (height + 2)).sum())

    def paste(self) -> PastedMasks:
        """The masks in the pixels of the image, for `to_cells` with many thresholds."""
        return PastedMasks(self.soft_masks, self.boxes_xyxy, self.image_hw)

    def to_cells(
        self, mask_threshold: PerClass = 0.5, pasted: PastedMasks | None = None
    ) -> CellInstances:
        """The detections as cells, in their order.

        Args:
            mask_threshold: as in `detections_to_cells`.
            pasted: what `paste` gave of these detections, or of more of which these are the first.
        """
        classes = self.classes.cpu().numpy()
        thresholds = torch.from_numpy(values_of_classes(mask_threshold, classes))
        if pasted is not None:
            crops, offsets_rc = pasted.cut(thresholds, len(self))
        else:
            crops, offsets_rc = paste_mask_crops(
                self.soft_masks, self.boxes_xyxy, self.image_hw, thresholds
            )
        return CellInstances.from_crops(
            crops,
            offsets_rc,
            self.image_hw,
            scores=self.scores.float().cpu().numpy(),
            classes=classes,
            boxes_xyxy=self.boxes_xyxy.float().cpu().numpy(),
        )
