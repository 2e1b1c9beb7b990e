"""Test-time augmentation: what is found in several views of an image, as one result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from cellseg.errors import ConfigError
from cellseg.modeling.pasting import sort_by_score
from cellseg.training_data.augmentations import Rotate90Transform
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances, pairwise_iou
from fvcore.transforms.transform import HFlipTransform, NoOpTransform
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

# Boxes of two views that overlap by this IoU may be of the same cell; the best one is taken.
SAME_CELL_IOU = 0.5

ImageDict = dict[str, Any]


def check_test_augmentation_config(cfg: CfgNode) -> None:
    """Check TEST.AUG, if it is enabled.

    Raises:
        ConfigError: naming the key, what was found and what was expected.
    """
    node = cfg.TEST.AUG
    if node.ENABLED and (not node.MIN_SIZES or min(node.MIN_SIZES) < 0 or node.MAX_SIZE < 1):
        raise ConfigError(
            f"TEST.AUG.MIN_SIZES is {tuple(node.MIN_SIZES)} and MAX_SIZE {node.MAX_SIZE}; expected "
            "at least one length in pixels, 0 for that of the image, and a limit of 1 or more"
        )


@dataclass(frozen=True)
class View:
    """One way to look at an image: resized, then mirrored, then turned.

    Attributes:
        resize: from the image to the size of the view.
        mirrored: left and right are exchanged.
        turns: by 90 degrees, counter-clockwise, 0 to 3.
        image_hw: (height, width) of the resized image, before the turn, pixels.
    """

    resize: Any
    mirrored: bool
    turns: int
    image_hw: tuple[int, int]

    @property
    def transform(self) -> T.TransformList:
        """From the image to the view."""
        steps = [self.resize]
        if self.mirrored:
            steps.append(HFlipTransform(self.image_hw[1]))
        if self.turns:
            steps.append(Rotate90Transform(self.image_hw, self.turns))
        return T.TransformList(steps)

    def masks_in_image(self, soft_masks: Tensor) -> Tensor:
        """Soft masks [N, 1, M, M] of the view's boxes as those of the image's boxes."""
        upright = torch.rot90(soft_masks, -self.turns, (2, 3))
        return upright.flip(3) if self.mirrored else upright


class AugmentedRCNN(nn.Module):
    """A GeneralizedRCNN that looks at several views of each image; called as one, in testing.

    Detectron2's `GeneralizedRCNNWithTTA` keeps whatever any view shows, with the highest of its
    scores, so every view adds its false alarms. Here a cell's score is the mean over all
    views, 0 where a view does not show it, as in the weighted boxes fusion of Solovyev et al.
    (arXiv:1910.13302). Its box is the mean weighted by the scores, and so are its soft mask (as it
    lies in the box) and what else the heads say of a detection. Each view is looked at once,
    where Detectron2 looks a second time for the masks. With one view that is the image itself
    the result is the model's own.

    Views: the sizes of TEST.AUG.MIN_SIZES (shorter side, up to MAX_SIZE; 0: as the image is
    given), each also mirrored with TEST.AUG.FLIP and in all four turns by 90 degrees with
    CELLSEG.TEST.AUG_ROTATE90.

    Args:
        cfg: the model's config; not changed.
        model: to detect with, in evaluation mode; may be wrapped for several processes.

    Raises:
        ConfigError: `model` is no GeneralizedRCNN, predicts keypoints or takes given proposals.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module) -> None:
        super().__init__()
        inner = model.module if isinstance(model, DistributedDataParallel) else model
        if not isinstance(inner, GeneralizedRCNN):
            raise ConfigError(
                f"TEST.AUG.ENABLED with MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE!r}; "
                "expected GeneralizedRCNN or what is derived from it"
            )
        if cfg.MODEL.KEYPOINT_ON or cfg.MODEL.LOAD_PROPOSALS:
            raise ConfigError(
                "TEST.AUG.ENABLED with keypoints or precomputed proposals; turn it off"
            )
        self.model = inner
        self.turns = range(4) if cfg.CELLSEG.TEST.AUG_ROTATE90 else range(1)
        self.mirrored = (False, True) if cfg.TEST.AUG.FLIP else (False,)
        self.sizes = tuple(cfg.TEST.AUG.MIN_SIZES)
        self.max_size = cfg.TEST.AUG.MAX_SIZE
        self.least_score = cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST
        self.most_detections = cfg.TEST.DETECTIONS_PER_IMAGE

    def forward(self, batched_inputs: Sequence[ImageDict]) -> list[dict[str, Instances]]:
        """As `GeneralizedRCNN.forward` in testing: masks in the frame of the file."""
        found = self.inference(batched_inputs, do_postprocess=False)
        return [
            {"instances": detector_postprocess(each, *_file_hw(given))}
            for each, given in zip(found, batched_inputs)
        ]

    def inference(
        self, batched_inputs: Sequence[ImageDict], *, do_postprocess: bool = True
    ) -> list[Any]:
        """As `GeneralizedRCNN.inference`, without given instances.

        Args:
            batched_inputs: with `image`, uint8 or float [C, H, W]; `height` and `width` of the file
                in pixels, if it has another size.
            do_postprocess: give what `forward` gives, masks in the frame of the file, in place of
                the raw detections.

        Returns:
            Per image, without postprocessing, Instances in the frame of `image` by descending
            score: `pred_boxes`, `scores`, `pred_classes`, `pred_masks` (float [N, 1, M, M]) if the
            model has masks, and what its heads add; those with scores above SCORE_THRESH_TEST, at
            most TEST.DETECTIONS_PER_IMAGE. May be empty.
        """
        if do_postprocess:
            return self(batched_inputs)
        return [self._detect_in_views(given["image"]) for given in batched_inputs]

    def _detect_in_views(self, image: Tensor) -> Instances:
        pixels = image.permute(1, 2, 0).cpu().numpy()
        views = list(self._views_of(pixels))
        inputs = [
            {"image": torch.as_tensor(np.ascontiguousarray(changed.transpose(2, 0, 1)))}
            for changed in (view.transform.apply_image(pixels) for view in views)
        ]
        hw = pixels.shape[:2]
        found = [_in_image(self._detect_in_view(each), v, hw) for each, v in zip(inputs, views)]
        merged = merge_detections(found)
        return merged[merged.scores > self.least_score][: self.most_detections]

    def _views_of(self, pixels: NDArray[Any]) -> Iterator[View]:
        for size in self.sizes:
            resize: Any = T.ResizeShortestEdge(size, self.max_size).get_transform(pixels)
            hw = (resize.new_h, resize.new_w) if size else pixels.shape[:2]
            for mirrored in self.mirrored:
                for turns in self.turns:
                    yield View(resize if size else NoOpTransform(), mirrored, turns, hw)

    def _detect_in_view(self, given: ImageDict) -> Instances:
        with torch.no_grad():
            (found,) = self.model.inference([given], do_postprocess=False)
        result: Instances = found
        return result


