"""Check that the names a configuration selects are registered, before anything is built."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cellseg.arguments import checked, of_type
from cellseg.errors import ConfigError, collect_problems
from cellseg.names import describe_unknown_name
from detectron2.config import CfgNode
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    RPN_HEAD_REGISTRY,
    GeneralizedRCNN,
    StandardROIHeads,
)


@checked(cfg=of_type(CfgNode, "a config, as load_config gives it"))
def check_registered_names(cfg: CfgNode) -> None:
    """Check the names of the architecture, the backbone and the parts of an R-CNN.

    Parts that the selected architecture does not use are not checked: with an architecture of
    your own only its name and the backbone's are.

    Raises:
        ConfigError: lists every name that is not registered, its key, the registered names
            nearest to it and all that there are.
    """
    problems = [
        describe_unknown_name(key, name, registry)
        for key, name, registry in _selected_names(cfg)
        if name not in registry
    ]
    if problems:
        raise ConfigError(
            collect_problems(
                "names in the configuration that are not registered",
                problems,
                "Code that registers a name has to be listed in CELLSEG.PLUGINS.",
            )
        )


def _selected_names(cfg: CfgNode) -> Iterator[tuple[str, str, Any]]:
    """(key, name, registry) of everything that building `cfg.MODEL` will look up."""
    model = cfg.MODEL
    yield "MODEL.META_ARCHITECTURE", model.META_ARCHITECTURE, META_ARCH_REGISTRY
    yield "MODEL.BACKBONE.NAME", model.BACKBONE.NAME, BACKBONE_REGISTRY
    if not is_subclass(META_ARCH_REGISTRY, model.META_ARCHITECTURE, GeneralizedRCNN):
        return
    if model.PROPOSAL_GENERATOR.NAME != "PrecomputedProposals":  # the name for "none at all"
        key = "MODEL.PROPOSAL_GENERATOR.NAME"
        yield key, model.PROPOSAL_GENERATOR.NAME, PROPOSAL_GENERATOR_REGISTRY
        yield "MODEL.RPN.HEAD_NAME", model.RPN.HEAD_NAME, RPN_HEAD_REGISTRY
        key = "MODEL.ANCHOR_GENERATOR.NAME"
        yield key, model.ANCHOR_GENERATOR.NAME, ANCHOR_GENERATOR_REGISTRY
    yield "MODEL.ROI_HEADS.NAME", model.ROI_HEADS.NAME, ROI_HEADS_REGISTRY
    # Other ROI heads may do without a box head, whose name is empty by default.
    if model.ROI_BOX_HEAD.NAME or is_subclass(
        ROI_HEADS_REGISTRY, model.ROI_HEADS.NAME, StandardROIHeads
    ):
        yield "MODEL.ROI_BOX_HEAD.NAME", model.ROI_BOX_HEAD.NAME, ROI_BOX_HEAD_REGISTRY
    if model.MASK_ON:
        yield "MODEL.ROI_MASK_HEAD.NAME", model.ROI_MASK_HEAD.NAME, ROI_MASK_HEAD_REGISTRY


def is_subclass(registry: Any, name: str, base: type) -> bool:
    """Whether a name of a registry stands for a class that is, or is derived from, `base`."""
    registered = registry.get(name) if name in registry else None
    return isinstance(registered, type) and issubclass(registered, base)
