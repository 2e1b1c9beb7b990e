"""From an image, or a file, to its cells."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from cellseg.cells.instances import CellInstances
from cellseg.cells.selection import (
    DetectionThresholds,
    PerClass,
    passes_score,
    select_cells,
    vote_class,
)
from cellseg.errors import ConfigError
from cellseg.images import ImageInput, Limits, PlaneImage
from cellseg.images.in_memory import to_image_array
from cellseg.inference.augmented import AugmentedRCNN
from cellseg.inference.detections import SoftDetections, detections_to_cells
from cellseg.inference.limits import LimitWatch
from cellseg.modeling.building import build_model
from cellseg.modeling.candidates import masks_of_candidates_only
from cellseg.modeling.device import check_device
from cellseg.modeling.prediction_speed import prepare_for_prediction
from cellseg.modeling.weights import load_weights
from cellseg.training_data.augmentations import scale_hw, scale_resizing
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge, ResizeTransform
from detectron2.structures import Instances
from numpy.typing import NDArray
from torch import nn


class CellPredictor:
    """A trained model that takes one image of any size and intensity range at a time.

    Several threads may call it; the network itself works for one after the other.

    Images are read, normalized and resized as in training and evaluation. With TEST.AUG.ENABLED the
    model looks at several views of each (`AugmentedRCNN`).

    Args:
        cfg: from `load_config`; `MODEL.WEIGHTS` names the checkpoint. It is copied.
        score_threshold: in [0, 1]; detections below it are no cells.
            `CELLSEG.TEST.SCORE_THRESHOLD` by default.
        mask_threshold: in (0, 1]; a pixel belongs to a cell where its soft mask reaches it.
            `CELLSEG.TEST.MASK_THRESHOLD` by default.

    Attributes:
        cfg: the copy that the model was built from.
        model: the engine's model, in evaluation mode.
        thresholds: which detections are cells: these two, the others of `CELLSEG.TEST`, and
            `CELLSEG.CELL_TYPE.VOTE`.

    Raises:
        ConfigError: no weights, no masks, a device that is missing, or a threshold out of range.
        CheckpointError: the checkpoint is missing, broken or of another model.

    Example:
        >>> predictor = CellPredictor(load_config("configs/quick_start.yaml"))  # doctest: +SKIP
        >>> cells = predictor.predict_file("field_1.tif")  # doctest: +SKIP
    """

    def __init__(
        self,
        cfg: CfgNode,
        *,
        score_threshold: PerClass | None = None,
        mask_threshold: PerClass | None = None,
    ) -> None:
        self.cfg = cfg.clone()
        self.cfg.defrost()
        _check_weights_and_masks(self.cfg)
        thresholds = DetectionThresholds.from_config(self.cfg)
        if score_threshold is not None:
            thresholds = replace(thresholds, score=score_threshold)
        if mask_threshold is not None:
            thresholds = replace(thresholds, mask=mask_threshold)
        thresholds.check_classes(self.cfg.MODEL.ROI_HEADS.NUM_CLASSES)
        self.thresholds = thresholds
        check_device(self.cfg)
        # A threshold below the model's own has to reach the model to have an effect.
        heads = self.cfg.MODEL.ROI_HEADS
        heads.SCORE_THRESH_TEST = min(heads.SCORE_THRESH_TEST, thresholds.lowest_score)
        model = build_model(self.cfg)
        load_weights(model, self.cfg.MODEL.WEIGHTS, cfg=self.cfg)
        self._take(model)

    def _take(self, model: nn.Module) -> None:
        """Predict with a model that has its weights."""
        self.model = model.eval()
        prepare_for_prediction(self.model, self.cfg.CELLSEG.TEST.PRECISION)
        self._input = ImageInput.from_config(self.cfg)
        shorter = self.cfg.INPUT.MIN_SIZE_TEST
        self._resize = ResizeShortestEdge([shorter, shorter], self.cfg.INPUT.MAX_SIZE_TEST)
        (self._resize,) = scale_resizing(self.cfg, [self._resize])
        self._limits = LimitWatch(self.cfg)
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What a process that is spawned needs: config, thresholds and weights."""
        weights = {name: value.cpu() for name, value in self.model.state_dict().items()}
        return {"cfg": self.cfg, "thresholds": self.thresholds, "weights": weights}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.cfg, self.thresholds = state["cfg"], state["thresholds"]
        model = build_model(self.cfg)
        model.load_state_dict(state["weights"])
        self._take(model)

    def __call__(self, image: Any) -> CellInstances:
        """Find the cells of an image.

        Args:
            image: [H, W] or [H, W, C] as `read_image` gives it: the channels that
                CELLSEG.INPUT.CHANNELS chooses, or grey or RGB, in the file's own dtype and
                intensities; also what `to_image_array` makes one of, and the path of a file.

        Returns:
            Cells in the frame of `image`, by descending score; may be empty.

        Raises:
            ImageReadError: an image of another shape, or a file that cannot be read.
            InputTypeError: no image.
        """
        if isinstance(image, (str, Path)):
            return self.predict_file(image)
        return self.predict_batch([to_image_array(image)])[0]

    def predict_batch(
        self, images: Sequence[NDArray[np.generic]], scale: float | None = None
    ) -> list[CellInstances]:
        """Find the cells of images of one size, which go through the network together.

        Args:
            images: each as in `__call__`.
            scale: what their sides are multiplied by before the network sees them; by default as
                the config says for their size.

        Returns:
            The cells of each image, by descending score.

        Raises:
            ImageReadError: an image of another shape or dtype.
        """
        prepared = [self._input.prepare(to_image_array(image)) for image in images]
        found = self._detect(prepared, scale, is_smooth=True)
        return [select_cells(cells, self.thresholds) for cells in found]

    def limits_of(self, plane: PlaneImage) -> Limits:
        """Which intensities of a plane become 0 and 255; see `ImageInput.limits_of`."""
        return self._input.limits_of(plane)

    def scale_of(self, image_hw: tuple[int, int]) -> float:
        """What the sides of an image are multiplied by before the network sees it.

        Args:
            image_hw: (height, width) of the image, pixels.
        """
        # Only the shape is looked at; a broadcast takes no memory.
        shape_only = np.broadcast_to(np.uint8(0), (*image_hw, 3))
        transform = self._resize.get_transform(shape_only)
        return getattr(transform, "new_h", image_hw[0]) / image_hw[0]

    def detect_in_window(
        self, pixels: NDArray[np.generic], limits: Limits, scale: float, *, is_smooth: bool = False
    ) -> CellInstances:
        """What is found in a window of a larger image, before it is decided what are cells.

        Args:
            pixels: the window, as in `__call__`.
            limits: `limits_of` the whole image.
            scale: what the sides of the window are multiplied by, such as `scale_of` the whole
                image.
            is_smooth: resize as `predict_batch` does with a scale of its own, in place of what the
                config says.

        Returns:
            All detections that reach the score threshold, in the frame of the window, by
            descending score; they may overlap.
        """
        (found,) = self._detect([self._input.prepare(pixels, limits)], scale, is_smooth=is_smooth)
        return found

    def detect_softly(
        self, pixels: NDArray[np.generic], limits: Limits, scale: float, *, is_smooth: bool = False
    ) -> SoftDetections:
        """`detect_in_window` before masks are cut, in main memory; see there.

        Types are not voted on: that takes all detections of the image.

        Raises:
            LabelError: the model gives no soft masks.
        """
        prepared = [self._input.prepare(pixels, limits)]
        hw = prepared[0].shape[0], prepared[0].shape[1]
        with self._looking_at(prepared, scale, is_smooth) as (found,):
            soft = SoftDetections.from_instances(found, hw, self.thresholds.lowest_score).cpu()
            self._see_limit(soft.scores.float().numpy())
        return soft

    def reaching_down_to(self, score: float) -> CellPredictor:
        """The same network, whose detections reach down to a lower score.

        Weights are shared, not copied. The floor that the network was built with,
        MODEL.ROI_HEADS.SCORE_THRESH_TEST or the score threshold if that is lower, stays.

        Args:
            score: in [0, 1]; the threshold of each class where its own is not lower.
        """
        lowest = np.minimum(self.thresholds.score, score).tolist()
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, thresholds=replace(self.thresholds, score=lowest))
        return other

    def move_to_cpu(self) -> None:
        """Go on with the CPU from here on."""
        with self._lock:
            self.cfg.MODEL.DEVICE = "cpu"
            self.model.to("cpu")

    def _detect(
        self, batch: Sequence[NDArray[Any]], scale: float | None = None, *, is_smooth: bool = False
    ) -> list[CellInstances]:
        """Detections that reach the score threshold, of prepared images of one size.

        Args:
            batch, scale, is_smooth: as in `_looking_at`.
        """
        height, width = batch[0].shape[:2]
        with self._looking_at(batch, scale, is_smooth) as found:
            return [self._to_cells(one, (height, width)) for one in found]

    @contextmanager
    def _looking_at(
        self, batch: Sequence[NDArray[Any]], scale: float | None, is_smooth: bool
    ) -> Iterator[list[Instances]]:
        """What the network finds, as it gives it; while the context is open no thread else looks.

        Args:
            batch: prepared images of one size, each [H, W, 3].
            scale: what their sides are multiplied by; by default as the config says for their size.
            is_smooth: with a scale, resize by `resize_smoothly`.
        """
        height, width = batch[0].shape[:2]
        resize = self._resize.get_transform(batch[0]).apply_image
        if scale is not None and is_smooth:
            resize = partial(resize_smoothly, scale=scale)
        elif scale is not None:
            new_hw = scale_hw((height, width), scale)
            resize = ResizeTransform(height, width, *new_hw).apply_image
        given = []
        for pixels in batch:
            resized = np.ascontiguousarray(resize(pixels).transpose(2, 0, 1))
            given.append({"image": torch.as_tensor(resized), "height": height, "width": width})
        # For as long as it detects, the model may be changed: one thread at a time.
        with self._lock, torch.inference_mode():
            with self._detecting() as detector:
                found = detector.inference(given, do_postprocess=False)
            yield found

    def _to_cells(self, found: Instances, image_hw: tuple[int, int]) -> CellInstances:
        scores, classes = found.scores.float().cpu().numpy(), found.pred_classes.cpu().numpy()
        self._see_limit(scores)
        elected = vote_class(scores, classes, self.thresholds)
        if elected is not None:  # before masks are cut at the threshold of their class
            classes = np.full_like(classes, elected)
        passed = torch.from_numpy(passes_score(scores, classes, self.thresholds))
        found = found[passed.to(found.scores.device)]
        found.pred_classes = torch.from_numpy(classes)[passed].to(found.scores.device)
        return detections_to_cells(found, image_hw=image_hw, mask_threshold=self.thresholds.mask)

    def _see_limit(self, scores: NDArray[np.float32]) -> None:
        """Look whether the limit of detections may have cost cells.

        Without test-time augmentation there are mostly candidates among the detections, whose
        scores may have fallen since; with it there are those below the threshold too.
        """
        views = self.cfg.TEST.AUG.ENABLED
        likely = scores >= self.thresholds.lowest_score
        self._limits.see_detections(int(likely.sum()) if views else len(scores))

    @contextmanager
    def _detecting(self) -> Iterator[Any]:
        """What detects, for as long as it does."""
        with self._limits.watching(self.model):
            if self.cfg.TEST.AUG.ENABLED:  # a low score in one view may be part of a high mean
                yield AugmentedRCNN(self.cfg, self.model)
                return
            with masks_of_candidates_only(self.model, self.thresholds):
                yield self.model

    @property
    def input_choices(self) -> dict[str, Any]:
        """Scene, channels, page and projection that the config chooses, for `open_planes`."""
        scene = self._input.scene
        return {"scenes": () if scene == "" else (scene,), **self._input.choices}

    def read_image(self, path: str | Path) -> NDArray[Any]:
        """The page and channels of a file that the config chooses, with the file's own values.

        Raises:
            ImageReadError: the file is missing, no image that can be read, or does not have them.
        """
        return self._input.read(path)

    def predict_file(self, path: str | Path) -> CellInstances:
        """Find the cells of an image file.

        Raises:
            ImageReadError: as `read_image`.
        """
        return self(self.read_image(path))


def resize_smoothly(pixels: NDArray[Any], scale: float) -> NDArray[Any]:
    """An image with its sides multiplied by `scale`, at least 1 pixel each.

    Detectron2's own resizing takes single pixels of what is not 8-bit; made much smaller, such an
    image would be mostly noise. Here every pixel has its part in what becomes of it.

    Args:
        pixels: [H, W, C], uint8 or float32.
        scale: above 0.
    """
    height, width = scale_hw((pixels.shape[0], pixels.shape[1]), scale)
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(pixels, (width, height), interpolation=how)


def _check_weights_and_masks(cfg: CfgNode) -> None:
    if not cfg.MODEL.WEIGHTS:
        raise ConfigError(
            "MODEL.WEIGHTS is empty; set it to the checkpoint of a trained model, for instance "
            "<OUTPUT_DIR>/model_final.pth"
        )
    if not cfg.MODEL.MASK_ON:
        raise ConfigError("MODEL.MASK_ON is False; cells need masks: set it to True")
