"""Detectors of the R-CNN family: a backbone, proposals, and heads on regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import move_device_like
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import nn

from ..backbone import Backbone, build_backbone
from ..postprocessing import detector_postprocess
from ..proposal_generator import build_proposal_generator
from ..roi_heads import build_roi_heads
from .build import META_ARCH_REGISTRY

__all__ = ["GeneralizedRCNN", "ProposalNetwork"]

ModelInputs = list[dict[str, Any]]
_MAX_PICTURED_PROPOSALS = 20


class _ImageModel(nn.Module):
    """A backbone behind the normalisation of images.

    Args:
        backbone: see `Backbone`.
        pixel_mean, pixel_std: per channel, in the units of the input images.

    Raises:
        ValueError: mean and standard deviation differ in length.
    """

    pixel_mean: torch.Tensor
    pixel_std: torch.Tensor

    def __init__(
        self, backbone: Backbone, pixel_mean: Sequence[float], pixel_std: Sequence[float]
    ) -> None:
        super().__init__()
        if len(pixel_mean) != len(pixel_std):
            raise ValueError(f"PIXEL_MEAN {pixel_mean} and PIXEL_STD {pixel_std} differ in length.")
        self.backbone = backbone
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model is, and where inputs are moved to."""
        return self.pixel_mean.device

    def preprocess_image(self, batched_inputs: ModelInputs) -> ImageList:
        """Normalise the images [C, H, W], and pad them to one batch."""
        moved = [move_device_like(x["image"], self.pixel_mean) for x in batched_inputs]
        return ImageList.from_tensors(
            [(image - self.pixel_mean) / self.pixel_std for image in moved],
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )

    def _encode(self, batched_inputs: ModelInputs) -> tuple[ImageList, dict[str, torch.Tensor]]:
        """The batch, and its feature maps by name."""
        images = self.preprocess_image(batched_inputs)
        return images, self.backbone(images.tensor)

    def _instances(self, batched_inputs: ModelInputs, key: str) -> list[Instances] | None:
        """The inputs' Instances under a key, on the model's device; None if they have none."""
        if key not in batched_inputs[0]:
            return None
        return [x[key].to(self.device) for x in batched_inputs]


def _postprocess_batch(
    results: Sequence[Instances], batched_inputs: ModelInputs, image_sizes: Sequence[Any]
) -> list[Instances]:
    """Rescale to the "height" and "width" of each input, by default those of its image."""
    processed = []
    for found, x, (height, width) in zip(results, batched_inputs, image_sizes):
        size = (x.get("height", height), x.get("width", width))
        processed.append(detector_postprocess(found, *size))
    return processed


