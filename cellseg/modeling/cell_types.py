"""Cell types by a classifier behind a Mask R-CNN that knows cells and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from cellseg.errors import ConfigError
from cellseg.modeling.cell_type_head import CELL_TYPE_HEAD_REGISTRY, build_cell_type_head
from cellseg.modeling.roi_heads import CellROIHeads
from cellseg.names import describe_unknown_name
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, select_foreground_proposals
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


def check_cell_type_config(cfg: CfgNode) -> None:
    """Check what CellTypeROIHeads need, where they are selected.

    Args:
        cfg: the whole config; the values by themselves are checked by `check_keys`.

    Raises:
        ConfigError: naming the key, what was found and what was expected.
    """
    node, name = cfg.CELLSEG.CELL_TYPE, cfg.MODEL.ROI_HEADS.NAME
    if name not in ROI_HEADS_REGISTRY or not issubclass(
        ROI_HEADS_REGISTRY.get(name), CellTypeROIHeads
    ):
        return
    if node.HEAD not in CELL_TYPE_HEAD_REGISTRY:
        problem = describe_unknown_name(
            "CELLSEG.CELL_TYPE.HEAD", node.HEAD, CELL_TYPE_HEAD_REGISTRY
        )
        raise ConfigError(f"{problem}. Code that registers it belongs into CELLSEG.PLUGINS.")
    num_types = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if len(node.CLASS_WEIGHTS) not in (0, num_types):
        raise ConfigError(
            f"CELLSEG.CELL_TYPE.CLASS_WEIGHTS is {list(node.CLASS_WEIGHTS)}; expected one number "
            f"above 0 for each of the {num_types} types, or []"
        )
    if not cfg.MODEL.MASK_ON or not cfg.MODEL.ROI_MASK_HEAD.POOLER_TYPE:
        raise ConfigError(
            "MODEL.ROI_HEADS.NAME CellTypeROIHeads classifies the mask head's features and masks; "
            "expected MODEL.MASK_ON True and a MODEL.ROI_MASK_HEAD.POOLER_TYPE"
        )


@ROI_HEADS_REGISTRY.register()
class CellTypeROIHeads(CellROIHeads):
    """Boxes and masks of cells, whatever their type, and then a type for each.

    All parts of the base class are built for one class, so types that are hard to tell apart do not
    weaken detection, and every cell trains the same mask. MODEL.ROI_HEADS.NUM_CLASSES is the number
    of types. The classifier sees the features that the mask head sees, and its mask.

    In training that mask is what the mask head predicts, without a gradient, and not the true one:
    it is as good or bad as it will be when the classifier is used.

    Unless `detach`, the features learn from the classifier too: a detector of cells in general is
    rewarded for features that are the same for all types, which leave a classifier little to work
    with. With weights that detect well already, and a classifier added, detach.

    Args:
        type_head: classifies pooled features and soft masks; see `CELL_TYPE_HEAD_REGISTRY`.
        type_loss_weight: factor of `loss_cell_type`, the cross-entropy over foreground proposals.
        class_weights: one per type; empty for none.
        detach: keep the classifier's gradient from the features.
        multiply_scores: by the probability of the type. A score then means what it means in a Mask
            R-CNN with several classes: this is a cell, and of this type.
        options: of the base class, for one class, with a mask head and its pooler.

    Raises:
        ConfigError: the mask head is none of Detectron2's usual kind.
    """

    class_weights: Tensor | None
    mask_pooler: nn.Module

    @configurable
    def __init__(
        self,
        *,
        type_head: nn.Module,
        type_loss_weight: float = 1.0,
        class_weights: Sequence[float] = (),
        detach: bool = False,
        multiply_scores: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if not hasattr(self.mask_head, "layers"):
            raise ConfigError(
                f"the mask head {type(self.mask_head).__name__} has no `layers`, from features to "
                "logits, as those derived from BaseMaskRCNNHead have; CellTypeROIHeads needs it"
            )
        self.type_head = type_head
        self.type_loss_weight = type_loss_weight
        self.detach = detach
        self.multiply_scores = multiply_scores
        weights = torch.tensor(class_weights, dtype=torch.float32) if class_weights else None
        self.register_buffer("class_weights", weights, persistent=False)

    @classmethod
    def from_config(  # type: ignore[override]  # as in the base class
        cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]
    ) -> dict[str, Any]:
        node = cfg.CELLSEG.CELL_TYPE
        one_class = cfg.clone()
        one_class.defrost()
        one_class.MODEL.ROI_HEADS.NUM_CLASSES = 1
        side = cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION
        channels = input_shape[cfg.MODEL.ROI_HEADS.IN_FEATURES[0]].channels
        return {
            **super().from_config(one_class, input_shape),
            "type_head": build_cell_type_head(
                cfg, ShapeSpec(channels=channels, height=side, width=side)
            ),
            "type_loss_weight": node.LOSS_WEIGHT,
            "class_weights": tuple(node.CLASS_WEIGHTS),
            "detach": node.DETACH,
            "multiply_scores": node.SCORE == "product",
        }

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: Sequence[Instances], targets: Sequence[Instances]
    ) -> list[Instances]:
        """As in the base class, with `gt_classes` 0 for every cell and the type in `gt_types`."""
        return super().label_and_sample_proposals(proposals, [_as_one_class(t) for t in targets])

    def _forward_mask(self, features: dict[str, Tensor], instances: list[Instances]) -> Any:
        """Masks as in the base class, and types.

        In training the losses; in testing the instances with `pred_classes` (int64 [N], the type),
        `type_probs` (float [N, T]), `pred_masks` unless `mask_on` is off, and scores. Instances
        that have `type_probs` keep their types, and their scores are not multiplied again.
        """
        boxes = "pred_boxes"
        if self.training:
            boxes = "proposal_boxes"
            instances, _ = select_foreground_proposals(instances, self.num_classes)
        maps = [features[name] for name in self.mask_in_features]
        pooled = self.mask_pooler(maps, [one.get(boxes) for one in instances])
        if self.training:
            losses = dict(self.mask_head(pooled, instances))
            return losses | {"loss_cell_type": self._type_loss(pooled, instances)}
        return self._predict_masks_and_types(pooled, instances)

    def _type_loss(self, pooled: Tensor, instances: list[Instances]) -> Tensor:
        with torch.no_grad():
            soft_masks = self.mask_head.layers(pooled).sigmoid()
        logits = self.type_head(pooled.detach() if self.detach else pooled, soft_masks)
        if len(logits) == 0:  # and yet every parameter has a gradient
            return logits.sum() * 0.0
        types = torch.cat([one.gt_types for one in instances if len(one)])
        right = (logits.argmax(dim=1) == types).float().mean()
        get_event_storage().put_scalar("cell_type/accuracy", right.item())
        loss = cross_entropy(logits.float(), types, weight=self.class_weights)
        return self.type_loss_weight * loss

    def _predict_masks_and_types(
        self, pooled: Tensor, instances: list[Instances]
    ) -> list[Instances]:
        found = [_without_types(one) for one in instances]
        found = self.mask_head(pooled, found)  # of one class, whatever they were taken for
        soft_masks = torch.cat([one.pred_masks for one in found])
        probs = self.type_head(pooled, soft_masks).float().softmax(dim=1)
        for before, one, part in zip(instances, found, probs.split([len(one) for one in found])):
            known = before.has("type_probs")
            one.type_probs = before.type_probs if known else part
            one.pred_classes = before.pred_classes if known else part.argmax(dim=1)
            if not self.mask_on:  # and so no word of the mask head on the scores
                one.remove("pred_masks")
                if before.has("scores"):
                    one.scores = before.scores
            if self.multiply_scores and one.has("scores") and not known:
                one.scores = one.scores * part.max(dim=1).values
        return found


def _as_one_class(target: Instances) -> Instances:
    types = target.gt_classes
    fields = target.get_fields() | {"gt_types": types, "gt_classes": torch.zeros_like(types)}
    return Instances(target.image_size, **fields)


def _without_types(found: Instances) -> Instances:
    fields = {name: value for name, value in found.get_fields().items() if name != "type_probs"}
    fields["pred_classes"] = torch.zeros_like(found.pred_classes)
    return Instances(found.image_size, **fields)
