"""The config that everything starts from."""

from __future__ import annotations

from collections.abc import Iterator

from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg

ZOO = tuple(
    f"COCO-InstanceSegmentation/mask_rcnn_{name}.yaml"
    for name in ("R_50_FPN_1x", "R_50_FPN_3x", "R_101_FPN_3x")
)


def config_defaults() -> dict[str, str]:
    """Every key with its default as Python writes it, which tells types apart too."""
    return dict(_leaves(get_cfg()))


def model_zoo_configs() -> dict[str, dict[str, str]]:
    """What the configs of the published models change of the defaults."""
    defaults = config_defaults()
    return {
        name: {k: v for k, v in _leaves(model_zoo.get_config(name)) if defaults[k] != v}
        for name in ZOO
    }


def _leaves(node: CfgNode, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in sorted(node.items()):
        if isinstance(value, CfgNode):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", repr(value)
