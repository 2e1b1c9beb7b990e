"""Names that are not registered are found before anything is built."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cellseg.errors import ConfigError
from cellseg.modeling import check_registered_names
from detectron2.config import CfgNode
from detectron2.modeling import (
    META_ARCH_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    BaseMaskRCNNHead,
    StandardROIHeads,
    build_model,
)


@pytest.fixture
def cfg(tiny_cfg: CfgNode) -> CfgNode:
    return tiny_cfg.clone()


class OwnArchitecture:
    pass


class OwnHeads:
    pass


@pytest.fixture
def own_names() -> Iterator[None]:
    META_ARCH_REGISTRY.register(OwnArchitecture)
    ROI_HEADS_REGISTRY.register(OwnHeads)
    yield
    del META_ARCH_REGISTRY._obj_map["OwnArchitecture"]
    del ROI_HEADS_REGISTRY._obj_map["OwnHeads"]


def test_known_names_pass(cfg: CfgNode) -> None:
    check_registered_names(cfg)


@pytest.mark.parametrize(
    ("key", "wrong", "near"),
    [
        ("MODEL.META_ARCHITECTURE", "GeneralisedRCNN", "GeneralizedRCNN"),
        ("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbon", "build_resnet_fpn_backbone"),
        ("MODEL.PROPOSAL_GENERATOR.NAME", "RPM", "RPN"),
        ("MODEL.RPN.HEAD_NAME", "StandardRPNHeads", "StandardRPNHead"),
        ("MODEL.ANCHOR_GENERATOR.NAME", "DefaultAnchorGen", "DefaultAnchorGenerator"),
        ("MODEL.ROI_HEADS.NAME", "StandardROIHead", "StandardROIHeads"),
        ("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFcHead", "FastRCNNConvFCHead"),
        ("MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHed", "MaskRCNNConvUpsampleHead"),
    ],
)
def test_a_wrong_name_is_answered_with_the_near_one(
    cfg: CfgNode, key: str, wrong: str, near: str
) -> None:
    cfg.merge_from_list([key, wrong])
    with pytest.raises(ConfigError) as caught:
        check_registered_names(cfg)
    text = str(caught.value)
    assert f"{key} is {wrong!r}; did you mean {near}" in text
    assert "Registered: " in text
    assert "CELLSEG.PLUGINS" in text


def test_all_wrong_names_at_once(cfg: CfgNode) -> None:
    cfg.MODEL.RPN.HEAD_NAME = "Zzz"
    cfg.MODEL.ROI_MASK_HEAD.NAME = "Qqq"
    with pytest.raises(ConfigError, match=r"\(2\):") as caught:
        check_registered_names(cfg)
    assert "MODEL.RPN.HEAD_NAME is 'Zzz'; Registered: " in str(caught.value)


def test_parts_that_are_not_used_are_not_checked(cfg: CfgNode, own_names: None) -> None:
    cfg.MODEL.MASK_ON = False
    cfg.MODEL.ROI_MASK_HEAD.NAME = "NotThere"
    check_registered_names(cfg)
    cfg.MODEL.ROI_BOX_HEAD.NAME = ""
    with pytest.raises(ConfigError, match=r"ROI_BOX_HEAD\.NAME is ''"):
        check_registered_names(cfg)
    cfg.MODEL.ROI_HEADS.NAME = "OwnHeads"
    check_registered_names(cfg)
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "PrecomputedProposals"
    cfg.MODEL.RPN.HEAD_NAME = "NotThere"
    check_registered_names(cfg)
    cfg.MODEL.META_ARCHITECTURE = "OwnArchitecture"
    cfg.MODEL.ROI_HEADS.NAME = "NotThere"
    check_registered_names(cfg)


def test_functions_are_registered_like_classes(cfg: CfgNode) -> None:
    def own_mask_head(cfg: CfgNode, input_shape: Any) -> Any:
        return ROI_MASK_HEAD_REGISTRY.get("MaskRCNNConvUpsampleHead")(cfg, input_shape)

    def own_roi_heads(cfg: CfgNode, input_shape: Any) -> Any:
        return ROI_HEADS_REGISTRY.get("StandardROIHeads")(cfg, input_shape)

    ROI_MASK_HEAD_REGISTRY.register(own_mask_head)
    ROI_HEADS_REGISTRY.register(own_roi_heads)
    try:
        cfg.MODEL.ROI_MASK_HEAD.NAME = "own_mask_head"
        cfg.MODEL.ROI_HEADS.NAME = "own_roi_heads"
        check_registered_names(cfg)
        heads = build_model(cfg).roi_heads
    finally:
        del ROI_MASK_HEAD_REGISTRY._obj_map["own_mask_head"]
        del ROI_HEADS_REGISTRY._obj_map["own_roi_heads"]
    assert isinstance(heads, StandardROIHeads)
    assert isinstance(heads.mask_head, BaseMaskRCNNHead)