@META_ARCH_REGISTRY.register()
class GeneralizedRCNN(_ImageModel):
    """Any detector of a backbone, a proposal generator and region heads.

    Args:
        backbone: see `Backbone`.
        proposal_generator: see `RPN`; None if proposals come with the inputs.
        roi_heads: see `ROIHeads`.
        pixel_mean, pixel_std: per channel, in the units of the input images.
        input_format: order of the channels, "BGR" or "RGB", for pictures.
        vis_period: put a picture into the event storage every so many iterations; 0 for never.

    Raises:
        ValueError: pictures are asked for without an `input_format`.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module | None,
        roi_heads: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str | None = None,
        vis_period: int = 0,
    ) -> None:
        super().__init__(backbone, pixel_mean, pixel_std)
        if vis_period > 0 and input_format is None:
            raise ValueError("Pictures (VIS_PERIOD) need an input_format.")
        self.proposal_generator = proposal_generator
        self.roi_heads: Any = roi_heads
        self.input_format: Any = input_format
        self.vis_period = vis_period

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        return {
            "backbone": backbone,
            "proposal_generator": build_proposal_generator(cfg, shapes),
            "roi_heads": build_roi_heads(cfg, shapes),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "input_format": cfg.INPUT.FORMAT,
            "vis_period": cfg.VIS_PERIOD,
        }

    def forward(self, batched_inputs: ModelInputs) -> Any:
        """Losses in training, detections in testing.

        Args:
            batched_inputs: per image a dict with `image`, [C, H, W]; in training `instances`, the
                ground truth; where there is no proposal generator `proposals`; in testing
                optionally `height` and `width`, pixels, of the output.

        Returns:
            In training a dict of scalar losses. In testing, per image, {"instances": ...} with
            `pred_boxes`, `scores`, `pred_classes` and, with a mask head, `pred_masks`.
        """
        if not self.training:
            return self.inference(batched_inputs)
        images, features = self._encode(batched_inputs)
        targets = self._instances(batched_inputs, "instances")
        proposals, proposal_losses = self._propose(images, features, batched_inputs, targets)
        _, detector_losses = self.roi_heads(images, features, proposals, targets)
        if self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0:
            self.visualize_training(batched_inputs, proposals)
        return {**detector_losses, **proposal_losses}

    def _propose(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        batched_inputs: ModelInputs,
        targets: list[Instances] | None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        if self.proposal_generator is not None:
            return self.proposal_generator(images, features, targets)
        given = self._instances(batched_inputs, "proposals")
        if given is None:
            raise ValueError("A model without proposal generator needs inputs with 'proposals'.")
        return given, {}

    def inference(
        self,
        batched_inputs: ModelInputs,
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> Any:
        """Detect; only in testing.

        Args:
            batched_inputs: see `forward`.
            detected_instances: per image, with `pred_boxes` and `pred_classes` in pixels of the
                input; then only what is not a box is predicted.
            do_postprocess: rescale to the output size and paste the masks.

        Returns:
            As `forward`; without `do_postprocess` per image the Instances as they leave the heads:
            boxes in pixels of the input, `pred_masks` soft, [N, 1, M, M].
        """
        if self.training:
            raise RuntimeError("inference() needs the model in evaluation mode: model.eval().")
        images, features = self._encode(batched_inputs)
        if detected_instances is None:
            proposals, _ = self._propose(images, features, batched_inputs, None)
            results, _ = self.roi_heads(images, features, proposals, None)
        else:
            known = [instances.to(self.device) for instances in detected_instances]
            results = self.roi_heads.forward_with_given_boxes(features, known)
        if not do_postprocess:
            return results
        return self._postprocess(results, batched_inputs, images.image_sizes)

    @staticmethod
    def _postprocess(
        instances: Sequence[Instances], batched_inputs: ModelInputs, image_sizes: Sequence[Any]
    ) -> list[dict[str, Instances]]:
        """Detections in the frame of the output."""
        processed = _postprocess_batch(instances, batched_inputs, image_sizes)
        return [{"instances": found} for found in processed]

    def visualize_training(
        self, batched_inputs: ModelInputs, proposals: Sequence[Instances]
    ) -> None:
        """Put a picture of the first image into the event storage.

        On its left the true boxes, on its right the best proposals.
        """
        from detectron2.data.detection_utils import convert_image_to_rgb
        from detectron2.utils.visualizer import Visualizer

        first = batched_inputs[0]
        image = convert_image_to_rgb(first["image"].permute(1, 2, 0), self.input_format)
        best = proposals[0].proposal_boxes.tensor[:_MAX_PICTURED_PROPOSALS].cpu().numpy()
        halves = [
            Visualizer(image, None).overlay_instances(boxes=boxes).get_image()
            for boxes in (first["instances"].gt_boxes, best)
        ]
        picture = np.concatenate(halves, axis=1).transpose(2, 0, 1)
        name = "Left: GT bounding boxes;  Right: Predicted proposals"
        get_event_storage().put_image(name, picture)


@META_ARCH_REGISTRY.register()
class ProposalNetwork(_ImageModel):
    """A backbone and a proposal generator, without heads.

    Args:
        backbone: see `Backbone`.
        proposal_generator: see `RPN`.
        pixel_mean, pixel_std: per channel, in the units of the input images.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        super().__init__(backbone, pixel_mean, pixel_std)
        self.proposal_generator = proposal_generator

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        backbone = build_backbone(cfg)
        return {
            "backbone": backbone,
            "proposal_generator": build_proposal_generator(cfg, backbone.output_shape()),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    def forward(self, batched_inputs: ModelInputs) -> Any:
        """Losses in training; in testing, per image, {"proposals": ...}.

        Inputs as for `GeneralizedRCNN`; the proposals have `proposal_boxes`, in pixels of the
        output, and `objectness_logits`.
        """
        images, features = self._encode(batched_inputs)
        targets = self._instances(batched_inputs, "instances")
        proposals, losses = self.proposal_generator(images, features, targets)
        if self.training:
            return losses
        processed = _postprocess_batch(proposals, batched_inputs, images.image_sizes)
        return [{"proposals": found} for found in processed]
