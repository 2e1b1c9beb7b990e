"""A model with everything around it, from image to label image, as one module of tensors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from cellseg.cells.selection import DetectionThresholds
from cellseg.errors import ConfigError
from cellseg.export.painting import paint_cells
from cellseg.inference.predictor import CellPredictor
from cellseg.modeling.candidates import masks_of_candidates_only
from cellseg.training_data.augmentations import input_scale
from torch import Tensor, nn
from torch.nn import functional as F

_NO_LIMIT = 2.0  # a share that no detection reaches
logger = logging.getLogger(__name__)

OUTPUTS = ("labels", "boxes", "scores", "classes", "masks")


class CellGraph(nn.Module):
    """What `CellPredictor` does with an image of intensities 0 to 255, as a traceable module.

    The image is resized as the config says, the model detects, boxes and masks come back to the
    frame of the image, cells are selected and painted. The engine's model is called by its public
    contract, `inference(..., do_postprocess=False)`, so that heads of a user's own are part of it.

    Args:
        predictor: its model (on the CPU), thresholds and sizes are used.

    Raises:
        ConfigError: test-time augmentation or NMS of masks is on; neither fits into one graph.
    """

    def __init__(self, predictor: CellPredictor) -> None:
        super().__init__()
        cfg, thresholds = predictor.cfg, predictor.thresholds
        _check_fits_into_a_graph(cfg, thresholds)
        self.model: Any = predictor.model
        self.thresholds = thresholds
        self.num_classes: int = cfg.MODEL.ROI_HEADS.NUM_CLASSES
        self.is_bgr = cfg.INPUT.FORMAT == "BGR"
        self.num_channels = len(cfg.CELLSEG.INPUT.CHANNELS)
        self.shorter, self.longest = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
        self.factor = input_scale(cfg)
        self.register_buffer("limits", self._limits())
        self.limits: Tensor

    def _limits(self) -> Tensor:
        """What `paint_cells` is given per detection, here per class: float64 [K, 6]."""
        given = self.thresholds
        shares, most = self._per_class(given.max_covered), self._per_class(given.max_area_px)
        least = self._per_class(given.min_area_px)
        columns = [
            self._per_class(given.mask),
            torch.where(shares < 1, shares, _NO_LIMIT),
            least,
            torch.where(most > 0, most, torch.inf),
            self._per_class(np.equal(given.border, "drop")),
            self._per_class(given.exclusive) * least.clamp(min=1),
        ]
        return torch.stack(columns, dim=1)

    def default_scores(self) -> Tensor:
        """The score threshold of each class, float32 [K]."""
        return self._per_class(self.thresholds.score).float()

    def forward(self, image: Tensor, score_thresholds: Tensor) -> tuple[Tensor, ...]:
        """Find the cells of one image.

        Args:
            image: float32 [1, C, H, W], intensities 0 to 255 as `normalize_image` gives them; C is
                1 (grey) or 3 (R, G, B), or the number of CELLSEG.INPUT.CHANNELS.
            score_thresholds: float32 [K], one per class.

        Returns:
            `labels` int32 [1, 1, H, W], 0 for background; and of the cells with the labels 1, 2,
            ..., by descending score, `boxes` float32 [N, 4] (x0, y0, x1, y1, pixels), `scores`
            float32 [N], `classes` int64 [N] and `masks` float32 [N, M, M], soft and in their boxes.
        """
        channels = self._to_model_channels(image)
        resized = self._resize(channels)
        with self._detecting_from(score_thresholds):
            (found,) = self.model.inference([{"image": resized[0]}], do_postprocess=False)
        boxes = _boxes_in_image(found.pred_boxes.tensor, resized, image)
        scores, classes = found.scores.float(), found.pred_classes
        if self.thresholds.vote == "image":
            classes = self._vote(scores, classes, score_thresholds)
        scores, order = scores.sort(descending=True)
        boxes, classes = boxes[order], classes[order]
        masks = found.pred_masks[:, 0][order].float()
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        (usable,) = (has_area & (scores >= score_thresholds[classes])).nonzero(as_tuple=True)
        boxes, scores, classes, masks = (x[usable] for x in (boxes, scores, classes, masks))
        labels, kept = paint_cells(
            masks, boxes, classes, self.limits[classes], image[0, 0], self.num_classes
        )
        (cells,) = kept.nonzero(as_tuple=True)
        return labels[None, None], boxes[cells], scores[cells], classes[cells], masks[cells]

    def _per_class(self, value: Any) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float64).expand(self.num_classes).clone()

    def _to_model_channels(self, image: Tensor) -> Tensor:
        """Three channels in the model's order, as `cellseg.images.model_input.to_model_input`."""
        if self.num_channels == 2:  # the third is black
            image = torch.cat([image, torch.zeros_like(image[:, :1])], dim=1)
        three = image + image.new_zeros(1, 3, 1, 1)
        return three.flip(1) if self.is_bgr else three

    def _resize(self, image: Tensor) -> Tensor:
        """As `ResizeShortestEdge` and CELLSEG.INPUT.SCALE do for images that are not 8-bit.

        Sizes are tensors, and so stay dependent on the image in a trace.
        """
        size = torch.stack([torch.as_tensor(side) for side in image.shape[2:]]).double()
        if self.shorter > 0:
            size = size * (self.shorter / size.min())
            size = size * (self.longest / size.max()).clamp(max=1)
            size = (size + 0.5).floor()
        if self.factor != 1:
            size = (size * self.factor).round().clamp(min=1)
        network_hw: Any = tuple(size.long().unbind())
        return F.interpolate(image, size=network_hw, mode="bilinear", align_corners=False)

    @contextmanager
    def _detecting_from(self, score_thresholds: Tensor) -> Iterator[None]:
        """Within the context, the model detects from these scores on, and from its own, if lower.

        So the thresholds are an input of a trace and no constants of it; and with 0 there are
        detections in any image, without which no trace would reach the mask head.
        """
        parts = [part for part in self.model.modules() if hasattr(part, "test_score_thresh")]
        before = [part.test_score_thresh for part in parts]
        for part, own in zip(parts, before):
            part.test_score_thresh = score_thresholds.min().clamp(max=own)
        try:
            with masks_of_candidates_only(self.model, self.thresholds, score_thresholds):
                yield
        finally:
            for part, own in zip(parts, before):
                part.test_score_thresh = own

    def _vote(self, scores: Tensor, classes: Tensor, thresholds: Tensor) -> Tensor:
        """As `cellseg.cells.selection.vote_class`: the class with the largest sum of scores."""
        voices = torch.where(scores >= thresholds.min(), scores, torch.zeros_like(scores))
        per_class = F.one_hot(classes, self.num_classes) * voices[:, None]
        return torch.zeros_like(classes) + per_class.sum(dim=0).argmax()


