"""Configs written for older versions of the keys, brought to today's and back.

A rename is all that version 1 did. Version 2 renamed more, and moved the anchors of the proposal
network and of RetinaNet, which had their own, to one place.
"""

from __future__ import annotations

import logging
from typing import Any, TypeVar

from fvcore.common.config import CfgNode

__all__ = ["downgrade_config", "upgrade_config"]

LATEST_VERSION = 2
"""Of the layout of keys in `defaults.yaml`."""

_AnyCfg = TypeVar("_AnyCfg", bound=CfgNode)

# By the version that brought them: section, then key before and after, both below the section.
_RENAMED: dict[int, dict[str, dict[str, str]]] = {
    1: {"MODEL": {"RPN_HEAD.NAME": "RPN.HEAD_NAME"}},
    2: {
        "MODEL": {
            "WEIGHT": "WEIGHTS",
            "PANOPTIC_FPN.SEMANTIC_LOSS_SCALE": "SEM_SEG_HEAD.LOSS_WEIGHT",
            "PANOPTIC_FPN.RPN_LOSS_SCALE": "RPN.LOSS_WEIGHT",
        },
        "MODEL.PANOPTIC_FPN": {
            "INSTANCE_LOSS_SCALE": "INSTANCE_LOSS_WEIGHT",
            "COMBINE_ON": "COMBINE.ENABLED",
            "COMBINE_OVERLAP_THRESHOLD": "COMBINE.OVERLAP_THRESH",
            "COMBINE_STUFF_AREA_LIMIT": "COMBINE.STUFF_AREA_LIMIT",
            "COMBINE_INSTANCES_CONFIDENCE_THRESHOLD": "COMBINE.INSTANCES_CONFIDENCE_THRESH",
        },
        "MODEL.ROI_HEADS": {"SCORE_THRESH": "SCORE_THRESH_TEST", "NMS": "NMS_THRESH_TEST"},
        "MODEL.RETINANET": {
            "INFERENCE_SCORE_THRESHOLD": "SCORE_THRESH_TEST",
            "INFERENCE_TOPK_CANDIDATES": "TOPK_CANDIDATES_TEST",
            "INFERENCE_NMS_THRESHOLD": "NMS_THRESH_TEST",
        },
        "TEST": {
            "DETECTIONS_PER_IMG": "DETECTIONS_PER_IMAGE",
            "AUG_ON": "AUG.ENABLED",
            "AUG_MIN_SIZES": "AUG.MIN_SIZES",
            "AUG_MAX_SIZE": "AUG.MAX_SIZE",
            "AUG_FLIP": "AUG.FLIP",
        },
    },
}
_ANCHOR_KEYS = ("ASPECT_RATIOS", "SIZES")
_SIGNS_OF_VERSION_1 = ("MODEL.WEIGHT", "TEST.AUG_ON")


def upgrade_config(cfg: _AnyCfg, to_version: int | None = None) -> _AnyCfg:
    """A copy of a whole config with the keys of a later version.

    Args:
        cfg: has all keys of its `VERSION`.
        to_version: the latest by default.

    Raises:
        ValueError: `cfg` is of a later version than that.
    """
    goal = LATEST_VERSION if to_version is None else to_version
    if goal < cfg.VERSION:
        raise ValueError(f"a config of VERSION {cfg.VERSION} is newer than VERSION {goal}")
    upgraded = cfg.clone()
    for version in range(cfg.VERSION + 1, goal + 1):
        for before, after in _renames(version):
            _put(upgraded, after, _take(upgraded, before))
        if version == 2:
            _join_anchors(upgraded.MODEL)
        upgraded.VERSION = version
    return upgraded


def downgrade_config(cfg: _AnyCfg, to_version: int) -> _AnyCfg:
    """A copy of a whole config with the keys of an earlier version.

    Meant for merging an old file into it: what the old version cannot express is lost.

    Raises:
        ValueError: `cfg` is of an earlier version than that.
    """
    if to_version > cfg.VERSION:
        raise ValueError(f"a config of VERSION {cfg.VERSION} is older than VERSION {to_version}")
    downgraded = cfg.clone()
    for version in range(cfg.VERSION, to_version, -1):
        for before, after in _renames(version):
            _put(downgraded, before, _take(downgraded, after))
        if version == 2:
            _split_anchors(downgraded.MODEL)
        downgraded.VERSION = version - 1
    return downgraded


def guess_version(cfg: CfgNode, filename: str) -> int:
    """Version of a file that states none, by its keys; says so in the log."""
    old = any(_has(cfg, sign) for sign in _SIGNS_OF_VERSION_1)
    version = 1 if old else LATEST_VERSION
    logging.getLogger(__name__).warning(
        "%s has no VERSION; by its keys it is read as VERSION %d", filename, version
    )
    return version


def _renames(version: int) -> list[tuple[str, str]]:
    return [
        (f"{section}.{before}", f"{section}.{after}")
        for section, keys in _RENAMED[version].items()
        for before, after in keys.items()
    ]


def _join_anchors(model: CfgNode) -> None:
    retinanet = model.META_ARCHITECTURE == "RetinaNet"
    for key in _ANCHOR_KEYS:
        candidates = {name: model[name].pop(f"ANCHOR_{key}") for name in ("RPN", "RETINANET")}
        _put(model, f"ANCHOR_GENERATOR.{key}", candidates["RETINANET" if retinanet else "RPN"])
    del model.RETINANET["ANCHOR_STRIDES"]


def _split_anchors(model: CfgNode) -> None:
    for key in _ANCHOR_KEYS:
        value = _take(model, f"ANCHOR_GENERATOR.{key}")
        model.RPN[f"ANCHOR_{key}"] = model.RETINANET[f"ANCHOR_{key}"] = value
    model.RETINANET.ANCHOR_STRIDES = []  # version 1 had the key, nothing read it


def _has(cfg: CfgNode, key: str) -> bool:
    first, _, rest = key.partition(".")
    return first in cfg and (not rest or _has(cfg[first], rest))


def _put(cfg: CfgNode, key: str, value: Any) -> None:
    first, _, rest = key.partition(".")
    if rest:
        _put(cfg.setdefault(first, type(cfg)()), rest, value)
    else:
        cfg[first] = value


def _take(cfg: CfgNode, key: str) -> Any:
    """Remove a key, and with it the sections that it leaves empty."""
    first, _, rest = key.partition(".")
    if not rest:
        return cfg.pop(first)
    value = _take(cfg[first], rest)
    if not cfg[first]:
        del cfg[first]
    return value