def merge_detections(views: Sequence[Instances]) -> Instances:
    """Detections of several views of an image as one set.

    A detection and, of every other view, the one of its class that overlaps it most, by an IoU
    of 0.5 at least, are one cell; those with the highest scores choose first, each is chosen once.

    Args:
        views: all in one frame, with `pred_boxes`, `scores`, `pred_classes` and any other
            fields with floats per detection, the same ones everywhere.

    Returns:
        By descending score. The score is the sum of a cell's scores over the number of views;
        boxes and other fields are means weighted by the scores. With one view: what was given.
    """
    fields = [each.get_fields() for each in views]
    joined: dict[str, Tensor] = {
        name: torch.cat([getattr(each[name], "tensor", each[name]) for each in fields])
        for name in fields[0]
    }
    scores = joined["scores"]
    leaders, group = _group_by_cell(joined, [len(each) for each in views])
    weights = scores.new_zeros(len(leaders)).index_add(0, group, scores)
    merged = Instances(views[0].image_size)
    for name, values in joined.items():
        if name == "scores":
            merged.scores = weights / len(views)
        elif values.is_floating_point():
            shape = (-1, *[1] * (values.dim() - 1))
            sums = values.new_zeros((len(leaders), *values.shape[1:]))
            means = sums.index_add(0, group, values * scores.view(shape)) / weights.view(shape)
            merged.set(name, Boxes(means) if name == "pred_boxes" else means)
        else:
            merged.set(name, values[leaders])
    return sort_by_score(merged)


def _group_by_cell(joined: dict[str, Tensor], counts: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Which detections, of `counts` per view, are of one cell.

    Returns:
        int64 [G], the detection of the highest score of each cell; int64 [N], the cell of each
        detection.
    """
    scores = joined["scores"]
    candidates = _overlapping_in_other_views(joined["pred_boxes"], joined["pred_classes"], counts)
    view_of = np.repeat(np.arange(len(counts)), counts).tolist()
    group = np.full(len(scores), -1)
    leaders: list[int] = []
    for leader in scores.argsort(descending=True, stable=True).tolist():
        if group[leader] >= 0:
            continue
        seen = {view_of[leader]}
        group[leader] = len(leaders)
        for other in candidates.get(leader, ()):  # the nearest first
            if group[other] < 0 and view_of[other] not in seen:
                seen.add(view_of[other])
                group[other] = len(leaders)
        leaders.append(leader)
    indices = torch.tensor(leaders, dtype=torch.long, device=scores.device)
    return indices, torch.from_numpy(group).to(scores.device)


def _overlapping_in_other_views(
    boxes_xyxy: Tensor, classes: Tensor, counts: Sequence[int]
) -> dict[int, list[int]]:
    """By detection, those of its class in other views that overlap it, by descending IoU."""
    boxes = Boxes(boxes_xyxy)
    pairs = []
    stop = 0
    for count in counts:  # one view at a time: all pairs at once may be gigabytes
        start, stop = stop, stop + count
        ious = pairwise_iou(boxes, boxes[start:stop])
        ious[classes[:, None] != classes[None, start:stop]] = 0
        ious[start:stop] = 0
        near = (ious >= SAME_CELL_IOU).nonzero(as_tuple=True)
        pairs.append((near[0], near[1] + start, ious[near]))
    ours, theirs, overlap = (torch.cat(column).cpu().numpy() for column in zip(*pairs))
    candidates: dict[int, list[int]] = {}
    for position in np.argsort(-overlap, kind="stable").tolist():
        candidates.setdefault(int(ours[position]), []).append(int(theirs[position]))
    return candidates


def _in_image(found: Instances, view: View, image_hw: tuple[int, int]) -> Instances:
    """Detections in a view with boxes and soft masks as they are in the image."""
    fields = found.get_fields()
    tensor = found.pred_boxes.tensor
    boxes = view.transform.inverse().apply_box(tensor.cpu().numpy())
    fields = fields | {"pred_boxes": Boxes(torch.from_numpy(boxes).to(tensor))}
    if found.has("pred_masks"):
        fields["pred_masks"] = view.masks_in_image(found.pred_masks)
    return Instances(image_hw, **fields)


def _file_hw(given: ImageDict) -> tuple[int, int]:
    height, width = given["image"].shape[1:]
    return given.get("height", height), given.get("width", width)