def _boxes_in_image(boxes: Tensor, resized: Tensor, image: Tensor) -> Tensor:
    """From pixels of the network's input to those of the image, and clipped to it."""
    width, height = torch.as_tensor(image.shape[3]), torch.as_tensor(image.shape[2])
    limits = torch.stack([width, height, width, height]).double()
    network_w, network_h = torch.as_tensor(resized.shape[3]), torch.as_tensor(resized.shape[2])
    scale = limits / torch.stack([network_w, network_h, network_w, network_h])
    moved = boxes.float() * scale.float()
    return moved.clamp(min=0).minimum(limits.float())


def _check_fits_into_a_graph(cfg: Any, thresholds: DetectionThresholds) -> None:
    for key, what in (("TEST.DIAMETER", "cells of its own size"), ("INPUT.INVERT", "bright cells")):
        section, name = key.split(".")
        if cfg.CELLSEG[section][name]:
            logger.warning(
                "CELLSEG.%s is %r; the exported model looks at images as they are and expects %s",
                *(key, cfg.CELLSEG[section][name], what),
            )
    if cfg.TEST.AUG.ENABLED:
        raise ConfigError(
            "TEST.AUG.ENABLED is True; an exported model looks at an image once: set it to False"
        )
    mixed = np.ptp(np.atleast_1d(thresholds.exclusive).astype(int)) > 0
    for key, is_on, advice in (
        ("MASK_NMS", np.min(thresholds.mask_nms) < 1, "1.0, and use MAX_COVERED"),
        ("LARGEST_COMPONENT", np.any(thresholds.largest_component), "False"),
        ("FILL_HOLES", np.any(thresholds.fill_holes), "False"),
        ("EXCLUSIVE", mixed, "the same for all classes"),
    ):
        if is_on:
            raise ConfigError(
                f"CELLSEG.TEST.{key} is {cfg.CELLSEG.TEST[key]}; an exported model cannot do that: "
                f"set it to {advice}"
            )
