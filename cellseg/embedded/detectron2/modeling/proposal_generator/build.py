"""The registry of proposal generators."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry

PROPOSAL_GENERATOR_REGISTRY = Registry("PROPOSAL_GENERATOR")
PROPOSAL_GENERATOR_REGISTRY.__doc__ = (
    "Proposal generators, called `f(cfg, input_shape: dict[str, ShapeSpec])`: modules that turn "
    "images and feature maps into proposals and losses."
)


def build_proposal_generator(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> Any:
    """Build the generator that `cfg.MODEL.PROPOSAL_GENERATOR.NAME` names.

    Returns:
        The module; None for "PrecomputedProposals", where proposals come with the data.
    """
    name = cfg.MODEL.PROPOSAL_GENERATOR.NAME
    with_data = name == "PrecomputedProposals"
    return None if with_data else PROPOSAL_GENERATOR_REGISTRY.get(name)(cfg, input_shape)
